//! What all workers and the control plane share.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::utils::CachePadded;
use relay_ring::{Bell, Mailbox};

use crate::cast::Antenna;
use crate::config::Config;
use crate::counters::Counters;
use crate::directory::Directory;
use crate::orders::{Event, Order};
use crate::team::Answer;

/// Orders that may wait in a worker's mailbox.
const ORDERS_MAX: usize = 256;
/// Events that may wait for the control plane.
const EVENTS_MAX: usize = 8192;
/// Answers to newcomers of the team that may wait for whoever holds their connections.
const ANSWERS_MAX: usize = 1024;

/// One relay, seen from within. What is written when somebody comes or goes lies apart from what is read per send.
#[derive(Debug)]
pub struct House {
    /// As it was started.
    pub config: Config,
    /// Which mounts there are.
    pub directory: Directory,
    mailboxes: Vec<Mailbox<Order>>,
    counters: Vec<CachePadded<Counters>>,
    events: Sender<Event>,
    admission: CachePadded<Admission>,
    next_id: CachePadded<AtomicU64>,
    draining: AtomicBool,
    following: CachePadded<Mutex<HashSet<String>>>,
    pub(crate) antenna: CachePadded<Antenna>,
    answers: Option<Mailbox<Answer>>,
}

impl House {
    /// A house for `config.workers` workers, and the receiving end of its events.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for the bells.
    pub fn new(config: Config) -> std::io::Result<(Arc<House>, Receiver<Event>)> {
        let (events, receiver) = bounded(EVENTS_MAX);
        let mailboxes = (0..config.workers)
            .map(|_| Ok(Mailbox::new(ORDERS_MAX, Bell::new()?)))
            .collect::<std::io::Result<Vec<_>>>()?;
        let house = House {
            directory: Directory::new(config.channels_max, config.workers),
            counters: (0..config.workers)
                .map(|_| CachePadded::new(Counters::default()))
                .collect(),
            mailboxes,
            events,
            admission: CachePadded::default(),
            next_id: CachePadded::new(AtomicU64::new(1)),
            draining: AtomicBool::new(false),
            following: CachePadded::default(),
            antenna: CachePadded::default(),
            answers: match &config.team {
                Some(_) => Some(Mailbox::new(ANSWERS_MAX, Bell::new()?)),
                None => None,
            },
            config,
        };
        Ok((Arc::new(house), receiver))
    }

    /// One worker's numbers.
    pub fn counters(&self, worker: usize) -> &Counters {
        &self.counters[worker]
    }

    /// All workers' numbers, in the catalogue's order.
    pub fn totals(&self) -> Vec<u64> {
        let mut sum = vec![0u64; crate::counters::CATALOGUE.len()];
        for counters in &self.counters {
            for (total, value) in sum.iter_mut().zip(counters.values()) {
                *total = total.wrapping_add(value);
            }
        }
        sum
    }

    /// One worker's mailbox.
    pub fn mailbox(&self, worker: usize) -> &Mailbox<Order> {
        &self.mailboxes[worker]
    }

    /// The bell of a worker.
    pub fn bell(&self, worker: usize) -> &Bell {
        self.mailboxes[worker].bell()
    }

    /// Rings every worker: something that concerns all has changed.
    pub fn ring_all(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.bell().ring());
    }

    /// Rings the workers whose bits are set.
    pub(crate) fn ring_some(&self, bits: u64) {
        for (worker, mailbox) in self.mailboxes.iter().enumerate() {
            if bits >> worker & 1 == 1 {
                mailbox.bell().ring();
            }
        }
    }

    /// No new listener from now on; every worker finishes when its last has gone, or when told [`Order::Stop`].
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.ring_all();
    }

    /// Whether the house is being left.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Connections of the data plane and those handed over, and listeners among them.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// One feed per mount: `true` for whoever comes first.
    pub(crate) fn begin_following(&self, mount: &str) -> bool {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.len() < self.config.channels_max && following.insert(mount.to_owned())
    }

    pub(crate) fn end_following(&self, mount: &str) {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(mount);
    }

    /// Whether a worker of this house asks an upstream for a mount.
    pub(crate) fn is_following(&self, mount: &str) -> bool {
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(mount)
    }

    /// Where what newcomers of the team are told is to be taken from; none where no team is led.
    pub fn answers(&self) -> Option<&Mailbox<Answer>> {
        self.answers.as_ref()
    }

    pub(crate) fn answer(&self, worker: usize, answer: Answer) {
        let lost = self
            .answers
            .as_ref()
            .is_none_or(|box_| box_.post(answer).is_err());
        self.counters(worker).team_answers_lost.add(u64::from(lost));
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn tell(&self, worker: usize, event: Event) {
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.counters(worker).events_lost.up();
        }
    }
}

