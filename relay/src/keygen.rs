//! Random secrets.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of randomness in a secret: 256 bits, 43 characters.
const BYTES: usize = 32;

/// A fresh secret: a node token or a password.
///
/// # Errors
///
/// When the kernel has no randomness.
pub fn secret() -> io::Result<String> {
    random(BYTES)
}

/// A password that can also be typed: 96 bits, 16 characters.
///
/// # Errors
///
/// As [`secret`].
pub fn short() -> io::Result<String> {
    random(12)
}

fn random(n: usize) -> io::Result<String> {
    let mut bytes = vec![0; n];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_can_be_tokens_and_passwords() {
        let (a, b) = (secret().unwrap(), secret().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 43);
        assert!(relay_link::Token::new(&a).is_ok() && relay_source::Secret::new(&a).is_ok());
        assert_eq!(short().unwrap().len(), 16);
    }
}
