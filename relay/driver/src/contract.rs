//! The contract between a driver and a machine, tested on both shores over loopback sockets.
//!
//! Each test is written once, takes a [`Backend`], and runs twice. Where io_uring is not to be had its half is
//! skipped with a printed reason, except in CI, where it must run.

mod closing;
mod flow;
mod holding;
mod limits;
mod opening;
mod passing;
mod runs;
mod storm;
mod udp;
mod waking;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use relay_ring::Bell;
use relay_seam::{Closing, Conn, Input, Machine, Now, Output, Payload, Span};

use crate::{Backend, Setup, Stats, bind, probe, run};

/// Makes a test of each function for each shore.
macro_rules! on_both_shores {
    ($($name:ident),+ $(,)?) => {
        mod on_uring {
            $(#[test] fn $name() {
                if crate::contract::uring_is_here() {
                    super::$name(crate::Backend::Uring);
                }
            })+
        }
        mod on_mio {
            $(#[test] fn $name() { super::$name(crate::Backend::Mio); })+
        }
    };
}
pub(crate) use on_both_shores;

/// `false`, with the reason printed, where io_uring is not to be had.
fn uring_is_here() -> bool {
    let found = probe();
    let here = found.backend() == Backend::Uring;
    assert!(
        here || std::env::var_os("CI").is_none(),
        "CI must test io_uring: {}",
        found.why
    );
    if !here {
        println!("skipped: {}", found.why);
    }
    here
}

/// What a test's machine works with.
struct Desk {
    out: VecDeque<Output>,
    done: bool,
    deadline: Option<Now>,
    ring: Arc<[u8]>,
    /// What another thread puts there before it rings, and how much of it the machine has seen.
    mail: Arc<AtomicUsize>,
    seen: usize,
}

impl Desk {
    fn want(&mut self, output: Output) {
        self.out.push_back(output);
    }

    /// Sends our own bytes.
    fn say(&mut self, conn: Conn, bytes: &[u8]) {
        self.want(Output::Send {
            conn,
            payload: Payload::Own(bytes.into(), 0),
        });
    }

    /// Sends a stretch of [`pattern`], as far as it goes.
    fn send_from(&mut self, conn: Conn, at: u64, most: usize) {
        let len = (self.ring.len() - at as usize).min(most) as u32;
        self.want(Output::Send {
            conn,
            payload: Payload::Span(Span { ring: 7, len, at }),
        });
    }

    fn close(&mut self, conn: Conn, how: Closing) {
        self.want(Output::Close { conn, how });
    }
}

/// A machine made of a closure, called with each input, and with `None` when it is asked what it wants.
struct Script<F> {
    desk: Desk,
    on: F,
    bell: Bell,
    stop: Arc<AtomicBool>,
}

impl<F: FnMut(&mut Desk, Now, Option<Input<'_>>)> Machine for Script<F> {
    fn handle(&mut self, now: Now, input: Input<'_>) {
        (self.on)(&mut self.desk, now, Some(input));
    }

    fn poll(&mut self, now: Now) -> Option<Output> {
        if self.desk.out.is_empty() {
            (self.on)(&mut self.desk, now, None);
        }
        self.desk.out.pop_front()
    }

    fn bytes(&self, span: Span) -> &[u8] {
        assert_eq!(span.ring, 7);
        &self.desk.ring[span.at as usize..][..span.len as usize]
    }

    fn deadline(&self) -> Option<Now> {
        self.desk.deadline
    }

    fn park(&mut self, parked: bool) -> bool {
        if parked {
            self.bell.park()
        } else {
            self.bell.unpark()
        }
        let news =
            self.stop.load(Ordering::SeqCst) || self.desk.mail.load(Ordering::SeqCst) != self.desk.seen;
        !(parked && news)
    }

    fn finished(&self) -> bool {
        self.desk.done || self.stop.load(Ordering::SeqCst)
    }
}

/// Bytes that are different everywhere in reach.
fn pattern(len: usize) -> Arc<[u8]> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8)
        .collect()
}

/// Stops the driver even when the test's own side panics.
struct Curtain(Bell, Arc<AtomicBool>);

impl Drop for Curtain {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
        self.0.ring();
    }
}

/// A driver under test, before it runs.
struct Stage {
    backend: Backend,
    setup: Setup,
    ring: Arc<[u8]>,
    stop: Arc<AtomicBool>,
    mail: Arc<AtomicUsize>,
    addr: SocketAddr,
    faults: (usize, Vec<i32>),
}

impl Stage {
    fn new(backend: Backend) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap(), true, 1024).unwrap();
        let addr = listener.local_addr().unwrap();
        let refuse = Box::new(|_, _: Vec<u8>| panic!("nothing was to be handed over"));
        let mut setup = Setup::new(vec![listener], Bell::new().unwrap(), refuse);
        // Small, because many tests run at once and locked memory is short.
        (setup.sq_entries, setup.cq_entries) = (256, 1024);
        Self {
            backend,
            setup,
            ring: pattern(1 << 16),
            stop: Arc::default(),
            mail: Arc::default(),
            addr,
            faults: (0, Vec::new()),
        }
    }

    /// Runs the machine `on` on a thread of its own, and `world` here; the driver is stopped when `world` ends.
    fn play<F, W>(self, on: F, world: W) -> Stats
    where
        F: FnMut(&mut Desk, Now, Option<Input<'_>>) + Send,
        W: FnOnce(SocketAddr),
    {
        let bell = self.setup.bell.clone();
        let desk = Desk {
            out: VecDeque::new(),
            done: false,
            deadline: None,
            ring: self.ring,
            mail: self.mail,
            seen: 0,
        };
        let stop = Arc::clone(&self.stop);
        let curtain = Curtain(bell.clone(), self.stop);
        thread::scope(|scope| {
            let driver = scope.spawn(move || {
                crate::uring::faults::inject(self.faults.0, &self.faults.1);
                let mut machine = Script { desk, on, bell, stop };
                let machine: &mut dyn Machine = &mut machine;
                run(self.backend, self.setup, machine).unwrap()
            });
            world(self.addr);
            drop(curtain);
            driver.join().unwrap()
        })
    }
}

/// A client that does not hang for ever when a test fails.
fn client(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    patient(&stream);
    stream
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
}

fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

fn read_some(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut got = vec![0; len];
    stream.read_exact(&mut got).unwrap();
    got
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    crate::sockopt::reset_on_close(&stream.as_fd()).unwrap();
}

/// `assert_eq` that does not print megabytes.
fn assert_same(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len());
    assert!(
        got == expected,
        "differs at byte {:?}",
        got.iter().zip(expected).position(|(a, b)| a != b)
    );
}

/// Runs `body` in a process of its own: it counts descriptors, or limits them. `name` is the test's full name.
fn alone(name: &str, body: impl FnOnce()) {
    const MARK: &str = "RELAY_DRIVER_ALONE";
    if std::env::var(MARK).is_ok_and(|who| who == name) {
        return body();
    }
    let exe = std::env::current_exe().unwrap();
    let out = Command::new(exe)
        .args(["--exact", name, "--nocapture"])
        .env(MARK, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(text.contains("1 passed"), "no such test: {name}");
}

/// How many descriptors this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn write_all(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
