//! Hashes of chunks and of inner nodes (RFC 7574 §5.2, §7.6).
//!
//! A chunk's hash is the hash of its bytes; a parent's is the hash of its children's, left before right, with nothing
//! between or before them. Where a tree has fewer chunks than its base, the missing leaves are all zeros, and the
//! parent of two all-zero hashes is all zeros too, without hashing.

use sha1::Sha1;
use sha2::Sha256;
use std::fmt;

/// The longest digest, in bytes.
pub const DIGEST_MAX: usize = 32;

/// A Merkle hash function (RFC 7574 §7.6); the two that every implementation must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum HashKind {
    /// 20 bytes. The only one that older implementations speak.
    Sha1,
    /// 32 bytes, the default.
    #[default]
    Sha256,
}

impl HashKind {
    /// Its number in the protocol option "Merkle Hash Tree Function".
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Sha1 => 0,
            Self::Sha256 => 2,
        }
    }

    /// The function with this number, if it is one of ours.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Sha1),
            2 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// Bytes of its digests: 20 or 32.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a digest's length, never zero")]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The hash of a chunk's bytes.
    #[must_use]
    pub fn leaf(self, chunk: &[u8]) -> Digest {
        self.digest(&[chunk])
    }

    /// The hash of an inner node, from its children's.
    #[must_use]
    pub fn parent(self, left: &Digest, right: &Digest) -> Digest {
        if left.is_zero() && right.is_zero() {
            return self.zero();
        }
        self.digest(&[left.as_bytes(), right.as_bytes()])
    }

    /// The hash of what is not there: all zeros.
    #[must_use]
    pub const fn zero(self) -> Digest {
        Digest {
            bytes: [0; DIGEST_MAX],
            kind: self,
        }
    }

    fn digest(self, parts: &[&[u8]]) -> Digest {
        let mut digest = self.zero();
        match self {
            Self::Sha1 => digest.bytes[..20].copy_from_slice(&hash_of::<Sha1>(parts)),
            Self::Sha256 => digest.bytes.copy_from_slice(&hash_of::<Sha256>(parts)),
        }
        digest
    }
}

fn hash_of<H: sha1::Digest>(parts: &[&[u8]]) -> sha1::digest::Output<H> {
    let mut hasher = H::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// A hash of 20 or 32 bytes, which knows its function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    /// Zeros beyond the function's length.
    bytes: [u8; DIGEST_MAX],
    kind: HashKind,
}

impl Digest {
    /// A digest from the wire; none where the length is not the function's.
    #[must_use]
    pub fn from_slice(kind: HashKind, bytes: &[u8]) -> Option<Self> {
        let mut digest = kind.zero();
        if bytes.len() != kind.len() {
            return None;
        }
        digest.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(digest)
    }

    /// Its bytes, as many as its function gives.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.kind.len()]
    }

    /// The function it comes from.
    #[must_use]
    pub const fn kind(&self) -> HashKind {
        self.kind
    }

    /// Whether it is the hash of what is not there.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.bytes == [0; DIGEST_MAX]
    }
}

/// In hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // FIPS 180-4's example "abc".
        let sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d";
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(HashKind::Sha1.leaf(b"abc").to_string(), sha1);
        assert_eq!(HashKind::Sha256.leaf(b"abc").to_string(), sha256);
    }

    #[test]
    fn a_parent_is_the_hash_of_both_children() {
        for kind in [HashKind::Sha1, HashKind::Sha256] {
            let (left, right) = (kind.leaf(b"left"), kind.leaf(b"right"));
            let both = [left.as_bytes(), right.as_bytes()].concat();
            assert_eq!(kind.parent(&left, &right), kind.leaf(&both));
            assert_ne!(kind.parent(&left, &right), kind.parent(&right, &left));
        }
    }

    #[test]
    fn two_missing_children_have_a_missing_parent() {
        for kind in [HashKind::Sha1, HashKind::Sha256] {
            let (zero, leaf) = (kind.zero(), kind.leaf(b"chunk"));
            assert!(kind.parent(&zero, &zero).is_zero());
            let half = [leaf.as_bytes(), zero.as_bytes()].concat();
            assert_eq!(kind.parent(&leaf, &zero), kind.leaf(&half));
        }
    }

    #[test]
    fn lengths_and_codes() {
        for kind in [HashKind::Sha1, HashKind::Sha256] {
            assert_eq!(HashKind::from_code(kind.code()), Some(kind));
            assert_eq!(kind.zero().as_bytes().len(), kind.len());
            let digest = kind.leaf(b"chunk");
            assert_eq!(Digest::from_slice(kind, digest.as_bytes()), Some(digest));
            assert_eq!(Digest::from_slice(kind, &[7; 33]), None);
            assert_eq!(Digest::from_slice(kind, &digest.as_bytes()[1..]), None);
        }
        assert_eq!(HashKind::from_code(1), None);
        // The same bytes of another function are another digest.
        assert_ne!(HashKind::Sha1.zero(), HashKind::Sha256.zero());
    }
}
