//! The serving side of a link: who may have one, and at which chunk it starts.
//!
//! `GET /link/<mount>?from=<epoch>.<number>` or `?from=live`, with `Authorization: Bearer <token>` where a token
//! is set. The answer is [`response_head`], then frames: HELLO, HEADER, and chunks from [`Start::number`] on.

use std::net::IpAddr;
use std::time::Duration;

use relay_seam::Now;
use relay_wire::http::{Method, RequestHead, ResponseBuilder};
use relay_wire::link::PATH_MAX;

use crate::config::{ServeConfig, is_mount};
use crate::stats::ServeStats;
use crate::{CONTENT_TYPE, LINK_FIELD, PATH_FIELD};

/// Where all links live.
const PREFIX: &str = "/link";

/// What of a request head matters here.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// The path, percent-decoded.
    pub path: &'a str,
    /// The query after `?`, as sent; empty when there is none.
    pub query: &'a str,
    /// The bearer token.
    pub bearer: Option<&'a str>,
    /// The [`PATH_FIELD`] field.
    pub via: Option<&'a str>,
    /// Who asks.
    pub peer: IpAddr,
}

impl<'a> Ask<'a> {
    /// What a head says.
    pub fn of(head: &'a RequestHead, peer: IpAddr) -> Self {
        Self {
            method: head.method,
            path: &head.path,
            query: head.query.as_deref().unwrap_or_default(),
            bearer: head.bearer(),
            via: head.header(PATH_FIELD),
            peer,
        }
    }
}

/// A request that has been let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The channel, with its slash.
    pub mount: &'a str,
    /// Where to start.
    pub from: From,
}

/// Where a link is asked to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the newest join point.
    Live,
    /// At the chunk after the last one received.
    At {
        /// The life of the channel that the number belongs to.
        epoch: u64,
        /// The next chunk wanted.
        number: u64,
    },
}

impl From {
    /// `live`, or `<epoch>.<number>`: decimal digits alone, no sign, no leading zero. Anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "live" {
            return Some(Self::Live);
        }
        let (epoch, number) = text.split_once('.')?;
        Some(Self::At {
            epoch: decimal(epoch)?,
            number: decimal(number)?,
        })
    }

    /// The value of `from` in a query; [`From::Live`] when there is none.
    fn in_query(query: &str) -> Result<Self, Denied> {
        let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("from="));
        let Some(value) = values.next() else {
            return Ok(Self::Live);
        };
        let again = values.next();
        let wrong = || Denied::From {
            got: clip(again.unwrap_or(value)),
        };
        if again.is_some() {
            Err(wrong())
        } else {
            Self::parse(value).ok_or_else(wrong)
        }
    }
}

fn decimal(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

/// Why a link is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// 405.
    #[error("link: expected GET, got {got}")]
    Method {
        /// The method.
        got: &'static str,
    },
    /// 400.
    #[error("link: expected /link/<mount>, got {got}")]
    Mount {
        /// The path.
        got: String,
    },
    /// 400.
    #[error("link: expected from=live or one from=<epoch>.<number>, got {got}")]
    From {
        /// The value.
        got: String,
    },
    /// 400.
    #[error("link: expected at most {PATH_MAX} node ids in {PATH_FIELD}, got more")]
    Via,
    /// 401.
    #[error("link: expected the node token as bearer, got {got} from {peer}")]
    Token {
        /// `none` or `another`.
        got: &'static str,
        /// Who asks.
        peer: IpAddr,
    },
    /// 403.
    #[error("link: no node token is set here, so links are for loopback only, got {peer}")]
    NotLocal {
        /// Who asks.
        peer: IpAddr,
    },
    /// 508.
    #[error("link: expected a node that is not above this one, got {node} on its own path")]
    Loop {
        /// This node's id.
        node: String,
    },
    /// 404.
    #[error("link: expected a channel of this node, got {mount}")]
    UnknownChannel {
        /// What was asked for.
        mount: String,
    },
}

impl Denied {
    /// A 404 for a mount that the caller does not know.
    pub fn unknown_channel(mount: &str) -> Self {
        Self::UnknownChannel { mount: clip(mount) }
    }

