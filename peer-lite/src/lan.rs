//! A channel that comes by IP multicast: heard by a thread of its own, repaired over a link where a node is known, and
//! fed to the station like any source. While nothing comes from the LAN, the link alone carries the stream, from the
//! very byte on; when the LAN is back, the link is let go.

mod ears;
mod mend;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_cast::receive::{Receive, Stats};
use relay_link::FollowConfig;
use relay_seam::Now;
use relay_station::{House, Order};

use crate::options::Channel;
use ears::Ears;
use mend::Mend;

/// How long a hole is waited for, where nobody can be asked: reordering, and parity.
const PATIENCE: Duration = Duration::from_millis(400);
/// The same, where a node can be asked.
const PATIENCE_WITH_LINK: Duration = Duration::from_millis(1500);
/// After so long without a datagram the LAN is silent: the link takes over.
const SILENT_AFTER: Duration = Duration::from_millis(1000);
/// So often a silent LAN is joined anew: its interface may have gone and come back, a switch may have forgotten us.
const REJOIN_EVERY: Duration = Duration::from_secs(2);
/// The longest sleep, so that an end is noticed.
const NAP_MAX: Duration = Duration::from_millis(50);
/// Bytes that wait for the station; more are dropped, and counted.
const PENDING_MAX: usize = 4 << 20;
/// Bytes of one order.
const PIECE: usize = 64 << 10;

/// Which group is heard, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    /// The group and its port.
    pub group: SocketAddr,
    /// Only from this sender (RFC 4607).
    pub sender: Option<Ipv4Addr>,
    /// On this interface, by name or address; none: where the route leads.
    pub interface: Option<String>,
}

impl Lan {
    /// What is written as `[SENDER@]GROUP:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (sender, group) = match text.split_once('@') {
            Some(("", group)) => (None, group),
            Some((sender, group)) => (Some(sender.parse().ok()?), group),
            None => (None, text),
        };
        let group: SocketAddr = group.parse().ok()?;
        let fits = group.ip().is_multicast() && group.port() > 0 && (sender.is_none() || group.is_ipv4());
        fits.then_some(Self {
            group,
            sender,
            interface: None,
        })
    }
}

impl std::fmt::Display for Lan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sender {
            Some(sender) => write!(f, "{sender}@{}", self.group),
            None => write!(f, "{}", self.group),
        }
    }
}

/// How it is going in the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LanStatus {
    /// The group.
    pub group: String,
    /// Nothing comes from there at present.
    pub silent: bool,
    /// Datagrams of the stream that came.
    pub received: u64,
    /// Parity datagrams that came.
    pub parity: u64,
    /// Datagrams that nobody has brought.
    pub lost: u64,
    /// Datagrams that parity has brought back.
    pub recovered: u64,
    /// Pieces that the link has brought.
    pub repaired: u64,
    /// Datagrams that came twice, too late, or after the link had brought them.
    pub duplicates: u64,
    /// Datagrams that are nothing we know.
    pub malformed: u64,
    /// A node is bringing what the LAN does not.
    pub linked: bool,
    /// Times the node was asked.
    pub links: u64,
    /// Times the group was joined anew.
    pub rejoins: u64,
    /// Bytes that the players' side did not take in time.
    pub overrun_bytes: u64,
}

