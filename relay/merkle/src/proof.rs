//! Proofs: which hashes lead from chunks up to a hash that is trusted, and what a receiver makes of them.
//!
//! A chunk's proof is the hashes of its **uncles**, from the highest down, which is the order in which PPSPP sends
//! INTEGRITY (RFC 7574 §5.3, §6.1.2.4). What a receiver has verified before need not be sent again: whoever holds a
//! chunk under some node knows the hashes of both its children.

use crate::bin::Bin;
use crate::hash::{Digest, HashKind};
use crate::subtree::{Node, Subtree};
use thiserror::Error;

/// Nodes that are looked at in one proof. A range under one munro needs at most two a layer.
pub const PROOF_MAX: usize = 128;

/// Why a sender has no proof for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoProof {
    /// Its munro is not made yet, or not known here.
    #[error("proof: chunk {chunk} has no munro yet")]
    NoMunro {
        /// The chunk.
        chunk: u64,
    },
    /// It has left the window.
    #[error("proof: chunk {chunk} is forgotten, the window begins at {first}")]
    Forgotten {
        /// The chunk.
        chunk: u64,
        /// The oldest chunk that is not.
        first: u64,
    },
    /// A hash on the way is not known here.
    #[error("proof: the hash of {bin} is not known here")]
    Unknown {
        /// The node.
        bin: Bin,
    },
    /// A range that is empty or crosses a munro.
    #[error("proof: expected chunks of one munro, got {first}..={last}")]
    Range {
        /// First chunk asked for.
        first: u64,
        /// Last chunk asked for.
        last: u64,
    },
}

/// Why chunks were not accepted. Nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// They are older than the window.
    #[error("chunk {chunk}: older than the window, which begins at {first}")]
    TooOld {
        /// The first of them.
        chunk: u64,
        /// The oldest chunk that can be checked.
        first: u64,
    },
    /// No verified munro covers them, yet or any more. Keep them a moment, or drop them: they may be anything.
    #[error("chunk {chunk}: no verified munro covers it")]
    NoMunro {
        /// The first of them.
        chunk: u64,
    },
    /// A range that is empty or crosses a munro.
    #[error("chunk {chunk}: expected 1 or more chunks of one munro, got {count}")]
    Range {
        /// The first of them.
        chunk: u64,
        /// How many.
        count: u64,
    },
    /// More nodes than any proof needs.
    #[error("chunk {chunk}: expected at most {PROOF_MAX} hashes, got {got}")]
    TooMany {
        /// The first of them.
        chunk: u64,
        /// How many nodes came.
        got: usize,
    },
    /// A leaf hash of another function, or the one of chunks that are not there.
    #[error("chunk {chunk}: not the hash of a chunk in this tree")]
    NotALeaf {
        /// The chunk.
        chunk: u64,
    },
    /// The proof has a hole; nothing is known to be wrong.
    #[error("chunk {chunk}: the hash of {bin} is missing")]
    Missing {
        /// The first of them.
        chunk: u64,
        /// Whose hash it takes.
        bin: Bin,
    },
    /// They are not the injector's, or a hash of the proof is not.
    #[error("chunk {chunk}: wrong, the hash of {bin} does not match")]
    Wrong {
        /// The first of them.
        chunk: u64,
        /// Where it showed.
        bin: Bin,
    },
}

/// Chunks that are the injector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Chunks accepted for the first time.
    pub new: u64,
    /// Chunks that had been accepted before.
    pub again: u64,
    /// Hashes this took, leaves not counted where they were given.
    pub hashes: u64,
}

/// The node from which on down a receiver needs the uncles of `leaf`, where `has` says whether it holds any chunk
/// under a node. `top` if it holds nothing there.
pub(crate) fn known_above(leaf: Bin, top: Bin, mut has: impl FnMut(Bin) -> bool) -> Bin {
    let mut node = leaf;
    while node != top {
        match node.parent() {
            // It knows the hashes of both children of a node with one of its chunks below, and `node` is one of them.
            Some(parent) if !has(parent) => node = parent,
            _ => return node,
        }
    }
    top
}