    /// The HTTP status (RFC 9110; 508 is RFC 5842's).
    pub fn status(&self) -> u16 {
        match self {
            Self::Mount { .. } | Self::From { .. } | Self::Via => 400,
            Self::Token { .. } => 401,
            Self::NotLocal { .. } => 403,
            Self::UnknownChannel { .. } => 404,
            Self::Method { .. } => 405,
            Self::Loop { .. } => 508,
        }
    }

    /// The whole answer, after which the connection is closed.
    pub fn answer(&self) -> Vec<u8> {
        let answer = ResponseBuilder::new(self.status())
            .header("Content-Type", "text/plain; charset=utf-8")
            .header("Cache-Control", "no-store")
            .header(LINK_FIELD, "1")
            .header("Connection", "close");
        let answer = match self {
            Self::Token { .. } => answer.header("WWW-Authenticate", "Bearer realm=\"link\""),
            Self::Method { .. } => answer.header("Allow", "GET"),
            _ => answer,
        };
        answer.body(format!("{self}\n").as_bytes())
    }
}

/// What a stranger sent, made fit for a log line.
fn clip(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

/// The rules and counters of this node's serving side.
#[derive(Debug)]
pub struct Serve {
    config: ServeConfig,
    stats: ServeStats,
}

impl Serve {
    /// Serve as configured.
    pub fn new(config: ServeConfig) -> Self {
        Self {
            config,
            stats: ServeStats::default(),
        }
    }

    /// Reads a request and lets it in, or not. Access is checked before anything else is told.
    ///
    /// # Errors
    ///
    /// [`Denied`], to be answered with [`Denied::answer`].
    pub fn admit<'a>(&mut self, ask: &Ask<'a>) -> Result<Request<'a>, Denied> {
        let result = self.judge(ask);
        match &result {
            Ok(_) => self.stats.admitted += 1,
            Err(Denied::Token { .. } | Denied::NotLocal { .. }) => self.stats.denied_access += 1,
            Err(Denied::Loop { .. }) => self.stats.denied_loop += 1,
            Err(_) => self.stats.denied_request += 1,
        }
        result
    }

    /// Decides where a link starts; see [`start`].
    pub fn start(&mut self, from: From, ring: &Window) -> Start {
        let start = start(from, ring);
        self.stats.gap_chunks += start.gap;
        *match start.reason {
            StartReason::Exact => &mut self.stats.exact,
            StartReason::Live => &mut self.stats.live,
            StartReason::FellBehind => &mut self.stats.fell_behind,
            StartReason::Ahead => &mut self.stats.ahead,
            StartReason::NewEpoch => &mut self.stats.new_epoch,
        } += 1;
        start
    }

    /// What has been counted.
    pub fn stats(&self) -> ServeStats {
        self.stats
    }

    fn judge<'a>(&self, ask: &Ask<'a>) -> Result<Request<'a>, Denied> {
        self.check_access(ask)?;
        if ask.method != Method::Get {
            return Err(Denied::Method {
                got: ask.method.as_str(),
            });
        }
        let mount = ask.path.strip_prefix(PREFIX).filter(|mount| is_mount(mount));
        let mount = mount.ok_or_else(|| Denied::Mount { got: clip(ask.path) })?;
        self.check_loop(ask.via.unwrap_or_default())?;
        Ok(Request {
            mount,
            from: From::in_query(ask.query)?,
        })
    }

    fn check_access(&self, ask: &Ask<'_>) -> Result<(), Denied> {
        let peer = ask.peer.to_canonical();
        let Some(token) = &self.config.token else {
            return if peer.is_loopback() {
                Ok(())
            } else {
                Err(Denied::NotLocal { peer })
            };
        };
        match ask.bearer {
            Some(got) if token.matches(got) => Ok(()),
            Some(_) => Err(Denied::Token { got: "another", peer }),
            None => Err(Denied::Token { got: "none", peer }),
        }
    }

    fn check_loop(&self, via: &str) -> Result<(), Denied> {
        if via.split(',').nth(PATH_MAX).is_some() {
            return Err(Denied::Via);
        }
        if via.split(',').any(|id| id.trim() == self.config.node_id) {
            return Err(Denied::Loop {
                node: self.config.node_id.clone(),
            });
        }
        Ok(())
    }
}

