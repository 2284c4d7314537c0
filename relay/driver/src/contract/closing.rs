//! Ends: every kind of them, told once, and nothing left behind.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;

use relay_seam::{CloseReason, Closing, Handover, Input, Output, Payload, Sent, Span};

use super::*;

on_both_shores!(
    a_peer_that_is_done_still_gets_its_answer,
    a_reset_is_told_once,
    a_reset_after_fin_is_noticed,
    an_abort_resets,
    a_graceful_close_with_an_unread_body_does_not_reset,
    a_lingering_close_is_bounded_in_bytes,
    closed_connections_mean_nothing,
    a_hand_over_loses_no_byte,
    a_paused_connection_can_be_handed_over,
    a_finished_machine_keeps_its_last_words,
    nothing_is_left_behind,
);

fn a_peer_that_is_done_still_gets_its_answer(backend: Backend) {
    Stage::new(backend).play(
        |desk, _, input| {
            if let Some(Input::PeerDone { conn }) = input {
                desk.send_from(conn, 0, 60_000);
                desk.close(conn, Closing::Graceful);
            }
        },
        |addr| {
            let stream = client(addr);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_same(&read_all(&stream), &pattern(60_000));
        },
    );
}

fn a_reset_is_told_once(backend: Backend) {
    let (tell, told) = mpsc::channel();
    let stats = Stage::new(backend).play(
        move |desk, _, input| match input {
            Some(Input::Received { conn, .. }) => desk.say(conn, b"go"),
            Some(Input::Closed { conn, reason }) => {
                tell.send(reason).unwrap();
                desk.say(conn, b"too late");
            }
            Some(Input::Sent {
                result: Sent::Gone, ..
            }) => desk.done = true,
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            write_all(&stream, b"hello");
            assert_eq!(read_some(&stream, 2), b"go");
            reset(stream);
            assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(CloseReason::Reset));
            // The channel closes with the machine, and there must be no second word.
            assert!(told.recv_timeout(Duration::from_secs(20)).is_err());
        },
    );
    assert_eq!((stats.closed_by_peer, stats.gone_sends), (1, 1));
}

fn a_reset_after_fin_is_noticed(backend: Backend) {
    let (tell, told) = mpsc::channel();
    Stage::new(backend).play(
        move |desk, _, input| match input {
            Some(Input::PeerDone { conn }) => desk.say(conn, b"go"),
            Some(Input::Closed { reason, .. }) => tell.send(reason).unwrap(),
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_some(&stream, 2), b"go");
            reset(stream);
            assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(CloseReason::Reset));
        },
    );
}

fn an_abort_resets(backend: Backend) {
    let stats = Stage::new(backend).play(
        |desk, _, input| {
            if let Some(Input::Received { conn, .. }) = input {
                desk.close(conn, Closing::Abort);
            }
        },
        |addr| {
            let mut stream = client(addr);
            write_all(&stream, b"x");
            assert_eq!(
                stream.read(&mut [0; 8]).unwrap_err().kind(),
                ErrorKind::ConnectionReset
            );
        },
    );
    assert_eq!(stats.aborts, 1);
}

fn a_graceful_close_with_an_unread_body_does_not_reset(backend: Backend) {
    let mut answered = false;
    let stats = Stage::new(backend).play(
        move |desk, _, input| match input {
            Some(Input::Received { conn, .. }) => {
                assert!(
                    !std::mem::replace(&mut answered, true),
                    "no input may name it after the close"
                );
                desk.send_from(conn, 0, 1000);
                desk.close(conn, Closing::Graceful);
            }
            Some(Input::PeerDone { .. } | Input::Closed { .. }) => panic!("told after the close"),
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            write_all(&stream, b"POST");
            let answer = read_some(&stream, 500);
            write_all(&stream, &[0; 32 * 1024]);
            let rest = read_all(&stream);
            assert_same(&[answer, rest].concat(), &pattern(1000));
            stream.shutdown(Shutdown::Write).unwrap();
        },
    );
    assert_eq!((stats.graceful_closes, stats.lingers_cut), (1, 0));
    assert_eq!(stats.discarded_bytes, 32 * 1024);
}

