//! The stamp: what the source writes into its stream so that any listener can measure and prove.
//!
//! The stream is a row of **groups**, all of them self-describing. In each group, at a fixed place, lies one stamp
//! (big-endian):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `89 54 6f 74 73 74 6d 70` (`\x89Totstmp`); its first byte occurs nowhere else in it |
//! | 8 | 4 | stream id, new for every start of a source |
//! | 12 | 2 | length of the whole group in bytes |
//! | 14 | 2 | place of the stamp in its group in bytes (10 for TS, 0 for raw) |
//! | 16 | 8 | sequence number of the group, from 0, without holes |
//! | 24 | 8 | **due time**, µs of the wall clock (Unix epoch) |
//! | 32 | 8 | FNV-1a (64 bits) over bytes 8..32 and over the rest of the group after the stamp |
//!
//! The due time is when the pacing *wanted* to send, not when it managed to: a source held up by a slow server counts
//! as latency, which is the correction for coordinated omission.
//!
//! [`Scanner`] reads the stream back in any slicing, with memory of constant size. After a group it expects the next
//! stamp at exactly the right byte with exactly the next number, so "no break" means: every byte, once, in order.

/// Marks a stamp.
pub const MAGIC: [u8; 8] = *b"\x89Totstmp";
/// Size of a stamp in bytes.
pub const STAMP_LEN: usize = 40;
const HASHED_FROM: usize = 8;
const HASHED_TO: usize = 32;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// What a stamp says, besides where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Changes when the source restarts.
    pub stream: u32,
    /// Number of the group, from 0.
    pub seq: u64,
    /// When the group was due to be sent, µs since the Unix epoch.
    pub due_us: u64,
}

/// Writes `stamp` into `group` at byte `at`. Everything after the stamp must be final: it is hashed.
///
/// # Panics
/// When the stamp does not fit or the group is longer than 65,535 bytes: an error of the caller, not of the network.
pub fn write(group: &mut [u8], at: usize, stamp: Stamp) {
    assert!(at + STAMP_LEN <= group.len() && group.len() <= usize::from(u16::MAX));
    let (len, place) = (group.len() as u16, at as u16);
    let (block, body) = group[at..].split_at_mut(STAMP_LEN);
    block[..8].copy_from_slice(&MAGIC);
    block[8..12].copy_from_slice(&stamp.stream.to_be_bytes());
    block[12..14].copy_from_slice(&len.to_be_bytes());
    block[14..16].copy_from_slice(&place.to_be_bytes());
    block[16..24].copy_from_slice(&stamp.seq.to_be_bytes());
    block[24..32].copy_from_slice(&stamp.due_us.to_be_bytes());
    let hash = fnv(fnv(FNV_OFFSET, &block[HASHED_FROM..HASHED_TO]), body);
    block[32..40].copy_from_slice(&hash.to_be_bytes());
}

fn fnv(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME)
    })
}

/// What a scanner has seen so far. A perfect listener has zeros in all but `groups` and `lead_in`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// Groups received whole, with the right hash.
    pub groups: u64,
    /// Bytes before the first stamp: headers a server sent ahead, and the group it joined in.
    pub lead_in: u64,
    /// Places where the next stamp was not where it had to be.
    pub breaks: u64,
    /// Groups left out, by their numbers.
    pub missing: u64,
    /// Groups that came again, or late.
    pub repeated: u64,
    /// Groups whose bytes do not match their hash.
    pub corrupt: u64,
    /// Times the stream id changed: the source was restarted.
    pub restarts: u64,
}

impl Seen {
    /// True when every byte since the first stamp came once and in order.
    pub fn is_perfect(&self) -> bool {
        self.breaks + self.missing + self.repeated + self.corrupt + self.restarts == 0
    }

    /// Adds another listener's counts.
    pub fn add(&mut self, other: &Seen) {
        self.groups += other.groups;
        self.lead_in += other.lead_in;
        self.breaks += other.breaks;
        self.missing += other.missing;
        self.repeated += other.repeated;
        self.corrupt += other.corrupt;
        self.restarts += other.restarts;
    }
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// Looking for a magic anywhere: at the start, and after a break.
    Seek,
    /// Inside the bytes of a group that lie before its stamp.
    Head { left: usize },
    /// Inside a stamp; `expected`: because the group before it ended here.
    Block { expected: bool },
    /// Inside the bytes after a stamp.
    Body { left: usize, hash: u64 },
}

