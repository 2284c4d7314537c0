//! The receiver of a live tree: which munros it believes, and which chunks it accepts (RFC 7574 §6.1.2).
//!
//! A munro's signature is expensive to check, and anybody can send munros. So the cheap questions come first: is it of
//! this tree's shape, within reach, not known yet, of the right age, in order with its neighbours? Each
//! [`LiveVerifier::offer`] checks at most one signature, and [`LiveVerifier::judge`] says beforehand whether it would:
//! how many of them a sender may cost us is for the caller to decide.
//!
//! The window moves only by verified munros, and by at most its own length at once. Who was away for longer says so
//! with [`LiveVerifier::restart`]. All memory is bounded by [`TreeConfig::bytes`].

use crate::bin::Bin;
use crate::config::{ConfigError, TreeConfig};
use crate::hash::Digest;
use crate::munro::{BadSignature, SignedMunro, Verifier};
use crate::ntp::NtpTime;
use crate::proof::{Accepted, NoProof, Proven, Refusal, collect, known_above};
use crate::subtree::Node;
use thiserror::Error;

/// What a receiver believes of a live tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveConfig {
    /// The tree's shape, and how much of it is kept.
    pub tree: TreeConfig,
    /// The oldest munro that may move the window on, in microseconds. Munros that fill a hole may be older.
    pub max_age_us: u64,
    /// How far the injector's clock may be ahead of ours, in microseconds.
    pub max_ahead_us: u64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            tree: TreeConfig::default(),
            max_age_us: 30_000_000,
            max_ahead_us: 30_000_000,
        }
    }
}

/// What becomes of a munro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is known already; its signature is not checked again.
    Known,
    /// It is new.
    New,
}

/// Why a munro is not believed. Only [`MunroRefusal::Signature`] has cost a signature check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MunroRefusal {
    /// Another hash function, another number of chunks, or an all-zero hash.
    #[error("munro: {bin} is not a munro of this tree")]
    Shape {
        /// Its chunks.
        bin: Bin,
    },
    /// Before the window.
    #[error("munro: {bin} is older than the window, which begins at {first}")]
    TooOld {
        /// Its chunks.
        bin: Bin,
        /// The oldest chunk that can be checked.
        first: u64,
    },
    /// More than a window ahead.
    #[error("munro: {bin} is more than a window after chunk {last}")]
    TooFar {
        /// Its chunks.
        bin: Bin,
        /// The newest verified chunk.
        last: u64,
    },
    /// Another munro was verified for the same chunks.
    #[error("munro: {bin} is verified with another hash or time")]
    Conflict {
        /// Its chunks.
        bin: Bin,
    },
    /// It would move the window on, and is too old for that: perhaps a recording.
    #[error("munro: {bin} is {age_us} µs old, expected at most {max_us}")]
    Stale {
        /// Its chunks.
        bin: Bin,
        /// Its age in microseconds.
        age_us: i64,
        /// The limit.
        max_us: u64,
    },
    /// From the future.
    #[error("munro: {bin} is {ahead_us} µs ahead of our clock, expected at most {max_us}")]
    Ahead {
        /// Its chunks.
        bin: Bin,
        /// Microseconds from now.
        ahead_us: i64,
        /// The limit.
        max_us: u64,
    },
    /// Its time contradicts a verified munro's: made earlier for later chunks, or the reverse.
    #[error("munro: {bin} is out of order in time with {other}")]
    Disorder {
        /// Its chunks.
        bin: Bin,
        /// Those of the munro that it contradicts.
        other: Bin,
    },
    /// The signature does not hold.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

/// What a receiver has counted since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LiveStats {
    /// Munros verified.
    pub munros: u64,
    /// Munros that were known.
    pub munros_again: u64,
    /// Munros refused before their signature was looked at.
    pub munros_refused: u64,
    /// Munros with a bad signature.
    pub munros_forged: u64,
    /// Signatures checked, good and bad.
    pub signature_checks: u64,
    /// Chunks accepted.
    pub chunks: u64,
    /// Chunks that had been accepted before.
    pub chunks_again: u64,
    /// Chunks that could not be checked: no munro, or a hole in the proof.
    pub chunks_unproven: u64,
    /// Chunks that were not the injector's, or came with hashes that were not.
    pub chunks_wrong: u64,
    /// Chunks older than the window.
    pub chunks_old: u64,
    /// Chunks refused for the form in which they came.
    pub chunks_malformed: u64,
    /// Inner nodes hashed.
    pub hashes: u64,
    /// Calls of [`LiveVerifier::restart`].
    pub restarts: u64,
}