/// The nodes whose hashes, with the leaves `first..=last`, give the hash of `top`; from the highest layer down, on each
/// layer from left to right.
pub(crate) fn batch_uncles(first: Bin, last: Bin, top: Bin) -> impl Iterator<Item = Bin> {
    (0..top.layer()).rev().flat_map(move |layer| {
        let left = first.ancestor(layer).filter(|bin| bin.is_right());
        let right = last.ancestor(layer).filter(|bin| bin.is_left());
        [left, right].into_iter().flatten().filter_map(Bin::sibling)
    })
}

/// Appends the hashes of `bins`, or nothing where one is not known.
pub(crate) fn collect(
    bins: impl Iterator<Item = Bin>,
    hash_of: impl Fn(Bin) -> Option<Digest>,
    out: &mut Vec<Node>,
) -> Result<(), NoProof> {
    let before = out.len();
    for bin in bins {
        match hash_of(bin) {
            Some(hash) => out.push(Node { bin, hash }),
            None => {
                out.truncate(before);
                return Err(NoProof::Unknown { bin });
            }
        }
    }
    Ok(())
}

/// What a receiver knows for certain below one trusted node.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    kind: HashKind,
    known: Subtree,
    /// Which chunks were accepted.
    held: Box<[bool]>,
}

impl Proven {
    /// Trusts `top`; the caller bounds its size.
    pub(crate) fn new(top: Node) -> Self {
        let mut known = Subtree::new(top.bin);
        known.set(top);
        let leaves = usize::try_from(top.bin.width());
        let leaves = leaves.expect("a subtree's size is bounded by configuration");
        Self {
            kind: top.hash.kind(),
            known,
            held: vec![false; leaves].into_boxed_slice(),
        }
    }

    /// The hash function of this tree.
    pub(crate) const fn kind(&self) -> HashKind {
        self.kind
    }

    /// Takes over hashes that the caller has verified; those outside are passed over.
    pub(crate) fn learn(&mut self, nodes: &[Node]) {
        let top = self.top();
        let inside = nodes.iter().filter(|node| top.contains(node.bin));
        inside.for_each(|node| self.known.set(*node));
    }

    /// The node that was trusted from the beginning.
    pub(crate) const fn top(&self) -> Bin {
        self.known.top()
    }

    /// A verified hash.
    pub(crate) fn hash(&self, bin: Bin) -> Option<Digest> {
        self.known.get(bin)
    }