/// Reads stamps from a stream cut anywhere. Constant memory, work linear in the bytes.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    block: [u8; STAMP_LEN],
    have: usize,
    /// Once a stamp was seen, bytes found while seeking belong to a break and not to the lead-in.
    locked: bool,
    last: Option<Stamp>,
    seen: Seen,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner {
            at: At::Seek,
            block: [0; STAMP_LEN],
            have: 0,
            locked: false,
            last: None,
            seen: Seen::default(),
        }
    }
}

impl Scanner {
    /// Counts so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Takes the next bytes; calls `whole` for each group that is now complete and unharmed.
    pub fn feed(&mut self, mut bytes: &[u8], mut whole: impl FnMut(Stamp)) {
        while !bytes.is_empty() {
            let used = match self.at {
                At::Seek => self.seek(bytes),
                At::Head { left } => self.head(left, bytes.len()),
                At::Block { expected } => self.fill_block(expected, bytes),
                At::Body { left, hash } => self.body(left, hash, bytes),
            };
            bytes = &bytes[used..];
            if let At::Body { left: 0, hash } = self.at {
                self.close_group(hash, &mut whole);
            }
        }
    }

    /// Looks for the first byte of the magic; the rest of it is the block's business.
    fn seek(&mut self, bytes: &[u8]) -> usize {
        let found = bytes.iter().position(|byte| *byte == MAGIC[0]);
        let skipped = found.unwrap_or(bytes.len());
        self.count_lead_in(skipped);
        if found.is_some() {
            self.at = At::Block { expected: false };
        }
        skipped
    }

    fn count_lead_in(&mut self, bytes: usize) {
        if !self.locked {
            self.seen.lead_in += bytes as u64;
        }
    }

    fn head(&mut self, left: usize, available: usize) -> usize {
        let used = left.min(available);
        self.at = if used == left {
            At::Block { expected: true }
        } else {
            At::Head { left: left - used }
        };
        used
    }

    /// One byte at a time while it is still magic, so that a mismatch loses no byte; then in one copy.
    fn fill_block(&mut self, expected: bool, bytes: &[u8]) -> usize {
        if self.have < MAGIC.len() {
            return self.match_magic(expected, bytes[0]);
        }
        let used = (STAMP_LEN - self.have).min(bytes.len());
        self.block[self.have..self.have + used].copy_from_slice(&bytes[..used]);
        self.have += used;
        if self.have == STAMP_LEN {
            self.open_group(expected);
        }
        used
    }

    fn match_magic(&mut self, expected: bool, byte: u8) -> usize {
        if byte == MAGIC[self.have] {
            self.block[self.have] = byte;
            self.have += 1;
            return 1;
        }
        // The first byte of the magic is unique in it: what matched so far cannot start another match.
        self.lose(expected);
        0
    }

    /// The stream is not what it had to be here: counted once, then searched for the next stamp.
    fn lose(&mut self, expected: bool) {
        self.seen.breaks += u64::from(expected);
        self.count_lead_in(self.have);
        self.have = 0;
        self.at = At::Seek;
    }

    fn open_group(&mut self, expected: bool) {
        let Some(left) = usize::from(self.u16_at(12)).checked_sub(usize::from(self.u16_at(14)) + STAMP_LEN)
        else {
            return self.lose(expected);
        };
        self.have = 0;
        self.locked = true;
        self.at = At::Body {
            left,
            hash: fnv(FNV_OFFSET, &self.block[HASHED_FROM..HASHED_TO]),
        };
    }

    fn body(&mut self, left: usize, hash: u64, bytes: &[u8]) -> usize {
        let used = left.min(bytes.len());
        self.at = At::Body {
            left: left - used,
            hash: fnv(hash, &bytes[..used]),
        };
        used
    }

    fn close_group(&mut self, hash: u64, whole: &mut impl FnMut(Stamp)) {
        self.at = At::Head {
            left: usize::from(self.u16_at(14)),
        };
        if self.u16_at(14) == 0 {
            self.at = At::Block { expected: true };
        }
        if hash != self.u64_at(32) {
            self.seen.corrupt += 1;
            return;
        }
        let stamp = Stamp {
            stream: self.u32_at(8),
            seq: self.u64_at(16),
            due_us: self.u64_at(24),
        };
        self.count_order(stamp);
        self.seen.groups += 1;
        whole(stamp);
    }

