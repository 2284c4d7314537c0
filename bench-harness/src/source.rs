//! `source`: publishes an endless, stamped stream at a constant rate, over HTTP or over RTMP.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error};
use crate::events::{Event, Teller};
use crate::http::{Head, Method, Progress, Url};
use crate::pace::Pace;
use crate::rtmp::{Camera, Client, FRAME, Role};
use crate::stamp::{self, Stamp};
use crate::stop::Stop;
use crate::ts::{GROUP, Mux};

/// How long a server may take to accept the connection, to answer, or to take bytes.
const PATIENCE: Duration = Duration::from_secs(5);
/// A server that says nothing to `Expect: 100-continue` is sent to anyway after this (RFC 9110, 10.1.1).
const EXPECT_WAIT: Duration = Duration::from_secs(1);
/// Groups built at once at most: a source that was held up catches up in pieces.
const GROUPS_PER_WRITE: usize = 256;

/// What the stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// MPEG transport stream with join points
    Ts,
    /// Stamped blocks without a container
    Raw,
}

/// What to publish, and how.
pub(crate) struct Plan {
    pub(crate) url: Url,
    pub(crate) kbps: u32,
    pub(crate) length: Duration,
    pub(crate) kind: Kind,
    pub(crate) gop: Duration,
    pub(crate) tick: Duration,
    pub(crate) method: Method,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
}

/// What was published.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) groups: u64,
    pub(crate) bytes: u64,
    /// Body bytes over time, without what waited in our own queue.
    pub(crate) kbps: f64,
    /// How late the latest group was handed to the kernel, behind its due time.
    pub(crate) late_ms_max: f64,
    /// The longest time one write took: a server that does not read.
    pub(crate) write_ms_max: f64,
}

/// Publishes until the time is over, a signal comes, or the server lets go (an error).
pub(crate) fn run(
    plan: &Plan,
    teller: Teller,
    stop: &Stop,
    mut tick: impl FnMut(u64),
) -> Result<Report, Error> {
    let mut outlet = Outlet::open(plan)?;
    teller.tell(&Event::Publishing);
    let mut groups = Groups::new(plan)?;
    let pace = Pace::new(plan.kbps, GROUP, plan.tick());
    let (start, wall) = (Instant::now(), wall_us());
    let mut report = Report::default();
    let mut buffer = Vec::with_capacity(GROUPS_PER_WRITE * GROUP);
    while start.elapsed() < plan.length && !stop.asked() {
        let now = start.elapsed();
        let first_due = pace.due(report.groups);
        buffer.clear();
        while pace.due(report.groups) <= now && buffer.len() < GROUPS_PER_WRITE * GROUP {
            groups.push(pace.due(report.groups), wall, &mut buffer);
            report.groups += 1;
        }
        if buffer.is_empty() {
            std::thread::sleep((first_due - now).min(Duration::from_millis(100)));
            continue;
        }
        outlet.send(first_due, &buffer, plan)?;
        let done = start.elapsed();
        report.bytes += buffer.len() as u64;
        report.late_ms_max = report.late_ms_max.max(ms(done.saturating_sub(first_due)));
        report.write_ms_max = report.write_ms_max.max(ms(done - now));
        tick(done.as_secs());
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.kbps = report.bytes as f64 * 8.0 / 1000.0 / report.seconds;
    teller.tell(&Event::Source {
        report: report.clone(),
    });
    Ok(report)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// µs since the Unix epoch.
pub(crate) fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

/// The maker of groups of either kind.
enum Groups {
    Ts(Box<Mux>),
    Raw { stream: u32, seq: u64 },
}

impl Plan {
    /// RTMP carries pictures: what falls due within one goes out with it.
    fn tick(&self) -> Duration {
        if self.url.is_rtmp() {
            self.tick.max(FRAME)
        } else {
            self.tick
        }
    }
}

impl Groups {
    fn new(plan: &Plan) -> Result<Groups, Error> {
        let mut id = [0; 4];
        getrandom::fill(&mut id).map_err(|error| Error::Failed(format!("no random numbers: {error}")))?;
        let stream = u32::from_be_bytes(id);
        // Pictures of RTMP have a container of their own.
        let kind = if plan.url.is_rtmp() { Kind::Raw } else { plan.kind };
        Ok(match kind {
            Kind::Ts => Groups::Ts(Box::new(Mux::new(stream, plan.gop.as_micros() as u64))),
            Kind::Raw => Groups::Raw { stream, seq: 0 },
        })
    }

    fn push(&mut self, due: Duration, wall_start_us: u64, out: &mut Vec<u8>) {
        let at_us = due.as_micros() as u64;
        let due_us = wall_start_us + at_us;
        match self {
            Groups::Ts(mux) => out.extend(mux.group(at_us, due_us)),
            Groups::Raw { stream, seq } => {
                let mut group = [*seq as u8; GROUP];
                stamp::write(
                    &mut group,
                    0,
                    Stamp {
                        stream: *stream,
                        seq: *seq,
                        due_us,
                    },
                );
                *seq += 1;
                out.extend(group);
            }
        }
    }
}

/// Where the groups go.
enum Outlet {
    Http(TcpStream),
    Rtmp {
        socket: TcpStream,
        client: Box<Client>,
        camera: Camera,
    },
}

impl Outlet {
    fn open(plan: &Plan) -> Result<Outlet, Error> {
        let address = plan.url.address()?;
        let socket = TcpStream::connect_timeout(&address, PATIENCE)
            .doing(|| format!("cannot connect to {address} for {}", plan.url))?;
        socket
            .set_nodelay(true)
            .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
            .doing(|| format!("cannot prepare the connection to {}", plan.url))?;
        match plan.url.rtmp(Role::Publish) {
            None => announce(socket, plan).map(Outlet::Http),
            Some(client) => greet(socket, client, plan),
        }
    }

    fn send(&mut self, at: Duration, groups: &[u8], plan: &Plan) -> Result<(), Error> {
        match self {
            Outlet::Http(socket) => send(socket, groups, plan),
            Outlet::Rtmp {
                socket,
                client,
                camera,
            } => {
                client.send_video(
                    at.as_millis() as u32,
                    &camera.picture(at.as_micros() as u64, groups),
                );
                hear(socket, client, plan)?;
                send(socket, &client.take_output(), plan)
            }
        }
    }
}

/// The handshake and the commands, up to the server's permission.
fn greet(mut socket: TcpStream, mut client: Client, plan: &Plan) -> Result<Outlet, Error> {
    let (url, deadline) = (&plan.url, Instant::now() + PATIENCE);
    let mut buffer = [0; 4096];
    while !client.is_live() {
        send(&mut socket, &client.take_output(), plan)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Failed(format!(
                "{url}: the source was not let in within {PATIENCE:?}"
            )));
        }
        socket
            .set_read_timeout(Some(left))
            .doing(|| format!("cannot wait for {url}"))?;
        match socket.read(&mut buffer) {
            Ok(0) => {
                return Err(Error::Failed(format!(
                    "{url}: closed without an answer to the source"
                )));
            }
            Ok(got) => client
                .feed(&buffer[..got], |_| {})
                .map_err(|broken| Error::Failed(format!("{url}: {broken}")))?,
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing(|| format!("no answer from {url}")),
        }
    }
    socket
        .set_read_timeout(None)
        .doing(|| format!("cannot prepare the connection to {url}"))?;
    client.send_video(0, &Camera::config());
    send(&mut socket, &client.take_output(), plan)?;
    let camera = Camera::new(plan.gop.as_micros() as u64);
    Ok(Outlet::Rtmp {
        socket,
        client: Box::new(client),
        camera,
    })
}

