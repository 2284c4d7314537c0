//! What is asked for and has not come: chunks, or indexes, by number; when to ask again, and how often it was.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_seam::Now;

/// What is asked for at a time; more is asked for when some of it came.
const QUESTS_MAX: usize = 256;
/// An answer that has not come in this time does not come.
const ASK_AGAIN: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
struct Quest {
    tries: u32,
    again: Now,
}

#[derive(Debug, Default)]
pub(super) struct Quests {
    open: BTreeMap<u64, Quest>,
}

impl Quests {
    /// This is wanted, from now on. Whether there is room.
    pub(super) fn want(&mut self, number: u64, now: Now) -> bool {
        if self.open.contains_key(&number) {
            return true;
        }
        let room = self.open.len() < QUESTS_MAX;
        if room {
            self.open.insert(number, Quest { tries: 0, again: now });
        }
        room
    }

    /// Whether this is wanted.
    pub(super) fn is_open(&self, number: u64) -> bool {
        self.open.contains_key(&number)
    }

    /// It came, or is wanted no more.
    pub(super) fn end(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// All before this number are wanted no more.
    pub(super) fn forget_before(&mut self, number: u64) {
        self.open = self.open.split_off(&number);
    }

    /// Somebody says that it does not have it: another one is asked soon. Perhaps nobody has it yet.
    pub(super) fn denied(&mut self, number: u64, now: Now) {
        if let Some(quest) = self.open.get_mut(&number) {
            quest.again = quest.again.min(now + ASK_AGAIN / 2);
        }
    }

    /// What is to be asked for now, the oldest first, with how often it was before.
    pub(super) fn due(&mut self, now: Now) -> Vec<(u64, u32)> {
        let due = self.open.iter_mut().filter(|(_, quest)| quest.again <= now);
        due.map(|(&number, quest)| {
            quest.again = now + ASK_AGAIN;
            quest.tries += 1;
            (number, quest.tries - 1)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    #[test]
    fn what_does_not_come_is_asked_for_again() {
        let mut quests = Quests::default();
        assert!(quests.want(7, at(0)) && quests.want(3, at(0)) && quests.want(7, at(100)));
        assert_eq!(quests.due(at(0)), [(3, 0), (7, 0)]);
        quests.denied(7, at(50));
        assert_eq!(quests.due(at(149)), []);
        assert_eq!(quests.due(at(150)), [(7, 1)]);
        assert!(quests.is_open(7));
        quests.end(7);
        assert!(!quests.is_open(7));
        assert_eq!(quests.due(at(400)), [(3, 1)]);
        quests.forget_before(4);
        assert_eq!(quests.due(at(9_000)), []);
        assert!((0..256).all(|number| quests.want(number, at(0))));
        assert!(!quests.want(300, at(0)) && quests.want(255, at(0)));
    }
}
