//! The receiving side of a link: one connection to one upstream.
//!
//! What [`Follow`] lets through is the channel as a ring wants it: HELLO first, chunk numbers strictly
//! increasing, every chunk whole, nothing twice, and every jump declared. After a lost connection a new `Follow`
//! is made with the old one's [`Follow::position`], and asks for exactly what comes next.

use std::time::Duration;

use relay_seam::Now;
use relay_wire::http::{Body, HEAD_BYTES_MAX, Refusal, ResponseHead};
use relay_wire::link::{Chunk, End, EndReason, Frame, FrameError, FrameReader, Header, Hello};

use crate::config::FollowConfig;
use crate::stats::FollowStats;
use crate::upstreams::Failure;
use crate::{CONTENT_TYPE, PATH_FIELD};

/// The largest chunk number that is believed. With the largest chunks its position is below 2⁶², and at a gigabit per
/// second of the smallest ones it is three years away.
pub const CHUNK_NUMBER_MAX: u64 = 1 << 46;

/// The largest byte position that is believed, to match.
const POSITION_MAX: u64 = 1 << 62;

/// A place in a channel, the same on every node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the channel.
    pub epoch: u64,
    /// The next chunk wanted.
    pub number: u64,
}

/// What an upstream has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent<'a> {
    /// The channel and its properties; first on every link, and again when they change. The way down to this
    /// node is checked: it is not on it.
    Hello(Hello<'a>),
    /// Bytes that a newcomer needs from some position on.
    Header(Header<'a>),
    /// The next chunk: its number is the one after the last [`LinkEvent::Chunk`]'s, or a gap was told before it.
    Chunk(Chunk<'a>),
    /// The title of what is playing.
    Metadata(&'a str),
    /// A join point in a chunk that has been told already.
    Join {
        /// The byte position within the epoch.
        at: u64,
    },
    /// A signed node of the live Merkle tree.
    Munro(&'a [u8]),
    /// A sign of life.
    Ping {
        /// The upstream's wall clock, µs of Unix time.
        wall_us: u64,
    },
    /// The chunks from `expected` up to, but without, `got` will not come.
    Gap {
        /// The chunk that was next.
        expected: u64,
        /// The chunk that is next now.
        got: u64,
    },
    /// The channel has begun a new life; a [`LinkEvent::Hello`] with its properties follows at once.
    NewEpoch {
        /// The life that is over.
        old: u64,
        /// The life that begins.
        new: u64,
    },
    /// Nothing more follows on this link, unless the reason is a new epoch.
    End(End<'a>),
}

/// Why a link cannot be used any longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The upstream's answer is not HTTP.
    #[error("link: upstream's answer: {0}")]
    Head(#[from] Refusal),
    /// The upstream refuses.
    #[error("link: expected status 200 from the upstream, got {got}")]
    Status {
        /// What it answered.
        got: u16,
    },
    /// The upstream answers with something else.
    #[error("link: expected {CONTENT_TYPE} until the upstream closes, got {got} framed as {body:?}")]
    NotALink {
        /// The content type, cut and escaped.
        got: String,
        /// How the body is framed.
        body: Body,
    },
    /// A frame is malformed. The stream cannot be followed beyond it.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first frame is another.
    #[error("link: expected HELLO as the first frame")]
    NoHello,
    /// This node is above the upstream already.
    #[error("link: expected a path without this node, got {node} on the upstream's path: a loop")]
    Loop {
        /// This node's id.
        node: String,
    },
    /// The chunk size changed within an epoch.
    #[error("link: expected the chunk size to stay {expected}, got {got}")]
    ChunkSize {
        /// Bytes.
        expected: u32,
        /// Bytes.
        got: u32,
    },
    /// A chunk is not whole.
    #[error("link: expected chunk {number} to have {expected} bytes, got {got}")]
    ChunkLength {
        /// Which chunk.
        number: u64,
        /// Bytes.
        expected: u32,
        /// Bytes.
        got: usize,
    },
    /// A chunk came after the last one of its epoch.
    #[error("link: expected no chunk after the epoch's last, got chunk {number}")]
    PastLast {
        /// Which chunk.
        number: u64,
    },
    /// A position that no stream reaches: arithmetic on it would not hold.
    #[error("link: expected chunk numbers up to {CHUNK_NUMBER_MAX}, and positions to match, got {got}")]
    Number {
        /// The number or position.
        got: u64,
    },
    /// The upstream trails what we have by too much to wait for.
    #[error("link: expected the upstream to start near chunk {expected}, got {got}: it trails too far")]
    Behind {
        /// The chunk wanted.
        expected: u64,
        /// The chunk it starts at.
        got: u64,
    },
    /// Nothing was heard for too long.
    #[error("link: expected a frame every {limit:?} at least, got none")]
    Silent {
        /// The limit.
        limit: Duration,
    },
}

impl LinkError {
    /// What it means for the choice among upstreams.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Loop { .. } | Self::Status { got: 508 } => Failure::Loop,
            Self::Status { .. } => Failure::Refused,
            Self::Silent { .. } => Failure::Silent,
            Self::Behind { .. } => Failure::Behind,
            _ => Failure::Protocol,
        }
    }
}

/// One connection to one upstream, from the request on.
#[derive(Debug)]
pub struct Follow {
    resume: Option<Position>,
    /// The response head so far; `None` once it has been read.
    head: Option<PartialHead>,
    reader: FrameReader,
    rules: Rules,
    failed: Option<LinkError>,
}

impl Follow {
    /// A new connection that wants to go on at `resume`, or start live.
    pub fn new(config: &FollowConfig, resume: Option<Position>, now: Now) -> Self {
        Self {
            resume,
            head: Some(PartialHead::default()),
            reader: FrameReader::new(),
            rules: Rules::new(config.clone(), resume, now),
            failed: None,
        }
    }

    /// The bytes to send once connected. `host` is the authority: a name or address (IPv6 in brackets) and,
    /// unless it is 80, the port.
    pub fn request(&self, host: &str) -> Vec<u8> {
        let config = &self.rules.config;
        let from = match self.resume {
            Some(Position { epoch, number }) => format!("{epoch}.{number}"),
            None => "live".to_owned(),
        };
        // A host that a configuration or an announcement made up must not add fields of its own.
        let host: String = host.chars().filter(char::is_ascii_graphic).collect();
        let mut request = format!(
            "GET /link{}?from={from} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: totality/{}\r\n\
             Accept: {CONTENT_TYPE}\r\n{PATH_FIELD}: {}\r\nConnection: close\r\n",
            percent_encoded(&config.mount),
            env!("CARGO_PKG_VERSION"),
            config.node_id,
        );
        if let Some(token) = &config.token {
            request.push_str(&format!("Authorization: Bearer {}\r\n", token.reveal()));
        }
        request.push_str("\r\n");
        request.into_bytes()
    }

    /// Takes what the upstream sent and tells what it means, in order.
    ///
    /// # Errors
    ///
    /// [`LinkError`], after everything before it was told; the connection is to be closed. Every later call
    /// answers the same.
    pub fn feed(
        &mut self,
        now: Now,
        bytes: &[u8],
        on: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<(), LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.take(now, bytes, on);
        self.failed = result.as_ref().err().cloned();
        result
    }

    /// Asks whether the upstream has been silent for too long.
    ///
    /// # Errors
    ///
    /// [`LinkError::Silent`]; the connection is to be closed.
    pub fn check(&self, now: Now) -> Result<(), LinkError> {
        let limit = self.rules.config.silence;
        if now < self.deadline() {
            Ok(())
        } else {
            Err(LinkError::Silent { limit })
        }
    }

    /// When [`Follow::check`] should be asked if nothing is heard before.
    pub fn deadline(&self) -> Now {
        self.rules.heard + self.rules.config.silence
    }

    /// Where to go on after this connection; `None` when nothing is known yet.
    pub fn position(&self) -> Option<Position> {
        self.rules.next
    }

    /// Whether a HELLO has been accepted: the link works, and its upstream may be told to be connected.
    pub fn is_up(&self) -> bool {
        self.rules.channel.is_some()
    }

    /// What has been counted.
    pub fn stats(&self) -> FollowStats {
        self.rules.stats
    }

    fn take(&mut self, now: Now, bytes: &[u8], on: &mut impl FnMut(LinkEvent<'_>)) -> Result<(), LinkError> {
        let body = self.after_head(bytes)?;
        let (rules, mut broken) = (&mut self.rules, None);
        let read = self.reader.feed(body, &mut |frame| {
            // Once a rule is broken, what follows in the same bytes is not told.
            if broken.is_none() {
                broken = rules.frame(now, frame, on).err();
            }
        });
        match broken {
            Some(error) => Err(error),
            None => read.map_err(LinkError::from),
        }
    }

    /// What of `bytes` lies after the response head.
    fn after_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], LinkError> {
        let Some(head) = &mut self.head else {
            return Ok(bytes);
        };
        let before = head.bytes.len();
        // The parser refuses a head that fills the limit, so there is always room for more.
        head.bytes
            .extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX - before)]);
        let Some((response, len)) = ResponseHead::parse_from(&head.bytes, &mut head.scanned)? else {
            return Ok(&[]);
        };
        check_response(&response)?;
        self.head = None;
        Ok(&bytes[len - before..])
    }
}

