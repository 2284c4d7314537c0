//! Limits: descriptors, the table, the queues; and a kernel in a bad mood.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::mpsc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay_seam::{Closing, Input, Sent};

use super::*;

on_both_shores!(out_of_descriptors, a_full_table_refuses_and_counts);

fn out_of_descriptors(backend: Backend) {
    let name = match backend {
        Backend::Uring => "contract::limits::on_uring::out_of_descriptors",
        Backend::Mio => "contract::limits::on_mio::out_of_descriptors",
    };
    alone(name, || accepting_stalls_and_resumes(backend));
}

/// Forty wait outside, descriptors for some ten: the driver says so once, does not spin, and goes on by itself.
fn accepting_stalls_and_resumes(backend: Backend) {
    const CLIENTS: usize = 40;
    let stage = Stage::new(backend);
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(stage.addr)).collect();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, descriptors() as u64 + 16, hard).unwrap();
    let (tell, told) = mpsc::channel();
    let (mut inside, mut accepted, mut stalls) = (Vec::new(), 0, 0);
    let stats = stage.play(
        move |desk, now, input| match input {
            Some(Input::Accepted { conn, .. }) => {
                accepted += 1;
                inside.push(conn);
                if accepted == CLIENTS {
                    tell.send(stalls).unwrap();
                }
            }
            Some(Input::AcceptStalled { error }) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                stalls += 1;
                desk.deadline = Some(now + Duration::from_millis(500));
            }
            None if desk.deadline.is_some_and(|deadline| deadline <= now) => {
                // Half a second of stall is over: from now on everybody is sent home as soon as they are in.
                desk.deadline = (accepted < CLIENTS).then(|| now + Duration::from_millis(5));
                inside.drain(..).for_each(|conn| desk.close(conn, Closing::Abort));
            }
            _ => {}
        },
        |_| {
            assert_eq!(
                told.recv_timeout(Duration::from_secs(20)),
                Ok(1),
                "a stall is told once"
            )
        },
    );
    // Retries at 100, 300 and 700 ms, and one for each round of sending home.
    assert!((1..30).contains(&stats.accept_stalls), "{stats:?}");
    assert!(stats.turns < 600, "the driver spun: {stats:?}");
    drop(clients);
}

fn a_full_table_refuses_and_counts(backend: Backend) {
    let mut stage = Stage::new(backend);
    stage.setup.max_conns = 2;
    let stats = stage.play(
        |desk, _, input| {
            if let Some(Input::Received { conn, .. }) = input {
                desk.say(conn, b"in");
            }
        },
        |addr| {
            let inside: Vec<_> = (0..2).map(|_| client(addr)).collect();
            for stream in &inside {
                write_all(stream, b"hello");
                assert_eq!(read_some(stream, 2), b"in");
            }
            assert!(read_all(&client(addr)).is_empty());
        },
    );
    assert_eq!((stats.accepts, stats.accepts_refused), (3, 1));
}

/// Serves `conns` clients who each send, and get back, `len` bytes.
fn echo(stage: Stage, conns: usize, len: usize) -> Stats {
    let mut stage = stage;
    stage.ring = pattern(len);
    let bytes = Arc::clone(&stage.ring);
    let mut heard: HashMap<Conn, usize> = HashMap::new();
    let mut sent: HashMap<Conn, usize> = HashMap::new();
    let expected = Arc::clone(&bytes);
    stage.play(
        move |desk, _, input| match input {
            Some(Input::Received { conn, bytes }) => {
                let at = heard.entry(conn).or_default();
                assert_same(bytes, &expected[*at..][..bytes.len()]);
                *at += bytes.len();
            }
            Some(Input::PeerDone { conn }) => {
                assert_eq!(heard[&conn], len);
                desk.send_from(conn, 0, len);
            }
            Some(Input::Sent { conn, result }) => {
                let at = sent.entry(conn).or_default();
                match result {
                    Sent::All => desk.close(conn, Closing::Graceful),
                    Sent::Some(n) => *at += n as usize,
                    Sent::Full => {}
                    Sent::Gone => panic!("nobody closed it"),
                }
            }
            Some(Input::Writable { conn }) => desk.send_from(conn, sent[&conn] as u64, len),
            _ => {}
        },
        |addr| {
            let streams: Vec<_> = (0..conns).map(|_| client(addr)).collect();
            for stream in &streams {
                write_all(stream, &bytes);
                stream.shutdown(Shutdown::Write).unwrap();
            }
            streams
                .iter()
                .for_each(|stream| assert_same(&read_all(stream), &bytes));
        },
    )
}

#[test]
fn a_moody_kernel_loses_nothing() {
    if !uring_is_here() {
        return;
    }
    let mut stage = Stage::new(Backend::Uring);
    stage.faults = (3, vec![libc::EAGAIN, libc::EBUSY, libc::EINTR]);
    let stats = echo(stage, 100, 20_000);
    assert!(
        stats.enter_eagain > 0 && stats.enter_ebusy > 0 && stats.enter_eintr > 0,
        "{stats:?}"
    );
    assert_eq!((stats.accepts, stats.received_bytes), (100, 2_000_000));
}

#[test]
fn an_overflowing_completion_queue_loses_nothing() {
    if !uring_is_here() {
        return;
    }
    let mut stage = Stage::new(Backend::Uring);
    (stage.setup.sq_entries, stage.setup.cq_entries) = (8, 16);
    let stats = echo(stage, 200, 5_000);
    assert!(stats.cq_overflows > 0, "{stats:?}");
    assert_eq!((stats.accepts, stats.received_bytes), (200, 1_000_000));
}
