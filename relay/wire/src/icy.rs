//! ICY metadata: titles between stretches of stream, every `icy-metaint` bytes.
//!
//! A block is one byte that counts 16-byte units, then that many units of text, padded with zeros. There is no
//! specification; this is what SHOUTcast and Icecast do and what players read.

use crate::http::Refusal;
use crate::text::latin1_or_utf8;

/// Bytes of stream between two blocks, as we announce it: Icecast's own figure, which every player has met.
pub const METAINT: usize = 16_000;

/// The text of a block is at most this many bytes: 255 units of 16.
pub const BLOCK_MAX: usize = 255 * 16;

/// The largest `icy-metaint` a server may announce.
const METAINT_MAX: usize = 16 * 1024 * 1024;

/// The block that says nothing has changed.
pub const EMPTY_BLOCK: [u8; 1] = [0];

/// A metadata block: `StreamTitle='…';` and, where there is one, `StreamUrl='…';`.
///
/// At most 1 + [`BLOCK_MAX`] bytes: a long title is cut between characters, and an address that does not fit
/// is left out. Control characters become spaces, and an apostrophe that would end the value becomes a back quote.
pub fn block(title: &str, url: Option<&str>) -> Vec<u8> {
    let mut text = String::new();
    push_value(&mut text, "StreamTitle", title);
    let without_url = text.len();
    if let Some(url) = url {
        push_value(&mut text, "StreamUrl", url);
    }
    if text.len() > BLOCK_MAX {
        text.truncate(without_url);
    }
    let units = text.len().div_ceil(16);
    let mut bytes = Vec::with_capacity(1 + units * 16);
    bytes.push(u8::try_from(units).expect("values are cut to fit 255 units"));
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(1 + units * 16, 0);
    bytes
}

/// Append `name='value';`, its value cut so that this alone fits a block.
fn push_value(text: &mut String, name: &str, value: &str) {
    let room = BLOCK_MAX - name.len() - "='';".len();
    text.push_str(name);
    text.push_str("='");
    let from = text.len();
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        let c = match c {
            '\'' if rest.peek() == Some(&';') => '`',
            c if c.is_control() => ' ',
            c => c,
        };
        if text.len() - from + c.len_utf8() > room {
            break;
        }
        text.push(c);
    }
    text.push_str("';");
}

