//! Bytes: in order, complete, in both directions, whatever the buffers do.

use std::collections::HashMap;
use std::net::Shutdown;
use std::thread;

use relay_seam::{Closing, Conn, Input, Output, Sent};
use socket2::SockRef;

use super::*;

on_both_shores!(
    ten_megabytes_each_way_through_tiny_buffers,
    what_to_send_is_decided_when_there_is_room,
    five_hundred_connections_get_every_small_send,
    pausing_and_resuming_loses_nothing,
    a_paused_peer_is_pushed_back,
    a_half_closed_slow_reader_does_not_keep_the_driver_busy,
    a_handful_of_buffers_is_enough,
);

/// Sends the desk's pattern to a connection as fast as it goes; counts what went short.
#[derive(Default)]
struct Sender {
    at: u64,
    waiting: bool,
    short: usize,
    full: usize,
}

impl Sender {
    fn go_on(&mut self, desk: &mut Desk, conn: Conn) {
        if (self.at as usize) < desk.ring.len() {
            desk.send_from(conn, self.at, 64 * 1024);
        } else {
            desk.close(conn, Closing::Graceful);
        }
    }

    fn sent(&mut self, desk: &mut Desk, conn: Conn, result: Sent, offered: usize) {
        match result {
            Sent::All => self.at += offered as u64,
            Sent::Some(n) => {
                assert!(n > 0 && (n as usize) < offered);
                self.at += u64::from(n);
                self.short += 1;
            }
            Sent::Full => self.full += 1,
            Sent::Gone => panic!("nobody closed it"),
        }
        self.waiting = result != Sent::All;
        if !self.waiting {
            self.go_on(desk, conn);
        }
    }
}