/// What the server has said meanwhile: acknowledgements, and pings that want an answer.
fn hear(socket: &mut TcpStream, client: &mut Client, plan: &Plan) -> Result<(), Error> {
    let mut buffer = [0; 4096];
    let over = |why: String| Error::Failed(format!("{}: the server let go of its source: {why}", plan.url));
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(over("closed".into())),
            Ok(got) => client
                .feed(&buffer[..got], |_| {})
                .map_err(|broken| over(broken.to_string()))?,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(over(error.desc().into())),
        }
    }
}

fn announce(mut socket: TcpStream, plan: &Plan) -> Result<TcpStream, Error> {
    let content_type = match plan.kind {
        Kind::Ts => "video/mp2t",
        Kind::Raw => "application/octet-stream",
    };
    let login = plan
        .password
        .as_deref()
        .map(|password| (plan.user.as_str(), password));
    let head = plan.url.put(plan.method, content_type, login);
    socket
        .write_all(head.as_bytes())
        .doing(|| format!("cannot send the request to {}", plan.url))?;
    let wait = if plan.method == Method::Put {
        EXPECT_WAIT
    } else {
        PATIENCE
    };
    await_answer(&mut socket, plan, wait)?;
    Ok(socket)
}

/// 1xx and 2xx let us in, silence does too for PUT; anything else is the server's refusal.
fn await_answer(socket: &mut TcpStream, plan: &Plan, wait: Duration) -> Result<(), Error> {
    let url = &plan.url;
    let deadline = Instant::now() + wait;
    let mut head = Head::default();
    let mut buffer = [0; 1024];
    loop {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        socket
            .set_read_timeout(Some(left))
            .doing(|| format!("cannot wait for {url}"))?;
        match socket.read(&mut buffer) {
            Ok(0) => {
                return Err(Error::Failed(format!(
                    "{url}: closed without an answer to the source"
                )));
            }
            Ok(n) => match head.feed(&buffer[..n]) {
                Progress::More => {}
                Progress::Done { status: 100..300, .. } => return Ok(()),
                Progress::Done { status, .. } => {
                    return Err(Error::Failed(format!(
                        "{url}: expected 100 or 200 for the source, got {status}"
                    )));
                }
                Progress::Bad(why) => return Err(Error::Failed(format!("{url}: {why}"))),
            },
            Err(error) if is_timeout(&error) && plan.method == Method::Put => return Ok(()),
            Err(error) if is_timeout(&error) => {
                return Err(Error::Failed(format!(
                    "{url}: no answer to the source within {wait:?}"
                )));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing(|| format!("no answer from {url}")),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn send(socket: &mut TcpStream, bytes: &[u8], plan: &Plan) -> Result<(), Error> {
    socket.write_all(bytes).map_err(|error| {
        let late = is_timeout(&error);
        let why = if late {
            format!("took no bytes for {PATIENCE:?}")
        } else {
            error.to_string()
        };
        Error::Failed(format!("{}: the server let go of its source: {why}", plan.url))
    })
}