/// What comes out of a [`Deinterleaver`].
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A stretch of the stream.
    Payload(&'a [u8]),
    /// A `StreamTitle`, possibly empty; at most [`BLOCK_MAX`] bytes of what came.
    Title(&'a str),
}

/// Takes the metadata out of a stream that was asked for with `Icy-MetaData: 1`. Incremental; holds one block at
/// most.
pub struct Deinterleaver {
    metaint: usize,
    state: State,
    block: Vec<u8>,
}

enum State {
    /// So many payload bytes until the next block.
    Payload(usize),
    /// The length byte is next.
    Length,
    /// So many bytes of the block are missing.
    Block(usize),
}

impl Deinterleaver {
    /// For a stream with a block after every `metaint` bytes.
    ///
    /// # Errors
    ///
    /// When `metaint` is zero or more than 16 MiB.
    pub fn new(metaint: usize) -> Result<Self, Refusal> {
        if !(1..=METAINT_MAX).contains(&metaint) {
            return Err(Refusal::bad(
                "an icy-metaint from 1 to 16777216",
                &metaint.to_string(),
            ));
        }
        Ok(Self {
            metaint,
            state: State::Payload(metaint),
            block: Vec::new(),
        })
    }

    /// Take `bytes` apart.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Payload(left) => self.payload(left, bytes, out),
                State::Length => self.length(bytes[0]),
                State::Block(left) => self.block(left, bytes, out),
            };
            bytes = &bytes[taken..];
        }
    }

    fn payload(&mut self, left: usize, bytes: &[u8], out: &mut impl FnMut(Piece<'_>)) -> usize {
        let take = left.min(bytes.len());
        out(Piece::Payload(&bytes[..take]));
        self.state = if take == left {
            State::Length
        } else {
            State::Payload(left - take)
        };
        take
    }

    fn length(&mut self, units: u8) -> usize {
        self.block.clear();
        self.state = if units == 0 {
            State::Payload(self.metaint)
        } else {
            State::Block(usize::from(units) * 16)
        };
        1
    }

    fn block(&mut self, left: usize, bytes: &[u8], out: &mut impl FnMut(Piece<'_>)) -> usize {
        let take = left.min(bytes.len());
        self.block.extend_from_slice(&bytes[..take]);
        self.state = State::Block(left - take);
        if take == left {
            if let Some(title) = stream_title(&self.block) {
                out(Piece::Title(&latin1_or_utf8(title)));
            }
            self.state = State::Payload(self.metaint);
        }
        take
    }
}

/// The value of `StreamTitle`, up to the first `';` or, where there is none, the padding.
fn stream_title(block: &[u8]) -> Option<&[u8]> {
    let key = b"StreamTitle='";
    let from = block.windows(key.len()).position(|w| w == key)? + key.len();
    let rest = &block[from..];
    let end = rest
        .windows(2)
        .position(|w| w == b"';")
        .or_else(|| rest.iter().position(|&b| b == 0));
    Some(&rest[..end.unwrap_or(rest.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Payload and titles of `bytes`, fed in pieces of `step`.
    fn split(metaint: usize, bytes: &[u8], step: usize) -> (Vec<u8>, Vec<String>) {
        let (mut payload, mut titles) = (Vec::new(), Vec::new());
        let mut d = Deinterleaver::new(metaint).unwrap();
        for piece in bytes.chunks(step) {
            d.feed(piece, &mut |p| match p {
                Piece::Payload(b) => payload.extend_from_slice(b),
                Piece::Title(t) => titles.push(t.to_owned()),
            });
        }
        (payload, titles)
    }

    #[test]
    fn a_block_is_counted_in_sixteens() {
        let b = block("Sun", None);
        assert_eq!(b, [&[2][..], b"StreamTitle='Sun';", &[0; 14]].concat());
        assert_eq!(
            block("", Some("http://x")),
            [&[3][..], b"StreamTitle='';StreamUrl='http://x';", &[0; 12]].concat()
        );
    }

    #[test]
    fn hostile_titles_stay_in_their_block() {
        // Row A14.
        for title in [
            "a';StreamUrl='evil",
            "a\r\nb\0c\x1b[0m",
            "''';';",
            &"é".repeat(64 * 1024),
            &"x".repeat(64 * 1024),
        ] {
            let b = block(title, Some(&"u".repeat(3000)));
            assert_eq!(b.len(), 1 + usize::from(b[0]) * 16);
            let text = std::str::from_utf8(&b[1..]).unwrap().trim_end_matches('\0');
            assert!(
                text.ends_with("';") && text.chars().all(|c| !c.is_control()),
                "{text:?}"
            );
            assert_eq!(text.matches("StreamTitle='").count(), 1);
            let stream = [&[7u8][..], &b].concat();
            assert_eq!(split(1, &stream, 4096).1.len(), 1);
        }
        let read = |title: &str| split(1, &[&[7][..], &block(title, None)].concat(), 99).1;
        assert_eq!(read("Don't 'stop'"), ["Don't 'stop'"]);
        assert_eq!(read("a';b"), ["a`;b"]);
    }

    #[test]
    fn latin1_and_unterminated_titles_are_read() {
        let latin1 = [&b"x\x02StreamTitle='caf\xe9';"[..], &[0; 13]].concat();
        assert_eq!(split(1, &latin1, 3).1, ["café"]);
        let open = [&b"x\x01StreamTitle='ab"[..], &[0; 1]].concat();
        assert_eq!(split(1, &open, 3).1, ["ab"]);
    }

    #[test]
    fn impossible_intervals_are_refused() {
        for bad in [0, METAINT_MAX + 1, usize::MAX] {
            assert!(Deinterleaver::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn payload_comes_out_whole(
            payload in prop::collection::vec(any::<u8>(), 0..500),
            metaint in 1usize..70,
            step in 1usize..50,
        ) {
            let (mut wire, mut sent) = (Vec::new(), Vec::new());
            for (i, piece) in payload.chunks(metaint).enumerate() {
                wire.extend_from_slice(piece);
                if piece.len() == metaint && i % 2 == 0 {
                    wire.extend_from_slice(&block(&i.to_string(), None));
                    sent.push(i.to_string());
                } else if piece.len() == metaint {
                    wire.extend_from_slice(&EMPTY_BLOCK);
                }
            }
            prop_assert_eq!(split(metaint, &wire, step), (payload, sent));
        }

        #[test]
        fn any_title_fits(title in any::<String>(), url in prop::option::of(any::<String>())) {
            let b = block(&title, url.as_deref());
            prop_assert!(b.len() <= 1 + BLOCK_MAX);
            prop_assert_eq!(b.len(), 1 + usize::from(b[0]) * 16);
        }
    }
}
