//! Guessing passwords is slow: after too many failures an address is refused for the rest of a minute.

use std::net::IpAddr;
use std::time::Duration;

use relay_seam::Now;

use crate::backoff::splitmix64;

/// So many failures within [`WINDOW`] are forgiven.
pub const FAILURES_MAX: u32 = 10;
/// What failures are counted over; it starts at the first one.
pub const WINDOW: Duration = Duration::from_secs(60);

const SETS: usize = 256;
const WAYS: usize = 4;

/// Failed logins by address, in a table of fixed size (1,024 addresses, 32 KiB). IPv6 is counted by /64: one
/// customer has all of it.
///
/// A flood from many addresses may push entries out, the oldest first; it gains that many guesses and no memory.
#[derive(Debug)]
pub struct AuthThrottle {
    /// Decides which addresses share a set, so that nobody can aim at another's.
    seed: u64,
    sets: Box<[[Entry; WAYS]]>,
}

/// No failures: free.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    since: Now,
    failures: u32,
}

impl AuthThrottle {
    /// An empty table; `seed` should be random.
    pub fn new(seed: u64) -> Self {
        let free = Entry {
            key: 0,
            since: Now::new(0, 0),
            failures: 0,
        };
        Self {
            seed,
            sets: vec![[free; WAYS]; SETS].into(),
        }
    }

    /// How long an address is still refused; `None`: it may try.
    pub fn refused(&self, peer: IpAddr, now: Now) -> Option<Duration> {
        let key = key(peer);
        let entry = self.sets[self.set(key)]
            .iter()
            .find(|e| e.key == key && e.live(now))?;
        (entry.failures >= FAILURES_MAX).then(|| (entry.since + WINDOW).since(now))
    }

    /// An address sent wrong credentials.
    pub fn failed(&mut self, peer: IpAddr, now: Now) {
        let key = key(peer);
        let set = self.set(key);
        let entries = &mut self.sets[set];
        if let Some(entry) = entries.iter_mut().find(|e| e.key == key && e.live(now)) {
            entry.failures = entry.failures.saturating_add(1);
            return;
        }
        // A dead entry if there is one, else the oldest.
        if let Some(victim) = entries.iter_mut().min_by_key(|e| (e.live(now), e.since)) {
            *victim = Entry {
                key,
                since: now,
                failures: 1,
            };
        }
    }

    fn set(&self, key: u64) -> usize {
        let mut state = key ^ self.seed;
        splitmix64(&mut state) as usize % SETS
    }
}

impl Entry {
    fn live(&self, now: Now) -> bool {
        self.failures > 0 && now < self.since + WINDOW
    }
}

/// An IPv4 address, or the upper half of an IPv6 one; apart from each other, as ::/16 is not routed.
fn key(peer: IpAddr) -> u64 {
    match peer.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 ^ (1 << 63),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn at(s: u64) -> Now {
        Now::new(s * 1_000_000_000, 0)
    }

    fn fail(t: &mut AuthThrottle, peer: IpAddr, times: u32, s: u64) {
        for _ in 0..times {
            t.failed(peer, at(s));
        }
    }

    #[test]
    fn the_tenth_failure_closes_the_door_for_the_rest_of_the_minute() {
        let (mut t, peer) = (AuthThrottle::new(1), IpAddr::from([10, 0, 0, 1]));
        fail(&mut t, peer, 9, 100);
        assert_eq!(t.refused(peer, at(100)), None);
        fail(&mut t, peer, 1, 110);
        assert_eq!(t.refused(peer, at(120)), Some(Duration::from_secs(40)));
        assert_eq!(t.refused(IpAddr::from([10, 0, 0, 2]), at(120)), None);
        assert_eq!(t.refused(peer, at(160)), None);
        fail(&mut t, peer, 1, 161);
        assert_eq!(t.refused(peer, at(161)), None, "a new minute starts from one");
    }

    #[test]
    fn ipv6_is_counted_by_customer_and_mapped_ipv4_as_ipv4() {
        let mut t = AuthThrottle::new(2);
        let v6 = |low: u16, high: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, high, 0, 0, 0, low));
        for low in 0..10 {
            t.failed(v6(low, 1), at(1));
        }
        assert!(t.refused(v6(999, 1), at(1)).is_some());
        assert!(t.refused(v6(1, 2), at(1)).is_none());
        let v4 = Ipv4Addr::new(10, 0, 0, 1);
        fail(&mut t, IpAddr::V6(v4.to_ipv6_mapped()), 10, 1);
        assert!(t.refused(IpAddr::V4(v4), at(1)).is_some());
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_room() {
        let mut t = AuthThrottle::new(3);
        for n in 0..100_000u32 {
            t.failed(IpAddr::from(Ipv4Addr::from_bits(n)), at(u64::from(n) / 10_000));
        }
        let peer = IpAddr::from([192, 0, 2, 1]);
        fail(&mut t, peer, 10, 11);
        assert!(t.refused(peer, at(11)).is_some(), "a newcomer is still counted");
        assert_eq!(t.sets.len() * WAYS, 1024);
        assert_eq!(
            size_of::<Entry>() * 1024,
            32 * 1024,
            "what the documentation says"
        );
    }
}