/// The thread that hears.
#[derive(Debug)]
pub(crate) struct Listening {
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<LanStatus>>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Joins the group and begins to hear. `node`: who repairs, and how to ask.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`], with a remedy, when the group cannot be joined.
    pub(crate) fn begin(
        lan: &Lan,
        mount: &str,
        node: Option<(Channel, FollowConfig)>,
        house: Arc<House>,
    ) -> io::Result<Self> {
        let ears = Ears::join(lan)?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Mutex::new(LanStatus {
            group: lan.to_string(),
            ..LanStatus::default()
        }));
        let patience = if node.is_some() {
            PATIENCE_WITH_LINK
        } else {
            PATIENCE
        };
        let work = Work {
            lan: lan.clone(),
            mount: mount.to_owned(),
            ears: Some(ears),
            mend: node.map(|(channel, follow)| Mend::new(channel, follow)),
            receive: Receive::new(patience),
            house,
            pending: Vec::new(),
            last_air: None,
            last_join: None,
            rejoins: 0,
            overrun: 0,
            shared: shared.clone(),
            origin: Instant::now(),
        };
        let thread = thread::Builder::new().name("lan".into()).spawn({
            let stop = stop.clone();
            move || work.run(&stop)
        })?;
        Ok(Self {
            stop,
            shared,
            thread: Some(thread),
        })
    }

    /// How it is going, kept up to date.
    pub(crate) fn shared(&self) -> Arc<Mutex<LanStatus>> {
        self.shared.clone()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread's own.
struct Work {
    lan: Lan,
    mount: String,
    /// None: the group could not be joined again yet.
    ears: Option<Ears>,
    mend: Option<Mend>,
    receive: Receive,
    house: Arc<House>,
    pending: Vec<u8>,
    last_air: Option<Now>,
    last_join: Option<Now>,
    rejoins: u64,
    overrun: u64,
    shared: Arc<Mutex<LanStatus>>,
    origin: Instant,
}

impl Work {
    fn run(mut self, stop: &AtomicBool) {
        self.begin();
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            let now = self.now();
            self.hear(now);
            let silent = self.is_silent(now);
            if let Some(mend) = &mut self.mend {
                mend.turn(now, silent, &mut self.receive);
            }
            if silent {
                self.rejoin(now);
            }
            self.play(now);
            self.publish(silent);
        }
    }

    /// Until something comes, or something is due.
    fn wait(&self) {
        let now = self.now();
        let due = self
            .receive
            .deadline()
            .map_or(NAP_MAX, |due| due.since(now))
            .min(NAP_MAX);
        let link = self.mend.as_ref().and_then(Mend::stream);
        ears::wait(self.ears.as_ref(), link, due);
    }

    fn hear(&mut self, now: Now) {
        let Some(ears) = &mut self.ears else { return };
        let receive = &mut self.receive;
        let before = receive.stats();
        let alive = ears.hear(|is_parity, datagram| match is_parity {
            true => receive.parity(now, datagram),
            false => receive.media(now, datagram),
        });
        if receive.stats().received > before.received {
            self.last_air = Some(now);
        }
        if !alive {
            self.ears = None;
        }
    }

    fn is_silent(&self, now: Now) -> bool {
        let last = self.last_air.unwrap_or(Now::new(0, 0));
        now.since(last) >= SILENT_AFTER
    }

    /// Leaves the group and joins it again, by the interface of that name as it is now.
    fn rejoin(&mut self, now: Now) {
        let last = self.last_join.get_or_insert(now);
        if now.since(*last) < REJOIN_EVERY {
            return;
        }
        *last = now;
        self.rejoins += 1;
        // Left first: two sockets would be one membership.
        self.ears = None;
        match Ears::join(&self.lan) {
            Ok(ears) => self.ears = Some(ears),
            Err(error) => tracing::debug!("{error}"),
        }
    }

    fn begin(&mut self) {
        let order = Order::Begin {
            mount: self.mount.clone(),
            content_type: Some("video/mp2t".into()),
            properties: Vec::new(),
            from: self.lan.to_string(),
        };
        // Its mailbox is empty: the station has just begun.
        let _ = self.house.mailbox(0).post(order);
    }

    fn play(&mut self, now: Now) {
        while let Some(bytes) = self.receive.poll(now) {
            self.pending.extend_from_slice(&bytes);
        }
        while !self.pending.is_empty() {
            let piece: Vec<u8> = self.pending.drain(..self.pending.len().min(PIECE)).collect();
            let order = Order::Feed {
                mount: self.mount.clone(),
                bytes: piece,
            };
            if let Err(Order::Feed { mut bytes, .. }) = self.house.mailbox(0).post(order) {
                bytes.append(&mut self.pending);
                self.pending = bytes;
                break;
            }
        }
        if self.pending.len() > PENDING_MAX {
            self.overrun += self.pending.len() as u64;
            self.pending.clear();
        }
    }

    fn publish(&self, silent: bool) {
        let Stats {
            received,
            parity,
            malformed,
            duplicates,
            recovered,
            repaired,
            lost,
            ..
        } = self.receive.stats();
        let status = LanStatus {
            group: self.lan.to_string(),
            silent,
            received,
            parity,
            lost,
            recovered,
            repaired,
            duplicates,
            malformed,
            linked: self.mend.as_ref().is_some_and(Mend::is_up),
            links: self.mend.as_ref().map_or(0, Mend::links),
            rejoins: self.rejoins,
            overrun_bytes: self.overrun,
        };
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// From one on: zero is before the beginning.
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now::new(
            self.origin.elapsed().as_nanos() as u64 + 1,
            wall.as_micros() as u64,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_as_players_write_them() {
        let lan = |sender: Option<&str>, group: &str| Lan {
            group: group.parse().unwrap(),
            sender: sender.map(|ip| ip.parse().unwrap()),
            interface: None,
        };
        for (text, expected) in [
            ("239.255.42.1:5004", lan(None, "239.255.42.1:5004")),
            ("@239.255.42.1:5004", lan(None, "239.255.42.1:5004")),
            ("10.0.0.1@232.1.2.3:5004", lan(Some("10.0.0.1"), "232.1.2.3:5004")),
            ("[ff15::1]:5004", lan(None, "[ff15::1]:5004")),
        ] {
            assert_eq!(Lan::parse(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "239.255.42.1",
            "10.0.0.1:5004",
            "239.1.1.1:0",
            "x@239.1.1.1:1",
            "1.1.1.1@[ff15::1]:1",
        ] {
            assert_eq!(Lan::parse(bad), None, "{bad}");
        }
    }
}
