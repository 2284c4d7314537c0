//! Reading big-endian numbers out of bytes that may be too short.

/// The `n` bytes (at most 8) at `at` as a big-endian number, or none where the data ends before.
pub(crate) fn be(data: &[u8], at: usize, n: usize) -> Option<u64> {
    let bytes = data.get(at..at.checked_add(n)?)?;
    Some(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// The `n` bytes (at most 8) at `at` as a little-endian number, or none where the data ends before.
pub(crate) fn le(data: &[u8], at: usize, n: usize) -> Option<u64> {
    let bytes = data.get(at..at.checked_add(n)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

/// A byte or 16 bits as a length.
pub(crate) fn len(data: &[u8], at: usize, n: usize) -> Option<usize> {
    be(data, at, n).and_then(|value| usize::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stop_at_the_end_of_the_data() {
        assert_eq!(be(&[1, 2, 3], 1, 2), Some(0x0203));
        assert_eq!(be(&[1, 2, 3], 2, 2), None);
        assert_eq!(be(&[1], usize::MAX, 2), None);
        assert_eq!(le(&[1, 2, 3], 0, 3), Some(0x03_0201));
        assert_eq!(len(&[0, 9], 0, 2), Some(9));
    }
}
