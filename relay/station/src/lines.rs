//! A check for tests: what different workers write does not lie on the same cache line.

/// What one processor takes from another at once, in bytes: a line of 64 and, on x86-64, the one fetched with it.
const LINE: usize = 128;

/// The line that something begins on.
pub(crate) fn line<T>(what: &T) -> usize {
    std::ptr::from_ref(what).addr() / LINE
}

/// # Panics
///
/// When two of them are the same.
pub(crate) fn apart(lines: &[usize]) {
    let mut sorted = lines.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), lines.len(), "lines are shared: {lines:?}");
}