/// How many there are, for the limits. Looked at when somebody comes or goes.
#[derive(Debug, Default)]
pub struct Admission {
    listeners: AtomicUsize,
    connections: AtomicUsize,
    prefixes: Mutex<HashMap<IpAddr, u32>>,
}

impl Admission {
    /// Listeners now.
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self) -> usize {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more listener, if there is room.
    pub(crate) fn admit_listener(&self, max: usize) -> bool {
        let admit = |n: usize| (n < max).then_some(n + 1);
        self.listeners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit)
            .is_ok()
    }

    pub(crate) fn release_listener(&self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more connection from an address's prefix, if it has fewer than `max`. Loopback is exempt, as is everybody
    /// when `max` is 0.
    pub(crate) fn admit_prefix(&self, peer: SocketAddr, max: usize) -> bool {
        let Some(prefix) = prefix(peer.ip(), max) else {
            return true;
        };
        let mut prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        let n = prefixes.entry(prefix).or_insert(0);
        if *n as usize >= max {
            return false;
        }
        *n += 1;
        true
    }

    pub(crate) fn release_prefix(&self, peer: SocketAddr, max: usize) {
        let Some(prefix) = prefix(peer.ip(), max) else {
            return;
        };
        let mut prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = prefixes.get_mut(&prefix) {
            *n -= 1;
            if *n == 0 {
                prefixes.remove(&prefix);
            }
        }
    }
}

/// The address itself in IPv4, its /64 in IPv6; none where no limit applies.
fn prefix(ip: IpAddr, max: usize) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    if max == 0 || ip.is_loopback() {
        return None;
    }
    Some(match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::lines::{apart, line};

    #[test]
    fn prefixes_are_counted_and_forgotten() {
        let a = Admission::default();
        let one: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        let two: SocketAddr = "[2001:db8::2]:1".parse().unwrap();
        let other: SocketAddr = "[2001:db8:0:1::2]:1".parse().unwrap();
        assert!(a.admit_prefix(one, 1));
        assert!(!a.admit_prefix(two, 1));
        assert!(a.admit_prefix(other, 1));
        a.release_prefix(one, 1);
        assert!(a.admit_prefix(two, 1));
        a.release_prefix(two, 1);
        a.release_prefix(other, 1);
        assert!(a.prefixes.lock().unwrap().is_empty());
    }

    #[test]
    fn loopback_is_exempt() {
        let a = Admission::default();
        let lo: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert!((0..1000).all(|_| a.admit_prefix(lo, 1)));
    }

    fn house(workers: usize) -> Arc<House> {
        let config = Config {
            node_id: "n".into(),
            software: "totality".into(),
            workers,
            max_batch_delay: Duration::ZERO,
            connections_max: 10,
            reserved: 1,
            head_timeout: Duration::from_secs(1),
            channels_max: 2,
            ring_bytes: 1 << 16,
            ring_seconds: 1,
            ring_max_bytes: 1 << 16,
            chunk_size: 1316,
            listener: relay_listener::Config::default(),
            source: relay_source::Config::default(),
            mounts: BTreeMap::new(),
            node_token: None,
            upstream_timing: relay_link::UpstreamsConfig::default(),
            root_mount: None,
            upstreams: Vec::new(),
            on_demand: false,
            cast: None,
            team: None,
        };
        House::new(config).unwrap().0
    }

    #[test]
    fn workers_count_on_lines_of_their_own() {
        let house = house(3);
        let of = |worker| {
            let counters = house.counters(worker);
            let last = std::ptr::from_ref(counters).addr() + size_of::<Counters>() - 1;
            line(counters)..=last / 128
        };
        assert!(std::ptr::from_ref(house.counters(0)).addr().is_multiple_of(128));
        assert!(of(0).end() < of(1).start() && of(1).end() < of(2).start());
    }

    #[test]
    fn coming_and_going_does_not_disturb_what_a_send_reads() {
        let house = house(2);
        let written = [
            line(&*house.admission),
            line(&*house.next_id),
            line(&*house.following),
        ];
        apart(&written);
        let read = [
            line(&house.config.listener),
            line(&house.counters),
            line(&house.mailboxes),
        ];
        assert!(
            written.iter().all(|line| !read.contains(line)),
            "{read:?} {written:?}"
        );
        // The count of an Arc's holders stands before what it holds.
        assert!(Arc::as_ptr(&house).addr().is_multiple_of(128));
    }

    #[test]
    fn listeners_stop_at_the_limit() {
        let a = Admission::default();
        assert!(a.admit_listener(2) && a.admit_listener(2));
        assert!(!a.admit_listener(2));
        a.release_listener();
        assert!(a.admit_listener(2));
    }
}