    /// Whether this chunk was accepted.
    pub(crate) fn holds(&self, chunk: u64) -> bool {
        let index = chunk.checked_sub(self.top().first());
        let index = index.and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.held.get(index)) == Some(&true)
    }

    /// Accepts all of the chunks with these hashes, of which `first` is the first, or none of them.
    pub(crate) fn accept(
        &mut self,
        first: u64,
        leaves: &[Digest],
        nodes: &[Node],
        hashes: &mut u64,
    ) -> Result<Accepted, Refusal> {
        let before = *hashes;
        self.check_shape(first, leaves, nodes)?;
        for node in self.climb(first, leaves, nodes, hashes)? {
            self.known.set(node);
        }
        let start = (first - self.top().first()) as usize;
        let held = &mut self.held[start..start + leaves.len()];
        let again = held.iter().filter(|held| **held).count() as u64;
        held.fill(true);
        let new = leaves.len() as u64 - again;
        let hashes = *hashes - before;
        Ok(Accepted { new, again, hashes })
    }

    fn check_shape(&self, first: u64, leaves: &[Digest], nodes: &[Node]) -> Result<(), Refusal> {
        let (top, count) = (self.top(), leaves.len() as u64);
        let room = (top.last() + 1).saturating_sub(first);
        if !top.contains_chunk(first) || count == 0 || count > room {
            return Err(Refusal::Range { chunk: first, count });
        }
        if nodes.len() > PROOF_MAX {
            let got = nodes.len();
            return Err(Refusal::TooMany { chunk: first, got });
        }
        let stranger = |leaf: &Digest| leaf.kind() != self.kind || leaf.is_zero();
        match (first..).zip(leaves).find(|(_, leaf)| stranger(leaf)) {
            Some((chunk, _)) => Err(Refusal::NotALeaf { chunk }),
            None => Ok(()),
        }
    }

    /// Goes up layer by layer until all that was computed has met known hashes, and gives what was learnt.
    fn climb(
        &self,
        first: u64,
        leaves: &[Digest],
        nodes: &[Node],
        hashes: &mut u64,
    ) -> Result<Vec<Node>, Refusal> {
        let mut learnt = Vec::new();
        let mut level = Level {
            layer: 0,
            first,
            hashes: leaves.to_vec(),
        };
        loop {
            if !self.meet(&mut level, first, &mut learnt)? {
                return Ok(learnt);
            }
            let find = |bin| {
                let node = self.find(bin, nodes);
                node.ok_or(Refusal::Missing { chunk: first, bin })
            };
            level.complete(find, &mut learnt)?;
            *hashes += level.rise(self.kind);
        }
    }

    /// Compares a layer with what is known, and leaves of it what is not; false where nothing is left.
    fn meet(&self, level: &mut Level, chunk: u64, learnt: &mut Vec<Node>) -> Result<bool, Refusal> {
        let mut unmet: Option<(usize, usize)> = None;
        for (at, node) in level.nodes().enumerate() {
            match self.known.get(node.bin) {
                Some(known) if known == node.hash => {}
                Some(_) => return Err(Refusal::Wrong { chunk, bin: node.bin }),
                None => {
                    learnt.push(node);
                    unmet = Some((unmet.map_or(at, |(first, _)| first), at));
                }
            }
        }
        let Some((from, to)) = unmet else {
            return Ok(false);
        };
        level.hashes.truncate(to + 1);
        level.hashes.drain(..from);
        level.first += from as u64;
        Ok(true)
    }

    /// The hash of a node from what is verified, else from the proof.
    fn find(&self, bin: Bin, nodes: &[Node]) -> Option<Node> {
        match self.known.get(bin) {
            Some(hash) => Some(Node { bin, hash }),
            None => nodes
                .iter()
                .find(|node| node.bin == bin && node.hash.kind() == self.kind)
                .copied(),
        }
    }
}

/// A run of hashes on one layer.
struct Level {
    layer: u32,
    /// The offset of the first one.
    first: u64,
    hashes: Vec<Digest>,
}

impl Level {
    fn nodes(&self) -> impl Iterator<Item = Node> {
        let offsets = (self.first..).zip(&self.hashes);
        offsets.filter_map(|(offset, hash)| {
            let bin = Bin::new(self.layer, offset)?;
            Some(Node { bin, hash: *hash })
        })
    }

    /// Adds what is missing at both ends for whole pairs.
    fn complete(
        &mut self,
        find: impl Fn(Bin) -> Result<Node, Refusal>,
        learnt: &mut Vec<Node>,
    ) -> Result<(), Refusal> {
        let sibling = |offset| Bin::new(self.layer, offset).and_then(Bin::sibling);
        let last = self.first + (self.hashes.len() as u64 - 1);
        let right = sibling(last).filter(|bin| bin.is_right());
        if let Some(bin) = sibling(self.first).filter(|bin| bin.is_left()) {
            let node = find(bin)?;
            learnt.push(node);
            self.hashes.insert(0, node.hash);
            self.first -= 1;
        }
        if let Some(bin) = right {
            let node = find(bin)?;
            learnt.push(node);
            self.hashes.push(node.hash);
        }
        Ok(())
    }

    /// Goes to the layer above; gives the number of hashes it took.
    fn rise(&mut self, kind: HashKind) -> u64 {
        let parents = self.hashes.len() / 2;
        for at in 0..parents {
            self.hashes[at] = kind.parent(&self.hashes[2 * at], &self.hashes[2 * at + 1]);
        }
        self.hashes.truncate(parents);
        self.first /= 2;
        self.layer += 1;
        parents as u64
    }
}
