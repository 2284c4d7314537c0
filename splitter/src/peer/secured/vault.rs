//! The buffer of a secured peer: chunks that are checked, and chunks that wait to be.
//!
//! What one sender gave stays until it is checked; whoever else sends the same number meanwhile is not heard: if the
//! first one lied, it is found out. The numbers move by the splitter's word and by signed munros alone, and nothing
//! far from them is kept, so nobody else can push anything out.

use relay_merkle::{Digest, HashKind};

use super::super::playout::Due;
use crate::wire::t::Tag;

/// Who sent a chunk that waits to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// 0 for the splitter.
    pub(super) serial: u64,
    pub(super) tag: Tag,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u64,
    digest: Digest,
    /// `None` when it is checked.
    sender: Option<Sender>,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is in the buffer, to be checked.
    New,
    /// There is one with this number.
    Again,
    /// It is too old.
    Old,
    /// It is too far ahead.
    Far,
}

#[derive(Debug)]
pub(super) struct Vault {
    slots: Vec<Option<Slot>>,
    data: Vec<u8>,
    chunk_bytes: usize,
    kind: HashKind,
    reach: u64,
    wait: u64,
    /// The newest number that the splitter or a munro vouches for.
    newest: u64,
    next: u64,
}

impl Vault {
    /// The bytes it takes with buffers of so many chunks of so many bytes.
    pub(super) fn bytes(buffer_chunks: u16, chunk_bytes: u16) -> usize {
        2 * usize::from(buffer_chunks) * (usize::from(chunk_bytes) + size_of::<Option<Slot>>())
    }

