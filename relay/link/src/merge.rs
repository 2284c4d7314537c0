//! One channel out of several links: what is new, what is a repeat, what is missing.
//!
//! While a better upstream takes over, two links run: the old one goes on until the new one has caught up, so both
//! bring some chunks. Numbers are the same on every node of the tree, so one number decides. Each link's own
//! [`crate::LinkEvent::Gap`] and [`crate::LinkEvent::NewEpoch`] speak of that link alone; with two links it is
//! [`Merge::take`] that says what the channel has missed.
//!
//! One of the links leads: it alone may jump forward or begin a new epoch. Epochs have no order, so a link that
//! does not lead and speaks of another epoch has nothing to say.

use crate::follow::Position;
use crate::stats::MergeStats;

/// What a chunk is to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next one: keep it.
    Next,
    /// Keep it; so many before it will not come.
    Jump {
        /// Chunks passed over.
        missing: u64,
    },
    /// Keep it; a new life of the channel begins with it.
    Epoch {
        /// The life that is over.
        old: u64,
    },
    /// It is here already: drop it.
    Repeat,
    /// It is beyond what the leading link has brought, or of another epoch: drop it.
    Early,
}

/// The channel's next chunk, whichever link brings it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merge {
    next: Option<Position>,
    stats: MergeStats,
}

impl Merge {
    /// A channel whose next chunk is `next`; `None`: whatever comes first.
    pub fn new(next: Option<Position>) -> Self {
        Self {
            next,
            stats: MergeStats::default(),
        }
    }

    /// A link has brought the chunk at `at`. `leads`: it is the leading one (a lone link always leads).
    pub fn take(&mut self, at: Position, leads: bool) -> Taken {
        let taken = self.judge(at, leads);
        match taken {
            Taken::Repeat => self.stats.repeats += 1,
            Taken::Early => self.stats.early += 1,
            Taken::Jump { missing } => self.stats.missing += missing,
            Taken::Next | Taken::Epoch { .. } => {}
        }
        if !matches!(taken, Taken::Repeat | Taken::Early) {
            self.stats.kept += 1;
            self.next = Some(Position {
                number: at.number.saturating_add(1),
                ..at
            });
        }
        taken
    }

    /// Where the channel goes on: what a new link asks for.
    pub fn next(&self) -> Option<Position> {
        self.next
    }

    /// Whether a link that is at `link` has caught up, so that it may lead and the others may go.
    pub fn caught_up(&self, link: Option<Position>) -> bool {
        match (self.next, link) {
            (Some(next), Some(link)) => next.epoch == link.epoch && link.number >= next.number,
            (None, link) => link.is_some(),
            (Some(_), None) => false,
        }
    }

    /// What has been counted.
    pub fn stats(&self) -> MergeStats {
        self.stats
    }

    fn judge(&self, at: Position, leads: bool) -> Taken {
        let Some(next) = self.next else { return Taken::Next };
        match (at.epoch == next.epoch, at.number.checked_sub(next.number)) {
            (true, Some(0)) => Taken::Next,
            (true, None) => Taken::Repeat,
            (true, Some(missing)) if leads => Taken::Jump { missing },
            (false, _) if leads => Taken::Epoch { old: next.epoch },
            (true, Some(_)) | (false, _) => Taken::Early,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn at(epoch: u64, number: u64) -> Position {
        Position { epoch, number }
    }

    #[test]
    fn a_lone_link_is_told_as_it_is() {
        let mut merge = Merge::new(None);
        assert_eq!(merge.take(at(1, 5), true), Taken::Next);
        assert_eq!(merge.take(at(1, 6), true), Taken::Next);
        assert_eq!(merge.take(at(1, 6), true), Taken::Repeat);
        assert_eq!(merge.take(at(1, 9), true), Taken::Jump { missing: 2 });
        assert_eq!(merge.take(at(0, 3), true), Taken::Epoch { old: 1 });
        assert_eq!(merge.next(), Some(at(0, 4)));
        assert_eq!(
            merge.stats(),
            MergeStats {
                kept: 4,
                repeats: 1,
                early: 0,
                missing: 2
            }
        );
    }

    #[test]
    fn who_does_not_lead_neither_jumps_nor_begins() {
        let mut merge = Merge::new(Some(at(1, 5)));
        assert_eq!(merge.take(at(1, 6), false), Taken::Early);
        assert_eq!(merge.take(at(2, 0), false), Taken::Early);
        assert_eq!(merge.take(at(1, 5), false), Taken::Next);
    }

    #[test]
    fn a_link_has_caught_up_when_it_is_at_the_next_chunk() {
        let merge = Merge::new(Some(at(1, 5)));
        for (link, expected) in [
            (Some(at(1, 4)), false),
            (Some(at(1, 5)), true),
            (Some(at(2, 9)), false),
            (None, false),
        ] {
            assert_eq!(merge.caught_up(link), expected, "{link:?}");
        }
    }

    #[test]
    fn two_links_in_any_order_make_one_channel() {
        for seed in 0..200 {
            let mut dice = Dice::new(seed);
            let (mut merge, mut kept) = (Merge::new(Some(at(1, 0))), Vec::new());
            let mut links = [0u64, 0];
            let leader = (seed % 2) as usize;
            while links[leader] < 100 {
                let i = dice.below(2) as usize;
                let here = at(1, links[i]);
                links[i] += 1;
                match merge.take(here, i == leader) {
                    Taken::Next => kept.push(here.number),
                    taken => assert_eq!(taken, Taken::Repeat),
                }
            }
            assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>(), "seed {seed}");
            assert!(kept.len() >= 100);
        }
    }
}
