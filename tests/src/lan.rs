//! Somebody in the LAN who hears a multicast group, with no peer and no player.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use crate::numbered::{Checker, Form};
use crate::world::Host;

/// Bytes of RTP's fixed header (RFC 3550, section 5.1).
const RTP: usize = 12;
/// How long a receiver waits for a datagram before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// What the kernel holds for a receiver that does not run, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A receiver on a host.
#[derive(Debug)]
pub struct Ear {
    heard: Arc<Mutex<Heard>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What came.
#[derive(Debug)]
struct Heard {
    checker: Checker,
    datagrams: u64,
}

impl Ear {
    /// Joins a group on a host, and from one sender only if one is named.
    ///
    /// # Panics
    ///
    /// When the kernel does not allow it.
    pub fn join(host: &Host, group: SocketAddrV4, sender: Option<Ipv4Addr>, form: Form) -> Self {
        let socket = host.run(|| join(host, group, sender));
        let heard = Heard {
            checker: Checker::new(form),
            datagrams: 0,
        };
        let (heard, stop) = (Arc::new(Mutex::new(heard)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (heard, stop) = (heard.clone(), stop.clone());
            move || listen(&socket, &heard, &stop)
        });
        Self {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    /// How many datagrams came.
    pub fn datagrams(&self) -> u64 {
        lock(&self.heard).datagrams
    }

    /// Asks who looks at the units.
    pub fn judge<T>(&self, ask: impl FnOnce(&Checker) -> T) -> T {
        ask(&lock(&self.heard).checker)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(host: &Host, group: SocketAddrV4, sender: Option<Ipv4Addr>) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    // On a busy machine a receiver may not run for a while: that is no loss of the network's.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    socket.bind(&group.into()).unwrap();
    let std::net::IpAddr::V4(here) = host.ip() else {
        panic!("hosts have addresses of IPv4")
    };
    match sender {
        Some(sender) => socket.join_ssm_v4(&sender, group.ip(), &here).unwrap(),
        None => socket.join_multicast_v4(group.ip(), &here).unwrap(),
    }
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket
}

fn listen(socket: &Socket, heard: &Mutex<Heard>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok(n) = std::io::Read::read(&mut &*socket, &mut buffer) else {
            continue;
        };
        let mut heard = lock(heard);
        heard.datagrams += 1;
        heard.checker.feed(packets(&buffer[..n]));
    }
}

/// What a datagram carries: packets, bare or behind RTP's header and its extension.
fn packets(datagram: &[u8]) -> &[u8] {
    let is_rtp = datagram.first().is_some_and(|first| first >> 6 == 2);
    if !is_rtp {
        return datagram;
    }
    let extended = datagram[0] & 0x10 != 0;
    let words = usize::from(u16::from_be_bytes([datagram[RTP + 2], datagram[RTP + 3]]));
    &datagram[RTP + if extended { 4 + 4 * words } else { 0 }..]
}
