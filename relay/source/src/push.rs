//! A source that comes to us: `PUT` (Icecast 2.4 and later, ffmpeg, curl) or `SOURCE` (libshout, VLC, older clients).
//!
//! What is answered, and why:
//!
//! | request | answer |
//! |---|---|
//! | neither `PUT` nor `SOURCE` | 405 with `Allow` |
//! | no password is configured | 403: ingest is refused, never open |
//! | ten wrong passwords within a minute from one address | 429 with `Retry-After` |
//! | no credentials (libshout asks like this first), malformed ones, wrong ones | 401 with `WWW-Authenticate` |
//! | a path that names no mount | 400 |
//! | no `Content-Type` | accepted; the stream's own bytes say what it is (Icecast 2.4 would say 403) |
//! | admitted, `Expect: 100-continue` | [`CONTINUE`] first |
//! | admitted, a body that runs until the source closes | [`ACCEPTED`] at once: libshout and VLC wait for it |
//! | admitted, a chunked or counted body | [`COMPLETE`] when it is complete, as HTTP wants it |
//!
//! Tried with ffmpeg 5.1 (`icecast://`, legacy and not, and `-method PUT`), VLC 3.0 with libshout 2.4, curl 7.88.
//! Two things to know about them: ffmpeg never reads the [`ACCEPTED`] of a `SOURCE`, so its kernel ends the
//! connection with a reset that is no fault; and unless told otherwise ffmpeg calls everything `audio/mpeg`, so the
//! stream's own bytes are a better witness than the `Content-Type`.

use std::net::IpAddr;

use relay_seam::Now;
use relay_wire::http::{Basic, Body, Method, Refusal, RequestHead, ResponseBuilder};
use subtle::ConstantTimeEq;

use crate::body::Unframe;
use crate::config::{Config, Secret};
use crate::properties::Properties;
use crate::rate::{Allowance, Pace, Verdict};
use crate::stats::SourceStats;
use crate::throttle::AuthThrottle;

/// The user name of sources, as Icecast has it.
pub const USER: &str = "source";

/// Where the password of sources is set; named in the answer that misses it.
pub const PASSWORD_VARIABLE: &str = "RELAY_AUTH_SOURCE_PASSWORD";

/// Said to a source that waits for it. ffmpeg reads this one and starts to send.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Said to a source without framing, to the byte what Icecast 2.4 says: without a length, because the exchange
/// ends with the connection.
pub const ACCEPTED: &[u8] = b"HTTP/1.0 200 OK\r\n\r\n";

/// Said to a source with framing when its body is complete.
pub const COMPLETE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

const CONTINUE_AND_ACCEPTED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n";

/// A source that may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The mount it feeds: the decoded path.
    pub mount: String,
    /// What it says about its stream.
    pub properties: Properties,
    /// Whether it waits for `100 Continue`.
    pub reply_continue: bool,
    /// How its body is framed.
    pub body: Body,
}

impl Admitted {
    /// The exact bytes to answer with at once, when the mount has been found free; may be empty.
    pub fn reply(&self) -> &'static [u8] {
        match (self.reply_continue, self.body) {
            (true, Body::UntilClose) => CONTINUE_AND_ACCEPTED,
            (false, Body::UntilClose) => ACCEPTED,
            (true, _) => CONTINUE,
            (false, _) => b"",
        }
    }

    /// The exact bytes to answer with when the body is complete; may be empty.
    pub fn reply_at_end(&self) -> &'static [u8] {
        if self.body == Body::UntilClose {
            b""
        } else {
            COMPLETE
        }
    }
}

/// Why a source may not send: an answer, after which the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Fields beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
    /// Plain text for whoever runs the source: what was expected, what came, what to do.
    pub body: String,
}

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 401, whatever was wrong with the credentials: the text does not tell a guesser which part.
    fn unauthorized(expected: &str) -> Self {
        Self::new(401, format!("expected {expected}\n"))
            .with("WWW-Authenticate", "Basic realm=\"source\", charset=\"UTF-8\"")
    }

    /// The mount has a source already; for the caller, who knows.
    pub fn taken(mount: &str) -> Self {
        Self::new(
            409,
            format!(
                "expected a free mount, got {}, which has a source\n",
                relay_wire::text::escape_log(mount)
            ),
        )
    }

    /// The whole response. `server` is the `Server` field, `unix_seconds` the `Date`.
    pub fn to_bytes(&self, server: &str, unix_seconds: u64) -> Vec<u8> {
        let fixed = ResponseBuilder::new(self.status)
            .server(server)
            .date(unix_seconds)
            .header("Content-Type", "text/plain; charset=utf-8")
            .header("Connection", "close");
        let all = self
            .headers
            .iter()
            .fold(fixed, |b, (name, value)| b.header(name, value));
        all.body(self.body.as_bytes())
    }
}

