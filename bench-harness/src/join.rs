//! `join`: how long a newcomer waits for the first byte, and for everything a decoder needs.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::crowd_report::at;
use crate::error::Error;
use crate::http::{Head, Progress, Url, rejected};
use crate::join_scan::JoinScan;
use crate::rtmp::{Client, JoinWatch, Role};
use crate::stop::Stop;

/// Newcomers to send, one after another.
pub(crate) struct Plan {
    pub(crate) url: Url,
    pub(crate) count: usize,
    /// One newcomer gives up after this.
    pub(crate) patience: Duration,
    /// Between two newcomers, so that they fall on different moments of the group of pictures.
    pub(crate) pause: Duration,
    /// No newcomer is sent after this.
    pub(crate) limit: Duration,
}

/// Milliseconds since the connection was begun.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Wait {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Wait {
    fn of(mut times: Vec<Duration>) -> Wait {
        times.sort_unstable();
        let ms = |quantile| at(&times, quantile).as_secs_f64() * 1e3;
        Wait {
            min: ms(0.0),
            median: ms(0.5),
            p99: ms(0.99),
            max: ms(1.0),
        }
    }
}

/// What the newcomers met.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) sent: usize,
    pub(crate) got_a_byte: usize,
    /// Had PAT, PMT and a random-access packet, in this order; over RTMP the codec's configuration and a key picture.
    pub(crate) joined: usize,
    pub(crate) first_byte_ms: Wait,
    pub(crate) joined_ms: Wait,
    pub(crate) first_error: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |wait: &Wait| {
            let Wait {
                min,
                median,
                p99,
                max,
            } = wait;
            format!("min {min:.1} median {median:.1} p99 {p99:.1} max {max:.1} ms")
        };
        let Report {
            sent,
            got_a_byte,
            joined,
            ..
        } = self;
        writeln!(
            out,
            "newcomers   {sent}: {got_a_byte} got a byte, {joined} could decode"
        )?;
        writeln!(out, "first byte  {}", line(&self.first_byte_ms))?;
        write!(out, "decodable   {}", line(&self.joined_ms))?;
        self.first_error
            .as_ref()
            .map_or(Ok(()), |error| write!(out, "\nfirst error {error}"))
    }
}

/// Sends the newcomers.
pub(crate) fn run(plan: &Plan, stop: &Stop) -> Result<Report, Error> {
    plan.url.address()?;
    let start = Instant::now();
    let mut report = Report::default();
    let (mut bytes, mut joins) = (Vec::new(), Vec::new());
    while report.sent < plan.count && start.elapsed() < plan.limit && !stop.asked() {
        report.sent += 1;
        let mut times = (None, None);
        if let Err(error) = newcomer(plan, &mut times) {
            report.first_error.get_or_insert(error);
        }
        bytes.extend(times.0);
        joins.extend(times.1);
        std::thread::sleep(plan.pause);
    }
    (report.got_a_byte, report.joined) = (bytes.len(), joins.len());
    (report.first_byte_ms, report.joined_ms) = (Wait::of(bytes), Wait::of(joins));
    Ok(report)
}

fn newcomer(plan: &Plan, times: &mut (Option<Duration>, Option<Duration>)) -> Result<(), String> {
    let address = plan.url.address().map_err(|error| error.to_string())?;
    let start = Instant::now();
    let mut socket =
        TcpStream::connect_timeout(&address, plan.patience).map_err(|error| format!("connect: {error}"))?;
    socket
        .set_write_timeout(Some(plan.patience))
        .map_err(|error| error.to_string())?;
    let (mut ear, hello) = Ear::open(&plan.url);
    socket.write_all(&hello).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let left = plan.patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(format!("no join point within {:?}", plan.patience));
        }
        socket
            .set_read_timeout(Some(left))
            .map_err(|error| error.to_string())?;
        let got = match socket.read(&mut buffer) {
            Ok(0) => return Err(ear.end().into()),
            Ok(got) => got,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        };
        let heard = ear.hear(&buffer[..got])?;
        if heard.body {
            times.0.get_or_insert(start.elapsed());
        }
        if heard.joined {
            times.1 = Some(start.elapsed());
            return Ok(());
        }
        socket
            .write_all(&ear.answer())
            .map_err(|error| error.to_string())?;
    }
}

/// What a newcomer makes of the bytes.
enum Ear {
    Http(Option<Head>, JoinScan),
    Rtmp(Box<Client>, JoinWatch),
}

/// What was in a piece.
#[derive(Default)]
struct Heard {
    body: bool,
    joined: bool,
}

impl Ear {
    /// And what is to be sent first.
    fn open(url: &Url) -> (Ear, Vec<u8>) {
        match url.rtmp(Role::Play) {
            None => (
                Ear::Http(Some(Head::default()), JoinScan::default()),
                url.get().into_bytes(),
            ),
            Some(mut client) => {
                let hello = client.take_output();
                (Ear::Rtmp(Box::new(client), JoinWatch::default()), hello)
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<Heard, String> {
        match self {
            Ear::Http(head, scan) => {
                let body = body(head, bytes)?;
                Ok(Heard {
                    body: !body.is_empty(),
                    joined: scan.feed(body),
                })
            }
            Ear::Rtmp(client, watch) => {
                let mut heard = Heard::default();
                let fed = client.feed(bytes, |media| {
                    heard.body |= !media.bytes.is_empty();
                    heard.joined |= watch.feed(&media);
                });
                fed.map_err(|broken| broken.to_string())?;
                Ok(heard)
            }
        }
    }

    /// What an end means now.
    fn end(&self) -> &'static str {
        match self {
            Ear::Http(Some(_), _) => "closed before a response",
            Ear::Rtmp(client, _) if !client.is_live() => "closed before it let us in",
            _ => "closed by the server",
        }
    }

    fn answer(&mut self) -> Vec<u8> {
        match self {
            Ear::Http(..) => Vec::new(),
            Ear::Rtmp(client, _) => client.take_output(),
        }
    }
}

/// What of `bytes` is body. `head` is gone once it is complete.
fn body<'a>(head: &mut Option<Head>, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let Some(unfinished) = head else { return Ok(bytes) };
    match unfinished.feed(bytes) {
        Progress::More => Ok(&[]),
        Progress::Bad(why) => Err(why),
        Progress::Done {
            status: 200..300,
            used,
            ..
        } => {
            *head = None;
            Ok(&bytes[used..])
        }
        Progress::Done { status, .. } => Err(rejected(status)),
    }
}