/// A response head that is still coming, at most [`HEAD_BYTES_MAX`] bytes.
#[derive(Debug, Default)]
struct PartialHead {
    bytes: Vec<u8>,
    /// How far the parser has looked.
    scanned: usize,
}

fn check_response(response: &ResponseHead) -> Result<(), LinkError> {
    if response.status != 200 {
        return Err(LinkError::Status { got: response.status });
    }
    let content_type = response.header("content-type").unwrap_or("no content type");
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(CONTENT_TYPE) && response.body() == Body::UntilClose {
        return Ok(());
    }
    let got = content_type
        .chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect();
    Err(LinkError::NotALink {
        got,
        body: response.body(),
    })
}

/// RFC 3986 section 3.3: what a path may hold as it is, stays; everything else is written as `%XX`.
fn percent_encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The epoch as its HELLO described it.
#[derive(Clone, Copy, Debug)]
struct Channel {
    epoch: u64,
    chunk_size: u32,
    /// Its last chunk has come.
    complete: bool,
}

/// What frames may come, and what they mean.
#[derive(Debug)]
struct Rules {
    config: FollowConfig,
    /// When the last whole frame came, or the connection began.
    heard: Now,
    channel: Option<Channel>,
    next: Option<Position>,
    ended: Option<EndReason>,
    stats: FollowStats,
}

