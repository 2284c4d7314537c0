//! The growing tree of the injector (RFC 7574 §6.1.2.1): chunk hashes in, munros and proofs out.
//!
//! Leaves are only kept until a munro's subtree is full; then its inner nodes are computed in one go, layer by layer.
//! A window of the newest subtrees is kept for proofs, and of everything older only the peaks: one hash for every
//! largest full subtree, from which the root of the whole broadcast follows in the end.

use crate::bin::{Bin, peaks};
use crate::config::{ConfigError, TreeConfig};
use crate::hash::{Digest, HashKind};
use crate::proof::{NoProof, batch_uncles, collect, known_above};
use crate::statics::fold;
use crate::subtree::{Node, Subtree};
use std::collections::VecDeque;
use thiserror::Error;

/// Why a chunk cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    /// The epoch is over.
    #[error("tree: closed after {chunks} chunks")]
    Closed {
        /// Where it ended.
        chunks: u64,
    },
    /// The chunk numbers are used up.
    #[error("tree: no chunk number is left")]
    Full,
    /// A hash of another function, or the one of chunks that are not there.
    #[error("tree: expected the {expected:?} hash of a chunk, got {got:?}")]
    NotALeaf {
        /// The tree's function.
        expected: HashKind,
        /// What came.
        got: Digest,
    },
}

/// A live tree of one epoch at its sender.
#[derive(Clone, Debug)]
pub struct LiveTree {
    config: TreeConfig,
    /// The number of the next chunk.
    next: u64,
    closed: bool,
    /// Full subtrees, without a gap; the newest last.
    done: VecDeque<Subtree>,
    /// The subtree that grows.
    open: Option<Subtree>,
    /// Memory of a subtree that has left the window, for the next one.
    spare: Option<Subtree>,
    /// Peaks of all full munros; none where the tree did not begin with chunk 0.
    peaks: Option<Vec<Node>>,
    hashed: u64,
}