fn a_lingering_close_is_bounded_in_bytes(backend: Backend) {
    let stats = Stage::new(backend).play(
        |desk, _, input| {
            if let Some(Input::Accepted { conn, .. }) = input {
                desk.close(conn, Closing::Graceful);
            }
        },
        |addr| {
            let mut stream = client(addr);
            let block = [0; 16 * 1024];
            // Somebody who writes for ever is cut off.
            while stream.write_all(&block).is_ok() {}
        },
    );
    assert_eq!(stats.lingers_cut, 1);
    assert!(stats.discarded_bytes < 1_000_000, "{stats:?}");
}

fn closed_connections_mean_nothing(backend: Backend) {
    let mut old: Option<Conn> = None;
    let mut gone = 0;
    let stats = Stage::new(backend).play(
        move |desk, _, input| match input {
            Some(Input::Accepted { conn, .. }) => match old {
                None => {
                    desk.close(conn, Closing::Abort);
                    old = Some(conn);
                }
                Some(old) => {
                    // The slot has a new holder; all this is meant for the old one and must not touch it.
                    assert_eq!((old.slot(), old == conn), (conn.slot(), false));
                    desk.say(old, b"late");
                    desk.want(Output::Bound {
                        conn: old,
                        send_buffer: Some(1),
                        unsent: None,
                        user_timeout: None,
                    });
                    desk.want(Output::Pause { conn: old });
                    desk.want(Output::HandOver(Handover {
                        conn: old,
                        read_so_far: Vec::new(),
                    }));
                    desk.close(old, Closing::Abort);
                    desk.close(old, Closing::Graceful);
                    let span = Span {
                        ring: 7,
                        len: 5,
                        at: 0,
                    };
                    desk.want(Output::Send {
                        conn: old,
                        payload: Payload::Span(span),
                    });
                }
            },
            Some(Input::Sent { conn, result }) if Some(conn) == old => {
                assert_eq!(result, Sent::Gone);
                gone += 1;
            }
            Some(Input::Received { conn, .. }) => {
                assert_eq!(gone, 2);
                desk.say(conn, b"well");
                desk.close(conn, Closing::Graceful);
            }
            Some(Input::Closed { .. }) => panic!("we closed it ourselves"),
            _ => {}
        },
        |addr| {
            let mut first = client(addr);
            assert!(first.read(&mut [0; 1]).is_err());
            let second = client(addr);
            write_all(&second, b"how are you?");
            assert_eq!(read_all(&second), b"well");
        },
    );
    assert_eq!((stats.aborts, stats.graceful_closes, stats.handovers), (1, 1, 0));
}

/// A stage whose connections come out of the channel.
fn stage_with_handover(backend: Backend) -> (Stage, mpsc::Receiver<(TcpStream, Vec<u8>)>) {
    let mut stage = Stage::new(backend);
    let (give, take) = mpsc::channel();
    stage.setup.handover = Box::new(move |stream, bytes| give.send((stream, bytes)).unwrap());
    (stage, take)
}

fn receive_handover(take: &mpsc::Receiver<(TcpStream, Vec<u8>)>) -> (TcpStream, Vec<u8>) {
    let (stream, head) = take.recv_timeout(Duration::from_secs(20)).unwrap();
    stream.set_nonblocking(false).unwrap();
    patient(&stream);
    (stream, head)
}

fn a_hand_over_loses_no_byte(backend: Backend) {
    let (stage, take) = stage_with_handover(backend);
    let bytes = pattern(1_000_000);
    // More may come between the decision and the moment when the driver asks: it belongs to what was read.
    let mut held: Option<Handover> = None;
    let mut given = false;
    let stats = stage.play(
        move |desk, _, input| match input {
            Some(Input::Received { conn, bytes }) => {
                assert!(!given, "it is the control plane's now");
                let held = held.get_or_insert(Handover {
                    conn,
                    read_so_far: Vec::new(),
                });
                held.read_so_far.extend_from_slice(bytes);
            }
            None if held.is_some() => {
                given = true;
                desk.out.extend(held.take().map(Output::HandOver));
            }
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            thread::scope(|scope| {
                scope.spawn(|| {
                    write_all(&stream, &bytes);
                    stream.shutdown(Shutdown::Write).unwrap();
                    assert_eq!(read_all(&stream), b"from the control plane");
                });
                let (mut taken, mut got) = receive_handover(&take);
                assert!(taken.nodelay().unwrap(), "accepted sockets have TCP_NODELAY");
                taken.read_to_end(&mut got).unwrap();
                assert_same(&got, &bytes);
                write_all(&taken, b"from the control plane");
            });
        },
    );
    assert_eq!(stats.handovers, 1);
}

