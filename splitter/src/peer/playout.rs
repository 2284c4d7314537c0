//! The buffer of a peer: the newest chunks, and the order in which the player gets them.
//!
//! The clock is the stream itself. A number is due when one is there that is half a buffer newer; if it has not come
//! by then it is skipped. Nothing is ever played twice or from an earlier turn of the numbers: each slot knows whose
//! data it holds. The buffer has twice the slots that the team agreed on, so that what was played can still be
//! relayed.

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is in the buffer.
    New,
    /// It is in the buffer, but its turn is over.
    Late,
    /// It was there before.
    Again,
    /// It is older than the buffer.
    Old,
    /// It is so far ahead that it is not believed (yet).
    Far,
    /// It is in the buffer, alone: the splitter counts from here now.
    Jump,
}

/// What the player gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// This chunk.
    Play(u64),
    /// Not this chunk.
    Skip(u64),
}

#[derive(Debug)]
pub(super) struct Playout {
    /// The number that each slot holds; `u64::MAX` for none.
    slots: Vec<u64>,
    data: Vec<u8>,
    chunk_bytes: usize,
    /// How far a chunk may be from the newest.
    reach: u64,
    /// How far the newest is ahead of what is played.
    wait: u64,
    newest: Option<u64>,
    next: u64,
    playing: bool,
    /// A number from the splitter out of reach. A second one near it is a jump.
    candidate: Option<u64>,
}

const EMPTY: u64 = u64::MAX;

impl Playout {
    /// The bytes it takes with buffers of so many chunks of so many bytes.
    pub(super) fn bytes(buffer_chunks: u16, chunk_bytes: u16) -> usize {
        2 * usize::from(buffer_chunks) * (usize::from(chunk_bytes) + size_of::<u64>())
    }

    /// For a team with these sizes, both at least 1.
    pub(super) fn new(buffer_chunks: u16, chunk_bytes: u16) -> Self {
        let slots = 2 * usize::from(buffer_chunks);
        Self {
            slots: vec![EMPTY; slots],
            data: vec![0; slots * usize::from(chunk_bytes)],
            chunk_bytes: usize::from(chunk_bytes),
            reach: u64::from(buffer_chunks),
            wait: u64::from(buffer_chunks / 2),
            newest: None,
            next: 0,
            playing: false,
            candidate: None,
        }
    }

    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// How far behind the newest a chunk is played.
    pub(super) fn wait(&self) -> u64 {
        self.wait
    }

    /// The number that the player gets next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// A chunk, which must have the team's size. `trusted` where it is the splitter's own word: only that makes the
    /// numbers jump, and only when a second chunk confirms it.
    pub(super) fn offer(&mut self, number: u64, data: &[u8], trusted: bool) -> Kept {
        let Some(newest) = self.newest else {
            (self.newest, self.next) = (Some(number), number);
            self.write(number, data);
            return Kept::New;
        };
        if number > newest.saturating_add(self.reach) || number.saturating_add(self.reach) < newest {
            return self.out_of_reach(number, newest, data, trusted);
        }
        if trusted {
            self.candidate = None;
        }
        if self.has(number) {
            return Kept::Again;
        }
        self.newest = Some(newest.max(number));
        self.write(number, data);
        self.kept(number)
    }

    fn kept(&mut self, number: u64) -> Kept {
        match (self.playing, number < self.next) {
            (_, false) => Kept::New,
            // The first chunk that comes need not be the first one.
            (false, true) => {
                self.next = number;
                Kept::New
            }
            (true, true) => Kept::Late,
        }
    }

    fn out_of_reach(&mut self, number: u64, newest: u64, data: &[u8], trusted: bool) -> Kept {
        let confirmed = self
            .candidate
            .is_some_and(|other| other != number && other.abs_diff(number) <= self.reach);
        if trusted && confirmed {
            self.slots.fill(EMPTY);
            (self.newest, self.next) = (Some(number), number);
            (self.playing, self.candidate) = (false, None);
            self.write(number, data);
            return Kept::Jump;
        }
        if trusted {
            self.candidate = Some(number);
        }
        if number > newest { Kept::Far } else { Kept::Old }
    }

    fn write(&mut self, number: u64, data: &[u8]) {
        let slot = self.slot(number);
        self.slots[slot] = number;
        self.data[slot * self.chunk_bytes..][..self.chunk_bytes].copy_from_slice(data);
    }

    fn slot(&self, number: u64) -> usize {
        // The remainder is below 2^17.
        (number % self.slots.len() as u64) as usize
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.slots[self.slot(number)] == number && number != EMPTY
    }

    pub(super) fn data(&self, number: u64) -> Option<&[u8]> {
        let at = self.slot(number) * self.chunk_bytes;
        self.has(number).then(|| &self.data[at..at + self.chunk_bytes])
    }

    /// When playing is about to begin: it begins behind the last hole before `until`. A newcomer is not sent all of
    /// what its mates relay before that, and a stream is better begun later than with a hole.
    ///
    /// What is not `age` behind the newest may still come.
    pub(super) fn begin(&mut self, until: u64, age: u64) {
        let ready = self.newest.and_then(|newest| newest.checked_sub(self.wait));
        if self.playing || ready.is_none_or(|due| self.next > due) {
            return;
        }
        let until = until.min(self.newest.unwrap_or(0).saturating_sub(age));
        if let Some(hole) = (self.next..until).rev().find(|&number| !self.has(number)) {
            self.next = hole + 1;
        }
    }

