//! The injector's keys: ECDSA on P-256 with SHA-256, number 13 among DNSSEC's algorithms (RFC 6605, RFC 7574 §7.7).
//!
//! A live swarm's identifier is its public key, written as in a DNSKEY record: the algorithm's number, then *x* and
//! *y*. A signature is *r* and *s*, 32 bytes each, as in RRSIG.
//!
//! For every valid signature (*r*, *s*) there is a second one, (*r*, *n* − *s*), that anybody can compute. What is
//! signed here always has the smaller *s*, so that who wants to can insist on it.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// ECDSAP256SHA256 in the registry of DNSSEC algorithm numbers.
pub const ALGORITHM: u8 = 13;
/// Bytes of a public key as a swarm identifier: the algorithm, *x*, *y*.
pub const PUBLIC_KEY_LEN: usize = 65;
/// Bytes of a private key.
pub const PRIVATE_KEY_LEN: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;
/// Characters of PEM that are looked at; a P-256 key has about 250.
pub const PEM_MAX: usize = 8192;

/// What `x || y` begins with where a point is written uncompressed (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;
/// The order of P-256's group, *n*.
const ORDER: [u8; 32] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC,
    0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
];
/// Half of it, rounded down: the largest *s* that counts as small.
const HALF_ORDER: [u8; 32] = [
    0x7F, 0xFF, 0xFF, 0xFF, 0x80, 0x00, 0x00, 0x00, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xDE,
    0x73, 0x7D, 0x56, 0xD3, 0x8B, 0xCF, 0x42, 0x79, 0xDC, 0xE5, 0x61, 0x7E, 0x31, 0x92, 0xA8,
];

/// Why something is not a key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Another length.
    #[error("key: expected {expected} bytes, got {got}")]
    Length {
        /// What a key has.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Another signature algorithm.
    #[error("key: expected algorithm {ALGORITHM} (ECDSAP256SHA256), got {got}")]
    Algorithm {
        /// The DNSSEC number that came.
        got: u8,
    },
    /// The right form, but not a point of the curve, or not a number below its order.
    #[error("key: not a valid P-256 key")]
    Invalid,
    /// No private key in the PEM text.
    #[error("key: expected PEM with PRIVATE KEY or EC PRIVATE KEY, found neither whole")]
    Pem,
    /// The library or its source of randomness failed.
    #[error("key: the cryptographic library failed")]
    Library,
}

/// An ECDSA signature, *r* and *s*. That it has this type says nothing about whether it is valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; SIGNATURE_LEN]);

impl Signature {
    /// Whether its *s* is the smaller of the two that are valid for the same text.
    #[must_use]
    pub fn is_low_s(&self) -> bool {
        self.0[32..] <= HALF_ORDER[..]
    }