/// What the ring holds of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The present life.
    pub epoch: u64,
    /// The oldest chunk that may still be given.
    pub first: u64,
    /// The chunk after the newest.
    pub next: u64,
    /// The chunk of the newest join point; `next` when there is none.
    pub live: u64,
}

/// Where a link starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The life of the channel.
    pub epoch: u64,
    /// The first chunk to send; HELLO's `first`.
    pub number: u64,
    /// Chunks that the asker wanted and cannot have.
    pub gap: u64,
    /// Why there.
    pub reason: StartReason,
}

/// Why a link starts where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartReason {
    /// Exactly where asked.
    Exact,
    /// The live edge was asked for.
    Live,
    /// What was asked for is no longer held: from the live edge, and the gap is counted.
    FellBehind,
    /// What was asked for has not come here yet (this node trails the one the asker had): from our end; the asker
    /// drops what it has already.
    Ahead,
    /// The asker knows another life of the channel: from the live edge of this one.
    NewEpoch,
}

/// Decides where a link starts.
///
/// Inside the window, and at its end, exactly where asked. Before the window it restarts at the live join point
/// and not at the oldest chunk: one who was too slow once would be at the edge of falling out again.
pub fn start(from: From, ring: &Window) -> Start {
    let at = |number, gap, reason| Start {
        epoch: ring.epoch,
        number,
        gap,
        reason,
    };
    let live = ring.live.clamp(ring.first, ring.next.max(ring.first));
    match from {
        From::Live => at(live, 0, StartReason::Live),
        From::At { epoch, .. } if epoch != ring.epoch => at(live, 0, StartReason::NewEpoch),
        From::At { number, .. } if number < ring.first => at(live, live - number, StartReason::FellBehind),
        From::At { number, .. } if number > ring.next => at(ring.next, 0, StartReason::Ahead),
        From::At { number, .. } => at(number, 0, StartReason::Exact),
    }
}

/// The head of a link's response; frames follow until the connection is closed.
pub fn response_head(start: &Start) -> Vec<u8> {
    ResponseBuilder::new(200)
        .header("Content-Type", CONTENT_TYPE)
        .header("Cache-Control", "no-store")
        .header("Connection", "close")
        .header("X-Totality-Start", &format!("{}.{}", start.epoch, start.number))
        .header("X-Totality-Gap", &start.gap.to_string())
        .head()
}

/// The path to say in our own HELLO: the upstream's (none for a root), then this node. `None` when the tree would
/// be deeper than [`PATH_MAX`]; such a node serves no links.
pub fn path_below<'a>(upstream: impl IntoIterator<Item = &'a str>, node_id: &'a str) -> Option<Vec<&'a str>> {
    let path: Vec<_> = upstream.into_iter().take(PATH_MAX).chain([node_id]).collect();
    (path.len() <= PATH_MAX).then_some(path)
}

/// When an idle link needs a PING.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    last: Now,
}

impl Heartbeat {
    /// A link that has sent nothing for so long sends a PING.
    pub const EVERY: Duration = Duration::from_secs(1);

    /// A link that has just begun.
    pub fn new(now: Now) -> Self {
        Self { last: now }
    }

    /// Something has been sent, a PING or else.
    pub fn sent(&mut self, now: Now) {
        self.last = now;
    }

    /// Whether a PING is due.
    pub fn due(&self, now: Now) -> bool {
        now >= self.deadline()
    }

