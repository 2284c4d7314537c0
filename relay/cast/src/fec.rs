//! Forward error correction: `parity` datagrams for every `data` of the stream, of which any `data` suffice.
//!
//! A block is a row of RTP datagrams with consecutive sequence numbers. Each goes whole into the code (Reed-Solomon
//! over GF(2^16), by `reed-solomon-simd`), its length in front and zeros behind, so what is recovered is the datagram
//! as it was. Parity travels as RTP of its own, to a port of its own, behind this header, big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | sequence number of the block's first datagram |
//! | 1, 1 | how many datagrams, how much parity |
//! | 1, 1 | which of the parity this is; zero |
//! | 2 | bytes of a shard: what follows |
//! | 4 | whose sequence it is (SSRC) |

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use relay_seam::Now;

use crate::rtp::Head;

/// Most datagrams of a block, and most parity for it.
pub const SHARDS_MAX: u8 = 64;
/// Longest shard, in bytes: the longest datagram that is protected is two bytes shorter.
pub const SHARD_BYTES_MAX: usize = 2048;
/// A block that is not full by then is closed: parity that comes too late is of no use.
pub const BLOCK_PATIENCE: Duration = Duration::from_millis(200);
/// Blocks that wait for more, at a receiver: parity is often read before the datagrams it is for, a burst at a time.
const BLOCKS_MAX: usize = 64;
/// Datagrams that a receiver remembers: the members of blocks whose parity is still to come.
const REMEMBERED_MAX: usize = 1024;

const HEAD_BYTES: usize = 12;
const LENGTH_BYTES: usize = 2;

/// How much parity for how many datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Datagrams of a block, from 1.
    pub data: u8,
    /// Parity datagrams for them, from 1.
    pub parity: u8,
}

impl Shape {
    /// A shape within the limits.
    pub fn new(data: u8, parity: u8) -> Option<Self> {
        let fits = |n: u8| (1..=SHARDS_MAX).contains(&n);
        (fits(data) && fits(parity)).then_some(Self { data, parity })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl FromStr for Shape {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (data, parity) = text.split_once('+').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Self::new(number(data)?, number(parity)?).ok_or(())
    }
}

/// Why a parity datagram is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParity {
    /// It ends too early, or says another length than it has.
    #[error("parity: expected {expected} bytes, got {got}")]
    Length {
        /// Bytes there should be.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
    /// Its numbers cannot be.
    #[error(
        "parity: expected number below {parity} of a block of 1 to 64 and 1 to 64, got {index} of {data}+{parity}"
    )]
    Shape {
        /// Datagrams of the block.
        data: u8,
        /// Parity datagrams.
        parity: u8,
        /// Which this is.
        index: u8,
    },
    /// It contradicts what came before of the same block, or the datagrams it is for.
    #[error("parity: expected what fits the others of block {0}, got something else")]
    Contradiction(u16),
}

/// Makes parity, at the sender.
#[derive(Debug)]
pub struct Encoder {
    shape: Shape,
    ssrc: u32,
    base: u16,
    since: Option<Now>,
    shards: Vec<Vec<u8>>,
}

impl Encoder {
    /// For datagrams of one sender.
    pub fn new(shape: Shape, ssrc: u32) -> Self {
        Self {
            shape,
            ssrc,
            base: 0,
            since: None,
            shards: Vec::new(),
        }
    }

    /// A datagram goes out, in two pieces. Answers the parity of whatever block that completes: payloads for RTP.
    /// A gap in the sequence closes the block before.
    pub fn push(&mut self, now: Now, sequence: u16, head: &[u8], body: &[u8]) -> Vec<Vec<u8>> {
        let len = head.len() + body.len();
        if len + LENGTH_BYTES > SHARD_BYTES_MAX {
            return self.close();
        }
        let next = self.base.wrapping_add(self.shards.len() as u16);
        let mut due = match self.shards.is_empty() || sequence == next {
            true => Vec::new(),
            false => self.close(),
        };
        if self.shards.is_empty() {
            (self.base, self.since) = (sequence, Some(now));
        }
        self.shards
            .push([&(len as u16).to_be_bytes()[..], head, body].concat());
        if self.shards.len() == usize::from(self.shape.data) {
            due.extend(self.close());
        }
        due
    }

    /// When the block in the making is closed, full or not.
    pub fn due(&self) -> Option<Now> {
        self.since.map(|since| since + BLOCK_PATIENCE)
    }

