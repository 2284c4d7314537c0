//! `listeners`: a crowd on one thread and one epoll instance, made so that it costs little beside the server.
//!
//! Most listeners never see their bytes: `recv(MSG_TRUNC)` makes the kernel drop them and say how many they were. A
//! sample reads everything and checks the stamps. Some, when asked, never read at all. Players of RTMP have to read
//! what they are sent, for there may be a ping in it; they look at the headers of the chunks and let the rest go.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, recv};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

pub(crate) use crate::crowd_report::Report;
use crate::crowd_report::{Latency, Tally};
use crate::error::{Doing, Error};
use crate::events::{Event, Teller};
use crate::http::{Head, Progress, Url, rejected};
use crate::rtmp::{Client, Role, Stamps};
use crate::source::wall_us;
use crate::stamp::Scanner;
use crate::stop::Stop;

/// One receive call drops or reads at most this.
const RECV_MAX: usize = 1 << 20;
/// Receive calls in a row for one listener; then the others have their turn.
const RECV_TURNS: usize = 4;
/// Connections opened between two looks at the sockets.
const OPEN_TURN: usize = 64;
/// A ramp may take so many times what was asked for.
pub(crate) const RAMP_SLACK: u32 = 3;
/// Receive buffer of a listener that never reads, in bytes.
const STALLED_BUFFER: usize = 4096;
/// Latencies are recorded up to here.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Who listens to what, and for how long.
pub(crate) struct Plan {
    pub(crate) url: Url,
    pub(crate) count: usize,
    /// Connect from this address: each has ephemeral ports of its own.
    pub(crate) from: Option<IpAddr>,
    /// Connections opened per second.
    pub(crate) ramp: u32,
    /// How long after the last connection was opened a listener may still wait for its response head.
    pub(crate) patience: Duration,
    /// The first this many listeners read and check the stamps.
    pub(crate) sample: usize,
    /// The last this many listeners never read.
    pub(crate) stall: usize,
    pub(crate) warm_up: Duration,
    /// The window does not open before this moment, ms since the Unix epoch: several crowds open theirs together.
    pub(crate) not_before_ms: u64,
    pub(crate) window: Duration,
}

/// What the bytes of a listener are for.
enum Ear {
    Count,
    Check(Box<Scanner>),
    Stall,
}

enum State {
    Connecting,
    Head(Box<Head>),
    Body,
    /// From the handshake to the end.
    Rtmp(Box<Player>),
    Gone,
}

/// A listener that speaks RTMP.
struct Player {
    client: Client,
    stamps: Stamps,
}

/// One listener.
struct Listener {
    socket: TcpStream,
    state: State,
    ear: Ear,
    /// Body bytes that the server promised and has not sent yet.
    promised: Option<u64>,
    /// In the window.
    bytes: u64,
    /// Times in the window that the socket had bytes: how often the server sends, as far as the reader is not late.
    arrivals: u64,
    /// The turn of the last arrival: several reads of one turn are one.
    turn: u64,
    last: Duration,
    longest_gap: Duration,
}

/// Why a listener is over.
enum Over {
    Refused(String),
    Rejected(u16),
    Closed(String),
    /// The body is not as long as the head said.
    Lied(String),
    Error(String),
}

struct Crowd<'a> {
    plan: &'a Plan,
    address: SocketAddr,
    request: String,
    poll: Poll,
    listeners: Vec<Listener>,
    unsettled: usize,
    /// Refused before there was a socket.
    stillborn: usize,
    tally: Tally,
    latency: Histogram<u64>,
    measuring: bool,
    turns: u64,
    start: Instant,
    now: Duration,
    junk: Vec<u8>,
}

/// Runs the crowd to the end of its window, or to a signal; what it saw so far is the result either way.
pub(crate) fn run(
    plan: &Plan,
    teller: Teller,
    stop: &Stop,
    mut tick: impl FnMut(u64),
) -> Result<Report, Error> {
    let mut crowd = Crowd::new(plan)?;
    crowd.ramp(stop)?;
    teller.tell(&Event::Connected {
        served: crowd.tally.served,
    });
    let ramped = crowd.now;
    let together = Duration::from_millis(plan.not_before_ms.saturating_sub(wall_us() / 1000));
    crowd.until(crowd.now + plan.warm_up.max(together), stop, &mut tick)?;
    crowd.open_window();
    teller.tell(&Event::Start);
    let (from, cpu) = (crowd.now, cpu_seconds());
    crowd.until(from + plan.window, stop, &mut tick)?;
    teller.tell(&Event::End);
    let cpu = cpu_seconds() - cpu;
    let report = crowd.report(crowd.now - from, ramped, cpu);
    teller.tell(&Event::Crowd {
        report: Box::new(report.clone()),
    });
    Ok(report)
}