fn ten_megabytes_each_way_through_tiny_buffers(backend: Backend) {
    let mut stage = Stage::new(backend);
    let bytes = pattern(10_000_000);
    stage.ring = Arc::clone(&bytes);
    let mut sender = Sender::default();
    let mut heard = 0;
    let expected = Arc::clone(&bytes);
    let stats = stage.play(
        move |desk, _, input| match input {
            Some(Input::Accepted { conn, .. }) => {
                // The kernel rounds one byte up to its smallest, about 4.5 KiB with its own bookkeeping.
                desk.want(Output::Bound {
                    conn,
                    send_buffer: Some(1),
                    unsent: None,
                    user_timeout: None,
                });
                sender.go_on(desk, conn);
            }
            Some(Input::Received { bytes, .. }) => {
                assert_same(bytes, &expected[heard..][..bytes.len()]);
                heard += bytes.len();
            }
            Some(Input::PeerDone { .. }) => assert_eq!(heard, expected.len()),
            Some(Input::Sent { conn, result }) => {
                let offered = (expected.len() - sender.at as usize).min(64 * 1024);
                sender.sent(desk, conn, result, offered);
            }
            Some(Input::Writable { conn }) => {
                assert!(
                    std::mem::take(&mut sender.waiting),
                    "room was told without being waited for"
                );
                sender.go_on(desk, conn);
            }
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            thread::scope(|scope| {
                scope.spawn(|| {
                    write_all(&stream, &bytes);
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                assert_same(&read_all(&stream), &bytes);
            });
        },
    );
    assert!(stats.short_sends > 100, "{stats:?}");
    assert_eq!((stats.sent_bytes, stats.received_bytes), (10_000_000, 10_000_000));
}

fn what_to_send_is_decided_when_there_is_room(backend: Backend) {
    let stage = Stage::new(backend);
    let (full, is_full) = std::sync::mpsc::channel();
    let mut taken = 0u64;
    let stats = stage.play(
        move |desk, _, input| match input {
            Some(Input::Accepted { conn, .. }) => desk.send_from(conn, 0, 4096),
            Some(Input::Sent {
                conn,
                result: Sent::All,
            }) if taken < u64::MAX => {
                taken += 4096;
                desk.send_from(conn, 0, 4096);
            }
            Some(Input::Sent {
                result: Sent::Some(n),
                ..
            }) => full.send(taken + u64::from(n)).unwrap(),
            Some(Input::Sent {
                result: Sent::Full, ..
            }) => full.send(taken).unwrap(),
            Some(Input::Writable { conn }) => {
                taken = u64::MAX;
                desk.say(conn, b"the present");
                desk.close(conn, Closing::Graceful);
            }
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            let taken = is_full.recv().unwrap() as usize;
            let got = read_all(&stream);
            assert_same(&got[taken..], b"the present");
        },
    );
    assert_eq!(stats.short_sends + stats.full_sends, 1);
}

fn five_hundred_connections_get_every_small_send(backend: Backend) {
    const CONNS: usize = 500;
    const SENDS: usize = 20;
    let mut told: HashMap<Conn, usize> = HashMap::new();
    let stats = Stage::new(backend).play(
        move |desk, _, input| match input {
            Some(Input::Accepted { conn, .. }) => desk.send_from(conn, 0, 100),
            Some(Input::Sent { conn, result }) => {
                assert_eq!(result, Sent::All);
                let n = told.entry(conn).or_default();
                *n += 1;
                match *n {
                    SENDS => desk.close(conn, Closing::Graceful),
                    n => desk.send_from(conn, n as u64 * 100, 100),
                }
            }
            _ => {}
        },
        |addr| {
            let streams: Vec<_> = (0..CONNS).map(|_| client(addr)).collect();
            let expected = pattern(SENDS * 100);
            streams
                .iter()
                .for_each(|stream| assert_same(&read_all(stream), &expected));
        },
    );
    assert_eq!(
        (stats.accepts, stats.sends),
        (CONNS as u64, (CONNS * SENDS) as u64)
    );
}

fn pausing_and_resuming_loses_nothing(backend: Backend) {
    let bytes = pattern(4_000_000);
    let expected = Arc::clone(&bytes);
    let (done, is_done) = std::sync::mpsc::channel();
    let (mut heard, mut n, mut paused) = (0, 0u32, None);
    Stage::new(backend).play(
        move |desk, now, input| match input {
            Some(Input::Received { conn, bytes }) => {
                assert_same(bytes, &expected[heard..][..bytes.len()]);
                heard += bytes.len();
                n += 1;
                if n.is_multiple_of(3) {
                    desk.want(Output::Pause { conn });
                    paused = Some(conn);
                }
                match n % 9 {
                    // Both in one batch; and twice.
                    3 => desk.want(Output::Resume { conn }),
                    6 => {
                        desk.want(Output::Resume { conn });
                        desk.want(Output::Pause { conn });
                    }
                    _ => {}
                }
            }
            Some(Input::PeerDone { .. }) => done.send(heard).unwrap(),
            None => match (paused, desk.deadline) {
                (Some(_), None) => desk.deadline = Some(now + Duration::from_micros(200)),
                (Some(conn), Some(until)) if until <= now => {
                    desk.want(Output::Resume { conn });
                    (desk.deadline, paused) = (None, None);
                }
                _ => {}
            },
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            write_all(&stream, &bytes);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(bytes.len()));
        },
    );
}

fn a_paused_peer_is_pushed_back(backend: Backend) {
    let mut written = 0;
    let stats = Stage::new(backend).play(
        |desk, _, input| {
            if let Some(Input::Accepted { conn, .. }) = input {
                desk.want(Output::Pause { conn });
            }
        },
        |addr| {
            let mut stream = client(addr);
            stream.set_nonblocking(true).unwrap();
            // The kernel's buffers fill up; then nobody takes any more.
            let mut refused = 0;
            while refused < 20 {
                match stream.write(&[7; 64 * 1024]) {
                    Ok(n) => (written, refused) = (written + n, 0),
                    Err(_) => {
                        refused += 1;
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            }
        },
    );
    // What came before the pause took effect is told; the rest stays in the kernel.
    assert!(
        stats.received_bytes < written as u64,
        "a paused connection was read on: {stats:?}"
    );
}

/// Once with the FIN noticed, once with reading paused, so that it is not.
fn a_half_closed_slow_reader_does_not_keep_the_driver_busy(backend: Backend) {
    for pause in [false, true] {
        let mut stage = Stage::new(backend);
        stage.ring = pattern(8_000_000);
        let bytes = Arc::clone(&stage.ring);
        let mut sender = Sender::default();
        let stats = stage.play(
            move |desk, _, input| match input {
                Some(Input::Accepted { conn, .. }) => {
                    if pause {
                        desk.want(Output::Pause { conn });
                    }
                    sender.go_on(desk, conn);
                }
                Some(Input::Sent { conn, result }) => {
                    let offered = (desk.ring.len() - sender.at as usize).min(64 * 1024);
                    sender.sent(desk, conn, result, offered);
                }
                Some(Input::Writable { conn }) => sender.go_on(desk, conn),
                Some(Input::Closed { reason, .. }) => panic!("closed for {reason:?}"),
                _ => {}
            },
            |addr| {
                let stream = client(addr);
                stream.shutdown(Shutdown::Write).unwrap();
                thread::sleep(Duration::from_millis(100));
                assert_same(&read_all(&stream), &bytes);
            },
        );
        assert!(stats.short_sends + stats.full_sends > 0, "{stats:?}");
        assert!(stats.full_sends < 50, "{stats:?}");
    }
}

fn a_handful_of_buffers_is_enough(backend: Backend) {
    const CONNS: usize = 20;
    let bytes = pattern(200_000);
    let mut stage = Stage::new(backend);
    (stage.setup.recv_buffers, stage.setup.recv_buffer_bytes) = (2, 512);
    let expected = Arc::clone(&bytes);
    let mut heard: HashMap<Conn, usize> = HashMap::new();
    let stats = stage.play(
        move |desk, _, input| match input {
            Some(Input::Received { conn, bytes }) => {
                let at = heard.entry(conn).or_default();
                assert_same(bytes, &expected[*at..][..bytes.len()]);
                *at += bytes.len();
            }
            Some(Input::PeerDone { conn }) => {
                assert_eq!(heard[&conn], expected.len());
                desk.close(conn, Closing::Graceful);
            }
            _ => {}
        },
        |addr| {
            thread::scope(|scope| {
                for _ in 0..CONNS {
                    scope.spawn(|| {
                        let stream = client(addr);
                        let _ = SockRef::from(&stream).set_send_buffer_size(16 * 1024);
                        write_all(&stream, &bytes);
                        stream.shutdown(Shutdown::Write).unwrap();
                        assert!(read_all(&stream).is_empty());
                    });
                }
            });
        },
    );
    assert_eq!(stats.received_bytes, (CONNS * bytes.len()) as u64);
    if backend == Backend::Uring {
        assert!(stats.enobufs > 0 && stats.recv_rearms > 0, "{stats:?}");
    }
}
