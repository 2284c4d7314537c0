//! What only the team knows: keyed hashes (HMAC-SHA-256) from which tokens, tickets and tags are made.
//!
//! Rules draw no randomness: the caller gives 32 random bytes once. Each use has a label of its own, so that one
//! use's result is never another's.

use aws_lc_rs::hmac;
use relay_merkle::Digest;

use crate::wire::t::{Tag, Token};

/// What a keyed hash is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A member's token towards the splitter.
    Pass = 1,
    /// The splitter's token towards a member.
    Call = 2,
    /// A member's secret.
    Member = 3,
    /// A challenge to an endpoint.
    Nonce = 4,
    /// A newcomer's token towards a mate.
    Ticket = 5,
    /// A mate's token towards us.
    Reply = 6,
    /// Who sent a chunk.
    Tag = 7,
}

/// A key.
#[derive(Clone)]
pub(crate) struct Secret(hmac::Key);

impl Secret {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn sign(&self, what: Use, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[what as u8]);
        parts.iter().for_each(|part| context.update(part));
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }

    /// A number that nobody guesses, for these two.
    pub(crate) fn number(&self, what: Use, a: u64, b: u64) -> u64 {
        let [x0, x1, x2, x3, x4, x5, x6, x7, ..] = self.sign(what, &[&a.to_be_bytes(), &b.to_be_bytes()]);
        u64::from_be_bytes([x0, x1, x2, x3, x4, x5, x6, x7])
    }

    pub(crate) fn token(&self, what: Use, a: u64, b: u64) -> Token {
        Token(self.number(what, a, b))
    }

    /// The secret of the member with this serial.
    pub(crate) fn member(&self, serial: u64) -> [u8; 16] {
        self.short(Use::Member, &[&serial.to_be_bytes()])
    }

    /// That whoever has this secret sent this chunk with this digest, in this life of the channel.
    pub(crate) fn tag(&self, epoch: u64, number: u64, digest: &Digest) -> Tag {
        let (epoch, number) = (epoch.to_be_bytes(), number.to_be_bytes());
        self.short(Use::Tag, &[&epoch, &number, digest.as_bytes()])
    }

    fn short(&self, what: Use, parts: &[&[u8]]) -> [u8; 16] {
        let mut out = [0; 16];
        out.copy_from_slice(&self.sign(what, parts)[..16]);
        out
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_merkle::HashKind;

    #[test]
    fn everything_that_goes_in_changes_what_comes_out() {
        let (one, two) = (Secret::new(&[1; 32]), Secret::new(&[2; 32]));
        let base = one.number(Use::Pass, 3, 4);
        assert_eq!(base, Secret::new(&[1; 32]).number(Use::Pass, 3, 4));
        let others = [
            two.number(Use::Pass, 3, 4),
            one.number(Use::Call, 3, 4),
            one.number(Use::Pass, 4, 4),
            one.number(Use::Pass, 3, 5),
        ];
        assert!(!others.contains(&base));
        let digest = |data: &[u8]| HashKind::Sha256.leaf(data);
        let tag = one.tag(7, 1, &digest(b"x"));
        assert_ne!(tag, one.tag(8, 1, &digest(b"x")));
        assert_ne!(tag, one.tag(7, 2, &digest(b"x")));
        assert_ne!(tag, one.tag(7, 1, &digest(b"y")));
        assert_ne!(one.member(1), one.member(2));
        assert_eq!(format!("{one:?}"), "Secret(…)");
    }
}
