//! The hashes of one subtree, each at the place that its bin number gives it.

use crate::bin::Bin;
use crate::hash::{Digest, HashKind};

/// A tree node with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which node.
    pub bin: Bin,
    /// Its hash.
    pub hash: Digest,
}

/// All nodes at and below one bin; some hashes may not be known yet.
#[derive(Clone, Debug)]
pub(crate) struct Subtree {
    top: Bin,
    /// In-order, as bins are numbered: index 0 is the leftmost leaf.
    hashes: Box<[Option<Digest>]>,
}

impl Subtree {
    /// Nothing known. The caller bounds the size of `top`.
    pub(crate) fn new(top: Bin) -> Self {
        let nodes = usize::try_from(2 * top.width() - 1);
        let nodes = nodes.expect("a subtree's size is bounded by configuration");
        Self {
            top,
            hashes: vec![None; nodes].into_boxed_slice(),
        }
    }

    /// Nothing known, at another place of the same layer, in the same memory.
    pub(crate) fn reuse(mut self, top: Bin) -> Self {
        assert_eq!(top.layer(), self.top.layer(), "a subtree's memory fits its layer");
        self.hashes.fill(None);
        self.top = top;
        self
    }

    pub(crate) const fn top(&self) -> Bin {
        self.top
    }

    fn index(&self, bin: Bin) -> Option<usize> {
        // A subtree's bins are one run of numbers, from its first leaf to its last.
        let index = bin.number().checked_sub(2 * self.top.first())?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < self.hashes.len())
    }

    pub(crate) fn get(&self, bin: Bin) -> Option<Digest> {
        *self.hashes.get(self.index(bin)?)?
    }

    /// Keeps a hash; one outside the subtree is a mistake of ours.
    pub(crate) fn set(&mut self, node: Node) {
        let index = self.index(node.bin).expect("a node of this subtree");
        self.hashes[index] = Some(node.hash);
    }

    /// Computes every inner node, layer by layer, from leaves that are all there or count as all zeros; gives the
    /// root and the number of hashes it took.
    pub(crate) fn fill(&mut self, kind: HashKind) -> (Node, u64) {
        for leaf in self.hashes.iter_mut().step_by(2) {
            leaf.get_or_insert(kind.zero());
        }
        let mut hashed = 0;
        for layer in 1..=self.top.layer() {
            // Parents of this layer are 2^(layer + 1) apart, and 2^(layer - 1) from either child.
            let (first, reach) = ((1 << layer) - 1, 1 << (layer - 1));
            for at in (first..self.hashes.len()).step_by(2 << layer) {
                let child = |at: usize| self.hashes[at].unwrap_or(kind.zero());
                self.hashes[at] = Some(kind.parent(&child(at - reach), &child(at + reach)));
                hashed += 1;
            }
        }
        let hash = self.get(self.top).unwrap_or(kind.zero());
        (Node { bin: self.top, hash }, hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inner_node_is_its_childrens_parent() {
        let kind = HashKind::Sha1;
        let top = Bin::from_range(16, 31).unwrap();
        let mut tree = Subtree::new(top);
        // Leaf 27 is the last.
        for chunk in 16..28_u64 {
            let (bin, hash) = (Bin::leaf(chunk).unwrap(), kind.leaf(&chunk.to_be_bytes()));
            tree.set(Node { bin, hash });
        }
        let (root, hashed) = tree.fill(kind);
        assert_eq!((root.bin, hashed), (top, 15));
        let inner: Vec<_> = (32..63)
            .filter_map(Bin::from_number)
            .filter(|bin| !bin.is_leaf())
            .collect();
        assert_eq!(inner.len(), 15);
        for bin in inner {
            let child = |bin: Option<Bin>| tree.get(bin.unwrap()).unwrap();
            let (left, right) = (child(bin.left()), child(bin.right()));
            assert_eq!(tree.get(bin), Some(kind.parent(&left, &right)), "{bin:?}");
        }
        assert_eq!(tree.get(Bin::from_range(28, 31).unwrap()), Some(kind.zero()));
    }

    #[test]
    fn what_is_outside_is_not_there() {
        let mut tree = Subtree::new(Bin::from_range(4, 7).unwrap());
        tree.fill(HashKind::Sha1);
        for number in [0, 7, 15, 3, 23, u64::MAX - 1] {
            assert_eq!(tree.get(Bin::from_number(number).unwrap()), None, "{number}");
        }
        assert!((8..15).all(|number| tree.get(Bin::from_number(number).unwrap()).is_some()));
        let moved = tree.reuse(Bin::from_range(0, 3).unwrap());
        assert!((0..7).all(|number| moved.get(Bin::from_number(number).unwrap()).is_none()));
    }
}
