//! The chunked transfer coding (RFC 9112 section 7.1), decoded in place.

use super::Refusal;

/// A chunk is at most this long: 2^40 bytes. Nothing is allocated by it; it keeps arithmetic far from overflow.
const CHUNK_MAX: u64 = 1 << 40;
/// A chunk size has at most this many digits; leading zeros count.
const DIGITS_MAX: u8 = 16;
/// A chunk extension is at most this many bytes, its white space included.
const EXTENSION_MAX: u16 = 256;
/// All trailer lines together are at most this many bytes. They are checked for line ends and discarded.
const TRAILERS_MAX: u16 = 4096;

/// An incremental decoder of a chunked body; a few words, no buffer.
#[derive(Debug, Clone, Default)]
pub struct Chunked {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size {
        digits: u8,
        value: u64,
    },
    Extension {
        value: u64,
        len: u16,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Trailers {
        used: u16,
    },
    Trailer {
        used: u16,
    },
    TrailerLf {
        used: u16,
    },
    LastLf,
    Done,
    Broken,
}

impl Default for State {
    fn default() -> Self {
        State::Size { digits: 0, value: 0 }
    }
}

impl Chunked {
    /// A decoder at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decode `input`, handing each stretch of payload to `out`. Returns how many bytes were read and whether the
    /// body is complete; all of `input` is read unless it is complete.
    ///
    /// # Errors
    ///
    /// 400 for what is not a chunked body, or over a limit; the decoder then refuses everything that follows.
    pub fn decode<'a>(
        &mut self,
        input: &'a [u8],
        out: &mut impl FnMut(&'a [u8]),
    ) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < input.len() && !self.finished() {
            if let State::Data { left } = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                out(&input[at..at + take]);
                at += take;
                self.state = data(left - take as u64);
            } else {
                self.state = match step(self.state, input[at]) {
                    Ok(state) => state,
                    Err(expected) => return Err(self.broken(expected, input[at])),
                };
                at += 1;
            }
        }
        Ok((at, self.finished()))
    }

    /// Whether the last chunk and the trailers have been read.
    pub fn finished(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn broken(&mut self, expected: &'static str, byte: u8) -> Refusal {
        self.state = State::Broken;
        Refusal::bad(expected, &format!("byte {byte:#04x}"))
    }
}

/// What follows when `left` bytes of a chunk are still to come.
fn data(left: u64) -> State {
    if left == 0 {
        State::DataCr
    } else {
        State::Data { left }
    }
}

/// One byte outside chunk data; the error is what was expected instead.
fn step(state: State, byte: u8) -> Result<State, &'static str> {
    match state {
        State::Size { digits, value } => size(digits, value, byte),
        State::Extension { value, len } => extension(value, len, byte),
        State::SizeLf { value: 0 } => lf(byte, State::Trailers { used: 0 }),
        State::SizeLf { value } => lf(byte, State::Data { left: value }),
        State::DataCr if byte == b'\r' => Ok(State::DataLf),
        State::DataCr => Err("CR LF after a chunk"),
        State::DataLf => lf(byte, State::default()),
        State::Trailers { .. } if byte == b'\r' => Ok(State::LastLf),
        State::Trailers { used } | State::Trailer { used } => trailer(used, byte),
        State::TrailerLf { used } => lf(byte, State::Trailers { used }),
        State::LastLf => lf(byte, State::Done),
        State::Data { .. } | State::Done | State::Broken => Err("nothing after a broken chunk"),
    }
}

fn lf(byte: u8, next: State) -> Result<State, &'static str> {
    if byte == b'\n' {
        Ok(next)
    } else {
        Err("a LF after a CR")
    }
}

fn size(digits: u8, value: u64, byte: u8) -> Result<State, &'static str> {
    match (byte as char).to_digit(16) {
        Some(_) if digits == DIGITS_MAX => Err("a chunk size of at most 16 digits"),
        Some(digit) => match value * 16 + u64::from(digit) {
            value if value > CHUNK_MAX => Err("a chunk of at most 2^40 bytes"),
            value => Ok(State::Size {
                digits: digits + 1,
                value,
            }),
        },
        None if digits == 0 => Err("a chunk size in hexadecimal digits"),
        None if byte == b'\r' => Ok(State::SizeLf { value }),
        None if matches!(byte, b';' | b' ' | b'\t') => Ok(State::Extension { value, len: 1 }),
        None => Err("a chunk size in hexadecimal digits"),
    }
}

