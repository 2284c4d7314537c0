//! Munros: signed nodes of the live tree (RFC 7574 §6.1.2).
//!
//! The injector signs the root of every few chunks' subtree, together with the moment. What exactly is signed is one of
//! two forms, a [`Form`]:
//!
//! * [`rfc_text`], the standard's: `chunk specification || NTP time stamp || hash`. It says which chunks, but not
//!   of which channel or life of it: one key must never serve two channels.
//! * [`bound_text`], ours: the same facts, and before them the channel and its epoch. What was signed elsewhere or
//!   earlier is then just a bad signature. All fields have a fixed width and the text begins with a label, so that no
//!   text of one form is one of the other.
//!
//! A munro has a fixed layout outside PPSPP, big-endian ([`SignedMunro::encode`]): `bin number u64, NTP time u64, hash
//! function u8 (its RFC 7574 number), hash, signature (64 bytes)`.

use crate::addressing::Addressing;
use crate::bin::Bin;
use crate::hash::{DIGEST_MAX, Digest, HashKind};
use crate::key::{KeyError, PublicKey, SIGNATURE_LEN, Signature, Signer};
use crate::ntp::NtpTime;
use thiserror::Error;

/// The longest encoded munro, in bytes.
pub const MUNRO_MAX: usize = HEAD_LEN + DIGEST_MAX + SIGNATURE_LEN;
/// Bytes of an encoded munro before the hash.
const HEAD_LEN: usize = 17;
/// Begins what is signed in the bound form, and nothing else.
const LABEL: &[u8; 16] = b"totality-munro-1";

/// A subtree's root, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Munro {
    /// The subtree.
    pub bin: Bin,
    /// The hash of its root.
    pub hash: Digest,
    /// When it was made, by the injector's clock.
    pub time: NtpTime,
}

/// A channel by a name of fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId(pub [u8; 32]);

impl ChannelId {
    /// The channel of this mount path, such as `/eclipse.ts`: the SHA-256 of the path.
    #[must_use]
    pub fn of_mount(path: &str) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(HashKind::Sha256.leaf(path.as_bytes()).as_bytes());
        Self(id)
    }
}

/// What a munro is signed for beyond its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// The channel.
    pub channel: ChannelId,
    /// The life of the channel in which chunk numbers count.
    pub epoch: u64,
}

/// Which text is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As RFC 7574 has it, with chunks named in this method.
    Rfc(Addressing),
    /// Bound to a channel and an epoch. Of the two twins of a signature only the one with the smaller *s* is valid.
    Bound(Context),
}

impl Form {
    /// What is signed; none where the addressing method cannot name the munro's chunks.
    #[must_use]
    pub fn text(&self, munro: &Munro) -> Option<Vec<u8>> {
        match self {
            Self::Rfc(addressing) => rfc_text(*addressing, munro),
            Self::Bound(context) => Some(bound_text(context, munro)),
        }
    }
}

/// What RFC 7574 §6.1.2.2 has signed: chunk specification, NTP time stamp, hash. None where the addressing method
/// cannot name the chunks.
#[must_use]
pub fn rfc_text(addressing: Addressing, munro: &Munro) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(16 + 8 + DIGEST_MAX);
    addressing.put(munro.bin, &mut text)?;
    text.extend(munro.time.0.to_be_bytes());
    text.extend(munro.hash.as_bytes());
    Some(text)
}

/// What is signed on our own wire: `label (16 bytes), channel (32), epoch u64, bin number u64, NTP time stamp u64, hash
/// function u8, hash`.
#[must_use]
pub fn bound_text(context: &Context, munro: &Munro) -> Vec<u8> {
    let mut text = Vec::with_capacity(16 + 32 + 8 + HEAD_LEN + DIGEST_MAX);
    text.extend(LABEL);
    text.extend(context.channel.0);
    text.extend(context.epoch.to_be_bytes());
    put_facts(munro, &mut text);
    text
}

fn put_facts(munro: &Munro, out: &mut Vec<u8>) {
    out.extend(munro.bin.number().to_be_bytes());
    out.extend(munro.time.0.to_be_bytes());
    out.push(munro.hash.kind().code());
    out.extend(munro.hash.as_bytes());
}

/// A munro with a signature, which may be anything: only [`Verifier::verify`] says that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedMunro {
    /// What is said.
    pub munro: Munro,
    /// By whom.
    pub signature: Signature,
}

