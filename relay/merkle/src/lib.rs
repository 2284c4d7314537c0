//! RFC 7574 integrity: bins, growing Merkle trees, signed munros, proofs and their verification.
//!
//! A live channel's injector hashes every chunk into a [`LiveTree`]. Every few chunks it gives a **munro**, the root of
//! their subtree, which a [`Signer`] signs. Whoever gets a chunk from whomever checks with a [`LiveVerifier`] that its
//! hash leads, by the hashes of its uncles, to a munro that the injector signed: no chunk that was altered, made up,
//! recorded earlier or moved to another place passes.
//!
//! * [`Bin`]: the numbers of tree nodes; [`Addressing`]: how they are written.
//! * [`HashKind`], [`Digest`]: SHA-1 and SHA-256.
//! * [`LiveTree`]: the sender's side; [`LiveVerifier`]: the receiver's.
//! * [`Signer`], [`Verifier`], [`SignedMunro`]: who said so; [`Form`]: what exactly is signed.
//! * [`StaticTree`], [`StaticVerifier`]: content of known size, small.
//!
//! Nothing here reads a clock, a file or a socket. Only [`Signer`] draws randomness. All memory is bounded by
//! configuration ([`TreeConfig::bytes`]), and nothing that comes from the network makes this crate panic.
//!
//! ```
//! use relay_merkle::{
//!     ChannelId, Context, Form, LiveConfig, LiveTree, LiveVerifier, Munro, NtpTime, Signer, Verifier,
//! };
//!
//! let config = LiveConfig::default();
//! let signer = Signer::generate()?;
//! let channel = ChannelId::of_mount("/eclipse.ts");
//! let form = Form::Bound(Context { channel, epoch: 7 });
//! let now = NtpTime::from_unix_us(1_786_000_000_000_000);
//!
//! // The injector.
//! let mut tree = LiveTree::new(config.tree)?;
//! let chunks: Vec<_> = (0..32_u8).map(|n| [n; 1316]).collect();
//! let mut munro = None;
//! for chunk in &chunks {
//!     munro = munro.or(tree.append_chunk(chunk)?);
//! }
//! let munro = munro.expect("32 chunks make a munro");
//! let signed = signer.sign_munro(&form, Munro { bin: munro.bin, hash: munro.hash, time: now })?;
//! let mut proof = Vec::new();
//! tree.proof(5, &mut proof)?;
//!
//! // A viewer, who knows the injector's key.
//! let verifier = Verifier::new(signer.public_key().clone(), form);
//! let mut viewer = LiveVerifier::new(config, verifier)?;
//! viewer.offer(&signed, now)?;
//! viewer.accept(5, &chunks[5], &proof)?;
//! assert!(viewer.accept(4, b"something else", &proof).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addressing;
mod bin;
mod config;
mod hash;
mod key;
mod live;
mod munro;
mod ntp;
mod proof;
mod statics;
mod subtree;
mod tree;

pub use addressing::Addressing;
pub use bin::{Bin, Cover, MAX_CHUNK, MAX_LAYER, Uncles, cover, peaks};
pub use config::{CHUNKS_PER_MUNRO_MAX, ConfigError, TreeConfig, WINDOW_MAX};
pub use hash::{DIGEST_MAX, Digest, HashKind};
pub use key::{
    ALGORITHM, KeyError, PEM_MAX, PRIVATE_KEY_LEN, PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, Signature,
    Signer,
};
pub use live::{Judgement, LiveConfig, LiveStats, LiveVerifier, MunroRefusal};
pub use munro::{
    BadSignature, ChannelId, Context, DecodeError, Form, MUNRO_MAX, Munro, SignError, SignedMunro, Verifier,
    bound_text, rfc_text,
};
pub use ntp::NtpTime;
pub use proof::{Accepted, NoProof, PROOF_MAX, Refusal};
pub use statics::{STATIC_CHUNKS_MAX, StaticTree, StaticVerifier, fold};
pub use subtree::Node;
pub use tree::{AppendError, LiveTree};