    /// When a PING is due if nothing is sent before.
    pub fn deadline(&self) -> Now {
        self.last + Self::EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;
    use crate::dice::Dice;

    fn ask<'a>() -> Ask<'a> {
        Ask {
            method: Method::Get,
            path: "/link/eclipse.ts",
            query: "from=live",
            bearer: None,
            via: None,
            peer: "127.0.0.1".parse().unwrap(),
        }
    }

    fn open() -> Serve {
        Serve::new(ServeConfig::new("me", None).unwrap())
    }

    fn guarded() -> Serve {
        Serve::new(ServeConfig::new("me", Some(Token::new("t0ken").unwrap())).unwrap())
    }

    #[test]
    fn from_is_read_strictly() {
        assert_eq!(From::parse("live"), Some(From::Live));
        assert_eq!(From::parse("0.0"), Some(From::At { epoch: 0, number: 0 }));
        let max = format!("{0}.{0}", u64::MAX);
        assert_eq!(
            From::parse(&max),
            Some(From::At {
                epoch: u64::MAX,
                number: u64::MAX
            })
        );
        for bad in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "1.2.3",
            "+1.2",
            "1.-2",
            "01.2",
            "1.02",
            " 1.2",
            "1.2 ",
            "Live",
            "0x1.2",
            "18446744073709551616.0",
            "1.٣",
        ] {
            assert_eq!(From::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut dice = Dice::new(3);
        for _ in 0..1000 {
            let (shift, epoch, number) = (dice.below(64), dice.next(), dice.next());
            let from = From::At {
                epoch: epoch >> shift,
                number: number >> shift,
            };
            assert_eq!(
                From::parse(&format!("{}.{}", epoch >> shift, number >> shift)),
                Some(from)
            );
        }
    }

    #[test]
    fn a_request_names_its_mount_and_start() {
        let request = open()
            .admit(&Ask {
                query: "x=1&from=7.42",
                ..ask()
            })
            .unwrap();
        assert_eq!(
            request,
            Request {
                mount: "/eclipse.ts",
                from: From::At { epoch: 7, number: 42 }
            }
        );
        assert_eq!(
            open().admit(&Ask { query: "", ..ask() }).unwrap().from,
            From::Live
        );
    }

    #[test]
    fn what_is_not_a_link_is_refused() {
        let status = |ask: Ask<'_>| open().admit(&ask).map(|_| ()).map_err(|denied| denied.status());
        for path in ["/link", "/link/", "/linkage", "/eclipse.ts", "/link/a\n"] {
            assert_eq!(status(Ask { path, ..ask() }), Err(400), "{path:?}");
        }
        for query in ["from=", "from=1", "from=live&from=live", "from=1.2.3"] {
            assert_eq!(status(Ask { query, ..ask() }), Err(400), "{query:?}");
        }
        assert_eq!(
            status(Ask {
                method: Method::Put,
                ..ask()
            }),
            Err(405)
        );
    }

    #[test]
    fn without_a_token_links_are_for_loopback() {
        for (peer, good) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.1.2", false),
            ("::ffff:10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            let result = open().admit(&Ask {
                peer: peer.parse().unwrap(),
                ..ask()
            });
            assert_eq!(result.map_err(|denied| denied.status()).is_ok(), good, "{peer}");
        }
        let far = Ask {
            peer: "10.0.0.1".parse().unwrap(),
            bearer: Some("x"),
            ..ask()
        };
        assert_eq!(open().admit(&far).unwrap_err().status(), 403);
    }

    #[test]
    fn with_a_token_everybody_needs_it() {
        let status = |bearer, peer: &str| {
            let ask = Ask {
                bearer,
                peer: peer.parse().unwrap(),
                ..ask()
            };
            guarded()
                .admit(&ask)
                .map(|_| ())
                .map_err(|denied| denied.status())
        };
        assert_eq!(status(Some("t0ken"), "10.0.0.1"), Ok(()));
        for bad in [None, Some(""), Some("t0ke"), Some("t0kenn"), Some("T0ken")] {
            assert_eq!(status(bad, "127.0.0.1"), Err(401), "{bad:?}");
        }
    }

    #[test]
    fn a_stranger_learns_nothing_but_that() {
        let mut serve = guarded();
        assert_eq!(
            serve
                .admit(&Ask {
                    path: "/link/",
                    via: Some("me"),
                    ..ask()
                })
                .unwrap_err()
                .status(),
            401
        );
        assert_eq!(
            serve.stats(),
            ServeStats {
                denied_access: 1,
                ..ServeStats::default()
            }
        );
    }

