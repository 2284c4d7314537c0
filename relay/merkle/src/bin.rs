//! Bin numbers (RFC 7574 §4.2): one integer for a chunk, a subtree, or everything.
//!
//! The bins are an in-order numbering of a binary tree over all chunks: chunk *i* is bin 2*i*, and a parent lies in
//! the middle between its children. Layer and offset are read off the bits, nothing is looked up:
//!
//! ```text
//! layer 2          3
//! layer 1      1       5
//! layer 0    0   2   4   6      bins
//!            0   1   2   3      chunks
//! ```
//!
//! Bins here are 64 bits wide, so chunk numbers go up to 2^63 − 1. A [`Bin`] always names at least one chunk: the
//! number with all bits set (the empty interval) is `None`. All arithmetic is total; what is undefined, such as a
//! leaf's child, is `None` too.

use std::fmt;
use std::iter::FusedIterator;

/// The highest layer: the one bin there is [`Bin::ALL`].
pub const MAX_LAYER: u32 = 63;
/// The largest chunk number that a bin can name.
pub const MAX_CHUNK: u64 = (1 << MAX_LAYER) - 1;
/// On the wire: no chunk at all, 64 bits wide.
const EMPTY: u64 = u64::MAX;
/// On the wire: no chunk at all, 32 bits wide.
const EMPTY_32: u32 = u32::MAX;

/// A node of the tree over all chunks, and with it the aligned power-of-two range of chunks below it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bin(u64);

impl Bin {
    /// Every chunk there can be.
    pub const ALL: Self = Self(EMPTY >> 1);

    /// The bin at `layer` (0 = chunks) with `offset` others before it on its layer.
    #[must_use]
    pub const fn new(layer: u32, offset: u64) -> Option<Self> {
        if layer > MAX_LAYER || offset >> (MAX_LAYER - layer) != 0 {
            return None;
        }
        let middle = (1 << layer) - 1;
        // Two shifts: on the highest layer a single one would be by 64.
        Some(Self((offset << layer << 1) | middle))
    }

    /// The bin of one chunk; none beyond [`MAX_CHUNK`].
    #[must_use]
    pub const fn leaf(chunk: u64) -> Option<Self> {
        Self::new(0, chunk)
    }

