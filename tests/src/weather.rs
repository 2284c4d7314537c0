//! Weather on a cable: packets come late, or not at all. Kernels often lack `netem`, so they are carried by hand, from
//! one interface to the other, by dice that a seed decides.
//!
//! Packets of one direction stay in order: what varies is how late they are.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto};
use socket2::{Domain, Protocol, Socket, Type};

/// Every protocol (`ETH_P_ALL`).
const ALL: u16 = 3;
/// The largest frame.
const FRAME_MAX: usize = 64 * 1024;
/// Packets under way in one direction; more are lost, as in any router.
const QUEUE_MAX: usize = 1000;
/// How long the carrier waits for packets before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// What the weather is like, in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sky {
    /// Of a thousand packets, so many are lost.
    pub loss_permille: u64,
    /// How late a packet is at least.
    pub delay: Duration,
    /// How much later it may be.
    pub jitter: Duration,
}

/// The carrier of one cable's packets.
#[derive(Debug)]
pub struct Weather {
    sky: Arc<Mutex<Sky>>,
    lost: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Weather {
    /// Begins with a clear sky, between two interfaces of a namespace.
    pub(crate) fn begin(netns: File, ends: [String; 2], seed: u64) -> Self {
        let sky = Arc::new(Mutex::new(Sky::default()));
        let (lost, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut carrier = Carrier {
            sky: sky.clone(),
            lost: lost.clone(),
            done: done.clone(),
            dice: seed | 1,
            under_way: [VecDeque::new(), VecDeque::new()],
        };
        let thread = std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
            carrier.run(&ends);
        });
        Self {
            sky,
            lost,
            done,
            thread: Some(thread),
        }
    }

    /// The weather changes.
    pub fn turn(&self, sky: Sky) {
        *self.sky.lock().unwrap_or_else(PoisonError::into_inner) = sky;
    }

    /// Packets that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Carrier {
    sky: Arc<Mutex<Sky>>,
    lost: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    dice: u64,
    /// By the end at which they come out: when, and what.
    under_way: [VecDeque<(Instant, Vec<u8>)>; 2],
}

impl Carrier {
    fn run(&mut self, names: &[String; 2]) {
        let protocol = Protocol::from(i32::from(ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("a packet socket");
        let _ = socket.set_recv_buffer_size(4 << 20);
        socket.set_nonblocking(true).unwrap();
        let ends = names.each_ref().map(|name| link(name));
        let mut buffer = vec![0; FRAME_MAX];
        while !self.done.load(Ordering::Relaxed) {
            let due = self
                .under_way
                .iter()
                .filter_map(|queue| queue.front())
                .map(|(at, _)| *at)
                .min();
            let wait = due.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
            let wait = PollTimeout::try_from(wait.as_micros().div_ceil(1000) as u32).unwrap();
            let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], wait);
            while let Ok((len, Some(from))) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                if let Some(end) = ends.iter().position(|end| end.ifindex() == from.ifindex()) {
                    self.take(1 - end, &buffer[..len]);
                }
            }
            self.deliver(&socket, &ends);
        }
    }

    fn take(&mut self, to: usize, frame: &[u8]) {
        let sky = *self.sky.lock().unwrap_or_else(PoisonError::into_inner);
        if self.roll(1000) < sky.loss_permille || self.under_way[to].len() >= QUEUE_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let late = sky.delay + Duration::from_micros(self.roll(sky.jitter.as_micros() as u64 + 1));
        let before = self.under_way[to].back().map(|(at, _)| *at);
        let at = (Instant::now() + late).max(before.unwrap_or_else(Instant::now));
        self.under_way[to].push_back((at, frame.to_vec()));
    }

    fn deliver(&mut self, socket: &Socket, ends: &[LinkAddr; 2]) {
        for (queue, end) in self.under_way.iter_mut().zip(ends) {
            while let Some((_, frame)) = queue.pop_front_if(|(at, _)| *at <= Instant::now()) {
                let _ = sendto(socket.as_raw_fd(), &frame, end, MsgFlags::MSG_DONTWAIT);
            }
        }
    }

    /// Less than `below` (xorshift).
    fn roll(&mut self, below: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % below
    }
}

/// An interface of this namespace, as a packet socket's address.
fn link(name: &str) -> LinkAddr {
    let mut all = nix::ifaddrs::getifaddrs().unwrap();
    let found =
        all.find_map(|one| (one.interface_name == name).then(|| one.address?.as_link_addr().copied())?);
    found.unwrap_or_else(|| panic!("expected an interface {name}, got none"))
}