fn a_paused_connection_can_be_handed_over(backend: Backend) {
    let (stage, take) = stage_with_handover(backend);
    stage.play(
        move |desk, _, input| {
            if let Some(Input::Received { conn, bytes }) = input {
                desk.want(Output::Pause { conn });
                desk.want(Output::HandOver(Handover {
                    conn,
                    read_so_far: bytes.to_vec(),
                }));
            }
        },
        |addr| {
            let stream = client(addr);
            write_all(&stream, b"GET / HTTP/1.1\r\n\r\n");
            let (taken, head) = receive_handover(&take);
            assert_eq!(head, b"GET / HTTP/1.1\r\n\r\n");
            write_all(&stream, b"more");
            assert_eq!(read_some(&taken, 4), b"more");
        },
    );
}

fn a_finished_machine_keeps_its_last_words(backend: Backend) {
    let mut stage = Stage::new(backend);
    stage.ring = pattern(30_000);
    let stats = stage.play(
        |desk, _, input| match input {
            Some(Input::Received { conn, .. }) => {
                desk.send_from(conn, 0, 30_000);
                desk.close(conn, Closing::Graceful);
            }
            Some(Input::Sent { .. }) => desk.done = true,
            _ => {}
        },
        |addr| {
            let stream = client(addr);
            write_all(&stream, b"PUT");
            let start = read_some(&stream, 1);
            // The driver is on its way out, and yet this does not reset what is still to be read.
            write_all(&stream, &[0; 10_000]);
            assert_same(&[start, read_all(&stream)].concat(), &pattern(30_000));
        },
    );
    assert_eq!((stats.graceful_closes, stats.lingers_cut), (1, 0));
}

fn nothing_is_left_behind(backend: Backend) {
    let name = match backend {
        Backend::Uring => "contract::closing::on_uring::nothing_is_left_behind",
        Backend::Mio => "contract::closing::on_mio::nothing_is_left_behind",
    };
    alone(name, || a_thousand_closes_in_full_flight(backend));
}

/// Receives armed, sockets full and watched for room, paused, half closed, reset by either side: and then closed.
fn a_thousand_closes_in_full_flight(backend: Backend) {
    const ROUNDS: usize = 1000;
    let before = descriptors();
    let mut n = 0u32;
    let mut stage = Stage::new(backend);
    // A kernel that often asks for patience, besides.
    stage.faults = (7, vec![libc::EINTR, libc::EBUSY]);
    let stats = stage.play(
        move |desk, _, input| match input {
            Some(Input::Accepted { conn, .. }) => {
                n += 1;
                desk.want(Output::Bound {
                    conn,
                    send_buffer: Some(1),
                    unsent: None,
                    user_timeout: None,
                });
                if n.is_multiple_of(3) {
                    desk.want(Output::Pause { conn });
                }
                desk.send_from(conn, 0, 1 << 16);
            }
            Some(Input::Sent { conn, .. }) => {
                let how = if conn.generation() % 2 == 0 {
                    Closing::Abort
                } else {
                    Closing::Graceful
                };
                desk.close(conn, how);
            }
            _ => {}
        },
        |addr| {
            for i in 0..ROUNDS {
                let stream = client(addr);
                let _ = (&stream).write_all(b"bytes that nobody may want");
                match i % 4 {
                    0 => reset(stream),
                    1 => drop(stream.shutdown(Shutdown::Write)),
                    2 => drop((&stream).read(&mut [0; 100])),
                    _ => drop(stream),
                }
            }
        },
    );
    assert_eq!(stats.accepts, stats.sends + stats.accepts_lost, "{stats:?}");
    assert_eq!(descriptors(), before);
}
