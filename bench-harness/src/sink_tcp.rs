//! `sink tcp`: what a TCP send costs, without a receiver and without its acknowledgements: connections that are
//! established by `TCP_REPAIR` ([`relay_driver::connect_to_nobody`]), behind a device that drops everything. Beside a
//! plain `send()` loop stands the relay's own driver with its own ring memory, copying and not copying.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use relay_driver::{Backend, Setup, SharedStats, ZeroCopy, connect_to_nobody};
use relay_ring::{Bell, Reader, Ring, Writer};
use relay_seam::{Closing, Conn, Input, Machine, Now, Output, Payload, Sent, Span};

use crate::crowd_report::at;
use crate::error::{Doing, Error};
use crate::sink::{DATAGRAM, ROUNDS, Row, peer, thread_time};
use crate::stop::Stop;

/// Bytes of one send.
const SIZES: [usize; 4] = [1_316, 4_096, 16_384, 65_536];
/// Unacknowledged bytes of a connection: what the driver lets one hold.
const BUDGET: usize = 192 * 1024;
const SENDS_MAX: usize = 32;
const WINDOW: u32 = 512 << 20;
/// How long to wait for the kernel's last notifications after the connections were reset.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    Driven(Backend, ZeroCopy),
}

const WAYS: [(&str, How); 4] = [
    ("send() loop", How::Plain),
    ("relay, mio, copying", How::Driven(Backend::Mio, ZeroCopy::Off)),
    (
        "relay, io_uring, copying",
        How::Driven(Backend::Uring, ZeroCopy::Off),
    ),
    (
        "relay, io_uring, zero copy",
        How::Driven(Backend::Uring, ZeroCopy::Always),
    ),
];

/// What one round cost.
struct Cost {
    time: Duration,
    sends: u64,
    refused: u64,
    /// Of the sends without a copy, the part that the kernel copied after all.
    copied: Option<f64>,
}

/// All rows: each size by each way.
pub(crate) fn rows(peers: usize, stop: &Stop) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for size in SIZES {
        for (name, how) in WAYS {
            let mut costs = Vec::new();
            for _ in 0..ROUNDS {
                stop.check()?;
                let guests = (0..peers).map(open).collect::<Result<Vec<_>, _>>()?;
                let times = (BUDGET / size).clamp(1, SENDS_MAX);
                costs.push(match how {
                    How::Plain => plain(&guests, size, times),
                    How::Driven(backend, zero_copy) => driven(guests, size, times, backend, zero_copy)?,
                });
            }
            rows.push(row(name, peers, size, &costs));
        }
    }
    Ok(rows)
}

fn open(n: usize) -> Result<TcpStream, Error> {
    connect_to_nobody(SocketAddr::V4(peer(n)), WINDOW).doing(|| "no TCP_REPAIR in this kernel".into())
}

fn row(name: &str, peers: usize, size: usize, costs: &[Cost]) -> Row {
    let mut each: Vec<f64> = costs
        .iter()
        .map(|cost| cost.time.as_secs_f64() * 1e9 / (cost.sends as f64).max(1.0))
        .collect();
    each.sort_by(f64::total_cmp);
    let datagrams = (size as f64 / DATAGRAM as f64).max(1.0);
    Row {
        way: name.into(),
        peers,
        size,
        ns_per_send_min: at(&each, 0.0),
        ns_per_datagram_min: at(&each, 0.0) / datagrams,
        ns_per_datagram_median: at(&each, 0.5) / datagrams,
        cpu_s_per_gb: at(&each, 0.5) / size as f64,
        failed: costs.iter().map(|cost| cost.refused).sum(),
        copied: costs.last().and_then(|cost| cost.copied),
        times_bare: None,
    }
}

fn plain(guests: &[TcpStream], size: usize, times: usize) -> Cost {
    let chunk = vec![0x47; size];
    let (mut sends, mut refused) = (0, 0);
    let began = thread_time();
    for _ in 0..times {
        for guest in guests {
            match send(
                guest.as_raw_fd(),
                &chunk,
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(_) => sends += 1,
                Err(_) => refused += 1,
            }
        }
    }
    let time = thread_time() - began;
    Cost {
        time,
        sends,
        refused,
        copied: None,
    }
}