    /// The other signature that is valid for the same text. An *s* that no valid signature has stays as it is.
    #[must_use]
    pub fn twin(mut self) -> Self {
        if self.0[32..] >= ORDER[..] {
            return self;
        }
        let mut borrow = false;
        for (s, n) in self.0[32..].iter_mut().zip(ORDER).rev() {
            let (difference, first) = n.overflowing_sub(*s);
            let (difference, second) = difference.overflowing_sub(borrow.into());
            *s = difference;
            borrow = first || second;
        }
        self
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A public key that is known to be a point of the curve.
#[derive(Clone)]
pub struct PublicKey {
    swarm_id: [u8; PUBLIC_KEY_LEN],
    parsed: ParsedPublicKey,
}

impl PublicKey {
    /// The key in a swarm identifier: the algorithm's number, *x*, *y*.
    ///
    /// # Errors
    /// Another length or algorithm, or not a point of the curve.
    pub fn from_swarm_id(id: &[u8]) -> Result<Self, KeyError> {
        let swarm_id: [u8; PUBLIC_KEY_LEN] = id.try_into().map_err(|_| KeyError::Length {
            expected: PUBLIC_KEY_LEN,
            got: id.len(),
        })?;
        match swarm_id[0] {
            ALGORITHM => Self::from_point(swarm_id),
            got => Err(KeyError::Algorithm { got }),
        }
    }

    fn from_point(mut swarm_id: [u8; PUBLIC_KEY_LEN]) -> Result<Self, KeyError> {
        swarm_id[0] = UNCOMPRESSED;
        let parsed =
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, swarm_id).map_err(|_| KeyError::Invalid)?;
        swarm_id[0] = ALGORITHM;
        Ok(Self { swarm_id, parsed })
    }

    /// Its form as a swarm identifier.
    #[must_use]
    pub const fn swarm_id(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.swarm_id
    }

    /// Whether this key signed `text`. Both twins of a signature are accepted; see [`Signature::is_low_s`].
    #[must_use]
    pub fn verifies(&self, text: &[u8], signature: &Signature) -> bool {
        self.parsed.verify_sig(text, &signature.0).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.swarm_id == other.swarm_id
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.swarm_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A private key. Its memory is wiped when it is dropped, and it does not show itself.
pub struct Signer {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl Signer {
    /// A new key, from the system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Library`] where there is none.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::Library)?;
        Self::from_pair(pair)
    }

    /// The key that is this number, big-endian.
    ///
    /// # Errors
    /// Another length; zero, or not below the order of the group.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != PRIVATE_KEY_LEN {
            let (expected, got) = (PRIVATE_KEY_LEN, bytes.len());
            return Err(KeyError::Length { expected, got });
        }
        let key = PrivateKey::from_private_key(&ECDH_P256, bytes).map_err(|_| KeyError::Invalid)?;
        let public = key.compute_public_key().map_err(|_| KeyError::Library)?;
        let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(alg, bytes, public.as_ref());
        Self::from_pair(pair.map_err(|_| KeyError::Invalid)?)
    }

    /// The key in PEM text, as this crate and OpenSSL write it: PKCS #8 (`PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`).
    /// What else stands in the text is passed over.
    ///
    /// # Errors
    /// No such block, or none that holds a P-256 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = ["PRIVATE KEY", "EC PRIVATE KEY"]
            .iter()
            .find_map(|label| pem_block(text, label))
            .ok_or(KeyError::Pem)?;
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der);
        Self::from_pair(pair.map_err(|_| KeyError::Invalid)?)
    }

    /// As PEM text, PKCS #8. Wiped when it is dropped: do not copy it further than needed.
    ///
    /// # Errors
    /// [`KeyError::Library`] where there is no memory.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError::Library)?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        // Reserved at once: a string that grows leaves its former self behind.
        let mut pem = Zeroizing::new(String::with_capacity(body.len() + 128));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = body.as_str();
        while let Some((line, more)) = rest.split_at_checked(64) {
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem.push_str(rest);
        pem.push_str(if rest.is_empty() { "" } else { "\n" });
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// The number that it is, big-endian. Wiped when it is dropped.
    ///
    /// # Errors
    /// [`KeyError::Library`] where there is no memory.
    pub fn to_bytes(&self) -> Result<Zeroizing<[u8; PRIVATE_KEY_LEN]>, KeyError> {
        let secret = self
            .pair
            .private_key()
            .as_be_bytes()
            .map_err(|_| KeyError::Library)?;
        let mut bytes = Zeroizing::new([0; PRIVATE_KEY_LEN]);
        bytes.copy_from_slice(secret.as_ref());
        Ok(bytes)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let point = pair.public_key().as_ref();
        let swarm_id = point.try_into().map_err(|_| KeyError::Invalid)?;
        let public = PublicKey::from_point(swarm_id)?;
        Ok(Self { pair, public })
    }

    /// The public half.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `text`, with the smaller *s*. Signing the same text twice gives two different signatures.
    ///
    /// # Errors
    /// [`KeyError::Library`] where there is no randomness.
    pub fn sign(&self, text: &[u8]) -> Result<Signature, KeyError> {
        let random = SystemRandom::new();
        let made = self.pair.sign(&random, text).map_err(|_| KeyError::Library)?;
        let signature = Signature(made.as_ref().try_into().map_err(|_| KeyError::Library)?);
        Ok(if signature.is_low_s() {
            signature
        } else {
            signature.twin()
        })
    }
}

/// The public half only.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// The bytes of the first block with this label.
fn pem_block(text: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.get(..text.len().min(PEM_MAX))?;
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let mut packed = Zeroizing::new(String::with_capacity(body.len()));
    packed.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
    STANDARD.decode(packed.as_str()).ok().map(Zeroizing::new)
}