    /// Plays from `first` on, each chunk when one `wait` newer is vouched for.
    pub(super) fn new(buffer_chunks: u16, chunk_bytes: u16, kind: HashKind, first: u64, wait: u64) -> Self {
        let slots = 2 * usize::from(buffer_chunks);
        Self {
            slots: vec![None; slots],
            data: vec![0; slots * usize::from(chunk_bytes)],
            chunk_bytes: usize::from(chunk_bytes),
            kind,
            reach: u64::from(buffer_chunks),
            wait,
            newest: first,
            next: first,
        }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn wait(&self) -> u64 {
        self.wait
    }

    /// The splitter or a munro vouches for this number.
    pub(super) fn vouch(&mut self, number: u64) {
        self.newest = self.newest.max(number);
    }

    fn slot(&self, number: u64) -> usize {
        // The remainder is below 2^17.
        (number % self.slots.len() as u64) as usize
    }

    fn get(&self, number: u64) -> Option<&Slot> {
        self.slots[self.slot(number)]
            .as_ref()
            .filter(|slot| slot.number == number)
    }

    /// A chunk of the team's size came. What waits to be played is never pushed out.
    pub(super) fn offer(&mut self, number: u64, data: &[u8], sender: Sender) -> Kept {
        if number < self.next {
            return Kept::Old;
        }
        if number > self.newest.saturating_add(self.reach / 2)
            || number - self.next >= self.slots.len() as u64
        {
            return Kept::Far;
        }
        if self.get(number).is_some() {
            return Kept::Again;
        }
        let (at, slot) = (self.slot(number) * self.chunk_bytes, self.slot(number));
        self.data[at..at + self.chunk_bytes].copy_from_slice(data);
        self.slots[slot] = Some(Slot {
            number,
            digest: self.kind.leaf(data),
            sender: Some(sender),
        });
        Kept::New
    }

    /// Whether there is a chunk with this number, checked or not.
    pub(super) fn has(&self, number: u64) -> bool {
        self.get(number).is_some()
    }

    /// The digest of the chunk that is there.
    pub(super) fn digest(&self, number: u64) -> Option<Digest> {
        self.get(number).map(|slot| slot.digest)
    }

    /// Whether a checked chunk is there.
    pub(super) fn is_checked(&self, number: u64) -> bool {
        self.get(number).is_some_and(|slot| slot.sender.is_none())
    }

    /// Whether a chunk is there that is checked, or that the splitter itself gave: others may have it.
    pub(super) fn is_fit(&self, number: u64) -> bool {
        self.get(number)
            .is_some_and(|slot| slot.sender.is_none_or(|sender| sender.serial == 0))
    }

    /// The chunk with this number is the channel's if it has this digest. Otherwise it is thrown away: who sent it?
    pub(super) fn check(&mut self, number: u64, right: Digest) -> Option<(Sender, Digest)> {
        let slot = self.slot(number);
        let held = self.slots[slot].as_mut().filter(|held| held.number == number)?;
        if held.digest == right {
            held.sender = None;
            return None;
        }
        let liar = held.sender.map(|sender| (sender, held.digest));
        self.slots[slot] = None;
        liar
    }

    /// The data of a chunk that is there.
    pub(super) fn data(&self, number: u64) -> Option<&[u8]> {
        let at = self.slot(number) * self.chunk_bytes;
        self.get(number).map(|_| &self.data[at..at + self.chunk_bytes])
    }

    /// What the player gets now; to be asked until `None`. Only what is checked is played.
    pub(super) fn due(&mut self) -> Option<Due> {
        (self.next.saturating_add(self.wait) <= self.newest).then(|| self.step())
    }

    /// The same when nothing more will come.
    pub(super) fn rest(&mut self) -> Option<Due> {
        (self.next <= self.newest).then(|| self.step())
    }

    fn step(&mut self) -> Due {
        let number = self.next;
        self.next += 1;
        match self.is_checked(number) {
            true => Due::Play(number),
            false => Due::Skip(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATE: Sender = Sender {
        serial: 5,
        tag: [1; 16],
    };

    fn vault() -> Vault {
        Vault::new(8, 1, HashKind::Sha256, 32, 4)
    }

    fn leaf(data: u8) -> Digest {
        HashKind::Sha256.leaf(&[data])
    }

    #[test]
    fn only_what_is_checked_is_played() {
        let mut vault = vault();
        for number in 32..36 {
            assert_eq!(vault.offer(number, &[number as u8], MATE), Kept::New);
        }
        assert_eq!(vault.due(), None, "mates do not move the numbers");
        vault.vouch(37);
        assert_eq!(vault.check(32, leaf(32)), None);
        assert_eq!(vault.check(33, leaf(99)), Some((MATE, leaf(33))), "somebody lied");
        assert!(!vault.has(33) && vault.is_fit(32) && !vault.is_fit(34));
        vault.offer(33, &[33], Sender { serial: 0, ..MATE });
        assert!(vault.is_fit(33) && !vault.is_checked(33));
        let due: Vec<_> = std::iter::from_fn(|| vault.due()).collect();
        assert_eq!(due, [Due::Play(32), Due::Skip(33)]);
        vault.check(34, leaf(34));
        assert_eq!(
            (vault.rest(), vault.rest()),
            (Some(Due::Play(34)), Some(Due::Skip(35)))
        );
        assert_eq!(vault.data(34), Some(&[34][..]));
    }

    #[test]
    fn nobody_pushes_anything_out() {
        let mut vault = vault();
        vault.offer(33, &[33], MATE);
        assert_eq!(vault.offer(33, &[9], Sender { serial: 6, ..MATE }), Kept::Again);
        assert_eq!(vault.offer(31, &[31], MATE), Kept::Old);
        assert_eq!(vault.offer(36, &[36], MATE), Kept::New);
        assert_eq!(vault.offer(37, &[37], MATE), Kept::Far);
        assert_eq!(vault.offer(u64::MAX, &[0], MATE), Kept::Far);
        vault.vouch(100);
        assert_eq!(
            vault.offer(33 + 16, &[1], MATE),
            Kept::Far,
            "33 is not played yet"
        );
        assert_eq!(vault.data(33), Some(&[33][..]));
    }
}