    /// Closes the block in the making: its parity.
    pub fn close(&mut self) -> Vec<Vec<u8>> {
        self.since = None;
        let mut shards = std::mem::take(&mut self.shards);
        let Some(len) = shards
            .iter()
            .map(Vec::len)
            .max()
            .map(|len| len.next_multiple_of(2))
        else {
            return Vec::new();
        };
        shards.iter_mut().for_each(|shard| shard.resize(len, 0));
        let (data, parity) = (shards.len(), usize::from(self.shape.parity));
        // Numbers within the limits and equal, even lengths: nothing that could be refused.
        let made = reed_solomon_simd::encode(data, parity, &shards).unwrap_or_default();
        let head = |index: usize| self.head(data as u8, index as u8, len as u16);
        made.iter()
            .enumerate()
            .map(|(index, shard)| [&head(index)[..], shard].concat())
            .collect()
    }

    fn head(&self, data: u8, index: u8, len: u16) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..2].copy_from_slice(&self.base.to_be_bytes());
        out[2..6].copy_from_slice(&[data, self.shape.parity, index, 0]);
        out[6..8].copy_from_slice(&len.to_be_bytes());
        out[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        out
    }
}

/// A parity datagram, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parity<'a> {
    base: u16,
    shape: Shape,
    index: u8,
    ssrc: u32,
    shard: &'a [u8],
}

impl<'a> Parity<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, BadParity> {
        let got = payload.len();
        let (head, shard) = payload.split_at_checked(HEAD_BYTES).ok_or(BadParity::Length {
            expected: HEAD_BYTES,
            got,
        })?;
        let (data, parity, index) = (head[2], head[3], head[4]);
        let shape = Shape::new(data, parity).filter(|_| index < parity);
        let shape = shape.ok_or(BadParity::Shape { data, parity, index })?;
        let said = usize::from(u16::from_be_bytes([head[6], head[7]]));
        if said != shard.len() || !said.is_multiple_of(2) || !(LENGTH_BYTES..=SHARD_BYTES_MAX).contains(&said)
        {
            return Err(BadParity::Length {
                expected: HEAD_BYTES + said,
                got,
            });
        }
        Ok(Self {
            base: u16::from_be_bytes([head[0], head[1]]),
            shape,
            index,
            ssrc: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
            shard,
        })
    }
}

/// A block of which parity has come.
#[derive(Debug)]
struct Block {
    base: u16,
    shape: Shape,
    ssrc: u32,
    len: usize,
    shards: Vec<Option<Vec<u8>>>,
}

/// Uses parity, at a receiver. It remembers a bounded number of datagrams and of blocks.
#[derive(Debug, Default)]
pub struct Decoder {
    /// By sequence number and sender; the newest last.
    remembered: VecDeque<(u16, u32, Vec<u8>)>,
    blocks: VecDeque<Block>,
}

