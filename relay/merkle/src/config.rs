//! The shape of a live tree, its limits, and what it costs in memory.

use crate::bin::Bin;
use crate::hash::{Digest, HashKind};
use thiserror::Error;

/// The largest number of chunks under one munro.
pub const CHUNKS_PER_MUNRO_MAX: u32 = 1 << 16;
/// The largest window, in chunks.
pub const WINDOW_MAX: u64 = 1 << 24;

/// The shape of a live tree; sender and receivers must agree on the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeConfig {
    /// The hash function.
    pub kind: HashKind,
    /// Chunks under one munro (the RFC's `NCHUNKS_PER_SIG`): a power of two, 2 to [`CHUNKS_PER_MUNRO_MAX`]. A chunk
    /// can be checked only when its munro is full, so this is also latency: at 4 Mb/s in chunks of 1,316 bytes, 32
    /// chunks are 84 ms.
    pub chunks_per_munro: u32,
    /// How many of the newest chunks can still be proven or checked, 1 to [`WINDOW_MAX`]; rounded up to whole munros.
    pub window: u64,
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self {
            kind: HashKind::default(),
            chunks_per_munro: 32,
            window: 8192,
        }
    }
}

/// A tree that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not a power of two, or out of range.
    #[error("chunks per munro: expected a power of two from 2 to {CHUNKS_PER_MUNRO_MAX}, got {got}")]
    ChunksPerMunro {
        /// What was asked for.
        got: u32,
    },
    /// Out of range.
    #[error("window: expected 1 to {WINDOW_MAX} chunks, got {got}")]
    Window {
        /// What was asked for.
        got: u64,
    },
    /// A tree that starts within a munro.
    #[error("first chunk: expected a multiple of {chunks_per_munro}, got {got}")]
    First {
        /// Where munros begin.
        chunks_per_munro: u32,
        /// What was asked for.
        got: u64,
    },
    /// A static tree without chunks, or with too many.
    #[error("static tree: expected 1 to {max} chunks, got {got}", max = crate::STATIC_CHUNKS_MAX)]
    Static {
        /// What was asked for.
        got: u64,
    },
}

impl TreeConfig {
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let got = self.chunks_per_munro;
        if !got.is_power_of_two() || !(2..=CHUNKS_PER_MUNRO_MAX).contains(&got) {
            return Err(ConfigError::ChunksPerMunro { got });
        }
        if !(1..=WINDOW_MAX).contains(&self.window) {
            return Err(ConfigError::Window { got: self.window });
        }
        Ok(())
    }

    /// The most memory that the hashes of one tree take, sender's or receiver's, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // Hashes of all nodes, and whether a leaf is there; one subtree more while it grows.
        let subtree = u64::from(self.chunks_per_munro) * (2 * size_of::<Option<Digest>>() as u64 + 1);
        (self.munros() + 1) * subtree
    }

    /// The layer of the munros.
    #[must_use]
    pub const fn munro_layer(&self) -> u32 {
        self.chunks_per_munro.trailing_zeros()
    }

    /// Munros in the window.
    #[must_use]
    pub fn munros(&self) -> u64 {
        self.window.div_ceil(self.chunks_per_munro.into())
    }

    /// The munro above this chunk; none for chunks that have no number.
    #[must_use]
    pub fn munro_of(&self, chunk: u64) -> Option<Bin> {
        Bin::leaf(chunk)?.ancestor(self.munro_layer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_at_their_edges() {
        let with = |chunks_per_munro, window| TreeConfig {
            chunks_per_munro,
            window,
            ..TreeConfig::default()
        };
        assert_eq!(TreeConfig::default().check(), Ok(()));
        assert_eq!(with(2, 1).check(), Ok(()));
        assert_eq!(with(CHUNKS_PER_MUNRO_MAX, WINDOW_MAX).check(), Ok(()));
        for got in [0, 1, 3, CHUNKS_PER_MUNRO_MAX + 1, CHUNKS_PER_MUNRO_MAX * 2] {
            assert_eq!(with(got, 1).check(), Err(ConfigError::ChunksPerMunro { got }));
        }
        for got in [0, WINDOW_MAX + 1] {
            assert_eq!(with(2, got).check(), Err(ConfigError::Window { got }));
        }
    }

    #[test]
    fn windows_are_whole_munros() {
        let config = TreeConfig {
            window: 33,
            ..TreeConfig::default()
        };
        assert_eq!(config.munros(), 2);
        assert_eq!(config.munro_of(33), Bin::from_range(32, 63));
        assert_eq!(config.munro_of(u64::MAX), None);
    }
}
