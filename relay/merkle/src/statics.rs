//! Static trees (RFC 7574 §5): content of known size under one root, which is the swarm's identifier.

use crate::bin::{Bin, peaks};
use crate::config::ConfigError;
use crate::hash::{Digest, HashKind};
use crate::proof::{Accepted, NoProof, Proven, Refusal, collect, known_above};
use crate::subtree::{Node, Subtree};

/// The most chunks of a static tree here: its hashes are all kept.
pub const STATIC_CHUNKS_MAX: u64 = 1 << 20;

/// Folds peaks, from left to right, into the root of the smallest tree that holds them; what is missing to the right
/// counts as all zeros (RFC 7574 §5.6). None where they are not the peaks of any tree.
#[must_use]
pub fn fold(kind: HashKind, peaks: &[Node]) -> Option<Node> {
    let (last, mut rest) = peaks.split_last()?;
    let whole = Bin::root_of(last.bin.last() + 1)?;
    let mut node = *last;
    while node.bin != whole {
        let hash = match (node.bin.is_right(), rest.split_last()) {
            (true, Some((left, before))) if Some(left.bin) == node.bin.sibling() => {
                rest = before;
                kind.parent(&left.hash, &node.hash)
            }
            (false, _) => kind.parent(&node.hash, &kind.zero()),
            _ => return None,
        };
        node = Node {
            bin: node.bin.parent()?,
            hash,
        };
    }
    rest.is_empty().then_some(node)
}

/// The whole tree at a sender.
#[derive(Clone, Debug)]
pub struct StaticTree {
    chunks: u64,
    nodes: Subtree,
    root: Node,
}

impl StaticTree {
    /// The tree over these leaves.
    ///
    /// # Errors
    /// No leaves, or more than [`STATIC_CHUNKS_MAX`].
    pub fn new(kind: HashKind, leaves: &[Digest]) -> Result<Self, ConfigError> {
        let chunks = leaves.len() as u64;
        let mut nodes = Subtree::new(whole(chunks)?);
        for (bin, hash) in (0..).map_while(Bin::leaf).zip(leaves.iter().copied()) {
            nodes.set(Node { bin, hash });
        }
        let (root, _) = nodes.fill(kind);
        Ok(Self { chunks, nodes, root })
    }

    /// How many chunks there are.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The root.
    #[must_use]
    pub const fn root(&self) -> Node {
        self.root
    }

    /// A node's hash; none outside the tree.
    #[must_use]
    pub fn hash(&self, bin: Bin) -> Option<Digest> {
        self.nodes.get(bin)
    }

    /// The peaks, from left to right.
    pub fn peaks(&self) -> impl Iterator<Item = Node> {
        peaks(self.chunks).filter_map(|bin| {
            let hash = self.hash(bin)?;
            Some(Node { bin, hash })
        })
    }

    /// Appends the uncles of `chunk` that a receiver lacks, from the highest down; `has` says whether it holds any
    /// chunk, or was sent the hashes of both children, under a node.
    ///
    /// # Errors
    /// No such chunk.
    pub fn proof_for(
        &self,
        chunk: u64,
        has: impl FnMut(Bin) -> bool,
        out: &mut Vec<Node>,
    ) -> Result<(), NoProof> {
        let none = NoProof::NoMunro { chunk };
        let leaf = Bin::leaf(chunk).filter(|_| chunk < self.chunks).ok_or(none)?;
        let top = known_above(leaf, self.root.bin, has);
        collect(leaf.uncles(top), |bin| self.hash(bin), out)
    }
}

fn whole(chunks: u64) -> Result<Bin, ConfigError> {
    let error = ConfigError::Static { got: chunks };
    match chunks <= STATIC_CHUNKS_MAX {
        true => Bin::root_of(chunks).ok_or(error),
        false => Err(error),
    }
}

/// A receiver of content with a known root and size.
#[derive(Clone, Debug)]
pub struct StaticVerifier {
    chunks: u64,
    proven: Proven,
}

impl StaticVerifier {
    /// For content of `chunks` chunks under `root`.
    ///
    /// # Errors
    /// No chunks, or more than [`STATIC_CHUNKS_MAX`].
    pub fn new(root: Digest, chunks: u64) -> Result<Self, ConfigError> {
        let bin = whole(chunks)?;
        let proven = Proven::new(Node { bin, hash: root });
        Ok(Self { chunks, proven })
    }

    /// For content under `root`, with its size from peaks that are not trusted. None where they do not lead there.
    /// The size is certain only when the last chunk was accepted: a liar can name up to the next power of two.
    #[must_use]
    pub fn from_peaks(root: Digest, peaks: &[Node]) -> Option<Self> {
        let chunks = peaks.last()?.bin.last() + 1;
        let found = fold(root.kind(), peaks)?;
        let mut verifier = Self::new(root, chunks).ok()?;
        if found.hash != root || !crate::bin::peaks(chunks).eq(peaks.iter().map(|peak| peak.bin)) {
            return None;
        }
        verifier.proven.learn(peaks);
        Some(verifier)
    }

    /// How many chunks there are.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Whether this chunk was accepted.
    #[must_use]
    pub fn holds(&self, chunk: u64) -> bool {
        self.proven.holds(chunk)
    }

    /// Accepts a chunk if it is the content's. Nodes that are not on its way are passed over.
    ///
    /// # Errors
    /// It is wrong, or the proof has a hole; nothing is changed.
    pub fn accept(&mut self, chunk: u64, data: &[u8], nodes: &[Node]) -> Result<Accepted, Refusal> {
        if chunk >= self.chunks {
            return Err(Refusal::Range { chunk, count: 1 });
        }
        let leaf = self.proven.kind().leaf(data);
        self.proven.accept(chunk, &[leaf], nodes, &mut 0)
    }
}