fn extension(value: u64, len: u16, byte: u8) -> Result<State, &'static str> {
    match byte {
        b'\r' => Ok(State::SizeLf { value }),
        b'\t' | b' '..=b'~' | 0x80.. if len < EXTENSION_MAX => Ok(State::Extension { value, len: len + 1 }),
        b'\t' | b' '..=b'~' | 0x80.. => Err("a chunk extension of at most 256 bytes"),
        _ => Err("a chunk extension without control bytes"),
    }
}

fn trailer(used: u16, byte: u8) -> Result<State, &'static str> {
    match byte {
        b'\r' => Ok(State::TrailerLf { used }),
        b'\t' | b' '..=b'~' | 0x80.. if used < TRAILERS_MAX => Ok(State::Trailer { used: used + 1 }),
        b'\t' | b' '..=b'~' | 0x80.. => Err("trailers of at most 4 KiB"),
        _ => Err("trailers without control bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8]) -> Result<(Vec<u8>, usize, bool), u16> {
        let mut out = Vec::new();
        let (n, done) = Chunked::new()
            .decode(input, &mut |b| out.extend_from_slice(b))
            .map_err(|r| r.status)?;
        Ok((out, n, done))
    }

    fn encode(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        for piece in pieces {
            wire.extend_from_slice(format!("{:x};x=\"y\"\r\n", piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\nA: b\r\n\r\n");
        wire
    }

    #[test]
    fn a_body_is_decoded_and_what_follows_is_left() {
        let (out, n, done) = decode(b"3\r\nabc\r\nA \r\n0123456789\r\n000\r\n\r\nGET").unwrap();
        assert_eq!((out.as_slice(), n, done), (&b"abc0123456789"[..], 31, true));
    }

    #[test]
    fn hostile_sizes_and_ends_are_refused() {
        // Row A6; RFC 9112 section 7.1.
        let long_ext = format!("1;{}\r\n", "x".repeat(100 * 1024));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(2000));
        for bad in [
            "FFFFFFFFFFFFFFFF\r\n",
            "-1\r\n",
            "00000000000000001\r\n",
            "10000000001\r\n",
            "\r\n",
            ";x\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1\n",
            "1\r\r",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "1;\n",
            "1;\0",
            "0\r\n\n",
            "0\r\nA\0",
            "g\r\n",
            &long_ext,
            &trailers,
        ] {
            assert_eq!(
                decode(bad.as_bytes()),
                Err(400),
                "{:?}",
                &bad[..bad.len().min(30)]
            );
        }
    }

    #[test]
    fn the_largest_chunk_is_waited_for_not_allocated() {
        assert_eq!(decode(b"10000000000\r\nxy"), Ok((b"xy".to_vec(), 15, false)));
    }

    #[test]
    fn a_broken_body_stays_broken() {
        let mut c = Chunked::new();
        assert!(c.decode(b"zz", &mut |_| ()).is_err());
        assert!(c.decode(b"1\r\na\r\n", &mut |_| ()).is_err());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_body(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(1usize..9, 0..400),
        ) {
            let wire = encode(&pieces);
            let (mut c, mut out, mut at, mut done) = (Chunked::new(), Vec::new(), 0, false);
            for step in cuts.into_iter().chain(std::iter::repeat(7)) {
                if at == wire.len() { break; }
                let end = (at + step).min(wire.len());
                let (n, d) = c.decode(&wire[at..end], &mut |b| out.extend_from_slice(b)).unwrap();
                prop_assert_eq!(n, end - at);
                (at, done) = (end, d);
            }
            prop_assert!(done);
            prop_assert_eq!(out, pieces.concat());
        }

        #[test]
        fn no_bytes_panic_and_no_payload_is_invented(input in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut total = 0;
            let _ = Chunked::new().decode(&input, &mut |b| total += b.len());
            prop_assert!(total <= input.len());
        }
    }
}
