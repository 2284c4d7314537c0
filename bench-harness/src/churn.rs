//! `churn`: people who come, hear a moment, and go, so many each second, whether or not the server keeps up.
//!
//! A wait is counted from the moment a newcomer was *due*, so that a server (or this process) that falls behind is
//! charged for it. Who goes resets the connection: what they had not read is thrown away, and no port stays occupied.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::crowd_report::Latency;
use crate::error::{Doing, Error};
use crate::http::{Head, Progress, Url, rejected};
use crate::stop::Stop;

/// How long a newcomer waits for the first byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// Newcomers begun between two looks at the sockets.
const TURN: u64 = 64;
/// Waits are recorded up to here.
const WAIT_MAX_US: u64 = 60_000_000;

/// Who comes, and how often.
pub(crate) struct Plan {
    pub(crate) url: Url,
    pub(crate) per_second: u32,
    pub(crate) window: Duration,
    /// How long each stays after the first byte.
    pub(crate) stay: Duration,
}

/// How the newcomers fared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) came: u64,
    /// Got a byte of the body.
    pub(crate) heard: u64,
    pub(crate) refused: u64,
    /// An answer other than 2xx, or no HTTP.
    pub(crate) rejected: u64,
    /// Closed by the server before they left.
    pub(crate) closed: u64,
    pub(crate) timed_out: u64,
    /// Due → first byte of the body.
    pub(crate) first_byte_ms: Latency,
    pub(crate) first_error: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            came,
            heard,
            refused,
            rejected,
            closed,
            timed_out,
            first_byte_ms: wait,
            first_error,
        } = self;
        writeln!(
            out,
            "came and went  {came}: {heard} heard, {refused} refused, {rejected} rejected, {closed} closed, \
             {timed_out} timed out"
        )?;
        write!(
            out,
            "due to 1st byte p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.1} ms",
            wait.p50, wait.p99, wait.p999, wait.max
        )?;
        first_error
            .as_ref()
            .map_or(Ok(()), |error| write!(out, "\nfirst error    {error}"))
    }
}

enum State {
    Connecting,
    Head(Box<Head>),
    /// The head is through, and not one byte of the body.
    Promised,
    Body,
}

struct Guest {
    socket: TcpStream,
    state: State,
    due: Duration,
    leaves: Duration,
}

enum Over {
    Refused(String),
    Rejected(String),
    Closed,
}

struct Door<'a> {
    plan: &'a Plan,
    address: SocketAddr,
    request: String,
    poll: Poll,
    guests: Vec<Option<Guest>>,
    free: Vec<usize>,
    waits: Histogram<u64>,
    report: Report,
    start: Instant,
}

/// Sends newcomers for the length of the window, then waits for the last to go.
pub(crate) fn run(plan: &Plan, stop: &Stop) -> Result<Report, Error> {
    let waits = Histogram::new_with_bounds(1, WAIT_MAX_US, 3);
    let mut door = Door {
        plan,
        address: plan.url.address()?,
        request: plan.url.get(),
        poll: Poll::new().doing(|| "cannot open epoll".into())?,
        guests: Vec::new(),
        free: Vec::new(),
        waits: waits.map_err(|error| Error::Failed(format!("histogram: {error}")))?,
        report: Report::default(),
        start: Instant::now(),
    };
    door.work(stop)?;
    door.report.first_byte_ms = Latency::of(&door.waits);
    Ok(door.report)
}