    fn count_order(&mut self, stamp: Stamp) {
        match self.last {
            Some(last) if last.stream != stamp.stream => self.seen.restarts += 1,
            Some(last) if stamp.seq <= last.seq => {
                self.seen.repeated += 1;
                return; // `last` stays: what follows is measured against the furthest point reached
            }
            Some(last) => self.seen.missing += stamp.seq - last.seq - 1,
            None => {}
        }
        self.last = Some(stamp);
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.block[at], self.block[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from(self.u16_at(at)) << 16 | u32::from(self.u16_at(at + 2))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) << 32 | u64::from(self.u32_at(at + 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `count` groups of `len` bytes, stamp at `at`, one millisecond apart.
    fn stream(count: u64, len: usize, at: usize) -> Vec<Vec<u8>> {
        let group = |seq: u64| {
            let mut bytes = vec![seq as u8; len];
            write(
                &mut bytes,
                at,
                Stamp {
                    stream: 7,
                    seq,
                    due_us: 1_000 * seq,
                },
            );
            bytes
        };
        (0..count).map(group).collect()
    }

    fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Seen, Vec<Stamp>) {
        let (mut scanner, mut stamps) = (Scanner::default(), Vec::new());
        pieces.for_each(|piece| scanner.feed(piece, |stamp| stamps.push(stamp)));
        (*scanner.seen(), stamps)
    }

    #[test]
    fn a_whole_stream_is_perfect_and_carries_its_due_times() {
        let (seen, stamps) = scan([stream(9, 1316, 10).concat().as_slice()].into_iter());
        assert!(seen.is_perfect());
        assert_eq!((seen.groups, seen.lead_in), (9, 10));
        assert_eq!(
            stamps[8],
            Stamp {
                stream: 7,
                seq: 8,
                due_us: 8_000
            }
        );
    }

    #[test]
    fn a_group_left_out_is_missing_and_no_break() {
        let mut groups = stream(9, 1316, 10);
        groups.drain(3..5);
        let (seen, _) = scan([groups.concat().as_slice()].into_iter());
        assert_eq!((seen.groups, seen.missing, seen.breaks), (7, 2, 0));
    }

    #[test]
    fn a_group_sent_twice_is_repeated() {
        let mut groups = stream(9, 500, 0);
        groups.insert(4, groups[3].clone());
        let (seen, _) = scan([groups.concat().as_slice()].into_iter());
        assert_eq!((seen.groups, seen.repeated, seen.missing), (10, 1, 0));
    }

    #[test]
    fn one_lost_byte_is_seen() {
        let mut bytes = stream(9, 1316, 10).concat();
        bytes.remove(4_000);
        let (seen, _) = scan([bytes.as_slice()].into_iter());
        assert!(
            seen.corrupt == 1 && seen.breaks == 1 && seen.missing >= 1,
            "{seen:?}"
        );
    }

    #[test]
    fn one_changed_byte_is_corrupt() {
        let mut bytes = stream(9, 1316, 10).concat();
        bytes[4_000] ^= 1;
        let (seen, _) = scan([bytes.as_slice()].into_iter());
        assert_eq!((seen.corrupt, seen.breaks, seen.groups), (1, 0, 8));
    }

    #[test]
    fn a_restarted_source_is_a_restart() {
        let mut bytes = stream(3, 500, 0).concat();
        let mut group = vec![0; 500];
        write(
            &mut group,
            0,
            Stamp {
                stream: 8,
                seq: 0,
                due_us: 5,
            },
        );
        bytes.extend(group);
        let (seen, _) = scan([bytes.as_slice()].into_iter());
        assert_eq!((seen.restarts, seen.repeated, seen.missing), (1, 0, 0));
    }

    proptest! {
        #[test]
        fn slicing_changes_nothing(
            cuts in proptest::collection::vec(1usize..700, 1..60),
            start in 0usize..1400,
            harm in proptest::option::of(0usize..6000),
        ) {
            let mut bytes = stream(12, 700, 10).concat();
            if let Some(at) = harm {
                bytes.remove(at);
            }
            let bytes = &bytes[start..];
            let mut pieces = Vec::new();
            let (mut rest, mut cut) = (bytes, cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(scan(pieces.into_iter()), scan(std::iter::once(bytes)));
        }

        #[test]
        fn hostile_bytes_do_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..400), len: u16, at: u16) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend([0, 0, 0, 1]);
            bytes.extend(len.to_be_bytes());
            bytes.extend(at.to_be_bytes());
            bytes.extend(&noise);
            let (seen, _) = scan([bytes.as_slice()].into_iter());
            prop_assert_eq!(seen.groups, 0);
        }

        #[test]
        fn any_group_left_out_is_never_perfect(gone in 1u64..11) {
            let mut groups = stream(12, 700, 10);
            groups.remove(gone as usize);
            let (seen, _) = scan([groups.concat().as_slice()].into_iter());
            prop_assert_eq!(seen.missing, 1);
            prop_assert_eq!(seen.breaks + seen.corrupt, 0);
        }
    }
}