    /// The bin of this 64-bit number; the number with all bits set is the empty interval.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        if number == EMPTY { None } else { Some(Self(number)) }
    }

    /// The bin of this 32-bit number. 2^31 − 1 is everything a 32-bit tree can hold.
    #[must_use]
    pub const fn from_number_32(number: u32) -> Option<Self> {
        if number == EMPTY_32 {
            None
        } else {
            Some(Self(number as u64))
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Its number 32 bits wide; none where it names chunks from 2^31 on.
    #[must_use]
    pub const fn number_32(self) -> Option<u32> {
        if self.0 < EMPTY_32 as u64 {
            Some(self.0 as u32)
        } else {
            None
        }
    }

    /// The bin whose range is exactly `first..=last`, which must be an aligned power of two.
    #[must_use]
    pub const fn from_range(first: u64, last: u64) -> Option<Self> {
        if last > MAX_CHUNK || first > last {
            return None;
        }
        let width = last - first + 1;
        if !width.is_power_of_two() {
            return None;
        }
        let layer = width.trailing_zeros();
        if first & (width - 1) != 0 {
            None
        } else {
            Self::new(layer, first >> layer)
        }
    }

    /// The smallest bin from chunk 0 that holds `count` chunks: the root of a static tree of that size.
    #[must_use]
    pub const fn root_of(count: u64) -> Option<Self> {
        if count == 0 || count - 1 > MAX_CHUNK {
            return None;
        }
        Self::new(u64::BITS - (count - 1).leading_zeros(), 0)
    }

    /// Its layer, 0 to [`MAX_LAYER`]: the logarithm of its width.
    #[must_use]
    pub const fn layer(self) -> u32 {
        self.0.trailing_ones()
    }

    /// How many bins lie before it on its layer.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 >> self.layer() >> 1
    }

    /// How many chunks it covers, 1 to 2^63.
    #[must_use]
    pub const fn width(self) -> u64 {
        1 << self.layer()
    }

    /// Its first chunk.
    #[must_use]
    pub const fn first(self) -> u64 {
        // All ones is not a bin, so the increment does not wrap.
        (self.0 & (self.0 + 1)) >> 1
    }

    /// Its last chunk.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.first() + (self.width() - 1)
    }

    /// Whether it is one chunk.
    #[must_use]
    pub const fn is_leaf(self) -> bool {
        self.0 & 1 == 0
    }

    /// Whether it is the left child of its parent. [`Bin::ALL`] is nobody's child, and counts as left.
    #[must_use]
    pub const fn is_left(self) -> bool {
        self.offset() & 1 == 0
    }

    /// Whether it is the right child of its parent.
    #[must_use]
    pub const fn is_right(self) -> bool {
        !self.is_left()
    }

    /// The bin above; none above [`Bin::ALL`].
    #[must_use]
    pub const fn parent(self) -> Option<Self> {
        Self::new(self.layer() + 1, self.offset() >> 1)
    }

    /// The other child of its parent; none for [`Bin::ALL`].
    #[must_use]
    pub const fn sibling(self) -> Option<Self> {
        Self::new(self.layer(), self.offset() ^ 1)
    }

    /// The left half; none for a leaf.
    #[must_use]
    pub const fn left(self) -> Option<Self> {
        match self.layer() {
            0 => None,
            layer => Self::new(layer - 1, self.offset() << 1),
        }
    }

    /// The right half; none for a leaf.
    #[must_use]
    pub const fn right(self) -> Option<Self> {
        match self.left() {
            None => None,
            Some(left) => left.sibling(),
        }
    }

    /// The bin at `layer` that contains this one; itself on its own layer, none below it.
    #[must_use]
    pub const fn ancestor(self, layer: u32) -> Option<Self> {
        if layer < self.layer() || layer > MAX_LAYER {
            return None;
        }
        Self::new(layer, self.first() >> layer)
    }

    /// Whether every chunk of `other` is also in this bin; a bin contains itself.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.first() <= other.first() && other.last() <= self.last()
    }

    /// Whether this chunk is in it.
    #[must_use]
    pub const fn contains_chunk(self, chunk: u64) -> bool {
        self.first() <= chunk && chunk <= self.last()
    }

    /// The uncles of this bin below `top`, from the highest down: the siblings of every bin on the way from `top`
    /// (exclusive) down to this bin (inclusive). Their hashes and this bin's give the hash of `top` (RFC 7574 §5.3).
    /// Empty where `top` does not contain this bin.
    #[must_use]
    pub const fn uncles(self, top: Self) -> Uncles {
        let below = if top.contains(self) {
            top.layer()
        } else {
            self.layer()
        };
        Uncles { of: self, below }
    }
}

impl fmt::Debug for Bin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bin {} ({self})", self.0)
    }
}

/// Its chunks, `first..=last`.
impl fmt::Display for Bin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunks {}..={}", self.first(), self.last())
    }
}

/// See [`Bin::uncles`]. At most [`MAX_LAYER`] bins.
#[derive(Clone, Debug)]
pub struct Uncles {
    of: Bin,
    /// The layer above the next one to name.
    below: u32,
}

impl Iterator for Uncles {
    type Item = Bin;

    fn next(&mut self) -> Option<Bin> {
        if self.below <= self.of.layer() {
            return None;
        }
        self.below -= 1;
        self.of.ancestor(self.below)?.sibling()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.below - self.of.layer()) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Uncles {}
impl FusedIterator for Uncles {}

/// The fewest bins that cover `first..=last` exactly, from left to right: at most two a layer. Empty where the range
/// is, or goes beyond [`MAX_CHUNK`].
#[must_use]
pub const fn cover(first: u64, last: u64) -> Cover {
    let end = if last > MAX_CHUNK { 0 } else { last + 1 };
    Cover { next: first, end }
}

/// The peaks of a tree of `count` chunks (RFC 7574 §5.6): the roots of its largest filled subtrees, from left to
/// right, one for every bit that is set in `count`. Empty where that many chunks cannot be named.
#[must_use]
pub const fn peaks(count: u64) -> Cover {
    let end = if count > MAX_CHUNK + 1 { 0 } else { count };
    Cover { next: 0, end }
}

/// See [`cover`].
#[derive(Clone, Debug)]
pub struct Cover {
    next: u64,
    /// Exclusive; at most 2^63.
    end: u64,
}

impl Iterator for Cover {
    type Item = Bin;

    fn next(&mut self) -> Option<Bin> {
        let left = self.end.checked_sub(self.next).filter(|left| *left > 0)?;
        let layer = self.next.trailing_zeros().min(left.ilog2());
        let bin = Bin::new(layer, self.next >> layer)?;
        self.next += bin.width();
        Some(bin)
    }
}

impl FusedIterator for Cover {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bin(number: u64) -> Bin {
        Bin::from_number(number).unwrap()
    }