impl Door<'_> {
    fn work(&mut self, stop: &Stop) -> Result<(), Error> {
        let each = Duration::from_secs(1) / self.plan.per_second;
        let last = self.plan.window.as_nanos() / each.as_nanos().max(1);
        while !stop.asked() && (u128::from(self.report.came) < last || self.free.len() < self.guests.len()) {
            let now = self.start.elapsed();
            let due = (now.as_nanos() / each.as_nanos().max(1)).min(last) as u64;
            for n in self.report.came..due.min(self.report.came + TURN) {
                self.report.came += 1;
                self.open(each * n as u32);
            }
            let behind = self.report.came < due;
            self.turn(if behind {
                Duration::ZERO
            } else {
                each.min(Duration::from_millis(5))
            })?;
            self.part();
        }
        Ok(())
    }

    fn open(&mut self, due: Duration) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.guests.push(None);
            self.guests.len() - 1
        });
        let opened = TcpStream::connect(self.address).and_then(|mut socket| {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            let registry = self.poll.registry();
            registry.register(&mut socket, Token(slot), Interest::WRITABLE | Interest::READABLE)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                let (state, leaves) = (State::Connecting, due + PATIENCE);
                self.guests[slot] = Some(Guest {
                    socket,
                    state,
                    due,
                    leaves,
                });
            }
            Err(error) => {
                self.free.push(slot);
                self.over(Over::Refused(error.to_string()));
            }
        }
    }

    fn turn(&mut self, wait: Duration) -> Result<(), Error> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(error).doing(|| "epoll failed".into());
            }
            _ => {}
        }
        let now = self.start.elapsed();
        for event in &events {
            let slot = event.token().0;
            let Some(guest) = self.guests.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            let waiting = !matches!(guest.state, State::Body);
            let outcome = guest.ready(&self.request);
            if waiting && matches!(guest.state, State::Body) {
                self.report.heard += 1;
                self.waits
                    .saturating_record((now.saturating_sub(guest.due)).as_micros() as u64);
                guest.leaves = now + self.plan.stay;
            }
            if let Err(over) = outcome {
                self.guests[slot] = None;
                self.free.push(slot);
                self.over(over);
            }
        }
        Ok(())
    }

    /// Lets those go whose time is over.
    fn part(&mut self) {
        let now = self.start.elapsed();
        for slot in 0..self.guests.len() {
            let Some(guest) = self.guests[slot].take_if(|guest| guest.leaves <= now) else {
                continue;
            };
            self.report.timed_out += u64::from(!matches!(guest.state, State::Body));
            self.free.push(slot);
        }
    }

    fn over(&mut self, over: Over) {
        let why = match over {
            Over::Refused(why) => {
                self.report.refused += 1;
                format!("connect: {why}")
            }
            Over::Rejected(why) => {
                self.report.rejected += 1;
                why
            }
            Over::Closed => {
                self.report.closed += 1;
                return;
            }
        };
        self.report.first_error.get_or_insert(why);
    }
}

impl Guest {
    fn ready(&mut self, request: &str) -> Result<(), Over> {
        if matches!(self.state, State::Connecting) {
            match self.socket.take_error() {
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => return Err(Over::Refused(error.to_string())),
            }
            match self.socket.write_all(request.as_bytes()) {
                Ok(()) => self.state = State::Head(Box::default()),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(Over::Refused(error.to_string())),
            }
        }
        self.read()
    }

    fn read(&mut self) -> Result<(), Over> {
        let mut buffer = [0; 16 * 1024];
        // A bounded number of reads: a guest is one of many, and an edge that is missed costs this guest only bytes.
        for _ in 0..16 {
            let got = match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Over::Closed),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Over::Closed),
            };
            self.heard(&buffer[..got])?;
        }
        Ok(())
    }

    /// A head alone is no stream: the byte behind it is.
    fn heard(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let State::Head(head) = &mut self.state else {
            self.state = State::Body;
            return Ok(());
        };
        self.state = match head.feed(bytes) {
            Progress::More => return Ok(()),
            Progress::Bad(why) => return Err(Over::Rejected(why)),
            Progress::Done {
                status: 200..300,
                used,
                ..
            } if used == bytes.len() => State::Promised,
            Progress::Done { status: 200..300, .. } => State::Body,
            Progress::Done { status, .. } => {
                return Err(Over::Rejected(rejected(status)));
            }
        };
        Ok(())
    }
}