/// How far a source has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The body is complete; nothing that still comes is stream.
    pub finished: bool,
}

/// One pushing source, from its admission on.
#[derive(Debug)]
pub struct Push {
    unframe: Unframe,
    pace: Pace,
    stats: SourceStats,
}

impl Push {
    /// Decide about a request whose head has been read. Nothing is sent and no mount is taken by this.
    ///
    /// # Errors
    ///
    /// The answer to send instead; see the table above. No input makes it a 5xx.
    pub fn admit(
        head: &RequestHead,
        peer: IpAddr,
        config: &Config,
        throttle: &mut AuthThrottle,
        now: Now,
    ) -> Result<Admitted, Answer> {
        check_method(head.method)?;
        check_login(head, peer, config, throttle, now)?;
        let mount = check_mount(&head.path)?;
        Ok(Admitted {
            mount,
            properties: Properties::read(|name| head.header(name)),
            reply_continue: head.expects_continue(),
            body: head.body(),
        })
    }

    /// A session that begins `now`, after the reply.
    pub fn new(body: Body, config: &Config, now: Now) -> Self {
        Self {
            unframe: Unframe::new(body),
            pace: Pace::new(config, now),
            stats: SourceStats::default(),
        }
    }

    /// Bytes came; what of them is stream goes to `out`.
    ///
    /// # Errors
    ///
    /// 400 when the framing is broken: the session is over.
    pub fn feed<'a>(
        &mut self,
        now: Now,
        bytes: &'a [u8],
        out: &mut impl FnMut(&'a [u8]),
    ) -> Result<Progress, Refusal> {
        let mut payload = 0;
        let fed = self.unframe.feed(bytes, &mut |piece| {
            payload += piece.len() as u64;
            out(piece);
        });
        self.stats.count(bytes.len(), payload);
        self.pace.came(now, bytes.len());
        fed.map(|()| Progress {
            finished: self.finished(),
        })
    }

    /// Whether the body is complete.
    pub fn finished(&self) -> bool {
        self.unframe.finished()
    }

    /// The source will send no more. A reset of the connection may be read as the same.
    ///
    /// # Errors
    ///
    /// When its framing promised more.
    pub fn peer_done(&self) -> Result<(), Refusal> {
        match self.unframe.may_end() {
            true => Ok(()),
            false => Err(Refusal::new(
                400,
                "a body to its declared end",
                "the end of the connection",
            )),
        }
    }

    /// When to call [`Push::on_time`] next, at the latest.
    pub fn deadline(&self) -> Now {
        self.pace.deadline()
    }

    /// What the clock says about this source. Any verdict but `Keep` ends the session.
    pub fn on_time(&mut self, now: Now) -> Verdict {
        self.pace.verdict(now, "source")
    }

    /// Whether to read on, to ask after each [`Push::feed`] and when a pause ends.
    pub fn allowance(&mut self, now: Now) -> Allowance {
        let (allowance, begins) = self.pace.allowance(now);
        self.stats.pauses += u64::from(begins);
        allowance
    }

    /// What it has done so far.
    pub fn stats(&self) -> &SourceStats {
        &self.stats
    }
}

fn check_method(method: Method) -> Result<(), Answer> {
    match method {
        Method::Put | Method::Source => Ok(()),
        _ => Err(Answer::new(405, "expected PUT or SOURCE, got another method\n")
            .with("Allow", "GET, HEAD, PUT, SOURCE")),
    }
}

fn check_login(
    head: &RequestHead,
    peer: IpAddr,
    config: &Config,
    throttle: &mut AuthThrottle,
    now: Now,
) -> Result<(), Answer> {
    let Some(password) = &config.password else {
        return Err(Answer::new(
            403,
            format!(
                "expected a source password to be configured, got none: set {PASSWORD_VARIABLE} where the relay runs\n"
            ),
        ));
    };
    if let Some(wait) = throttle.refused(peer, now) {
        return Err(
            Answer::new(429, "expected fewer wrong passwords, got ten within a minute\n")
                .with("Retry-After", (wait.as_secs() + 1).to_string()),
        );
    }
    if head.header("authorization").is_none() {
        // Not a guess: libshout asks like this to hear what is wanted.
        return Err(Answer::unauthorized(
            "the user `source` and its password, got no credentials",
        ));
    }
    if !head.basic_auth().is_some_and(|basic| right(&basic, password)) {
        throttle.failed(peer, now);
        return Err(Answer::unauthorized(
            "the user `source` and its password, got other credentials",
        ));
    }
    Ok(())
}