    #[test]
    fn loops_are_refused() {
        let status = |via: &str| {
            open()
                .admit(&Ask {
                    via: Some(via),
                    ..ask()
                })
                .map_err(|d| d.status())
                .err()
        };
        for via in ["me", "a,me", "a, me ,b"] {
            assert_eq!(status(via), Some(508), "{via}");
        }
        for via in ["", "a", "met", "a,b,m,e"] {
            assert_eq!(status(via), None, "{via}");
        }
        assert_eq!(status(&["a"; PATH_MAX + 1].join(",")), Some(400));
    }

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let denied = guarded().admit(&ask()).unwrap_err();
        let text = String::from_utf8(denied.answer()).unwrap();
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{text}");
        assert!(
            text.contains("\r\nWWW-Authenticate: Bearer realm=\"link\"\r\n"),
            "{text}"
        );
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{text}"
        );
        let nasty = open()
            .admit(&Ask {
                path: "/x\r\nSet-Cookie: a",
                ..ask()
            })
            .unwrap_err();
        assert!(
            !String::from_utf8(nasty.answer())
                .unwrap()
                .contains("\nSet-Cookie")
        );
    }

    const RING: Window = Window {
        epoch: 5,
        first: 100,
        next: 200,
        live: 190,
    };

    #[test]
    fn a_start_inside_the_window_is_exact() {
        for number in [100, 150, 199, 200] {
            let expected = Start {
                epoch: 5,
                number,
                gap: 0,
                reason: StartReason::Exact,
            };
            assert_eq!(start(From::At { epoch: 5, number }, &RING), expected);
        }
    }

    #[test]
    fn a_start_outside_the_window_says_so() {
        let got = |epoch, number| start(From::At { epoch, number }, &RING);
        assert_eq!(
            got(5, 99),
            Start {
                epoch: 5,
                number: 190,
                gap: 91,
                reason: StartReason::FellBehind
            }
        );
        assert_eq!(
            got(5, 201),
            Start {
                epoch: 5,
                number: 200,
                gap: 0,
                reason: StartReason::Ahead
            }
        );
        assert_eq!(
            got(4, 150),
            Start {
                epoch: 5,
                number: 190,
                gap: 0,
                reason: StartReason::NewEpoch
            }
        );
        assert_eq!(start(From::Live, &RING).number, 190);
    }

    #[test]
    fn a_start_never_lies_outside_the_ring() {
        let mut dice = Dice::new(8);
        for _ in 0..5000 {
            let first = dice.below(1000);
            let next = first + dice.below(50);
            let ring = Window {
                epoch: dice.below(2),
                first,
                next,
                live: dice.below(1100),
            };
            let from = From::At {
                epoch: dice.below(2),
                number: dice.below(1100),
            };
            let s = start(from, &ring);
            assert!((first..=next).contains(&s.number), "{from:?} {ring:?} {s:?}");
            if let (From::At { number, .. }, StartReason::FellBehind) = (from, s.reason) {
                assert_eq!(number + s.gap, s.number);
            }
        }
    }

    #[test]
    fn starts_are_counted() {
        let mut serve = open();
        serve.start(From::At { epoch: 5, number: 90 }, &RING);
        serve.start(From::Live, &RING);
        let expected = ServeStats {
            fell_behind: 1,
            gap_chunks: 100,
            live: 1,
            ..ServeStats::default()
        };
        assert_eq!(serve.stats(), expected);
    }

    #[test]
    fn a_path_grows_by_this_node_up_to_the_limit() {
        assert_eq!(path_below([], "root"), Some(vec!["root"]));
        assert_eq!(path_below(["root", "a"], "b"), Some(vec!["root", "a", "b"]));
        assert_eq!(
            path_below(["x"; PATH_MAX - 1], "b").map(|path| path.len()),
            Some(PATH_MAX)
        );
        assert_eq!(path_below(["x"; PATH_MAX], "b"), None);
    }

    #[test]
    fn a_heartbeat_is_due_after_a_second_without_anything_sent() {
        let at = |ms: u64| Now::new(ms * 1_000_000, 0);
        let mut heart = Heartbeat::new(at(0));
        assert!(!heart.due(at(999)) && heart.due(at(1000)));
        heart.sent(at(600));
        assert!(!heart.due(at(1599)) && heart.due(at(1600)));
    }
}