/// A verified munro and what is known below it.
#[derive(Clone, Debug)]
struct Slot {
    signed: SignedMunro,
    proven: Proven,
}

/// The receiving end of a live tree.
#[derive(Clone, Debug)]
pub struct LiveVerifier {
    config: LiveConfig,
    verifier: Verifier,
    /// A ring: the munro with offset *o* on its layer is at *o* modulo the length.
    slots: Box<[Option<Slot>]>,
    /// The newest verified munro.
    newest: Option<Bin>,
    stats: LiveStats,
}

impl LiveVerifier {
    /// A receiver that knows nothing yet; its first munro may be any that is fresh.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(config: LiveConfig, verifier: Verifier) -> Result<Self, ConfigError> {
        config.tree.check()?;
        Ok(Self {
            config,
            verifier,
            slots: (0..config.tree.munros()).map(|_| None).collect(),
            newest: None,
            stats: LiveStats::default(),
        })
    }

    /// Its settings.
    #[must_use]
    pub const fn config(&self) -> &LiveConfig {
        &self.config
    }

    /// Whose munros it believes.
    #[must_use]
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> &LiveStats {
        &self.stats
    }

    /// The chunks that can be accepted once their munros are there, first and past the last. Empty before the first
    /// munro.
    #[must_use]
    pub fn window(&self) -> std::ops::Range<u64> {
        let Some(newest) = self.newest else {
            return 0..0;
        };
        let end = newest.last() + 1;
        end.saturating_sub(self.slots.len() as u64 * newest.width())..end
    }

    /// Forgets every munro and chunk, so that the next munro may be anywhere. For a receiver that was away for more
    /// than a window, by its own clock; not because of what somebody sent.
    pub fn restart(&mut self) {
        self.slots.fill_with(|| None);
        self.newest = None;
        self.stats.restarts += 1;
    }

    /// Whether this munro would be checked, without checking its signature. Cheap; counts nothing.
    ///
    /// # Errors
    /// It would be refused whatever its signature says.
    pub fn judge(&self, signed: &SignedMunro, now: NtpTime) -> Result<Judgement, MunroRefusal> {
        self.judge_shape(signed)?;
        self.judge_place(signed.munro.bin)?;
        if let Some(slot) = self.slot(signed.munro.bin) {
            let bin = signed.munro.bin;
            let same = slot.signed.munro == signed.munro;
            return if same {
                Ok(Judgement::Known)
            } else {
                Err(MunroRefusal::Conflict { bin })
            };
        }
        self.judge_time(signed, now)?;
        Ok(Judgement::New)
    }

    fn judge_shape(&self, signed: &SignedMunro) -> Result<(), MunroRefusal> {
        let (bin, hash, tree) = (signed.munro.bin, signed.munro.hash, self.config.tree);
        let right = bin.layer() == tree.munro_layer() && hash.kind() == tree.kind && !hash.is_zero();
        if right {
            Ok(())
        } else {
            Err(MunroRefusal::Shape { bin })
        }
    }

    fn judge_place(&self, bin: Bin) -> Result<(), MunroRefusal> {
        let Some(newest) = self.newest else {
            return Ok(());
        };
        let (window, reach) = (self.window(), self.slots.len() as u64);
        if bin.first() < window.start {
            return Err(MunroRefusal::TooOld {
                bin,
                first: window.start,
            });
        }
        if bin.offset().saturating_sub(newest.offset()) > reach {
            return Err(MunroRefusal::TooFar {
                bin,
                last: newest.last(),
            });
        }
        Ok(())
    }

    fn judge_time(&self, signed: &SignedMunro, now: NtpTime) -> Result<(), MunroRefusal> {
        let (bin, time) = (signed.munro.bin, signed.munro.time);
        let age_us = now.us_since(time);
        if exceeds(age_us, self.config.max_age_us) && self.newest.is_none_or(|newest| newest < bin) {
            let max_us = self.config.max_age_us;
            return Err(MunroRefusal::Stale { bin, age_us, max_us });
        }
        if exceeds(-age_us, self.config.max_ahead_us) {
            let (ahead_us, max_us) = (-age_us, self.config.max_ahead_us);
            return Err(MunroRefusal::Ahead {
                bin,
                ahead_us,
                max_us,
            });
        }
        let contradicts = |other: &&SignedMunro| {
            let munro = other.munro;
            (munro.bin < bin && time.is_before(munro.time)) || (bin < munro.bin && munro.time.is_before(time))
        };
        match self.munros().find(contradicts) {
            Some(other) => Err(MunroRefusal::Disorder {
                bin,
                other: other.munro.bin,
            }),
            None => Ok(()),
        }
    }

    /// Believes a munro if it is the injector's. Checks at most one signature.
    ///
    /// # Errors
    /// It is not believed, for the stated reason; only the counters have changed.
    pub fn offer(&mut self, signed: &SignedMunro, now: NtpTime) -> Result<Judgement, MunroRefusal> {
        match self.judge(signed, now) {
            Err(refusal) => {
                self.stats.munros_refused += 1;
                Err(refusal)
            }
            Ok(Judgement::Known) => {
                self.stats.munros_again += 1;
                Ok(Judgement::Known)
            }
            Ok(Judgement::New) => self.check(signed),
        }
    }

    fn check(&mut self, signed: &SignedMunro) -> Result<Judgement, MunroRefusal> {
        self.stats.signature_checks += 1;
        if let Err(bad) = self.verifier.verify(signed) {
            self.stats.munros_forged += 1;
            return Err(bad.into());
        }
        self.stats.munros += 1;
        self.admit(signed);
        Ok(Judgement::New)
    }

    /// Takes a verified munro in, and moves the window on if it is the newest.
    fn admit(&mut self, signed: &SignedMunro) {
        let bin = signed.munro.bin;
        let newest = self.newest.unwrap_or(bin).max(bin);
        let skipped = self.newest.map_or(0, |old| newest.offset() - old.offset());
        // At most one round: a munro further ahead is refused.
        for ahead in 0..skipped {
            let place = self.place(newest.offset() - ahead);
            self.slots[place] = None;
        }
        self.newest = Some(newest);
        let top = Node {
            bin,
            hash: signed.munro.hash,
        };
        let place = self.place(bin.offset());
        self.slots[place] = Some(Slot {
            signed: *signed,
            proven: Proven::new(top),
        });
    }

    fn place(&self, offset: u64) -> usize {
        (offset % self.slots.len() as u64) as usize
    }

    /// What is known of the munro above these chunks.
    fn slot(&self, bin: Bin) -> Option<&Slot> {
        let munro = bin.ancestor(self.config.tree.munro_layer())?;
        let slot = self.slots[self.place(munro.offset())].as_ref()?;
        (slot.proven.top() == munro).then_some(slot)
    }

    /// The verified munros in the window, in no particular order.
    pub fn munros(&self) -> impl Iterator<Item = &SignedMunro> {
        self.slots.iter().flatten().map(|slot| &slot.signed)
    }

    /// The newest verified munro, which a newcomer is sent first.
    #[must_use]
    pub fn newest(&self) -> Option<&SignedMunro> {
        self.slot(self.newest?).map(|slot| &slot.signed)
    }

    /// The verified munro above this chunk.
    #[must_use]
    pub fn munro(&self, chunk: u64) -> Option<&SignedMunro> {
        self.slot(Bin::leaf(chunk)?).map(|slot| &slot.signed)
    }

    /// A node's verified hash.
    #[must_use]
    pub fn hash(&self, bin: Bin) -> Option<Digest> {
        self.slot(bin)?.proven.hash(bin)
    }

    /// Whether this chunk was accepted.
    #[must_use]
    pub fn holds(&self, chunk: u64) -> bool {
        let slot = Bin::leaf(chunk).and_then(|leaf| self.slot(leaf));
        slot.is_some_and(|slot| slot.proven.holds(chunk))
    }

    /// Accepts a chunk if it is the injector's. Nodes that are not on its way to the munro are passed over.
    ///
    /// # Errors
    /// It is not accepted, for the stated reason; only the counters have changed.
    pub fn accept(&mut self, chunk: u64, data: &[u8], nodes: &[Node]) -> Result<Accepted, Refusal> {
        // Without a munro nothing is hashed.
        if let Err(refusal) = self.slot_for(chunk) {
            return self.count(1, Err(refusal));
        }
        let leaf = self.config.tree.kind.leaf(data);
        self.accept_batch(chunk, &[leaf], nodes)
    }

    /// Accepts all of the chunks with these hashes, of which `first` is the first, if all are the injector's. They are
    /// of one munro; with all of its chunks no nodes are needed.
    ///
    /// # Errors
    /// None is accepted, for the stated reason; only the counters have changed.
    pub fn accept_batch(
        &mut self,
        first: u64,
        leaves: &[Digest],
        nodes: &[Node],
    ) -> Result<Accepted, Refusal> {
        let mut hashes = 0;
        let result = match self.slot_for(first) {
            Ok(slot) => slot.proven.accept(first, leaves, nodes, &mut hashes),
            Err(refusal) => Err(refusal),
        };
        self.stats.hashes += hashes;
        self.count(leaves.len() as u64, result)
    }

    fn slot_for(&mut self, chunk: u64) -> Result<&mut Slot, Refusal> {
        let first = self.window().start;
        if chunk < first {
            return Err(Refusal::TooOld { chunk, first });
        }
        let none = Refusal::NoMunro { chunk };
        let munro = self.config.tree.munro_of(chunk).ok_or(none)?;
        let place = self.place(munro.offset());
        let slot = self.slots[place].as_mut();
        slot.filter(|slot| slot.proven.top() == munro).ok_or(none)
    }

    fn count(&mut self, chunks: u64, result: Result<Accepted, Refusal>) -> Result<Accepted, Refusal> {
        let stats = &mut self.stats;
        match &result {
            Ok(accepted) => {
                stats.chunks += accepted.new;
                stats.chunks_again += accepted.again;
            }
            Err(Refusal::TooOld { .. }) => stats.chunks_old += chunks,
            Err(Refusal::NoMunro { .. } | Refusal::Missing { .. }) => stats.chunks_unproven += chunks,
            Err(Refusal::Wrong { .. }) => stats.chunks_wrong += chunks,
            Err(Refusal::Range { .. } | Refusal::TooMany { .. } | Refusal::NotALeaf { .. }) => {
                stats.chunks_malformed += chunks;
            }
        }
        result
    }

    /// Appends to `out` what proves an accepted chunk to somebody else, from the highest node down; `has` says whether
    /// that one holds any chunk under a node. Gives the munro it leads to.
    ///
    /// # Errors
    /// The chunk was not accepted here, or is forgotten.
    pub fn proof_for(
        &self,
        chunk: u64,
        has: impl FnMut(Bin) -> bool,
        out: &mut Vec<Node>,
    ) -> Result<&SignedMunro, NoProof> {
        let first = self.window().start;
        if chunk < first {
            return Err(NoProof::Forgotten { chunk, first });
        }
        let none = NoProof::NoMunro { chunk };
        let leaf = Bin::leaf(chunk).ok_or(none)?;
        let slot = self.slot(leaf).ok_or(none)?;
        if !slot.proven.holds(chunk) {
            return Err(NoProof::Unknown { bin: leaf });
        }
        let top = known_above(leaf, slot.proven.top(), has);
        collect(leaf.uncles(top), |bin| slot.proven.hash(bin), out)?;
        Ok(&slot.signed)
    }
}

fn exceeds(us: i64, max_us: u64) -> bool {
    u64::try_from(us).is_ok_and(|us| us > max_us)
}
