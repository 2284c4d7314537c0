//! Where a head ends, found once however often one asks.

use super::{HEAD_BYTES_MAX, LINE_MAX, Refusal};

/// Look for the empty line that ends a head. `Ok(Some(n))`: the head is the first `n` bytes.
///
/// `scanned` is how far earlier calls on the same, shorter, bytes have looked; only newer bytes are read, so that
/// a head that comes byte by byte costs as much as one that comes at once.
///
/// Refused, at the first byte that shows it: a line feed without its carriage return or the other way round
/// (RFC 9112 section 2.2 lets a reader accept a bare LF; two readers that differ in it can be made to
/// disagree, so we do not), a first line over the limit (`long_line`), a head over [`HEAD_BYTES_MAX`] (431).
pub(super) fn find_end(
    bytes: &[u8],
    scanned: &mut usize,
    long_line: impl Fn() -> Refusal,
) -> Result<Option<usize>, Refusal> {
    let seen = bytes.len().min(HEAD_BYTES_MAX);
    for at in *scanned..seen {
        if at == LINE_MAX && !bytes[..LINE_MAX].contains(&b'\n') {
            return Err(long_line());
        }
        check_line_end(bytes, at)?;
        if bytes[at] == b'\n' && bytes[..=at].ends_with(b"\r\n\r\n") {
            return Ok(Some(at + 1));
        }
        *scanned = at + 1;
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return Err(Refusal::new(431, "a head of at most 16 KiB", "a longer one"));
    }
    Ok(None)
}

/// CR and LF come as a pair.
fn check_line_end(bytes: &[u8], at: usize) -> Result<(), Refusal> {
    let after_cr = at > 0 && bytes[at - 1] == b'\r';
    match (after_cr, bytes[at] == b'\n') {
        (true, false) => Err(Refusal::bad("lines that end with CR LF", "a CR without its LF")),
        (false, true) => Err(Refusal::bad("lines that end with CR LF", "a LF without its CR")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        find_end(bytes, &mut 0, || Refusal::new(414, "short", "long"))
    }

    #[test]
    fn the_end_is_after_the_empty_line() {
        assert_eq!(find(b"GET / HTTP/1.1\r\n\r\nrest"), Ok(Some(18)));
        assert_eq!(find(b"GET / HTTP/1.1\r\n\r"), Ok(None));
    }

    #[test]
    fn bare_line_ends_are_refused_where_they_stand() {
        for bad in [
            &b"GET / HTTP/1.1\n"[..],
            b"GET / HTTP/1.1\rX",
            b"GET / HTTP/1.1\r\nA: b\n\r\n",
            b"\r\r",
        ] {
            assert_eq!(find(bad).unwrap_err().status, 400, "{bad:?}");
        }
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let mut line = vec![b'a'; LINE_MAX];
        assert_eq!(find(&line), Ok(None));
        line.push(b'a');
        assert_eq!(find(&line).unwrap_err().status, 414);

        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(HEAD_BYTES_MAX - 4, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(find(&head), Ok(Some(HEAD_BYTES_MAX)));
        head.insert(20, b'a');
        assert_eq!(find(&head).unwrap_err().status, 431);
    }

    #[test]
    fn every_byte_is_read_once() {
        let head = [
            b"GET / HTTP/1.1\r\nA: ".to_vec(),
            vec![b'x'; 12_000],
            b"\r\n\r\n".to_vec(),
        ]
        .concat();
        let (mut scanned, mut end) = (0, None);
        for n in 0..=head.len() {
            assert!(
                scanned <= n && n - scanned <= 1,
                "only the new byte is left to read"
            );
            end = find_end(&head[..n], &mut scanned, || Refusal::new(414, "", "")).unwrap();
        }
        assert_eq!(end, Some(head.len()));
    }
}