/// Both parts are compared always, so that time does not tell which one is wrong.
fn right(basic: &Basic, password: &Secret) -> bool {
    (basic.user.as_bytes().ct_eq(USER.as_bytes()) & password.ct_matches(&basic.password)).into()
}

/// A mount is a path with a name at its end.
fn check_mount(path: &str) -> Result<String, Answer> {
    match path.starts_with('/') && !path.ends_with('/') {
        true => Ok(path.to_owned()),
        false => Err(Answer::new(
            400,
            "expected a mount such as /live.ts, got a path without a name\n",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn at(s: u64) -> Now {
        Now::new(s * 1_000_000_000, 0)
    }

    fn config() -> Config {
        Config {
            password: Some(Secret::new("hackme").unwrap()),
            ..Config::default()
        }
    }

    fn head(text: &str) -> RequestHead {
        RequestHead::parse(text.as_bytes())
            .unwrap()
            .expect("a complete head")
            .0
    }

    fn login(user: &str, password: &str) -> String {
        let basic = Basic {
            user: user.into(),
            password: password.into(),
        };
        format!("Authorization: {}\r\n", basic.header())
    }

    fn admit_with(text: &str, config: &Config) -> Result<Admitted, u16> {
        Push::admit(&head(text), PEER, config, &mut AuthThrottle::new(0), at(0)).map_err(|a| a.status)
    }

    fn admit(text: &str) -> Result<Admitted, u16> {
        admit_with(text, &config())
    }

    /// Heads as the clients sent them; the password is "hackme".
    const AUTH: &str = "Authorization: Basic c291cmNlOmhhY2ttZQ==\r\n";

    #[test]
    fn what_ffmpeg_sends_is_admitted() {
        let a = admit(&format!(
            "PUT /a.ts HTTP/1.1\r\nUser-Agent: Lavf/59.27.100\r\nAccept: */*\r\nExpect: 100-continue\r\n\
             Connection: close\r\nHost: 127.0.0.1:8000\r\nContent-Type: video/mp2t\r\nIcy-MetaData: 1\r\n\
             Ice-Name: Eclipse\r\nIce-Public: 0\r\n{AUTH}\r\n"
        ))
        .unwrap();
        assert_eq!((a.mount.as_str(), a.body), ("/a.ts", Body::UntilClose));
        assert_eq!(a.properties.name.as_deref(), Some("Eclipse"));
        assert_eq!(a.reply(), b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n");

        let legacy = admit(&format!(
            "SOURCE /b.ts HTTP/1.1\r\nUser-Agent: Lavf/59.27.100\r\nAccept: */*\r\nConnection: close\r\n\
             Host: 127.0.0.1:8000\r\nContent-Type: audio/mpeg\r\nIcy-MetaData: 1\r\nIce-Public: 0\r\n{AUTH}\r\n"
        ));
        assert_eq!(legacy.map(|a| a.reply()), Ok(ACCEPTED));

        let put = "PUT /c.ts HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUser-Agent: Lavf/59.27.100\r\nAccept: */*\r\n\
                   Connection: close\r\nHost: 127.0.0.1:8000\r\nIcy-MetaData: 1\r\n";
        assert_eq!(admit(&format!("{put}Expect: 100-continue\r\n\r\n")), Err(401));
        let a = admit(&format!("{put}{AUTH}\r\n")).unwrap();
        assert_eq!(
            (a.body, a.reply(), a.reply_at_end()),
            (Body::Chunked, &b""[..], COMPLETE)
        );
    }

    #[test]
    fn what_vlc_sends_is_challenged_and_then_admitted() {
        let fields = "Host: 127.0.0.1:8000\r\nUser-Agent: VLC media player 3.0.24\r\nContent-Type: application/ogg\r\n\
                      ice-public: 0\r\nice-name: VLC media player - Live stream\r\nice-genre: Alternative\r\n";
        // libshout asks without credentials first, by PUT where `Allow` names it, else by SOURCE.
        let challenge = "Content-Length: 0\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(
            admit(&format!("PUT /vlc.ogg HTTP/1.1\r\n{fields}{challenge}")),
            Err(401)
        );
        assert_eq!(
            admit(&format!("SOURCE /vlc.ogg HTTP/1.0\r\n{fields}{challenge}")),
            Err(401)
        );

        let a = admit(&format!("SOURCE /vlc.ogg HTTP/1.0\r\n{AUTH}{fields}\r\n")).unwrap();
        assert_eq!((a.reply(), a.body), (ACCEPTED, Body::UntilClose));
        let put = format!("PUT /vlc.ogg HTTP/1.1\r\n{AUTH}{fields}Expect: 100-continue\r\n\r\n");
        assert_eq!(admit(&put).map(|a| a.reply()), Ok(CONTINUE_AND_ACCEPTED));
    }

    #[test]
    fn what_curl_sends_is_admitted_and_answered_at_its_end() {
        let fields = format!("Host: 127.0.0.1:8000\r\n{AUTH}User-Agent: curl/7.88.1\r\nAccept: */*\r\n");
        for (framing, body) in [
            ("Content-Length: 300000", Body::Length(300_000)),
            ("Transfer-Encoding: chunked", Body::Chunked),
        ] {
            let text = format!("PUT /d.ts HTTP/1.1\r\n{fields}{framing}\r\nExpect: 100-continue\r\n\r\n");
            let a = admit(&text).unwrap();
            assert_eq!((a.body, a.reply(), a.reply_at_end()), (body, CONTINUE, COMPLETE));
            assert_eq!(a.properties.content_type, None);
        }
    }

    #[test]
    fn each_spelling_of_a_source_has_its_answer() {
        // Row A13; and A10's second half: a wrong password says nothing about the mount.
        let auth = login("source", "hackme");
        let admitted = |line: &str| admit(&format!("{line}\r\n{auth}\r\n")).map(|a| a.body);
        assert_eq!(
            admitted("PUT /a.ts HTTP/1.1\r\nTransfer-Encoding: chunked"),
            Ok(Body::Chunked)
        );
        assert_eq!(
            admitted("PUT /a.ts HTTP/1.1\r\nContent-Length: 7"),
            Ok(Body::Length(7))
        );
        assert_eq!(admitted("PUT /a.ts HTTP/1.1"), Ok(Body::UntilClose));
        assert_eq!(admitted("SOURCE /a.ts ICE/1.0"), Ok(Body::UntilClose));
        assert_eq!(admitted("SOURCE / ICE/1.0"), Err(400));
        assert_eq!(admitted("PUT /a/ HTTP/1.1"), Err(400));
        assert_eq!(admitted("POST /a.ts HTTP/1.1"), Err(405));
        assert_eq!(admitted("GET /a.ts HTTP/1.1"), Err(405));
    }

    #[test]
    fn bad_logins_are_401() {
        // Row A9.
        let auths = [
            String::new(),
            "Authorization:\r\n".into(),
            "Authorization: Basic\r\n".into(),
            "Authorization: Basic %%%\r\n".into(),
            "Authorization: Basic c291cmNl\r\n".into(),
            "Authorization: Bearer hackme\r\n".into(),
            format!("Authorization: Basic {}\r\n", "A".repeat(12_000)),
            login("source", ""),
            login("source", "hackme2"),
            login("admin", "hackme"),
            login("", "hackme"),
            login("source", &"x".repeat(5000)),
            login("source", "hackme") + &login("source", "hackme"),
        ];
        for auth in auths {
            let text = format!("PUT /a.ts HTTP/1.1\r\n{auth}\r\n");
            let answer =
                Push::admit(&head(&text), PEER, &config(), &mut AuthThrottle::new(0), at(0)).unwrap_err();
            assert_eq!(answer.status, 401, "{text}");
            let bytes = String::from_utf8(answer.to_bytes("totality/0", 0)).unwrap();
            assert!(
                bytes.contains("\r\nWWW-Authenticate: Basic realm=") && !bytes.contains("hackme"),
                "{bytes}"
            );
        }
    }

    #[test]
    fn without_a_password_ingest_is_refused_and_the_remedy_is_named() {
        let text = format!("PUT /a.ts HTTP/1.1\r\n{}\r\n", login("source", ""));
        let answer = Push::admit(
            &head(&text),
            PEER,
            &Config::default(),
            &mut AuthThrottle::new(0),
            at(0),
        )
        .unwrap_err();
        assert_eq!(answer.status, 403);
        assert!(answer.body.contains(PASSWORD_VARIABLE), "{}", answer.body);
    }

    #[test]
    fn ten_wrong_passwords_close_the_door_even_to_the_right_one() {
        let mut throttle = AuthThrottle::new(0);
        let mut status = |password: Option<&str>, s| {
            let auth = password.map(|p| login("source", p)).unwrap_or_default();
            let head = head(&format!("PUT /a.ts HTTP/1.1\r\n{auth}\r\n"));
            Push::admit(&head, PEER, &config(), &mut throttle, at(s)).map_or_else(|a| a.status, |_| 200)
        };
        for _ in 0..50 {
            assert_eq!(status(None, 1), 401, "asking what is wanted is no guess");
        }
        for _ in 0..10 {
            assert_eq!(status(Some("guess"), 1), 401);
        }
        assert_eq!(status(Some("hackme"), 2), 429);
        assert_eq!(status(Some("hackme"), 61), 200);
    }

    fn fed(body: Body, pieces: &[&[u8]]) -> (Vec<u8>, bool, Push) {
        let (mut push, mut out, mut finished) = (Push::new(body, &config(), at(0)), Vec::new(), false);
        for piece in pieces {
            finished = push
                .feed(at(0), piece, &mut |b| out.extend_from_slice(b))
                .unwrap()
                .finished;
        }
        (out, finished, push)
    }

    #[test]
    fn every_framing_yields_the_stream() {
        let (out, finished, push) = fed(Body::UntilClose, &[b"abc", b"def"]);
        assert_eq!(
            (out.as_slice(), finished, push.peer_done().is_ok()),
            (&b"abcdef"[..], false, true)
        );

        let (out, finished, push) = fed(Body::Length(4), &[b"abc", b"def"]);
        assert_eq!(
            (out.as_slice(), finished, push.peer_done().is_ok()),
            (&b"abcd"[..], true, true)
        );
        let s = push.stats();
        assert_eq!((s.bytes_in, s.payload_bytes, s.overhead_bytes), (6, 4, 2));

        let (out, finished, push) = fed(Body::Chunked, &[b"3\r\nab", b"c\r\n", b"0\r\n"]);
        assert_eq!(
            (out.as_slice(), finished, push.peer_done().is_err()),
            (&b"abc"[..], false, true)
        );
    }

    #[test]
    fn a_source_that_promised_more_is_cut_short() {
        assert!(fed(Body::Length(4), &[b"abc"]).2.peer_done().is_err());
        assert!(fed(Body::Length(0), &[b"abc"]).1);
    }

    #[test]
    fn silence_and_flood_are_judged() {
        let mut push = Push::new(
            Body::UntilClose,
            &Config {
                max_rate: Some(1000),
                ..config()
            },
            at(0),
        );
        push.feed(at(0), &[0; 10_000], &mut |_| ()).unwrap();
        assert!(matches!(push.allowance(at(0)), Allowance::Pause { .. }));
        assert_eq!((push.allowance(at(10)), push.stats().pauses), (Allowance::Go, 1));
        assert_eq!(push.on_time(at(10)), Verdict::Keep);
        assert!(matches!(
            push.on_time(push.deadline()),
            Verdict::TimedOut { who: "source", .. }
        ));
    }

    proptest! {
        #[test]
        fn no_credentials_make_it_panic_or_a_5xx(value in "\\PC{0,80}", scheme in "(Basic |basic  |Bearer |)") {
            let text = format!("PUT /a HTTP/1.1\r\nAuthorization: {scheme}{value}\r\n\r\n");
            if let Ok(Some((head, _))) = RequestHead::parse(text.as_bytes()) {
                let answer = Push::admit(&head, PEER, &config(), &mut AuthThrottle::new(0), at(0));
                prop_assert_eq!(answer.map_err(|a| a.status).err(), Some(401));
            }
        }

        #[test]
        fn any_login_but_the_right_one_is_refused(user in "(source|\\PC{0,8})", password in "(hackme|\\PC{0,8})") {
            let head = head(&format!("PUT /a HTTP/1.1\r\n{}\r\n", login(&user, &password)));
            let answer = Push::admit(&head, PEER, &config(), &mut AuthThrottle::new(0), at(0));
            prop_assert_eq!(answer.is_ok(), user == "source" && password == "hackme");
        }
    }
}
