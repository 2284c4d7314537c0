//! A worker's share of the newcomers: who holds how many connections, and a way to pass one on before a byte of it has
//! been read.
//!
//! The kernel spreads newcomers by core or by hash, which may be uneven. A worker that holds clearly more than the one
//! that holds fewest passes what it accepts to that one. Numbers are compared, not bytes per second. A connection that
//! has been passed stays where it has come to; nothing that is being served ever moves.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;
use relay_ring::{Bell, Mailbox};

/// A worker passes newcomers on only while it holds so many more than the least loaded one ...
const AHEAD_MIN: usize = 16;
/// ... and more by this part of what it holds itself.
const AHEAD_PART: usize = 8;
/// Connections that may wait to be taken over by a worker.
const PASSED_MAX: usize = 1024;

/// One worker, as the others see it.
#[derive(Debug)]
struct Mate {
    /// The connections it holds. Written by itself when one comes or goes, read by others when one comes to them.
    holds: CachePadded<AtomicUsize>,
    passed: Mailbox<OwnedFd>,
    gone: AtomicBool,
}

impl Mate {
    /// What it holds or is about to; `None` when it takes nobody any more.
    fn load(&self) -> Option<usize> {
        let here = !self.gone.load(Ordering::Acquire);
        here.then(|| self.holds.load(Ordering::Relaxed) + self.passed.len())
    }
}

/// One worker's place in a crew whose members pass newcomers to each other.
#[derive(Debug)]
pub struct Share {
    mates: Arc<[Mate]>,
    me: usize,
    said: usize,
}

/// What became of a newcomer.
pub(crate) enum Newcomer {
    /// It is this worker's.
    Mine(OwnedFd),
    /// It would be another's, but too many wait there: it is this worker's.
    Kept(OwnedFd),
    /// Another worker has it.
    Passed,
}

impl Share {
    /// A place for each worker, by the bells on which they sleep ([`crate::Setup::bell`]).
    pub fn among(bells: impl IntoIterator<Item = Bell>) -> Vec<Self> {
        let mate = |bell| Mate {
            holds: CachePadded::new(AtomicUsize::new(0)),
            passed: Mailbox::new(PASSED_MAX, bell),
            gone: AtomicBool::new(false),
        };
        let mates: Arc<[Mate]> = bells.into_iter().map(mate).collect();
        let place = |me| Self {
            mates: Arc::clone(&mates),
            me,
            said: 0,
        };
        (0..mates.len()).map(place).collect()
    }

    /// Lets the others know how many connections this worker holds.
    pub(crate) fn say(&mut self, holds: usize) {
        if std::mem::replace(&mut self.said, holds) != holds {
            self.mates[self.me].holds.store(holds, Ordering::Relaxed);
        }
    }

    /// Decides whose a newcomer is, and passes it on if it is another's.
    pub(crate) fn place(&self, fd: OwnedFd) -> Newcomer {
        let others = self.mates.iter().enumerate().filter(|(n, _)| *n != self.me);
        let least = others
            .filter_map(|(_, mate)| Some((mate.load()?, mate)))
            .min_by_key(|(load, _)| *load);
        match least {
            Some((least, mate)) if is_ahead(self.said, least) => match mate.passed.post(fd) {
                Ok(()) => Newcomer::Passed,
                Err(fd) => Newcomer::Kept(fd),
            },
            _ => Newcomer::Mine(fd),
        }
    }

    /// One that another worker has passed on to this one.
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        self.mates[self.me].passed.take()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.mates[self.me].passed.is_empty()
    }

    /// Takes nobody any more, and closes those that have been passed on and not taken over; how many these were. What
    /// is passed in this very moment is closed with the last of the crew.
    pub(crate) fn leave(self) -> u64 {
        self.mates[self.me].gone.store(true, Ordering::Release);
        std::iter::from_fn(|| self.take()).count() as u64
    }
}

/// A worker that breaks takes nobody any more either.
impl Drop for Share {
    fn drop(&mut self) {
        self.mates[self.me].gone.store(true, Ordering::Release);
        while self.take().is_some() {}
    }
}

/// Whether a worker that holds `mine` is clearly ahead of one that holds `least`.
fn is_ahead(mine: usize, least: usize) -> bool {
    mine > least + AHEAD_MIN.max(mine / AHEAD_PART)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn crew(count: usize) -> Vec<Share> {
        Share::among((0..count).map(|_| Bell::new().unwrap()))
    }

    /// Something to pass on, and the other end of it.
    fn newcomer() -> (OwnedFd, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours.into(), theirs)
    }

    fn is_passed(share: &Share) -> bool {
        matches!(share.place(newcomer().0), Newcomer::Passed)
    }

    #[test]
    fn ahead_is_sixteen_and_an_eighth() {
        assert!(!is_ahead(16, 0) && is_ahead(17, 0));
        assert!(!is_ahead(128, 112) && is_ahead(129, 112));
        assert!(!is_ahead(8000, 7000) && is_ahead(8001, 7000));
        assert!(!is_ahead(0, usize::MAX - AHEAD_MIN));
    }

    #[test]
    fn the_least_loaded_gets_it_and_counts_what_waits_for_it() {
        let mut crew = crew(3);
        crew[0].say(100);
        crew[1].say(90);
        crew[2].say(70);
        assert!(
            (0..14).all(|_| is_passed(&crew[0])),
            "70 to 83 are clearly fewer than 100"
        );
        assert!(!is_passed(&crew[0]), "84 are not");
        assert_eq!(std::iter::from_fn(|| crew[2].take()).count(), 14);
        assert!(!crew[1].has_waiting() && !crew[0].has_waiting());
    }

    #[test]
    fn who_is_not_ahead_keeps_its_own() {
        let mut crew = crew(2);
        crew[1].say(1000);
        assert!(!is_passed(&crew[0]));
        assert!(!is_passed(&Share::among([Bell::new().unwrap()])[0]), "alone");
    }

    #[test]
    fn a_full_box_takes_no_more_and_nothing_is_lost() {
        let mut crew = crew(2);
        crew[0].say(1_000_000);
        assert!((0..PASSED_MAX).all(|_| is_passed(&crew[0])));
        let (fd, _theirs) = newcomer();
        assert!(matches!(crew[0].place(fd), Newcomer::Kept(_)));
    }

    #[test]
    fn who_has_gone_is_passed_nothing_and_closes_what_waited() {
        let mut crew = crew(2);
        crew[0].say(100);
        let (fd, mut theirs) = newcomer();
        assert!(matches!(crew[0].place(fd), Newcomer::Passed));
        assert_eq!(crew.pop().map(Share::leave), Some(1));
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "closed");
        assert!(!is_passed(&crew[0]));
    }

    #[test]
    fn what_others_read_lies_on_lines_of_its_own() {
        let crew = crew(3);
        let at = |n: usize| (&raw const *crew[0].mates[n].holds).addr();
        assert!(at(0).is_multiple_of(128) && at(1) >= at(0) + 128 && at(2) >= at(1) + 128);
    }
}