impl Decoder {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A datagram of the stream came, with this sequence number. Answers those that can be recovered now.
    pub fn data(&mut self, head: &Head, datagram: &[u8]) -> Vec<Vec<u8>> {
        if datagram.len() + LENGTH_BYTES > SHARD_BYTES_MAX || self.has(head.sequence, head.ssrc) {
            return Vec::new();
        }
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered
            .push_back((head.sequence, head.ssrc, datagram.to_vec()));
        let of = |block: &Block| {
            block.ssrc == head.ssrc && head.sequence.wrapping_sub(block.base) < u16::from(block.shape.data)
        };
        match self.blocks.iter().position(of) {
            Some(block) => self.try_block(block).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// The payload of a parity datagram came. Answers the datagrams that can be recovered now.
    ///
    /// # Errors
    ///
    /// [`BadParity`]: it is of no use, and forgotten.
    pub fn parity(&mut self, payload: &[u8]) -> Result<Vec<Vec<u8>>, BadParity> {
        let parity = Parity::parse(payload)?;
        let same = |block: &Block| (block.base, block.ssrc) == (parity.base, parity.ssrc);
        let found = match self.blocks.iter().position(same) {
            Some(found) => found,
            None => self.begin(&parity),
        };
        let block = &mut self.blocks[found];
        if block.shape != parity.shape || block.len != parity.shard.len() {
            return Err(BadParity::Contradiction(parity.base));
        }
        block.shards[usize::from(parity.index)] = Some(parity.shard.to_vec());
        self.try_block(found)
    }

    fn begin(&mut self, parity: &Parity<'_>) -> usize {
        if self.blocks.len() == BLOCKS_MAX {
            self.blocks.pop_front();
        }
        self.blocks.push_back(Block {
            base: parity.base,
            shape: parity.shape,
            ssrc: parity.ssrc,
            len: parity.shard.len(),
            shards: vec![None; usize::from(parity.shape.parity)],
        });
        self.blocks.len() - 1
    }

    fn has(&self, sequence: u16, ssrc: u32) -> bool {
        self.find(sequence, ssrc).is_some()
    }

    fn find(&self, sequence: u16, ssrc: u32) -> Option<&[u8]> {
        let same = |known: &&(u16, u32, Vec<u8>)| (known.0, known.1) == (sequence, ssrc);
        self.remembered
            .iter()
            .rev()
            .find(same)
            .map(|(.., bytes)| &bytes[..])
    }

    /// Recovers what is missing of a block, if enough of it has come; it is done then.
    fn try_block(&mut self, index: usize) -> Result<Vec<Vec<u8>>, BadParity> {
        let block = &self.blocks[index];
        let member = |i: u8| self.find(block.base.wrapping_add(u16::from(i)), block.ssrc);
        let mut data = Vec::new();
        for (i, bytes) in (0..block.shape.data).filter_map(|i| Some((i, member(i)?))) {
            data.push((usize::from(i), block.shard(bytes)?));
        }
        let have = block.shards.iter().flatten().count();
        let want = usize::from(block.shape.data);
        if data.len() == want {
            self.blocks.remove(index);
            return Ok(Vec::new());
        }
        if data.len() + have < want {
            return Ok(Vec::new());
        }
        let recovered = block.recover(&data);
        self.blocks.remove(index);
        recovered
    }
}

impl Block {
    /// A member as it went into the code.
    fn shard(&self, datagram: &[u8]) -> Result<Vec<u8>, BadParity> {
        if datagram.len() + LENGTH_BYTES > self.len {
            return Err(BadParity::Contradiction(self.base));
        }
        let mut shard = [&(datagram.len() as u16).to_be_bytes()[..], datagram].concat();
        shard.resize(self.len, 0);
        Ok(shard)
    }

    fn recover(&self, data: &[(usize, Vec<u8>)]) -> Result<Vec<Vec<u8>>, BadParity> {
        let bad = BadParity::Contradiction(self.base);
        let parity = self.shards.iter().enumerate();
        let parity = parity.filter_map(|(i, shard)| Some((i, shard.as_deref()?)));
        let made = reed_solomon_simd::decode(
            usize::from(self.shape.data),
            usize::from(self.shape.parity),
            data.iter().map(|(i, shard)| (*i, shard)),
            parity,
        );
        let mut made: Vec<_> = made.map_err(|_| bad)?.into_iter().collect();
        made.sort_unstable_by_key(|(i, _)| *i);
        made.into_iter()
            .map(|(i, shard)| self.datagram(i, &shard).ok_or(bad))
            .collect()
    }

    /// What went into the code as the `i`-th; `None` where that cannot have been a datagram of this block.
    fn datagram(&self, i: usize, shard: &[u8]) -> Option<Vec<u8>> {
        let (len, rest) = shard.split_first_chunk::<LENGTH_BYTES>()?;
        let (datagram, padding) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let (head, _) = Head::parse(datagram).ok()?;
        let sequence = self.base.wrapping_add(i as u16);
        let fits = head.sequence == sequence && head.ssrc == self.ssrc && padding.iter().all(|b| *b == 0);
        fits.then(|| datagram.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtp::PAYLOAD_TS;

    const SSRC: u32 = 77;

    fn head(sequence: u16) -> Head {
        Head {
            payload_type: PAYLOAD_TS,
            marker: false,
            sequence,
            timestamp: 5,
            ssrc: SSRC,
            place: None,
        }
    }

    fn datagram(sequence: u16, body: &[u8]) -> Vec<u8> {
        let (bytes, len) = head(sequence).encode();
        [&bytes[..len], body].concat()
    }

    /// A block's datagrams and its parity.
    fn block(shape: Shape, base: u16, bodies: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut encoder = Encoder::new(shape, SSRC);
        let (mut data, mut parity) = (Vec::new(), Vec::new());
        for (i, body) in bodies.iter().enumerate() {
            let sequence = base.wrapping_add(i as u16);
            let bytes = datagram(sequence, body);
            parity.extend(encoder.push(Now::new(0, 0), sequence, &bytes[..12], &bytes[12..]));
            data.push(bytes);
        }
        parity.extend(encoder.close());
        (data, parity)
    }

    /// What a receiver makes of it that gets only these, parity counted behind the data, in this order.
    fn recovered(base: u16, data: &[Vec<u8>], parity: &[Vec<u8>], get: &[usize]) -> Vec<Vec<u8>> {
        let mut decoder = Decoder::new();
        let mut out = Vec::new();
        for i in get {
            match i.checked_sub(data.len()) {
                None => out.extend(decoder.data(&head(base.wrapping_add(*i as u16)), &data[*i])),
                Some(i) => out.extend(decoder.parity(&parity[i]).unwrap()),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn any_data_of_all_suffice(
            (data, parity) in (1u8..20, 1u8..20),
            base in any::<u16>(),
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 20),
            order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let shape = Shape::new(data, parity).unwrap();
            let (data, parity) = block(shape, base, &bodies[..usize::from(data)]);
            let all = data.len() + parity.len();
            let get: Vec<usize> = order.into_iter().filter(|i| *i < all).take(data.len()).collect();
            let missing: Vec<_> = (0..data.len()).filter(|i| !get.contains(i)).map(|i| data[i].clone()).collect();
            prop_assert_eq!(recovered(base, &data, &parity, &get), missing);
        }

        #[test]
        fn fewer_give_nothing(
            base in any::<u16>(),
            lost in proptest::sample::subsequence(vec![0usize, 1, 2, 3, 4, 5], 3),
        ) {
            let (data, parity) = block(Shape::new(4, 2).unwrap(), base, &vec![vec![9; 50]; 4]);
            let get: Vec<usize> = (0..6).filter(|i| !lost.contains(i)).collect();
            prop_assert!(recovered(base, &data, &parity, &get).is_empty());
        }

        #[test]
        fn garbage_is_refused_and_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::new();
            let _ = decoder.parity(&bytes);
        }

        #[test]
        fn spoilt_parity_never_passes_for_a_datagram(at in 12usize..60, flip in 1u8..=255) {
            let (data, mut parity) = block(Shape::new(4, 2).unwrap(), 7, &vec![vec![9; 50]; 4]);
            parity[0][at] ^= flip;
            let mut decoder = Decoder::new();
            (1..4).for_each(|i| assert!(decoder.data(&head(7 + i as u16), &data[i]).is_empty()));
            match decoder.parity(&parity[0]) {
                // A spoilt byte of the payload cannot be told from a good one; those of the header can.
                Ok(made) => prop_assert!(made.iter().all(|bytes| Head::parse(bytes).unwrap().0.sequence == 7)),
                Err(error) => prop_assert_eq!(error, BadParity::Contradiction(7)),
            }
        }
    }

    #[test]
    fn every_cut_and_every_wrong_number_is_refused() {
        let (_, parity) = block(Shape::new(3, 2).unwrap(), 0, &vec![vec![1; 30]; 3]);
        let whole = &parity[1];
        for cut in 0..whole.len() {
            assert!(Decoder::new().parity(&whole[..cut]).is_err(), "{cut}");
        }
        for (at, wrong) in [(2, 0), (2, 65), (3, 0), (3, 65), (4, 2), (6, 9), (7, 1)] {
            let mut bytes = whole.clone();
            bytes[at] = wrong;
            assert!(Decoder::new().parity(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn parity_that_contradicts_is_refused() {
        let (data, parity) = block(Shape::new(3, 2).unwrap(), 0, &vec![vec![1; 30]; 3]);
        let mut decoder = Decoder::new();
        decoder.parity(&parity[0]).unwrap();
        let mut other = parity[1].clone();
        other[2] = 4;
        assert_eq!(decoder.parity(&other), Err(BadParity::Contradiction(0)));
        // A datagram that is longer than all that went into the block.
        let long = datagram(1, &[0; 200]);
        assert!(decoder.data(&head(1), &long).is_empty());
        assert!(decoder.data(&head(0), &data[0]).is_empty());
        assert!(decoder.parity(&parity[1]).is_err());
    }

    #[test]
    fn a_block_is_closed_by_time_and_by_a_gap() {
        let mut encoder = Encoder::new(Shape::new(8, 1).unwrap(), SSRC);
        assert_eq!(encoder.due(), None);
        assert!(
            encoder
                .push(Now::new(5, 0), 1, b"", &datagram(1, b"a"))
                .is_empty()
        );
        assert_eq!(encoder.due(), Some(Now::new(5, 0) + BLOCK_PATIENCE));
        let closed = encoder.push(Now::new(6, 0), 3, b"", &datagram(3, b"b"));
        assert_eq!((closed.len(), closed[0][2]), (1, 1), "one datagram, one parity");
        let mut decoder = Decoder::new();
        assert_eq!(decoder.parity(&closed[0]).unwrap(), [datagram(1, b"a")]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut decoder = Decoder::new();
        for sequence in 0..5000u16 {
            decoder.data(&head(sequence), &datagram(sequence, &[0; 100]));
            let (_, parity) = block(
                Shape::new(9, 2).unwrap(),
                sequence.wrapping_mul(16),
                &vec![vec![1; 30]; 9],
            );
            let _ = decoder.parity(&parity[0]);
        }
        assert!(decoder.remembered.len() <= REMEMBERED_MAX && decoder.blocks.len() <= BLOCKS_MAX);
    }

    #[test]
    fn shapes_have_limits() {
        for bad in ["", "8", "0+4", "8+0", "65+1", "1+65", "8+4+2", "-1+2", "a+b"] {
            assert_eq!(bad.parse::<Shape>(), Err(()), "{bad}");
        }
        let shape: Shape = "8+4".parse().unwrap();
        assert_eq!(
            (shape.data, shape.parity, shape.to_string()),
            (8, 4, "8+4".to_owned())
        );
    }
}
