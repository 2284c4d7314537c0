//! The driver's own way to the sink: a machine that posts chunks of a ring as fast as the driver takes them. What is
//! measured is everything that a relay pays for a datagram, from the machine's wish to the device: seam, batch, calls.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use relay_driver::{Backend, Setup, Stats, ZeroCopy};
use relay_ring::{Bell, Reader, Ring};
use relay_seam::{Datagram, Head, Input, Machine, Now, Output, Payload, Span, Udp, UdpOptions};

use crate::error::{Doing, Error};

/// Outputs of one turn before the machine looks at its clock: what the driver takes at once.
const TURN: usize = 256;
/// Turns that are not counted: sockets are connected in them, and pages touched.
const WARM_UP: u32 = 8;

/// Bytes of the ring that are sent, over and over: few enough to stay in the cache, as what has just come does.
const HOT: usize = 512 * 1024;

/// What a machine posts.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) backend: Backend,
    /// Each has its turn.
    pub(crate) peers: Vec<SocketAddr>,
    /// Peers have sockets of their own.
    pub(crate) connect: bool,
    pub(crate) zero_copy: ZeroCopy,
    /// Chunks of each output, and bytes of a chunk.
    pub(crate) chunks: usize,
    pub(crate) chunk: usize,
    pub(crate) rounds: usize,
    /// CPU time of a round.
    pub(crate) round: Duration,
}

/// What came of it.
pub(crate) struct Outcome {
    /// CPU nanoseconds of one output, for each round.
    pub(crate) ns: Vec<f64>,
    pub(crate) dropped: u64,
    pub(crate) stats: Stats,
}

/// Runs a load on a thread of its own.
pub(crate) fn run(load: Load) -> Result<Outcome, Error> {
    let doing = || "cannot measure the driver".to_owned();
    let thread = thread::Builder::new().spawn(move || drive(load)).doing(doing)?;
    let done = thread.join();
    done.map_err(|_| Error::Failed("the measured driver panicked".into()))?
        .doing(doing)
}

fn drive(load: Load) -> io::Result<Outcome> {
    let mut setup = Setup::new(Vec::new(), Bell::new()?, Box::new(|_, _| {}));
    setup.max_udp_peers = load.peers.len() as u32;
    setup.zero_copy = load.zero_copy;
    let backend = load.backend;
    let mut poster = Poster::new(load)?;
    let stats = relay_driver::run(backend, setup, &mut poster)?;
    let Poster {
        ns, dropped, failed, ..
    } = poster;
    match failed {
        Some(error) => Err(error),
        None => Ok(Outcome { ns, dropped, stats }),
    }
}

/// The machine.
struct Poster {
    load: Load,
    reader: Reader,
    head: u64,
    state: State,
    /// Outputs asked for in this turn, and the next peer.
    posted: usize,
    next: usize,
    /// Where in the ring the next output begins.
    at: u64,
    turns: u32,
    sent: u64,
    since: Duration,
    ns: Vec<f64>,
    dropped: u64,
    failed: Option<io::Error>,
}

enum State {
    Closed,
    Opening,
    /// So many peers are connected.
    Connecting(Udp, usize),
    Posting(Udp),
    Over,
}

impl Poster {
    fn new(load: Load) -> io::Result<Self> {
        let (mut writer, ring) = Ring::new(4 << 20, 1, 0)?;
        let bytes = vec![0x47; HOT];
        writer.append(&bytes);
        let mut reader = ring.reader(0);
        // Everything that is sent stays pinned: nobody writes any more.
        reader
            .pin(0)
            .map_err(|_| io::Error::other("a new ring is lapped"))?;
        Ok(Self {
            load,
            head: ring.head(),
            reader,
            state: State::Closed,
            posted: 0,
            next: 0,
            at: 0,
            turns: 0,
            sent: 0,
            since: Duration::ZERO,
            ns: Vec::new(),
            dropped: 0,
            failed: None,
        })
    }

    /// The batch is out: counts it, and ends round and measurement when it is time.
    fn count(&mut self, taken: u32, dropped: u32) {
        self.posted = 0;
        self.turns += 1;
        if self.turns <= WARM_UP {
            self.since = crate::sink::thread_time();
            return;
        }
        self.sent += u64::from(taken);
        self.dropped += u64::from(dropped);
        let spent = crate::sink::thread_time().saturating_sub(self.since);
        if spent < self.load.round {
            return;
        }
        self.ns
            .push(spent.as_secs_f64() * 1e9 / (self.sent as f64).max(1.0));
        (self.sent, self.since) = (0, crate::sink::thread_time());
        if self.ns.len() >= self.load.rounds {
            self.state = State::Over;
        }
    }

    fn next_datagram(&mut self, udp: Udp) -> Option<Output> {
        if self.posted == TURN {
            return None;
        }
        self.posted += 1;
        let to = self.load.peers[self.next];
        self.next = (self.next + 1) % self.load.peers.len();
        let len = (self.load.chunks * self.load.chunk) as u32;
        if self.at + u64::from(len) > self.head {
            self.at = 0;
        }
        let body = Payload::Span(Span {
            ring: 0,
            len,
            at: self.at,
        });
        // A chunk goes to all peers before the next one does, as it does in a relay.
        if self.next == 0 {
            self.at += u64::from(len);
        }
        Some(Output::Datagram(Datagram {
            udp,
            to,
            head: Head::NONE,
            body: Some(body),
            segment: self.load.chunk as u16,
        }))
    }
}

impl Machine for Poster {
    fn handle(&mut self, _: Now, input: Input<'_>) {
        match input {
            Input::UdpOpened { result, .. } => match result {
                Ok((udp, _)) => self.state = State::Connecting(udp, 0),
                Err(error) => {
                    self.failed = Some(error);
                    self.state = State::Over;
                }
            },
            Input::Posted { taken, dropped } => self.count(taken, dropped),
            _ => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output> {
        match self.state {
            State::Closed => {
                self.state = State::Opening;
                let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                let options = UdpOptions {
                    send_buffer: Some(8 << 20),
                    ..UdpOptions::default()
                };
                Some(Output::OpenUdp {
                    token: 0,
                    bind,
                    options,
                })
            }
            State::Connecting(udp, done) if self.load.connect && done < self.load.peers.len() => {
                self.state = State::Connecting(udp, done + 1);
                let peer = self.load.peers[done];
                Some(Output::ConnectUdp { udp, peer })
            }
            State::Connecting(udp, _) => {
                self.state = State::Posting(udp);
                self.next_datagram(udp)
            }
            State::Posting(udp) => self.next_datagram(udp),
            State::Opening | State::Over => None,
        }
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.reader.bytes(span.at, span.len as usize)
    }

    fn reader(&self, _: Span) -> Option<&Reader> {
        Some(&self.reader)
    }

    fn deadline(&self) -> Option<Now> {
        None
    }

    fn finished(&self) -> bool {
        matches!(self.state, State::Over)
    }
}