    fn numbers(bins: impl Iterator<Item = Bin>) -> Vec<u64> {
        bins.map(Bin::number).collect()
    }

    /// Layer, offset, first and last of every bin of a small tree, told from the definition by recursion.
    fn walk(first: u64, layer: u32, visit: &mut impl FnMut(Bin, u32, u64)) {
        let middle = 2 * first + (1 << layer) - 1;
        visit(bin(middle), layer, first);
        if layer > 0 {
            walk(first, layer - 1, visit);
            walk(first + (1 << (layer - 1)), layer - 1, visit);
        }
    }

    #[test]
    fn small_tree_is_the_definition() {
        let mut seen = vec![false; 2047];
        walk(0, 10, &mut |bin, layer, first| {
            seen[bin.number() as usize] = true;
            let last = first + (1 << layer) - 1;
            assert_eq!((bin.layer(), bin.offset()), (layer, first >> layer));
            assert_eq!((bin.first(), bin.last(), bin.width()), (first, last, 1 << layer));
            assert_eq!(Bin::new(layer, first >> layer), Some(bin));
            assert_eq!(Bin::from_range(first, last), Some(bin));
            assert_eq!(bin.is_leaf(), layer == 0);
        });
        assert!(seen.iter().all(|seen| *seen), "every number is a bin of the tree");
    }

    #[test]
    fn relatives_agree_in_a_small_tree() {
        for bin in (0..1023).map(bin) {
            let parent = bin.parent().unwrap();
            let (left, right) = (parent.left().unwrap(), parent.right().unwrap());
            // RFC 7574 §4.2: a parent is the middle of its children.
            assert_eq!(parent.number(), (left.number() + right.number()) / 2);
            assert_eq!(bin.is_left(), bin == left);
            assert_eq!(bin.is_right(), bin == right);
            assert_eq!(bin.sibling().unwrap(), if bin == left { right } else { left });
            assert!(parent.contains(bin) && !bin.contains(parent));
            assert_eq!(bin.ancestor(bin.layer()), Some(bin));
            assert_eq!(bin.ancestor(bin.layer() + 1), Some(parent));
        }
    }

    #[test]
    fn containing_is_containing_chunks() {
        for (a, b) in (0..63).flat_map(|a| (0..63).map(move |b| (bin(a), bin(b)))) {
            let all = (b.first()..=b.last()).all(|chunk| a.contains_chunk(chunk));
            assert_eq!(a.contains(b), all, "{a:?} {b:?}");
        }
    }

    #[test]
    fn bins_of_the_rfc() {
        // RFC 7574 §4.2 and §5.3: the tree of 7 chunks.
        assert_eq!(numbers(bin(0).uncles(bin(7))), [11, 5, 2]);
        assert_eq!(numbers(bin(12).uncles(bin(7))), [3, 9, 14]);
        assert_eq!(numbers(peaks(7)), [3, 9, 12]);
        assert_eq!(Bin::root_of(7), Some(bin(7)));
        assert_eq!(numbers(cover(1, 6)), [2, 5, 9, 12]);
    }

    #[test]
    fn edges_are_none_and_nothing_overflows() {
        assert_eq!(Bin::ALL.layer(), MAX_LAYER);
        assert_eq!(
            (Bin::ALL.first(), Bin::ALL.last(), Bin::ALL.offset()),
            (0, MAX_CHUNK, 0)
        );
        assert_eq!((Bin::ALL.parent(), Bin::ALL.sibling()), (None, None));
        assert!(Bin::ALL.is_left());
        assert_eq!(Bin::ALL.left().unwrap().sibling(), Bin::ALL.right());
        assert_eq!(Bin::from_number(u64::MAX), None);
        assert_eq!((bin(4).left(), bin(4).right()), (None, None));
        assert_eq!(Bin::leaf(MAX_CHUNK).map(Bin::number), Some(u64::MAX - 1));
        assert_eq!(Bin::leaf(MAX_CHUNK + 1), None);
        assert_eq!(
            (Bin::new(64, 0), Bin::new(63, 1), Bin::new(0, u64::MAX)),
            (None, None, None)
        );
        assert_eq!(Bin::new(63, 0), Some(Bin::ALL));
        assert_eq!((Bin::ALL.ancestor(64), Bin::ALL.ancestor(62)), (None, None));
    }