/// Bytes that are not an encoded munro.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too few bytes, or too many.
    #[error("munro: expected {expected} bytes, got {got}")]
    Length {
        /// What a munro with that hash function has.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A hash function that is not ours.
    #[error("munro: expected hash function 0 or 2, got {got}")]
    HashKind {
        /// The number that came.
        got: u8,
    },
    /// The bin that names no chunk.
    #[error("munro: expected a bin, got the empty interval")]
    Empty,
}

impl SignedMunro {
    /// Appends it, 101 bytes with SHA-1 and 113 with SHA-256.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_facts(&self.munro, out);
        out.extend(self.signature.0);
    }

    /// Reads exactly one.
    ///
    /// # Errors
    /// Another length, an unknown hash function, or no bin.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let expected = HEAD_LEN + HashKind::Sha1.len() + SIGNATURE_LEN;
        let got = bytes.len();
        let short = DecodeError::Length { expected, got };
        let (bin, rest) = bytes.split_first_chunk().ok_or(short)?;
        let (time, rest) = rest.split_first_chunk().ok_or(short)?;
        let (&code, rest) = rest.split_first().ok_or(short)?;
        let kind = HashKind::from_code(code).ok_or(DecodeError::HashKind { got: code })?;
        let expected = HEAD_LEN + kind.len() + SIGNATURE_LEN;
        let length = DecodeError::Length { expected, got };
        let (hash, signature) = rest.split_at_checked(kind.len()).ok_or(length)?;
        let munro = Munro {
            bin: Bin::from_number(u64::from_be_bytes(*bin)).ok_or(DecodeError::Empty)?,
            hash: Digest::from_slice(kind, hash).ok_or(length)?,
            time: NtpTime(u64::from_be_bytes(*time)),
        };
        let signature = Signature(signature.try_into().map_err(|_| length)?);
        Ok(Self { munro, signature })
    }
}

/// Why a munro could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// The addressing method ends before these chunks.
    #[error("munro: {bin} cannot be named in {addressing:?}")]
    Unnameable {
        /// The chunks.
        bin: Bin,
        /// The method.
        addressing: Addressing,
    },
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Signer {
    /// Signs a munro in this form.
    ///
    /// # Errors
    /// Chunks that the form cannot name; no randomness.
    pub fn sign_munro(&self, form: &Form, munro: Munro) -> Result<SignedMunro, SignError> {
        let text = match form {
            Form::Bound(context) => bound_text(context, &munro),
            Form::Rfc(addressing) => {
                let (bin, addressing) = (munro.bin, *addressing);
                rfc_text(addressing, &munro).ok_or(SignError::Unnameable { bin, addressing })?
            }
        };
        let signature = self.sign(&text)?;
        Ok(SignedMunro { munro, signature })
    }
}

/// Why a munro's signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadSignature {
    /// Chunks that the addressing method cannot name: nobody can have signed that.
    #[error("munro: {bin} cannot be named in this swarm's addressing")]
    Unnameable {
        /// The chunks.
        bin: Bin,
    },
    /// The larger *s*, in a form that insists on the smaller.
    #[error("munro: the signature of {bin} was altered to its twin")]
    HighS {
        /// The chunks.
        bin: Bin,
    },
    /// Not signed by this key, in this form, for this context.
    #[error("munro: the signature of {bin} is not the injector's")]
    Forged {
        /// The chunks.
        bin: Bin,
    },
}

/// Checks munros of one channel.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: PublicKey,
    form: Form,
}

impl Verifier {
    /// For munros that `key` signs in `form`.
    #[must_use]
    pub const fn new(key: PublicKey, form: Form) -> Self {
        Self { key, form }
    }

    /// The injector's key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The form they are signed in.
    #[must_use]
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// Whether the signature holds. This is the expensive check, some 60 µs: see
    /// [`LiveVerifier`](crate::LiveVerifier) for the cheap ones that come first.
    ///
    /// # Errors
    /// It does not, for the stated reason.
    pub fn verify(&self, signed: &SignedMunro) -> Result<(), BadSignature> {
        let bin = signed.munro.bin;
        let text = self
            .form
            .text(&signed.munro)
            .ok_or(BadSignature::Unnameable { bin })?;
        if matches!(self.form, Form::Bound(_)) && !signed.signature.is_low_s() {
            return Err(BadSignature::HighS { bin });
        }
        match self.key.verifies(&text, &signed.signature) {
            true => Ok(()),
            false => Err(BadSignature::Forged { bin }),
        }
    }
}