/// One that never reads gets the smallest receive buffer, so that the memory it costs is the server's.
fn connect(address: SocketAddr, from: Option<IpAddr>, stalls: bool) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if stalls {
        socket.set_recv_buffer_size(STALLED_BUFFER)?;
    }
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn cpu_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

impl<'a> Crowd<'a> {
    fn new(plan: &'a Plan) -> Result<Crowd<'a>, Error> {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Ok(Crowd {
            plan,
            address: plan.url.address()?,
            request: plan.url.get(),
            poll: Poll::new().doing(|| "cannot open epoll".into())?,
            listeners: Vec::with_capacity(plan.count),
            unsettled: 0,
            stillborn: 0,
            tally: Tally::default(),
            latency: latency.map_err(|error| Error::Failed(format!("histogram: {error}")))?,
            measuring: false,
            turns: 0,
            start: Instant::now(),
            now: Duration::ZERO,
            junk: vec![0; RECV_MAX],
        })
    }

    /// Opens the connections at the asked rate, then waits until each is served or over.
    fn ramp(&mut self, stop: &Stop) -> Result<(), Error> {
        let per_one = Duration::from_secs(1) / self.plan.ramp;
        // A crowd that is held up itself opens late; only what is opened has a deadline of its own.
        let mut deadline = per_one * self.plan.count as u32 * RAMP_SLACK + self.plan.patience;
        let mut opened = 0;
        while (opened < self.plan.count || self.unsettled > 0) && self.now < deadline && !stop.asked() {
            let due = (self.now.as_nanos() / per_one.as_nanos()) as usize + 1;
            let upto = due.min(self.plan.count).min(opened + OPEN_TURN);
            (opened..upto).for_each(|index| self.open(index));
            if upto == self.plan.count && opened < upto {
                deadline = self.start.elapsed() + self.plan.patience;
            }
            opened = upto;
            let next = if opened < self.plan.count {
                per_one * opened as u32
            } else {
                deadline
            };
            self.turn(next.min(deadline))?;
        }
        self.tally.timed_out = self.unsettled;
        if self.unsettled > 0 {
            let patience = self.plan.patience;
            self.tally
                .first_error
                .get_or_insert_with(|| format!("no answer within {patience:?}"));
        }
        self.tally.not_opened = self.plan.count - opened;
        Ok(())
    }

    fn open(&mut self, index: usize) {
        let ear = match index {
            index if index >= self.plan.count - self.plan.stall => Ear::Stall,
            index if index < self.plan.sample => Ear::Check(Box::default()),
            _ => Ear::Count,
        };
        let token = Token(self.listeners.len());
        let opened =
            connect(self.address, self.plan.from, matches!(ear, Ear::Stall)).and_then(|mut socket| {
                self.poll
                    .registry()
                    .register(&mut socket, token, Interest::WRITABLE)?;
                Ok(socket)
            });
        match opened {
            Ok(socket) => {
                self.unsettled += 1;
                let (state, last) = (State::Connecting, self.now);
                self.listeners.push(Listener {
                    socket,
                    state,
                    ear,
                    promised: None,
                    bytes: 0,
                    arrivals: 0,
                    turn: 0,
                    last,
                    longest_gap: Duration::ZERO,
                });
            }
            Err(error) => {
                self.stillborn += 1;
                self.tally.over(&Over::Refused(error.to_string()));
            }
        }
    }

    fn until(&mut self, end: Duration, stop: &Stop, tick: &mut impl FnMut(u64)) -> Result<(), Error> {
        while self.now < end && !stop.asked() {
            self.turn(end)?;
            tick(self.now.as_secs());
        }
        Ok(())
    }

    /// Waits for readiness, at most until `next` and at most 50 ms, and serves what is ready.
    fn turn(&mut self, next: Duration) -> Result<(), Error> {
        let wait = next
            .saturating_sub(self.start.elapsed())
            .min(Duration::from_millis(50));
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(error).doing(|| "epoll failed".into());
            }
            _ => {}
        }
        self.now = self.start.elapsed();
        self.turns += 1;
        for event in &events {
            let mut view = View {
                registry: self.poll.registry(),
                url: &self.plan.url,
                request: self.request.as_bytes(),
                now: self.now,
                turn: self.turns,
                measuring: self.measuring,
                latency: &mut self.latency,
                junk: &mut self.junk,
            };
            let listener = &mut self.listeners[event.token().0];
            let was_settled = listener.is_settled();
            let outcome = listener.ready(event.token(), event.is_read_closed(), &mut view);
            let settled = !was_settled && (listener.is_settled() || outcome.is_err());
            self.unsettled -= usize::from(settled);
            match outcome {
                Ok(()) => self.tally.served += usize::from(settled),
                Err(over) => {
                    let _ = self.poll.registry().deregister(&mut listener.socket);
                    let _ = listener.socket.shutdown(std::net::Shutdown::Both);
                    listener.state = State::Gone;
                    self.tally.over(&over);
                }
            }
        }
        Ok(())
    }

    fn open_window(&mut self) {
        self.measuring = true;
        for listener in &mut self.listeners {
            listener.bytes = 0;
            listener.arrivals = 0;
            listener.last = self.now;
            listener.longest_gap = Duration::ZERO;
        }
    }

    fn report(&mut self, window: Duration, ramped: Duration, cpu: f64) -> Report {
        let heard = |listener: &&mut Listener| !matches!(listener.ear, Ear::Stall);
        let mut bytes = vec![0; self.stillborn];
        let mut gaps = Vec::with_capacity(self.listeners.len());
        for listener in self.listeners.iter_mut().filter(heard) {
            // The silence up to the end of the window counts, unless there is nobody left to be silent to.
            if listener.is_heard() {
                listener.longest_gap = listener.longest_gap.max(self.now.saturating_sub(listener.last));
                gaps.push(listener.longest_gap);
            }
            if let Ear::Check(scanner) = &listener.ear {
                self.tally.seen.add(scanner.seen());
            }
            bytes.push(listener.bytes);
        }
        self.tally.stalled_closed = let_go(&self.listeners);
        let latency = Latency::of(&self.latency);
        let arrivals = self.listeners.iter().map(|listener| listener.arrivals).sum();
        let report = Report::new(
            self.plan,
            std::mem::take(&mut self.tally),
            bytes,
            gaps,
            latency,
            (window, ramped, cpu),
        );
        Report { arrivals, ..report }
    }
}