/// The relay's driver with a machine that has nothing to do but to send.
fn driven(
    guests: Vec<TcpStream>,
    size: usize,
    times: usize,
    backend: Backend,
    zero_copy: ZeroCopy,
) -> Result<Cost, Error> {
    let bell = Bell::new().doing(|| "no descriptor for a bell".into())?;
    let mut setup = Setup::new(Vec::new(), bell, Box::new(|_, _| ()));
    let want = guests.len();
    setup.guests = guests;
    setup.zero_copy = zero_copy;
    let mut sower = Sower::new(size, times, want, setup.stats.clone())?;
    relay_driver::run(backend, setup, &mut sower).doing(|| "the driver broke".into())?;
    let stats = sower.stats.read();
    let Sower {
        time, sends, refused, ..
    } = sower;
    let copied =
        (stats.zero_copy_sends > 0).then(|| stats.zero_copy_copied as f64 / stats.zero_copy_sends as f64);
    if zero_copy == ZeroCopy::Always && stats.zero_copy_sends == 0 && size >= 4096 {
        return Err(Error::Failed(
            "the kernel refuses zero copy: it needs Linux 6.12 and locked memory (ulimit -l)".into(),
        ));
    }
    Ok(Cost {
        time,
        sends,
        refused,
        copied,
    })
}

/// Sends the same stretch of a ring to everybody, so many times.
struct Sower {
    _writer: Writer,
    reader: Reader,
    size: u32,
    left: usize,
    want: usize,
    conns: Vec<Conn>,
    out: VecDeque<Output>,
    in_flight: usize,
    warm: bool,
    began: Option<Duration>,
    time: Duration,
    sends: u64,
    refused: u64,
    over: Option<Instant>,
    stats: Arc<SharedStats>,
}

impl Sower {
    fn new(size: usize, times: usize, want: usize, stats: Arc<SharedStats>) -> Result<Self, Error> {
        let (mut writer, ring) = Ring::new(4 << 20, 1, 0).doing(|| "no memory for a ring".into())?;
        writer.append(&vec![0x47; size]);
        Ok(Self {
            _writer: writer,
            reader: ring.reader(0),
            size: size as u32,
            left: times,
            want,
            conns: Vec::new(),
            out: VecDeque::new(),
            in_flight: 0,
            warm: false,
            began: None,
            time: Duration::ZERO,
            sends: 0,
            refused: 0,
            over: None,
            stats,
        })
    }

    /// The next round, or, after the last, the end: everybody is reset, and the kernel lets go of the memory.
    fn go_on(&mut self) {
        if self.left == 0 {
            self.time = thread_time() - self.began.unwrap_or_default();
            self.over = Some(Instant::now());
            let reset = |conn| Output::Close {
                conn,
                how: Closing::Abort,
            };
            self.out.extend(self.conns.drain(..).map(reset));
            return;
        }
        // The ring's start is above its floor: nothing is ever lapped here.
        let _ = self.reader.pin(0);
        // The first send is not measured: with it the ring is registered, which happens once in a stream's life.
        let everybody = if self.warm { self.conns.len() } else { 1 };
        if self.warm {
            self.began.get_or_insert_with(thread_time);
            self.left -= 1;
        }
        self.warm = true;
        self.in_flight = everybody;
        let span = Span {
            ring: 0,
            len: self.size,
            at: 0,
        };
        self.out
            .extend(self.conns[..everybody].iter().map(|conn| Output::Send {
                conn: *conn,
                payload: Payload::Span(span),
            }));
    }
}

impl Machine for Sower {
    fn handle(&mut self, _: Now, input: Input<'_>) {
        match input {
            Input::Accepted { conn, .. } => self.conns.push(conn),
            Input::Sent { result, .. } => {
                match result {
                    Sent::All => self.sends += u64::from(self.began.is_some()),
                    _ => self.refused += 1,
                }
                self.in_flight -= 1;
                if self.in_flight == 0 {
                    self.reader.unpin();
                }
            }
            _ => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output> {
        let ready = self.over.is_none() && self.conns.len() == self.want;
        if ready && self.out.is_empty() && self.in_flight == 0 {
            self.go_on();
        }
        self.out.pop_front()
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.reader.bytes(span.at, span.len as usize)
    }

    fn reader(&self, _: Span) -> Option<&Reader> {
        Some(&self.reader)
    }

    fn deadline(&self) -> Option<Now> {
        // Looks again soon: for guests at first, for the last notifications at the end.
        Some(Now::new(0, 0))
    }

    fn finished(&self) -> bool {
        let stats = self.stats.read();
        let settled = stats.zero_copy_bytes >= stats.zero_copy_sends * u64::from(self.size);
        self.over
            .is_some_and(|since| self.out.is_empty() && (settled || since.elapsed() > PATIENCE))
    }
}
