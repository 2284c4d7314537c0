//! Byte layouts of the P2PSP wire generations, as views over `&[u8]`. No state.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

pub mod b;
pub mod c;
pub mod nts;
pub mod t;

/// An IPv4 address and a port, as generations B and T have it.
pub const ENDPOINT_BYTES: usize = 6;

/// What came is not of this generation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, got {got}")]
pub struct WireError {
    /// As a noun phrase.
    pub expected: &'static str,
    /// What came.
    pub got: String,
}

impl WireError {
    pub(crate) fn new(expected: &'static str, got: impl fmt::Display) -> Self {
        Self {
            expected,
            got: got.to_string(),
        }
    }
}

/// A chunk number as the wires of the reference have it: modulo 2^16.
pub fn chunk_number(number: u64) -> u16 {
    (number & 0xffff) as u16
}

/// The number that the wire's `number` stands for: of all that are equal to it modulo 2^16, the one nearest to
/// `near`.
pub fn unwrap_number(number: u16, near: u64) -> u64 {
    let ahead = number.wrapping_sub(chunk_number(near)) as i16;
    // Before 0 and beyond the end there is no number; the next one that is one is a whole turn away.
    match near.checked_add_signed(i64::from(ahead)) {
        Some(nearest) => nearest,
        None if ahead < 0 => u64::from(number),
        None => near - (1 << 16) + u64::from(ahead.unsigned_abs()),
    }
}

/// Whether chunks of this size fit a datagram, and a buffer is one.
fn check_sizes(chunk_bytes: u16, chunk_bytes_max: u16, buffer_chunks: u16) -> Result<(), WireError> {
    if !(1..=chunk_bytes_max).contains(&chunk_bytes) {
        return Err(WireError::new("a chunk that fits a datagram", chunk_bytes));
    }
    if buffer_chunks == 0 {
        return Err(WireError::new("a buffer of at least 1 chunk", buffer_chunks));
    }
    Ok(())
}

/// As a `u16`, for a list or a name that begins with its length.
fn count(n: usize, expected: &'static str) -> Result<u16, WireError> {
    u16::try_from(n).map_err(|_| WireError::new(expected, n))
}

fn push_u16(value: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn push_endpoint(endpoint: SocketAddrV4, out: &mut Vec<u8>) {
    out.extend_from_slice(&endpoint.ip().octets());
    push_u16(endpoint.port(), out);
}

fn read_endpoint(bytes: &[u8; ENDPOINT_BYTES]) -> SocketAddrV4 {
    let [a, b, c, d, high, low] = *bytes;
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_unwrapped_to_the_nearest() {
        for (wire, near, number) in [
            (0, 0, 0),
            (65_535, 0, 65_535),
            (65_535, 65_536, 65_535),
            (1, 65_535, 65_537),
            (32_767, 0, 32_767),
            (7, 10 * 65_536, 10 * 65_536 + 7),
            (65_535, 10 * 65_536, 10 * 65_536 - 1),
            (3, u64::MAX, u64::MAX - 65_532),
        ] {
            assert_eq!(unwrap_number(wire, near), number, "{wire} near {near}");
        }
    }

    proptest! {
        #[test]
        fn an_unwrapped_number_is_the_wire_s_and_near(wire: u16, near: u64) {
            let number = unwrap_number(wire, near);
            prop_assert_eq!(chunk_number(number), wire);
            prop_assert!(number.abs_diff(near) <= 1 << 16);
        }
    }
}
