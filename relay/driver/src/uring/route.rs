//! Which ways out are worth sending by without a copy, learnt from what the kernel reports.
//!
//! `SEND_ZC` saves the copy only where the device gathers and nothing on this host receives the packet again. On
//! loopback, veth, tun, or with a packet tap listening, the kernel copies after all, and says so in the notification
//! (`IORING_NOTIF_USAGE_ZC_COPIED`): then it costs more than a plain send. So each local address, which stands for a
//! device, begins with copying, is probed with one send, and keeps zero copy only as long as nothing is copied.

use std::collections::HashMap;
use std::net::IpAddr;

/// Below this a copy is cheaper than a notification: the break-even of TCP with registered memory, in bytes.
pub(super) const WORTH_IT: usize = 4 * 1024;
/// Copying sends between two probes, at first; four times as many after each probe that was in vain.
const PROBE_AFTER: u32 = 1_000;
const PROBE_AFTER_MAX: u32 = 1_000_000;
/// Local addresses that are told apart; the connections of any further one are copied to.
const ROUTES_MAX: usize = 64;

/// A route by its place in [`Routes`]; the default is the one that is never probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RouteId(u16);

impl RouteId {
    /// Copies.
    pub(super) const NEVER: Self = Self(0);
    /// Does not copy, whatever is told of it.
    pub(super) const ALWAYS: Self = Self(1);
}

/// One way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Known to copy.
    Never,
    /// Not to be judged.
    Always,
    /// So many sends until the next probe, and between the probes after that.
    Copying { left: u32, every: u32 },
    /// A probe is out. What it finds is not waited for longer than the next probe would be.
    Probing { left: u32, every: u32 },
    /// The last notification said that nothing was copied.
    ZeroCopy,
}

impl Route {
    const NEW: Self = Self::Copying {
        left: 1,
        every: PROBE_AFTER,
    };

    /// A send that is large enough goes this way: without a copy?
    fn choose(&mut self) -> bool {
        match self {
            Self::Never => false,
            Self::Always | Self::ZeroCopy => true,
            Self::Copying { left, every } => {
                *left -= 1;
                if *left == 0 {
                    *self = Self::Probing {
                        left: *every,
                        every: *every,
                    };
                    return true;
                }
                false
            }
            Self::Probing { left, every } => {
                *left -= 1;
                if *left == 0 {
                    *self = Self::Copying {
                        left: *every,
                        every: *every,
                    };
                }
                false
            }
        }
    }

    /// What a notification said.
    fn told(&mut self, copied: bool) {
        *self = match (*self, copied) {
            (Self::Never | Self::Always, _) => *self,
            (_, false) => Self::ZeroCopy,
            (Self::ZeroCopy, true) => Self::Copying {
                left: PROBE_AFTER,
                every: PROBE_AFTER,
            },
            (Self::Copying { every, .. } | Self::Probing { every, .. }, true) => {
                let every = every.saturating_mul(4).min(PROBE_AFTER_MAX);
                Self::Copying { left: every, every }
            }
        }
    }
}

/// All ways out of one driver.
#[derive(Debug)]
pub(super) struct Routes {
    by_address: HashMap<IpAddr, RouteId>,
    routes: Vec<Route>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self {
            by_address: HashMap::new(),
            routes: vec![Route::Never, Route::Always],
        }
    }

    /// The route of a connection by its two ends. What never leaves this host is never probed.
    pub(super) fn of(&mut self, local: IpAddr, peer: IpAddr) -> RouteId {
        let (local, peer) = (local.to_canonical(), peer.to_canonical());
        if local.is_loopback() || local == peer {
            return RouteId::NEVER;
        }
        if let Some(known) = self.by_address.get(&local) {
            return *known;
        }
        if self.by_address.len() >= ROUTES_MAX {
            return RouteId::NEVER;
        }
        let id = RouteId(self.routes.len() as u16);
        self.routes.push(Route::NEW);
        self.by_address.insert(local, id);
        id
    }

    /// Whether this send goes without a copy.
    pub(super) fn choose(&mut self, id: RouteId) -> bool {
        self.routes[usize::from(id.0)].choose()
    }

    /// What the notification of a send by this route said.
    pub(super) fn told(&mut self, id: RouteId, copied: bool) {
        self.routes[usize::from(id.0)].told(copied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// Sends until the route wants one without a copy; `None` after `most`.
    fn until_probe(routes: &mut Routes, id: RouteId, most: u32) -> Option<u32> {
        (1..=most).find(|_| routes.choose(id))
    }

    #[test]
    fn a_route_that_copies_is_probed_ever_more_rarely() {
        let mut routes = Routes::new();
        let id = routes.of(HERE, THERE);
        let mut gaps = Vec::new();
        for _ in 0..4 {
            gaps.push(until_probe(&mut routes, id, PROBE_AFTER_MAX).unwrap());
            routes.told(id, true);
        }
        assert_eq!(gaps, [1, 4_000, 16_000, 64_000]);
    }

    #[test]
    fn a_route_that_does_not_copy_is_kept_until_it_does() {
        let mut routes = Routes::new();
        let id = routes.of(HERE, THERE);
        assert!(routes.choose(id), "the first send is the probe");
        assert!(!routes.choose(id), "one probe at a time");
        routes.told(id, false);
        assert!((0..10).all(|_| routes.choose(id)));
        routes.told(id, true);
        assert_eq!(until_probe(&mut routes, id, 10_000), Some(PROBE_AFTER));
    }

    #[test]
    fn a_probe_that_is_never_answered_is_followed_by_another() {
        let mut routes = Routes::new();
        let id = routes.of(HERE, THERE);
        assert!(routes.choose(id));
        assert_eq!(until_probe(&mut routes, id, 10_000), Some(2 * PROBE_AFTER));
    }

    #[test]
    fn what_stays_on_this_host_is_never_probed() {
        let mut routes = Routes::new();
        let lo: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        for (local, peer) in [(lo, lo), (HERE, HERE), (mapped, HERE)] {
            let id = routes.of(local, peer);
            assert_eq!(until_probe(&mut routes, id, 10_000), None, "{local} to {peer}");
        }
    }

    #[test]
    fn more_addresses_than_can_be_told_apart_are_copied_to() {
        let mut routes = Routes::new();
        for i in 0..ROUTES_MAX as u8 {
            assert_ne!(routes.of(IpAddr::from([10, 1, 1, i]), THERE), RouteId::NEVER);
        }
        assert_eq!(routes.of(HERE, THERE), RouteId::NEVER);
    }
}
