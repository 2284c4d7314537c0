//! A source of numbered units: pushes at a steady rate, and knows what it has sent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::basic;
use crate::numbered::Form;
use crate::relay::{Relay, SOURCE_PASSWORD};
use crate::world::Host;

/// How the body of a push is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `PUT`, until the connection ends.
    Put,
    /// `PUT` with chunked framing and `Expect: 100-continue`.
    Chunked,
    /// `SOURCE`, as libshout says it.
    Source,
}

const TICK: Duration = Duration::from_millis(10);

/// A push in progress.
#[derive(Debug)]
pub struct Source {
    next: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Pushes units from `first` on to a mount, so many kilobits a second (0: as fast as is taken).
    ///
    /// # Panics
    ///
    /// When the relay does not take it.
    pub fn push(host: &Host, relay: &Relay, mount: &str, form: Form, first: u64, kbps: u64) -> Self {
        Self::push_as(host, relay.at(), mount, form, first, kbps, Framing::Put)
    }

    /// Pushes with a certain framing.
    ///
    /// # Panics
    ///
    /// When the relay does not take it.
    pub fn push_as(
        host: &Host,
        to: SocketAddr,
        mount: &str,
        form: Form,
        first: u64,
        kbps: u64,
        framing: Framing,
    ) -> Self {
        let mut stream = host
            .connect(to)
            .unwrap_or_else(|e| panic!("a source for {to}: {e}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(head(mount, form, framing).as_bytes()).unwrap();
        let said = answer(&mut stream);
        let taken = said.starts_with("HTTP/1.0 200") || said.starts_with("HTTP/1.1 100");
        assert!(taken, "expected the source to be taken, got {said:?}");
        let (next, done) = (Arc::new(AtomicU64::new(first)), Arc::new(AtomicBool::new(false)));
        let pusher = Pusher {
            stream: stream.try_clone().unwrap(),
            form,
            kbps,
            chunked: framing == Framing::Chunked,
            next: next.clone(),
            done: done.clone(),
        };
        let thread = Some(std::thread::spawn(move || pusher.run()));
        Self {
            next,
            done,
            stream,
            thread,
        }
    }

    /// The next unit that it will send.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Whether its connection is gone.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops sending, and leaves the connection open, as a hung encoder does.
    pub fn hang(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Ends the stream properly; says which unit comes next.
    pub fn stop(mut self) -> u64 {
        self.hang();
        let _ = self.stream.shutdown(Shutdown::Both);
        self.next()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
        self.hang();
    }
}

fn head(mount: &str, form: Form, framing: Framing) -> String {
    let line = match framing {
        Framing::Put => format!("PUT {mount} HTTP/1.1\r\n"),
        Framing::Chunked => {
            format!("PUT {mount} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n")
        }
        Framing::Source => format!("SOURCE {mount} HTTP/1.0\r\n"),
    };
    let login = basic("source", SOURCE_PASSWORD);
    format!(
        "{line}Host: relay\r\n{login}Content-Type: {}\r\nIce-Name: numbered\r\n\r\n",
        form.content_type()
    )
}

fn answer(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

struct Pusher {
    stream: TcpStream,
    form: Form,
    kbps: u64,
    chunked: bool,
    next: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Pusher {
    fn run(mut self) {
        let first = self.next.load(Ordering::Relaxed);
        let began = Instant::now();
        // The first group at once, so that there is a join point from the beginning.
        let ahead = self.form.group() + 2;
        // A slow source need not look often: there may be hundreds.
        let unit = Duration::from_millis(8 * self.form.unit_bytes() as u64 / self.kbps.max(1));
        let tick = (unit / 4).clamp(TICK, 10 * TICK);
        while !self.done.load(Ordering::Relaxed) {
            let sent = self.next.load(Ordering::Relaxed) - first;
            let bits = began.elapsed().as_millis() as u64 * self.kbps;
            let due = ahead + bits / (8 * self.form.unit_bytes() as u64);
            let count = if self.kbps == 0 {
                64
            } else {
                due.saturating_sub(sent).min(512)
            };
            if count > 0 && !self.send(count) {
                return;
            }
            if self.kbps != 0 {
                std::thread::sleep(tick);
            }
        }
    }

    fn send(&mut self, count: u64) -> bool {
        let from = self.next.load(Ordering::Relaxed);
        let units: Vec<u8> = (from..from + count).flat_map(|n| self.form.unit(n)).collect();
        let sent = if self.chunked {
            let framed = [format!("{:x}\r\n", units.len()).as_bytes(), &units, b"\r\n"].concat();
            self.stream.write_all(&framed)
        } else {
            self.stream.write_all(&units)
        };
        self.next.fetch_add(count, Ordering::Release);
        sent.is_ok()
    }
}