    #[test]
    fn ranges_that_are_no_bin() {
        for (first, last) in [
            (1, 2),
            (0, 2),
            (3, 2),
            (2, 5),
            (0, u64::MAX),
            (u64::MAX, u64::MAX),
            (1, 0),
        ] {
            assert_eq!(Bin::from_range(first, last), None, "{first}..={last}");
        }
        assert_eq!(Bin::from_range(0, MAX_CHUNK), Some(Bin::ALL));
    }

    #[test]
    fn covers_and_peaks_at_the_edges() {
        assert_eq!(numbers(cover(3, 2)), []);
        assert_eq!(numbers(cover(0, u64::MAX)), []);
        assert_eq!(cover(0, MAX_CHUNK).collect::<Vec<_>>(), [Bin::ALL]);
        assert_eq!(cover(1, MAX_CHUNK - 1).count(), 124);
        assert_eq!(peaks(MAX_CHUNK + 1).collect::<Vec<_>>(), [Bin::ALL]);
        assert_eq!(
            (
                peaks(0).count(),
                peaks(u64::MAX).count(),
                peaks(MAX_CHUNK).count()
            ),
            (0, 0, 63)
        );
        assert_eq!((Bin::root_of(0), Bin::root_of(MAX_CHUNK + 2)), (None, None));
        assert_eq!(Bin::root_of(MAX_CHUNK + 1), Some(Bin::ALL));
        assert_eq!(Bin::root_of(1), Some(bin(0)));
    }

    #[test]
    fn thirty_two_bits() {
        assert_eq!(Bin::from_number_32(u32::MAX), None);
        let all = Bin::from_number_32(u32::MAX >> 1).unwrap();
        assert_eq!((all.first(), all.last()), (0, (1 << 31) - 1));
        let last = Bin::leaf((1 << 31) - 1).unwrap();
        assert_eq!(last.number_32(), Some(u32::MAX - 1));
        assert_eq!(Bin::leaf(1 << 31).unwrap().number_32(), None);
        assert_eq!(Bin::ALL.number_32(), None);
    }

    #[test]
    fn uncles_of_strangers_are_none() {
        assert_eq!(numbers(bin(0).uncles(bin(5))), []);
        assert_eq!(numbers(bin(0).uncles(bin(0))), []);
        assert_eq!(bin(0).uncles(Bin::ALL).len(), 63);
    }

    #[test]
    fn every_small_cover_is_exact_and_minimal() {
        for (first, last) in (0..40).flat_map(|first| (first..40).map(move |last| (first, last))) {
            let bins: Vec<_> = cover(first, last).collect();
            let chunks: Vec<_> = bins.iter().flat_map(|bin| bin.first()..=bin.last()).collect();
            assert_eq!(chunks, (first..=last).collect::<Vec<_>>());
            // Minimal: nowhere do two siblings stand beside each other.
            assert!(bins.windows(2).all(|pair| pair[0].sibling() != Some(pair[1])));
        }
    }

    proptest! {
        #[test]
        fn any_number_is_consistent(number in 0..u64::MAX) {
            let bin = bin(number);
            prop_assert_eq!(Bin::new(bin.layer(), bin.offset()), Some(bin));
            prop_assert_eq!(Bin::from_range(bin.first(), bin.last()), Some(bin));
            if let Some(parent) = bin.parent() {
                prop_assert!(parent.left() == Some(bin) || parent.right() == Some(bin));
                prop_assert_eq!(bin.sibling().and_then(Bin::sibling), Some(bin));
                prop_assert_eq!(bin.is_left(), parent.left() == Some(bin));
            }
        }

        #[test]
        fn covers_join_up(a in 0..=MAX_CHUNK, b in 0..=MAX_CHUNK) {
            let (first, last) = (a.min(b), a.max(b));
            let mut next = first;
            for bin in cover(first, last) {
                prop_assert_eq!(bin.first(), next);
                next = bin.last() + 1;
            }
            prop_assert_eq!(next, last + 1);
        }

        #[test]
        fn uncles_and_the_bin_partition_the_top(chunk in 0..=MAX_CHUNK, layer in 0..=MAX_LAYER) {
            let leaf = Bin::leaf(chunk).unwrap();
            let top = leaf.ancestor(layer).unwrap();
            let uncles: Vec<_> = leaf.uncles(top).collect();
            let width: u64 = uncles.iter().map(|uncle| uncle.width()).sum();
            prop_assert_eq!(width + 1, top.width());
            prop_assert!(uncles.iter().all(|uncle| top.contains(*uncle) && !uncle.contains(leaf)));
            prop_assert!(uncles.windows(2).all(|pair| pair[0].layer() == pair[1].layer() + 1));
        }
    }
}