/// What a listener borrows from its crowd for one event.
struct View<'a> {
    registry: &'a Registry,
    url: &'a Url,
    request: &'a [u8],
    now: Duration,
    turn: u64,
    measuring: bool,
    latency: &'a mut Histogram<u64>,
    junk: &'a mut [u8],
}

impl Listener {
    fn is_settled(&self) -> bool {
        self.is_heard() || matches!(self.state, State::Gone)
    }

    /// Let in, and not over.
    fn is_heard(&self) -> bool {
        match &self.state {
            State::Body => true,
            State::Rtmp(player) => player.client.is_live(),
            _ => false,
        }
    }

    fn ready(&mut self, token: Token, read_closed: bool, view: &mut View<'_>) -> Result<(), Over> {
        match &self.state {
            State::Connecting => self.ask(token, view),
            State::Head(_) => self.read_head(token, read_closed, view),
            State::Body => self.read_body(token, read_closed, view),
            State::Rtmp(_) => self.play(token, view),
            State::Gone => Ok(()),
        }
    }

    fn ask(&mut self, token: Token, view: &mut View<'_>) -> Result<(), Over> {
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Err(Over::Refused(error.to_string())),
        }
        let player = view
            .url
            .rtmp(Role::Play)
            .map(|mut client| (client.take_output(), client));
        let request = player.as_ref().map_or(view.request, |(hello, _)| hello);
        // A fresh socket takes a request of this size whole; if not, it is an error like any other.
        self.socket
            .write_all(request)
            .map_err(|error| Over::Error(error.to_string()))?;
        if matches!(self.ear, Ear::Stall) {
            self.state = State::Body;
            return view
                .registry
                .deregister(&mut self.socket)
                .map_err(|error| Over::Error(error.to_string()));
        }
        self.state = match player {
            Some((_, client)) => State::Rtmp(Box::new(Player {
                client,
                stamps: Stamps::default(),
            })),
            None => State::Head(Box::default()),
        };
        let again = view
            .registry
            .reregister(&mut self.socket, token, Interest::READABLE);
        again.map_err(|error| Over::Error(error.to_string()))
    }

    fn read_head(&mut self, token: Token, read_closed: bool, view: &mut View<'_>) -> Result<(), Over> {
        let mut buffer = [0; 2048];
        loop {
            let got = match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Over::Error("closed before a response".into())),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Over::Error(error.to_string())),
            };
            let State::Head(head) = &mut self.state else {
                return Ok(());
            };
            match head.feed(&buffer[..got]) {
                Progress::More => {}
                Progress::Bad(why) => return Err(Over::Error(why)),
                Progress::Done {
                    status: 200..300,
                    used,
                    length,
                } => {
                    self.state = State::Body;
                    self.promised = length;
                    self.count_down(got - used)?;
                    self.heard(&buffer[used..got], got - used, view);
                    return self.read_body(token, read_closed, view);
                }
                Progress::Done { status, .. } => return Err(Over::Rejected(status)),
            }
        }
    }

    /// Events are edges: read until a call brings less than it could, or hand the turn on and ask for a new edge.
    fn read_body(&mut self, token: Token, read_closed: bool, view: &mut View<'_>) -> Result<(), Over> {
        let flags = match self.ear {
            Ear::Count => MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
            _ => MsgFlags::MSG_DONTWAIT,
        };
        for _ in 0..RECV_TURNS {
            match recv(self.socket.as_raw_fd(), view.junk, flags) {
                Ok(0) => return Err(self.end()),
                Ok(got) => {
                    self.count_down(got)?;
                    self.heard_junk(got, view);
                    // A short read empties the socket, but only a read of nothing tells of the end behind it.
                    if got < view.junk.len() && !read_closed {
                        return Ok(());
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(Over::Closed(error.desc().into())),
            }
        }
        let again = view
            .registry
            .reregister(&mut self.socket, token, Interest::READABLE);
        again.map_err(|error| Over::Error(error.to_string()))
    }

    /// Everything is read, and what the server wants to hear is answered at once. What counts is what came from the
    /// moment on that the server has let us in: media, and the few bytes around them.
    fn play(&mut self, token: Token, view: &mut View<'_>) -> Result<(), Over> {
        let State::Rtmp(mut player) = std::mem::replace(&mut self.state, State::Gone) else {
            return Ok(());
        };
        let outcome = self.play_with(&mut player, token, view);
        if outcome.is_ok() {
            self.state = State::Rtmp(player);
        }
        outcome
    }

    fn play_with(&mut self, player: &mut Player, token: Token, view: &mut View<'_>) -> Result<(), Over> {
        let mut junk = std::mem::take(&mut view.junk);
        let outcome = self.play_turns(player, junk, view);
        std::mem::swap(&mut view.junk, &mut junk);
        if outcome? {
            return Ok(());
        }
        let again = view
            .registry
            .reregister(&mut self.socket, token, Interest::READABLE);
        again.map_err(|error| Over::Error(error.to_string()))
    }

    /// True when the socket is empty.
    fn play_turns(
        &mut self,
        player: &mut Player,
        junk: &mut [u8],
        view: &mut View<'_>,
    ) -> Result<bool, Over> {
        let Player { client, stamps } = player;
        let closed = |live, why: &str| match live {
            true => Over::Closed(why.into()),
            false => Over::Error(format!("closed before it let us in: {why}")),
        };
        for _ in 0..RECV_TURNS {
            let live = client.is_live();
            let got = match self.socket.read(junk) {
                Ok(0) => return Err(closed(live, "end of stream")),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(closed(live, &error.to_string())),
            };
            if live {
                self.arrived(got, view);
            }
            let ear = &mut self.ear;
            let fed = client.feed(&junk[..got], |media| {
                if let Ear::Check(scanner) = ear {
                    stamps.feed(&media, |groups| check(scanner, groups, view));
                }
            });
            fed.map_err(|broken| Over::Error(broken.to_string()))?;
            let out = client.take_output();
            self.socket
                .write_all(&out)
                .map_err(|error| closed(live, &error.to_string()))?;
        }
        Ok(false)
    }

    /// More than was promised is a lie.
    fn count_down(&mut self, got: usize) -> Result<(), Over> {
        let Some(left) = &mut self.promised else {
            return Ok(());
        };
        let got = got as u64;
        *left = left
            .checked_sub(got)
            .ok_or_else(|| Over::Lied(format!("{} bytes more than its Content-Length", got - *left)))?;
        Ok(())
    }

    /// The server has closed: as it said, or too early.
    fn end(&self) -> Over {
        match self.promised {
            Some(left) if left > 0 => Over::Lied(format!("closed {left} bytes before its Content-Length")),
            Some(_) => Over::Closed("end of a body with a Content-Length".into()),
            None => Over::Closed("end of stream".into()),
        }
    }

    fn heard_junk(&mut self, got: usize, view: &mut View<'_>) {
        let junk = std::mem::take(&mut view.junk);
        self.heard(&junk[..got], got, view);
        view.junk = junk;
    }

    /// `bytes` hold what was received, unless the kernel dropped it (`Ear::Count`).
    fn heard(&mut self, bytes: &[u8], got: usize, view: &mut View<'_>) {
        self.arrived(got, view);
        if let Ear::Check(scanner) = &mut self.ear {
            check(scanner, bytes, view);
        }
    }

    fn arrived(&mut self, got: usize, view: &View<'_>) {
        self.bytes += got as u64;
        if self.turn != view.turn {
            self.arrivals += 1;
            self.turn = view.turn;
        }
        self.longest_gap = self.longest_gap.max(view.now.saturating_sub(self.last));
        self.last = view.now;
    }

    fn never_reads(&self) -> bool {
        matches!((&self.ear, &self.state), (Ear::Stall, State::Body))
    }
}

/// Looks for groups, and how old they are.
fn check(scanner: &mut Scanner, bytes: &[u8], view: &mut View<'_>) {
    let now = wall_us();
    scanner.feed(bytes, |stamp| {
        if view.measuring {
            view.latency.saturating_record(now.saturating_sub(stamp.due_us));
        }
    });
}

/// Of those who never read: how many has the server closed or reset? Asked without reading a byte.
fn let_go(listeners: &[Listener]) -> usize {
    let Ok(epoll) = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) else {
        return 0;
    };
    let stalled: Vec<&Listener> = listeners
        .iter()
        .filter(|listener| listener.never_reads())
        .collect();
    for listener in &stalled {
        let _ = epoll.add(&listener.socket, EpollEvent::new(EpollFlags::EPOLLRDHUP, 0));
    }
    let mut events = vec![EpollEvent::empty(); stalled.len().max(1)];
    epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0)
}

impl Tally {
    fn over(&mut self, over: &Over) {
        let text = match over {
            Over::Refused(why) => {
                self.refused += 1;
                format!("connect: {why}")
            }
            Over::Rejected(status) => {
                self.rejected += 1;
                rejected(*status)
            }
            Over::Closed(why) => {
                self.closed += 1;
                format!("closed by the server: {why}")
            }
            Over::Lied(why) => {
                self.lied += 1;
                why.clone()
            }
            Over::Error(why) => {
                self.errors += 1;
                why.clone()
            }
        };
        self.first_error.get_or_insert(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole crowd stands on this: for TCP the kernel must *drop* what MSG_TRUNC asks for, not peek at it.
    #[test]
    fn msg_trunc_drops_and_counts() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        served.write_all(b"dropped").unwrap();
        let mut buffer = [b'.'; 7];
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_WAITALL;
        assert_eq!(recv(client.as_raw_fd(), &mut buffer, flags).unwrap(), 7);
        assert_eq!(&buffer, b".......");
        served.write_all(b"read").unwrap();
        let mut rest = [0; 4];
        client.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"read");
    }
}