impl Rules {
    fn new(config: FollowConfig, next: Option<Position>, heard: Now) -> Self {
        Self {
            config,
            heard,
            channel: None,
            next,
            ended: None,
            stats: FollowStats::default(),
        }
    }

    fn frame(
        &mut self,
        now: Now,
        frame: Frame<'_>,
        on: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<(), LinkError> {
        self.heard = now;
        match (frame, self.channel, self.ended) {
            (Frame::Hello(hello), _, None | Some(EndReason::NewEpoch)) => self.hello(hello, on),
            (_, None, None) => Err(LinkError::NoHello),
            (Frame::Unknown { .. }, ..) => {
                self.stats.unknown += 1;
                Ok(())
            }
            (_, Some(channel), None) => self.told(channel, frame, on),
            (_, _, Some(_)) => {
                self.stats.after_end += 1;
                Ok(())
            }
        }
    }

    /// A frame other than HELLO, in its place.
    fn told(
        &mut self,
        channel: Channel,
        frame: Frame<'_>,
        on: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<(), LinkError> {
        match frame {
            Frame::Chunk(chunk) => return self.chunk(channel, chunk, on),
            Frame::Header(header) => {
                believe(header.at, POSITION_MAX)?;
                on(LinkEvent::Header(header));
            }
            Frame::Munro(munro) => on(LinkEvent::Munro(munro)),
            Frame::Join { at } => {
                believe(at, POSITION_MAX)?;
                on(LinkEvent::Join { at });
            }
            Frame::Metadata(title) => on(LinkEvent::Metadata(title)),
            Frame::Ping { wall_us } => {
                self.stats.pings += 1;
                on(LinkEvent::Ping { wall_us });
            }
            Frame::End(end) => {
                self.ended = Some(end.reason);
                on(LinkEvent::End(end));
            }
            // Both are dealt with before.
            Frame::Hello(_) | Frame::Unknown { .. } => {}
        }
        Ok(())
    }

    fn hello(&mut self, hello: Hello<'_>, on: &mut impl FnMut(LinkEvent<'_>)) -> Result<(), LinkError> {
        if hello.path.contains(&self.config.node_id) {
            return Err(LinkError::Loop {
                node: self.config.node_id.clone(),
            });
        }
        believe(hello.first, CHUNK_NUMBER_MAX)?;
        match self.next {
            Some(next) if next.epoch == hello.epoch => self.same_epoch(next, &hello)?,
            Some(next) => {
                self.begin(&hello);
                self.stats.epochs += 1;
                on(LinkEvent::NewEpoch {
                    old: next.epoch,
                    new: hello.epoch,
                });
            }
            None => self.begin(&hello),
        }
        self.ended = None;
        on(LinkEvent::Hello(hello));
        Ok(())
    }

    fn begin(&mut self, hello: &Hello<'_>) {
        self.next = Some(Position {
            epoch: hello.epoch,
            number: hello.first,
        });
        self.channel = Some(Channel {
            epoch: hello.epoch,
            chunk_size: hello.chunk_size,
            complete: false,
        });
    }

    /// A HELLO for the epoch that we are in: the first of this link after a resume, or new properties.
    fn same_epoch(&mut self, next: Position, hello: &Hello<'_>) -> Result<(), LinkError> {
        let known = self.channel.filter(|channel| channel.epoch == hello.epoch);
        if let Some(channel) = known {
            let (expected, got) = (channel.chunk_size, hello.chunk_size);
            return if expected == got {
                Ok(())
            } else {
                Err(LinkError::ChunkSize { expected, got })
            };
        }
        if hello.first.saturating_add(self.config.behind_max) < next.number {
            return Err(LinkError::Behind {
                expected: next.number,
                got: hello.first,
            });
        }
        self.channel = Some(Channel {
            epoch: hello.epoch,
            chunk_size: hello.chunk_size,
            complete: false,
        });
        Ok(())
    }

    fn chunk(
        &mut self,
        channel: Channel,
        chunk: Chunk<'_>,
        on: &mut impl FnMut(LinkEvent<'_>),
    ) -> Result<(), LinkError> {
        let (number, got, whole) = (chunk.number, chunk.bytes.len(), channel.chunk_size);
        believe(number, CHUNK_NUMBER_MAX)?;
        if got != whole as usize && !(chunk.is_last() && got < whole as usize) {
            return Err(LinkError::ChunkLength {
                number,
                expected: whole,
                got,
            });
        }
        let expected = self.next.map_or(number, |next| next.number);
        if number < expected {
            self.stats.duplicates += 1;
            return Ok(());
        }
        // u64::MAX has no successor, so it cannot be followed by its epoch's next chunk either.
        let after = number
            .checked_add(1)
            .filter(|_| !channel.complete)
            .ok_or(LinkError::PastLast { number })?;
        if number > expected {
            self.stats.gaps += 1;
            self.stats.gap_chunks += number - expected;
            on(LinkEvent::Gap {
                expected,
                got: number,
            });
        }
        self.next = Some(Position {
            epoch: channel.epoch,
            number: after,
        });
        self.channel = Some(Channel {
            complete: chunk.is_last(),
            ..channel
        });
        self.stats.chunks += 1;
        self.stats.bytes += got as u64;
        on(LinkEvent::Chunk(chunk));
        Ok(())
    }
}

fn believe(got: u64, most: u64) -> Result<(), LinkError> {
    if got > most {
        Err(LinkError::Number { got })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;
    use crate::dice::Dice;
    use crate::serve::{Start, StartReason, response_head};
    use relay_wire::link::{
        FLAG_LAST, HelloParts, encode_chunk, encode_end, encode_header, encode_hello, encode_metadata,
        encode_munro, encode_ping,
    };

    const SIZE: usize = 188;

    fn at(ms: u64) -> Now {
        Now::new(ms * 1_000_000, 0)
    }

    fn config() -> FollowConfig {
        FollowConfig::new("/eclipse.ts", "me", None).unwrap()
    }

    fn follow(resume: Option<(u64, u64)>) -> Follow {
        let resume = resume.map(|(epoch, number)| Position { epoch, number });
        Follow::new(&config(), resume, at(0))
    }

    fn head() -> Vec<u8> {
        response_head(&Start {
            epoch: 1,
            number: 0,
            gap: 0,
            reason: StartReason::Exact,
        })
    }

    fn hello(out: &mut Vec<u8>, epoch: u64, first: u64) {
        let parts = HelloParts {
            chunk_size: SIZE as u32,
            epoch,
            first,
            path: &["root"],
            ..Default::default()
        };
        encode_hello(out, &parts).unwrap();
    }

    fn chunk(out: &mut Vec<u8>, number: u64, flags: u8, len: usize) {
        let bytes = vec![number as u8; len];
        encode_chunk(
            out,
            &Chunk {
                number,
                capture_us: 0,
                flags,
                join: None,
                bytes: &bytes,
            },
        );
    }

    /// Feeds it all and tells what came, in short.
    fn run(follow: &mut Follow, bytes: &[u8]) -> (Vec<String>, Result<(), LinkError>) {
        let mut told = Vec::new();
        let result = follow.feed(at(0), bytes, &mut |event| {
            told.push(match event {
                LinkEvent::Hello(hello) => format!("hello {}.{}", hello.epoch, hello.first),
                LinkEvent::Chunk(chunk) => format!("chunk {}", chunk.number),
                LinkEvent::Gap { expected, got } => format!("gap {expected}-{got}"),
                LinkEvent::NewEpoch { old, new } => format!("epoch {old}-{new}"),
                LinkEvent::End(end) => format!("end {:?}", end.reason),
                other => format!("{other:?}"),
            });
        });
        (told, result)
    }

    fn stream(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = head();
        build(&mut out);
        out
    }

    #[test]
    fn a_request_says_who_what_and_where() {
        let token = Some(Token::new("t0ken").unwrap());
        let config = FollowConfig::new("/hé llo?.ts", "edge-1", token).unwrap();
        let resume = Some(Position { epoch: 7, number: 42 });
        let request = Follow::new(&config, resume, at(0)).request("[::1]:8000\r\nX: y");
        let text = String::from_utf8(request).unwrap();
        assert!(
            text.starts_with("GET /link/h%C3%A9%20llo%3F.ts?from=7.42 HTTP/1.1\r\n"),
            "{text}"
        );
        for field in [
            "Host: [::1]:8000X:y",
            "x-totality-path: edge-1",
            "Authorization: Bearer t0ken",
        ] {
            assert!(text.contains(&format!("\r\n{field}\r\n")), "{field} in {text}");
        }
        assert!(text.ends_with("\r\n\r\n"));
        assert!(
            follow(None)
                .request("h")
                .starts_with(b"GET /link/eclipse.ts?from=live ")
        );
    }

    #[test]
    fn a_good_stream_is_told_in_order_in_any_slicing() {
        let bytes = stream(|out| {
            hello(out, 1, 5);
            encode_header(out, 0, b"a", b"hdr").unwrap();
            for number in 5..9 {
                chunk(out, number, 0, SIZE);
            }
            encode_metadata(out, "Eclipse").unwrap();
            encode_munro(out, b"m").unwrap();
            encode_ping(out, 3);
            out.extend_from_slice(&[0, 0, 0, 3, 99, 1, 2]);
            chunk(out, 9, FLAG_LAST, 20);
            encode_end(out, EndReason::SourceEnded, "");
        });
        let (expected, result) = run(&mut follow(None), &bytes);
        assert_eq!(result, Ok(()));
        assert_eq!(expected.len(), 11, "{expected:?}");
        for size in [1, 3, 100, 1000] {
            let mut link = follow(None);
            let told: Vec<_> = bytes
                .chunks(size)
                .flat_map(|slice| run(&mut link, slice).0)
                .collect();
            assert_eq!(told, expected, "slices of {size}");
            assert_eq!(link.position(), Some(Position { epoch: 1, number: 10 }));
            let expected = FollowStats {
                chunks: 5,
                bytes: 4 * 188 + 20,
                pings: 1,
                unknown: 1,
                ..Default::default()
            };
            assert_eq!(link.stats(), expected);
        }
    }

    #[test]
    fn jumps_are_told_and_repeats_are_dropped() {
        let bytes = stream(|out| {
            hello(out, 1, 8);
            for number in [8, 9, 10, 11, 15, 14, 16] {
                chunk(out, number, 0, SIZE);
            }
        });
        let mut link = follow(Some((1, 10)));
        let (told, _) = run(&mut link, &bytes);
        assert_eq!(
            told,
            [
                "hello 1.8",
                "chunk 10",
                "chunk 11",
                "gap 12-15",
                "chunk 15",
                "chunk 16"
            ]
        );
        let expected = FollowStats {
            chunks: 4,
            bytes: 4 * 188,
            duplicates: 3,
            gaps: 1,
            gap_chunks: 3,
            ..Default::default()
        };
        assert_eq!(link.stats(), expected);
    }

    #[test]
    fn a_new_epoch_is_told_on_a_resume_and_in_mid_link() {
        let bytes = stream(|out| {
            hello(out, 2, 30);
            chunk(out, 30, FLAG_LAST, 5);
            encode_end(out, EndReason::NewEpoch, "");
            hello(out, 3, 0);
            chunk(out, 0, 0, SIZE);
        });
        let mut link = follow(Some((1, 10)));
        let (told, result) = run(&mut link, &bytes);
        assert_eq!(result, Ok(()));
        let expected = [
            "epoch 1-2",
            "hello 2.30",
            "chunk 30",
            "end NewEpoch",
            "epoch 2-3",
            "hello 3.0",
            "chunk 0",
        ];
        assert_eq!(told, expected);
        assert_eq!(
            (link.stats().epochs, link.position()),
            (2, Some(Position { epoch: 3, number: 1 }))
        );
    }

    #[test]
    fn what_breaks_a_rule_ends_the_link() {
        let result = |build: &dyn Fn(&mut Vec<u8>)| {
            let mut link = follow(Some((1, 10)));
            let result = run(&mut link, &stream(build)).1;
            assert_eq!(run(&mut link, b"x").1, result, "it lasts");
            result.unwrap_err()
        };
        assert_eq!(result(&|out| encode_ping(out, 1)), LinkError::NoHello);
        assert_eq!(
            result(&|out| out.extend_from_slice(&[0; 4])),
            FrameError::Length { got: 0 }.into()
        );
        let short = LinkError::ChunkLength {
            number: 10,
            expected: 188,
            got: 187,
        };
        assert_eq!(
            result(&|out| (hello(out, 1, 10), chunk(out, 10, 0, 187)).1),
            short
        );
        let long = LinkError::ChunkLength {
            number: 10,
            expected: 188,
            got: 189,
        };
        assert_eq!(
            result(&|out| (hello(out, 1, 10), chunk(out, 10, FLAG_LAST, 189)).1),
            long
        );
        let past = |out: &mut Vec<u8>| {
            hello(out, 1, 10);
            chunk(out, 10, FLAG_LAST, SIZE);
            chunk(out, 11, 0, SIZE);
        };
        assert_eq!(result(&past), LinkError::PastLast { number: 11 });
        let max = |out: &mut Vec<u8>| (hello(out, 1, 10), chunk(out, u64::MAX, 0, SIZE)).1;
        assert_eq!(result(&max), LinkError::Number { got: u64::MAX });
        let beyond = CHUNK_NUMBER_MAX + 1;
        let far = LinkError::Number { got: beyond };
        assert_eq!(result(&|out| hello(out, 1, beyond)), far);
        assert_eq!(
            result(&|out| (hello(out, 1, 10), chunk(out, beyond, 0, SIZE)).1),
            far
        );
        let far = LinkError::Number {
            got: POSITION_MAX + 1,
        };
        let late_join = |out: &mut Vec<u8>| {
            hello(out, 1, 10);
            relay_wire::link::encode_join(out, POSITION_MAX + 1);
        };
        assert_eq!(result(&late_join), far);
        let resized = |out: &mut Vec<u8>| {
            hello(out, 1, 10);
            encode_hello(
                out,
                &HelloParts {
                    chunk_size: 376,
                    epoch: 1,
                    ..Default::default()
                },
            )
            .unwrap();
        };
        assert_eq!(
            result(&resized),
            LinkError::ChunkSize {
                expected: 188,
                got: 376
            }
        );
        let looped = |out: &mut Vec<u8>| {
            let path = &["root", "me", "below"];
            encode_hello(
                out,
                &HelloParts {
                    chunk_size: 188,
                    path,
                    ..Default::default()
                },
            )
            .unwrap();
        };
        let error = result(&looped);
        assert_eq!(
            (error.failure(), &error),
            (Failure::Loop, &LinkError::Loop { node: "me".into() })
        );
    }

    #[test]
    fn what_came_before_an_error_is_told_and_nothing_after() {
        let bytes = stream(|out| {
            hello(out, 1, 0);
            chunk(out, 0, 0, SIZE);
            chunk(out, 1, 0, 3);
            chunk(out, 2, 0, SIZE);
        });
        assert_eq!(run(&mut follow(None), &bytes).0, ["hello 1.0", "chunk 0"]);
    }

    #[test]
    fn an_upstream_may_trail_but_not_too_far() {
        let mut near = follow(Some((1, 20_000)));
        assert_eq!(
            run(
                &mut near,
                &stream(|out| hello(out, 1, 20_000 - FollowConfig::BEHIND_MAX))
            )
            .1,
            Ok(())
        );
        let mut far = follow(Some((1, 20_000)));
        let error = run(
            &mut far,
            &stream(|out| hello(out, 1, 20_000 - FollowConfig::BEHIND_MAX - 1)),
        )
        .1;
        assert_eq!(
            error,
            Err(LinkError::Behind {
                expected: 20_000,
                got: 3615
            })
        );
    }

    #[test]
    fn frames_after_the_end_are_dropped_and_counted() {
        let bytes = stream(|out| {
            hello(out, 1, 0);
            encode_end(out, EndReason::ShuttingDown, "bye");
            hello(out, 2, 0);
            chunk(out, 0, 0, SIZE);
        });
        let mut link = follow(None);
        assert_eq!(
            run(&mut link, &bytes),
            (vec!["hello 1.0".into(), "end ShuttingDown".into()], Ok(()))
        );
        assert_eq!(link.stats().after_end, 2);
    }

    #[test]
    fn answers_that_are_no_link_are_told_apart() {
        let failure = |answer: &str| {
            let error = run(&mut follow(None), answer.as_bytes()).1.unwrap_err();
            (error.failure(), error)
        };
        for (status, kind) in [
            (401, Failure::Refused),
            (404, Failure::Refused),
            (302, Failure::Refused),
            (508, Failure::Loop),
        ] {
            let got = failure(&format!("HTTP/1.1 {status} No\r\n\r\n"));
            assert_eq!(got, (kind, LinkError::Status { got: status }));
        }
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>";
        assert!(matches!(
            failure(page),
            (Failure::Protocol, LinkError::NotALink { .. })
        ));
        let chunked =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(failure(&chunked).1, LinkError::NotALink { .. }));
        assert!(matches!(
            failure("220 smtp.example ESMTP\r\n\r\n").1,
            LinkError::Head(_)
        ));
    }

    #[test]
    fn a_head_without_end_is_refused_within_its_limit() {
        let mut link = follow(None);
        let mut result = Ok(());
        let mut sent = 0;
        for slice in
            std::iter::once(&b"HTTP/1.1 200 OK\r\nA: "[..]).chain(std::iter::repeat(&[b'a'; 100][..]))
        {
            sent += slice.len();
            result = run(&mut link, slice).1;
            if result.is_err() || sent > 2 * HEAD_BYTES_MAX {
                break;
            }
        }
        assert!(
            matches!(result, Err(LinkError::Head(_))),
            "{result:?} after {sent}"
        );
        assert!(sent < HEAD_BYTES_MAX + 100);
    }

    /// A stream of frames in random order, then with a few bytes damaged: whatever it is, it reads the same in any
    /// slicing, never panics, and what it lets through is in order.
    #[test]
    fn damage_reads_the_same_in_any_slicing() {
        let mut broken = 0;
        for seed in 0..400 {
            let mut dice = Dice::new(seed);
            let mut bytes = stream(|out| (0..10).for_each(|_| any_frame(&mut dice, out)));
            for _ in 0..dice.below(3) {
                let at = dice.below(bytes.len() as u64) as usize;
                bytes[at] = dice.next() as u8;
            }
            let resume = (dice.below(2) == 0).then(|| (dice.below(2), dice.below(12)));
            let (expected, result) = run(&mut follow(resume), &bytes);
            broken += u32::from(result.is_err());
            for size in [1, 7, 250] {
                let (mut link, mut told, mut last) = (follow(resume), Vec::new(), Ok(()));
                for slice in bytes.chunks(size) {
                    let (more, result) = run(&mut link, slice);
                    told.extend(more);
                    last = result;
                }
                assert_eq!(
                    (&told, &last),
                    (&expected, &result),
                    "seed {seed}, slices of {size}"
                );
            }
        }
        assert!((50..350).contains(&broken), "{broken} of 400 were refused");
    }

    fn any_frame(dice: &mut Dice, out: &mut Vec<u8>) {
        let number = dice.below(12);
        match dice.below(12) {
            0 => encode_ping(out, number),
            1 => encode_end(out, EndReason::NewEpoch, "x"),
            2 => encode_metadata(out, "title").unwrap(),
            3 => out.extend_from_slice(&[0, 0, 0, 2, 77, 0]),
            4..=7 => hello(out, dice.below(2), number),
            _ => chunk(out, number, (dice.below(9) == 0).into(), SIZE),
        }
    }

    #[test]
    fn silence_is_death_and_any_frame_is_life() {
        let mut link = follow(None);
        assert_eq!((link.check(at(4999)), link.deadline()), (Ok(()), at(5000)));
        assert_eq!(
            link.check(at(5000)),
            Err(LinkError::Silent {
                limit: FollowConfig::SILENCE
            })
        );
        let mut out = stream(|out| hello(out, 1, 0));
        encode_ping(&mut out, 1);
        link.feed(at(3000), &out, &mut |_| ()).unwrap();
        assert_eq!(link.deadline(), at(8000));
        // Half a frame is no sign of life.
        link.feed(at(7000), &[0, 0, 0, 9], &mut |_| ()).unwrap();
        assert_eq!(link.deadline(), at(8000));
    }
}