    /// What the player gets now; to be asked until `None`. Playing begins when half a buffer is there.
    pub(super) fn due(&mut self) -> Option<Due> {
        let due = self.newest?.checked_sub(self.wait)?;
        if self.next > due {
            return None;
        }
        self.playing = true;
        Some(self.step())
    }

    /// The same when nothing more will come: up to the newest. Playing must have begun.
    pub(super) fn rest(&mut self) -> Option<Due> {
        (self.next <= self.newest?).then(|| self.step())
    }

    fn step(&mut self) -> Due {
        let number = self.next;
        self.next += 1;
        match self.has(number) {
            true => Due::Play(number),
            false => Due::Skip(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(playout: &mut Playout, number: u64) -> Kept {
        playout.offer(number, &number.to_be_bytes(), true)
    }

    fn due(playout: &mut Playout) -> Vec<Due> {
        std::iter::from_fn(|| playout.due()).collect()
    }

    fn played(playout: &mut Playout, numbers: impl IntoIterator<Item = u64>) -> Vec<Due> {
        let mut all = Vec::new();
        for number in numbers {
            offer(playout, number);
            all.extend(due(playout));
        }
        all
    }

    #[test]
    fn playing_begins_half_a_buffer_later_with_the_earliest_chunk() {
        let mut playout = Playout::new(8, 8);
        assert_eq!(played(&mut playout, [11, 10, 12, 13]), []);
        assert_eq!(played(&mut playout, [14]), [Due::Play(10)]);
        assert_eq!(played(&mut playout, [16]), [Due::Play(11), Due::Play(12)]);
        assert_eq!(offer(&mut playout, 12), Kept::Again);
        assert_eq!(
            played(&mut playout, [19]),
            [Due::Play(13), Due::Play(14), Due::Skip(15)]
        );
        assert_eq!(offer(&mut playout, 15), Kept::Late);
        assert_eq!(due(&mut playout), []);
        assert_eq!(
            playout.data(15),
            Some(&15u64.to_be_bytes()[..]),
            "others may want it"
        );
        assert_eq!(playout.rest(), Some(Due::Play(16)));
    }

    #[test]
    fn playing_begins_behind_the_holes_of_the_beginning() {
        let mut playout = Playout::new(16, 8);
        let offer_all = |playout: &mut Playout, numbers: &[u64]| {
            numbers.iter().for_each(|&number| {
                offer(playout, number);
                playout.begin(106, 2);
            });
        };
        offer_all(&mut playout, &[100, 102, 103, 105, 106]);
        assert_eq!(playout.next(), 100, "what is missing may still come");
        offer_all(&mut playout, &[104, 109]);
        assert_eq!(playout.next(), 102);
        assert_eq!(due(&mut playout), [], "which is not due yet");
        offer_all(&mut playout, &[111]);
        assert_eq!(due(&mut playout), [Due::Play(102), Due::Play(103)]);
        // From there on a hole is a hole.
        offer_all(&mut playout, &[116]);
        let later: Vec<_> = (104..=106)
            .map(Due::Play)
            .chain([107, 108].map(Due::Skip))
            .collect();
        assert_eq!(due(&mut playout), later);
    }

    #[test]
    fn nothing_stale_is_ever_there() {
        let mut playout = Playout::new(8, 8);
        played(&mut playout, 0..40);
        assert!((0..24).all(|number| playout.data(number).is_none()));
        assert!((24..40).all(|number| playout.data(number) == Some(&number.to_be_bytes()[..])));
        assert!((40..80).all(|number| playout.data(number).is_none()));
    }

    #[test]
    fn only_the_splitter_moves_the_numbers_far_and_not_with_one_chunk() {
        let mut playout = Playout::new(8, 8);
        played(&mut playout, 100..110);
        assert_eq!(playout.offer(118, &[0; 8], false), Kept::Far);
        assert_eq!(playout.offer(119, &[0; 8], false), Kept::Far);
        assert_eq!(offer(&mut playout, 500), Kept::Far);
        assert_eq!(offer(&mut playout, 500), Kept::Far, "the same one again");
        assert_eq!(offer(&mut playout, 110), Kept::New);
        assert_eq!(offer(&mut playout, 501), Kept::Far, "the first was a stray one");
        assert_eq!(offer(&mut playout, 3), Kept::Old);
        assert_eq!(offer(&mut playout, 4), Kept::Jump, "it has begun again");
        assert_eq!(due(&mut playout), []);
        assert_eq!(played(&mut playout, 5..=8), [Due::Play(4)]);
        assert_eq!(playout.data(110), None);
    }

    #[test]
    fn the_smallest_buffer_plays_at_once() {
        let mut playout = Playout::new(1, 8);
        assert_eq!(
            played(&mut playout, [5, 6, 7]),
            [Due::Play(5), Due::Play(6), Due::Play(7)]
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_the_player_gets_each_number_once_and_in_order(
            steps in prop::collection::vec((0u64..40, any::<bool>()), 0..300), buffer in 1u16..20,
        ) {
            let (mut playout, mut next) = (Playout::new(buffer, 8), None);
            for (n, (step, trusted)) in (0u64..).zip(steps) {
                let number = (n + step).saturating_sub(12);
                let kept = playout.offer(number, &number.to_be_bytes(), trusted);
                if kept == Kept::Jump {
                    next = None;
                }
                while let Some(due) = playout.due() {
                    let (Due::Play(number) | Due::Skip(number)) = due;
                    prop_assert!(next.is_none_or(|next| next == number));
                    next = Some(number + 1);
                    let there = playout.data(number).map(<[u8]>::to_vec);
                    prop_assert_eq!(there, matches!(due, Due::Play(_)).then(|| number.to_be_bytes().to_vec()));
                }
            }
        }
    }
}