impl LiveTree {
    /// A tree that begins with chunk 0.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(config: TreeConfig) -> Result<Self, ConfigError> {
        Self::starting_at(config, 0)
    }

    /// A tree at a node that came in at chunk `first`, which must begin a munro.
    ///
    /// # Errors
    /// A setting out of its range, or chunk within a munro.
    pub fn starting_at(config: TreeConfig, first: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let chunks_per_munro = config.chunks_per_munro;
        if !first.is_multiple_of(chunks_per_munro.into()) {
            return Err(ConfigError::First {
                chunks_per_munro,
                got: first,
            });
        }
        Ok(Self {
            config,
            next: first,
            closed: false,
            done: VecDeque::new(),
            open: None,
            spare: None,
            peaks: (first == 0).then(Vec::new),
            hashed: 0,
        })
    }

    /// Its shape.
    #[must_use]
    pub const fn config(&self) -> &TreeConfig {
        &self.config
    }

    /// The number of the next chunk.
    #[must_use]
    pub const fn next_chunk(&self) -> u64 {
        self.next
    }

    /// Inner nodes computed so far.
    #[must_use]
    pub const fn hashed(&self) -> u64 {
        self.hashed
    }

    /// The chunks that can be proven, first and past the last.
    #[must_use]
    pub fn window(&self) -> std::ops::Range<u64> {
        match (self.done.front(), self.done.back()) {
            (Some(first), Some(last)) => first.top().first()..self.next.min(last.top().last() + 1),
            _ => self.next..self.next,
        }
    }

    /// Appends the next chunk's hash. Gives the munro that it completes, ready to be signed.
    ///
    /// # Errors
    /// A closed or full tree, or not the hash of a chunk; the tree is unchanged.
    pub fn append(&mut self, leaf: Digest) -> Result<Option<Node>, AppendError> {
        let bin = self.place(&leaf)?;
        let top = self.config.munro_of(self.next).ok_or(AppendError::Full)?;
        let spare = &mut self.spare;
        let open = self.open.get_or_insert_with(|| match spare.take() {
            Some(spare) => spare.reuse(top),
            None => Subtree::new(top),
        });
        open.set(Node { bin, hash: leaf });
        self.next += 1;
        Ok((top.last() < self.next).then(|| self.finish()).flatten())
    }

    fn place(&self, leaf: &Digest) -> Result<Bin, AppendError> {
        if self.closed {
            return Err(AppendError::Closed { chunks: self.next });
        }
        if leaf.kind() != self.config.kind || leaf.is_zero() {
            let expected = self.config.kind;
            return Err(AppendError::NotALeaf { expected, got: *leaf });
        }
        Bin::leaf(self.next).ok_or(AppendError::Full)
    }

    /// Appends the hash of this chunk; see [`LiveTree::append`].
    ///
    /// # Errors
    /// A closed or full tree.
    pub fn append_chunk(&mut self, chunk: &[u8]) -> Result<Option<Node>, AppendError> {
        self.append(self.config.kind.leaf(chunk))
    }

    /// Ends the epoch. Chunks that wait for their munro get one, in which the missing chunks count as all zeros.
    pub fn close(&mut self) -> Option<Node> {
        self.closed = true;
        self.finish()
    }

    /// Computes the open subtree and moves it into the window.
    fn finish(&mut self) -> Option<Node> {
        let mut full = self.open.take()?;
        let (munro, hashed) = full.fill(self.config.kind);
        self.hashed += hashed;
        self.done.push_back(full);
        self.grow_peaks(munro);
        self.slide();
        Some(munro)
    }

    /// Forgets what has left the window.
    fn slide(&mut self) {
        if self.done.len() as u64 > self.config.munros() {
            self.spare = self.done.pop_front();
        }
    }

    fn grow_peaks(&mut self, munro: Node) {
        let Some(peaks) = &mut self.peaks else {
            return;
        };
        let mut peak = munro;
        while let Some(left) = peaks.last().copied() {
            let (true, Some(bin)) = (left.bin.sibling() == Some(peak.bin), left.bin.parent()) else {
                break;
            };
            let hash = self.config.kind.parent(&left.hash, &peak.hash);
            self.hashed += 1;
            peak = Node { bin, hash };
            peaks.pop();
        }
        peaks.push(peak);
    }

    /// The peaks of all full munros, from left to right; none where the tree did not begin with chunk 0.
    #[must_use]
    pub fn peaks(&self) -> Option<&[Node]> {
        self.peaks.as_deref()
    }

    /// The root of the static tree that a closed broadcast becomes (RFC 7574 §6.1.2.1). None before it is closed, for
    /// a tree without chunks, and where the tree did not begin with chunk 0.
    #[must_use]
    pub fn root(&self) -> Option<Node> {
        let whole = Bin::root_of(self.next).filter(|_| self.closed)?;
        let all = self.peaks.as_deref()?;
        match self.hash(whole) {
            // A broadcast shorter than a munro has its root inside of it.
            Some(hash) => Some(Node { bin: whole, hash }),
            None => fold(self.config.kind, all).filter(|root| root.bin == whole),
        }
    }

    /// A node's hash, where it lies in the window and at or below a munro.
    #[must_use]
    pub fn hash(&self, bin: Bin) -> Option<Digest> {
        self.subtree(bin.first()).ok()?.get(bin)
    }

    /// The munro above this chunk.
    ///
    /// # Errors
    /// It is not full yet, or forgotten.
    pub fn munro(&self, chunk: u64) -> Result<Node, NoProof> {
        let top = self.subtree(chunk)?.top();
        let hash = self.hash(top).ok_or(NoProof::Unknown { bin: top })?;
        Ok(Node { bin: top, hash })
    }

    fn subtree(&self, chunk: u64) -> Result<&Subtree, NoProof> {
        let none = NoProof::NoMunro { chunk };
        let first = self.done.front().ok_or(none)?.top().first();
        let ahead = chunk
            .checked_sub(first)
            .ok_or(NoProof::Forgotten { chunk, first })?;
        let index = usize::try_from(ahead >> self.config.munro_layer()).map_err(|_| none)?;
        self.done.get(index).ok_or(none)
    }

    /// Appends to `out` the uncles of `chunk` below its munro, from the highest down, for a receiver that knows the
    /// munro and nothing else below it. Gives the munro.
    ///
    /// # Errors
    /// The munro is not full yet, or forgotten.
    pub fn proof(&self, chunk: u64, out: &mut Vec<Node>) -> Result<Node, NoProof> {
        self.proof_for(chunk, |_| false, out)
    }

    /// The same without what the receiver knows already: `has` says whether it holds any chunk under a node. Nothing
    /// is appended for a chunk that it holds.
    ///
    /// # Errors
    /// The munro is not full yet, or forgotten.
    pub fn proof_for(
        &self,
        chunk: u64,
        has: impl FnMut(Bin) -> bool,
        out: &mut Vec<Node>,
    ) -> Result<Node, NoProof> {
        let munro = self.munro_with(chunk)?;
        let leaf = Bin::leaf(chunk).ok_or(NoProof::NoMunro { chunk })?;
        let top = known_above(leaf, munro.bin, has);
        collect(leaf.uncles(top), |bin| self.hash(bin), out)?;
        Ok(munro)
    }

    /// Appends to `out` what proves all of the chunks `first..=last` at once to a receiver that gets all of them and
    /// knows their one munro: at most two hashes a layer. None are needed for all chunks of a munro.
    ///
    /// # Errors
    /// Chunks of more than one munro; a munro that is not full yet, or forgotten.
    pub fn batch_proof(&self, first: u64, last: u64, out: &mut Vec<Node>) -> Result<Node, NoProof> {
        let munro = self.munro_with(first)?;
        let range = NoProof::Range { first, last };
        if first > last || !munro.bin.contains_chunk(last) || last >= self.next {
            return Err(range);
        }
        let (left, right) = Bin::leaf(first).zip(Bin::leaf(last)).ok_or(range)?;
        collect(batch_uncles(left, right, munro.bin), |bin| self.hash(bin), out)?;
        Ok(munro)
    }

    /// The munro above a chunk that exists.
    fn munro_with(&self, chunk: u64) -> Result<Node, NoProof> {
        match chunk < self.next {
            true => self.munro(chunk),
            false => Err(NoProof::NoMunro { chunk }),
        }
    }

    /// The bins that say which chunks exist, as HAVE announces them: only what is below a full munro.
    pub fn have(&self) -> impl Iterator<Item = Bin> {
        peaks(self.window().end)
    }
}
