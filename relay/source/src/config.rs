//! What an operator may set for sources, with the defaults and why they are what they are.

use std::fmt;
use std::time::Duration;

use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// Settings of one mount's sources.
#[derive(Clone, Debug)]
pub struct Config {
    /// The password of the user `source`. Without one, ingest by push is refused: never open.
    pub password: Option<Secret>,
    /// A source that sends nothing for so long is gone (10 s, as Icecast's `source-timeout`).
    pub timeout: Duration,
    /// A source that sends less than this, in bytes per second, over a whole `rate_window` is cut: one byte now and
    /// then must not hold a mount. 64 B/s is half a kilobit: below any codec, above any keep-alive.
    pub min_rate: u64,
    /// What `min_rate` is measured over (30 s: a paused encoder gets the `timeout` first).
    pub rate_window: Duration,
    /// A source that sends faster than this, in bytes per second, is paused and TCP slows it down. None: no limit.
    pub max_rate: Option<u64>,
    /// A source that goes keeps its listeners for so long (10 s), waiting for it to come back.
    pub hold: Duration,
    /// The mount that listeners hear after `hold`, if any.
    pub fallback: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            password: None,
            timeout: Duration::from_secs(10),
            min_rate: 64,
            rate_window: Duration::from_secs(30),
            max_rate: None,
            hold: Duration::from_secs(10),
            fallback: None,
        }
    }
}

/// A password: compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret {
    padded: [u8; Secret::BYTES_MAX],
    len: usize,
}

/// Why a text cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SecretError {
    /// An empty password would let everybody in.
    #[error("expected a password, got an empty one")]
    Empty,
    /// Longer than what is compared.
    #[error("expected a password of at most 256 bytes, got {0}")]
    TooLong(usize),
}

impl Secret {
    /// A password is at most this many bytes; so many are compared, always.
    pub const BYTES_MAX: usize = 256;

    /// A password from the configuration.
    ///
    /// # Errors
    ///
    /// When it is empty or over [`Secret::BYTES_MAX`].
    pub fn new(password: &str) -> Result<Self, SecretError> {
        match password.len() {
            0 => Err(SecretError::Empty),
            n if n > Self::BYTES_MAX => Err(SecretError::TooLong(n)),
            _ => Ok(Self::padded(password)),
        }
    }

    /// Whether `candidate` is this password. The time depends on neither: both are laid into buffers of one
    /// size, all of it is compared, and so is the length.
    pub fn matches(&self, candidate: &str) -> bool {
        bool::from(self.ct_matches(candidate))
    }

    pub(crate) fn ct_matches(&self, candidate: &str) -> Choice {
        let other = Self::padded(candidate);
        self.padded.ct_eq(&other.padded) & (self.len as u64).ct_eq(&(other.len as u64))
    }

    /// A candidate over the limit is cut; its length then differs from that of every password.
    fn padded(text: &str) -> Self {
        let mut padded = [0; Self::BYTES_MAX];
        let n = text.len().min(Self::BYTES_MAX);
        padded[..n].copy_from_slice(&text.as_bytes()[..n]);
        Self {
            padded,
            len: text.len(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_matches_itself_only() {
        let s = Secret::new("hackme").unwrap();
        assert!(s.matches("hackme"));
        for other in [
            "",
            "hackm",
            "hackme\0",
            "hackmeE",
            "Hackme",
            &"hackme".repeat(100),
        ] {
            assert!(!s.matches(other), "{other:?}");
        }
    }

    #[test]
    fn the_longest_password_is_not_its_own_beginning() {
        let s = Secret::new(&"x".repeat(256)).unwrap();
        assert!(s.matches(&"x".repeat(256)));
        assert!(!s.matches(&"x".repeat(257)) && !s.matches(&"x".repeat(255)));
    }

    #[test]
    fn impossible_passwords_are_refused() {
        assert_eq!(Secret::new("").unwrap_err(), SecretError::Empty);
        assert_eq!(
            Secret::new(&"x".repeat(257)).unwrap_err(),
            SecretError::TooLong(257)
        );
    }

    #[test]
    fn a_configuration_does_not_print_its_password() {
        let config = Config {
            password: Some(Secret::new("hackme").unwrap()),
            ..Config::default()
        };
        let text = format!("{config:?}");
        assert!(text.contains("***") && !text.contains("hackme"), "{text}");
    }

    proptest! {
        #[test]
        fn matching_is_equality(a in "[a-b\0]{1,4}", b in "[a-b\0]{0,4}") {
            prop_assert_eq!(Secret::new(&a).unwrap().matches(&b), a == b);
        }
    }
}
