//! RFC 7574 integrity: bins, growing Merkle trees, signed munros, proofs and their verification.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bin;
mod hash;

pub use bin::{Bin, Cover, MAX_CHUNK, MAX_LAYER, Uncles, cover, peaks};
pub use hash::{DIGEST_MAX, Digest, HashKind};
