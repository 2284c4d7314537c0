//! A source that we go to: the live URL of any Icecast, SHOUTcast or plain HTTP server.
//!
//! One session is one connection. Redirects and reconnects are new sessions, on new connections; when to make
//! them is the caller's, with [`crate::Backoff`].

use relay_seam::Now;
use relay_wire::http::{HEAD_BYTES_MAX, HttpUrl, Refusal, RequestBuilder, ResponseHead};
use relay_wire::icy::{Deinterleaver, Piece};

use crate::body::Unframe;
use crate::config::Config;
use crate::properties::Properties;
use crate::rate::{Allowance, Pace, Verdict};
use crate::stats::SourceStats;

/// A chain of redirects is followed this far.
pub const REDIRECTS_MAX: u8 = 5;

/// A server may say so many interim responses (1xx) before the real one.
const INTERIM_MAX: u8 = 8;

/// What comes out of a [`Pull`].
#[derive(Debug, PartialEq, Eq)]
pub enum PullEvent<'a> {
    /// The server answered 200; the stream follows.
    Accepted(Properties),
    /// A stretch of the stream.
    Payload(&'a [u8]),
    /// The title in the stream has been said (again).
    Title(&'a str),
    /// The stream is elsewhere: drop this connection, make [`Pull::follow`]'s session and connect there.
    Redirect(HttpUrl),
    /// The stream is over, in good order.
    End,
}

/// One connection to a server.
pub struct Pull {
    url: HttpUrl,
    user_agent: String,
    redirects: u8,
    state: State,
    pace: Pace,
    stats: SourceStats,
}

enum State {
    Head {
        bytes: Vec<u8>,
        scanned: usize,
        interim: u8,
    },
    Body {
        unframe: Unframe,
        titles: Option<Deinterleaver>,
    },
    Over,
}

impl Pull {
    /// A session with the server of `url`, whose connection has just been opened.
    pub fn new(url: HttpUrl, user_agent: &str, config: &Config, now: Now) -> Self {
        Self {
            url,
            user_agent: user_agent.to_owned(),
            redirects: 0,
            state: State::head(0),
            pace: Pace::new(config, now),
            stats: SourceStats::default(),
        }
    }

    /// The session at the address of a [`PullEvent::Redirect`].
    pub fn follow(&self, to: HttpUrl, config: &Config, now: Now) -> Self {
        Self {
            redirects: self.redirects + 1,
            ..Self::new(to, &self.user_agent, config, now)
        }
    }

    /// Where this session is connected.
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// The request to send first.
    pub fn request(&self) -> Vec<u8> {
        let request = RequestBuilder::get(&self.url.host_header(), &self.url.path_and_query)
            .header("User-Agent", &self.user_agent)
            .header("Accept", "*/*")
            .header("Icy-MetaData", "1")
            .header("Connection", "close");
        match &self.url.basic {
            Some(basic) => request.header("Authorization", &basic.header()).finish(),
            None => request.finish(),
        }
    }

    /// Bytes came.
    ///
    /// # Errors
    ///
    /// When the answer is no stream: another status, too many redirects, one to anything but `http://`, a web
    /// page, broken framing. The session is over.
    pub fn feed(
        &mut self,
        now: Now,
        bytes: &[u8],
        events: &mut impl FnMut(PullEvent<'_>),
    ) -> Result<(), Refusal> {
        self.pace.came(now, bytes.len());
        let mut stream = 0;
        let (mut titles, mut rest) = (0, bytes);
        let mut counted = |event: PullEvent<'_>| {
            match &event {
                PullEvent::Payload(piece) => stream += piece.len() as u64,
                PullEvent::Title(_) => titles += 1,
                _ => {}
            }
            events(event);
        };
        let fed = self.advance(&mut rest, &mut counted);
        self.stats.count(bytes.len(), stream);
        self.stats.titles += titles;
        if fed.is_err() {
            self.state = State::Over;
        }
        fed
    }

    fn advance(&mut self, rest: &mut &[u8], events: &mut impl FnMut(PullEvent<'_>)) -> Result<(), Refusal> {
        while matches!(self.state, State::Head { .. }) && !rest.is_empty() {
            if let Some(head) = self.read_head(rest)? {
                self.answered(&head, events)?;
            }
        }
        self.read_body(rest, events)
    }

    /// Move bytes from `rest` into the head until it is complete.
    fn read_head(&mut self, rest: &mut &[u8]) -> Result<Option<ResponseHead>, Refusal> {
        let State::Head { bytes, scanned, .. } = &mut self.state else {
            return Ok(None);
        };
        let before = bytes.len();
        // Never more than a head may be: the parser refuses a full buffer without an end.
        let take = rest.len().min(HEAD_BYTES_MAX - before);
        bytes.extend_from_slice(&rest[..take]);
        let (head, used) = match ResponseHead::parse_from(bytes, scanned)? {
            Some((head, end)) => (Some(head), end - before),
            None => (None, take),
        };
        *rest = &rest[used..];
        Ok(head)
    }

    fn answered(
        &mut self,
        head: &ResponseHead,
        events: &mut impl FnMut(PullEvent<'_>),
    ) -> Result<(), Refusal> {
        match head.status {
            200 => self.accepted(head, events),
            301 | 302 | 303 | 307 | 308 => self.redirected(head, events),
            100 | 102..=199 => self.interim(),
            status => Err(Refusal::new(
                502,
                "200 from the upstream",
                &format!("status {status}"),
            )),
        }
    }

    fn accepted(
        &mut self,
        head: &ResponseHead,
        events: &mut impl FnMut(PullEvent<'_>),
    ) -> Result<(), Refusal> {
        let properties = Properties::read(|name| head.header(name));
        if let Some(other) = properties.content_type.as_deref().filter(|t| is_no_stream(t)) {
            return Err(Refusal::new(502, "a stream from the upstream", other));
        }
        let titles = head.header("icy-metaint").map(deinterleaver).transpose()?;
        self.state = State::Body {
            unframe: Unframe::new(head.body()),
            titles,
        };
        events(PullEvent::Accepted(properties));
        Ok(())
    }

    fn redirected(
        &mut self,
        head: &ResponseHead,
        events: &mut impl FnMut(PullEvent<'_>),
    ) -> Result<(), Refusal> {
        if self.redirects >= REDIRECTS_MAX {
            return Err(Refusal::new(502, "at most 5 redirects", "another one"));
        }
        let location = head
            .header("location")
            .ok_or_else(|| Refusal::new(502, "a redirect with Location", "none"))?;
        let to = self.url.resolve(location)?;
        self.state = State::Over;
        events(PullEvent::Redirect(to));
        Ok(())
    }

    fn interim(&mut self) -> Result<(), Refusal> {
        match self.state {
            State::Head { interim, .. } if interim < INTERIM_MAX => {
                self.state = State::head(interim + 1);
                Ok(())
            }
            _ => Err(Refusal::new(
                502,
                "a final response",
                "one interim response after another",
            )),
        }
    }

    fn read_body(&mut self, bytes: &[u8], events: &mut impl FnMut(PullEvent<'_>)) -> Result<(), Refusal> {
        let State::Body { unframe, titles } = &mut self.state else {
            return Ok(());
        };
        unframe.feed(bytes, &mut |piece| match titles {
            None => events(PullEvent::Payload(piece)),
            Some(titles) => titles.feed(piece, &mut |p| events(p.into())),
        })?;
        if unframe.finished() {
            self.state = State::Over;
            events(PullEvent::End);
        }
        Ok(())
    }

    /// The server will send no more. `Ok`: the stream is over in good order.
    ///
    /// # Errors
    ///
    /// When there was no answer yet, or its framing promised more.
    pub fn peer_done(&mut self) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Head { .. } => Err(Refusal::new(502, "a response head", "the end of the connection")),
            State::Body { unframe, .. } if !unframe.may_end() => Err(Refusal::new(
                502,
                "a body to its declared end",
                "the end of the connection",
            )),
            State::Body { .. } | State::Over => Ok(()),
        }
    }

    /// When to call [`Pull::on_time`] next, at the latest.
    pub fn deadline(&self) -> Now {
        self.pace.deadline()
    }

    /// What the clock says. Any verdict but `Keep` ends the session.
    pub fn on_time(&mut self, now: Now) -> Verdict {
        self.pace.verdict(now, "upstream")
    }

    /// Whether to read on, to ask after each [`Pull::feed`] and when a pause ends.
    pub fn allowance(&mut self, now: Now) -> Allowance {
        let (allowance, begins) = self.pace.allowance(now);
        self.stats.pauses += u64::from(begins);
        allowance
    }

    /// What it has done so far; the head counts as overhead.
    pub fn stats(&self) -> &SourceStats {
        &self.stats
    }
}

impl State {
    fn head(interim: u8) -> Self {
        State::Head {
            bytes: Vec::new(),
            scanned: 0,
            interim,
        }
    }
}

impl<'a> From<Piece<'a>> for PullEvent<'a> {
    fn from(piece: Piece<'a>) -> Self {
        match piece {
            Piece::Payload(bytes) => PullEvent::Payload(bytes),
            Piece::Title(title) => PullEvent::Title(title),
        }
    }
}

/// A web page, or a playlist that names the stream: what one gets by copying the wrong address.
fn is_no_stream(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let others = [
        "text/html",
        "audio/x-mpegurl",
        "audio/mpegurl",
        "audio/x-scpls",
        "application/vnd.apple.mpegurl",
    ];
    others.contains(&essence.as_str())
}

fn deinterleaver(metaint: &str) -> Result<Deinterleaver, Refusal> {
    let n = metaint
        .parse()
        .map_err(|_| Refusal::new(502, "an icy-metaint of digits", metaint))?;
    Deinterleaver::new(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use relay_wire::http::RequestHead;
    use relay_wire::icy;

    fn at(s: u64) -> Now {
        Now::new(s * 1_000_000_000, 0)
    }

    fn pull(url: &str) -> Pull {
        Pull::new(
            HttpUrl::parse(url).unwrap(),
            "totality/0",
            &Config::default(),
            at(0),
        )
    }

    /// What a whole answer yields: payload, everything else as text, and the refusal's status.
    fn run(wire: &[u8], step: usize) -> (Vec<u8>, Vec<String>, Option<u16>) {
        let (mut p, mut payload, mut said) = (pull("http://h:8000/a"), Vec::new(), Vec::new());
        for piece in wire.chunks(step) {
            let fed = p.feed(at(0), piece, &mut |e| match e {
                PullEvent::Payload(b) => payload.extend_from_slice(b),
                e => said.push(format!("{e:?}")),
            });
            if let Err(refusal) = fed {
                return (payload, said, Some(refusal.status));
            }
        }
        (payload, said, None)
    }

    fn refused(answer: &str) -> Option<u16> {
        run(answer.as_bytes(), usize::MAX).2
    }

    #[test]
    fn the_request_asks_for_titles_and_carries_the_login() {
        let bytes = pull("http://u:p@[::1]:8000/a.mp3?b").request();
        let (head, n) = RequestHead::parse(&bytes).unwrap().unwrap();
        assert_eq!(
            (n, head.target.as_str(), head.header("host")),
            (bytes.len(), "/a.mp3?b", Some("[::1]:8000"))
        );
        assert!(head.wants_icy());
        assert_eq!(head.basic_auth().map(|b| b.password).as_deref(), Some("p"));
    }

    #[test]
    fn titles_are_taken_out_in_any_slicing() {
        let head =
            "ICY 200 OK\r\nicy-name: Sun\r\nicy-br:128\r\ncontent-type: audio/mpeg\r\nicy-metaint: 4\r\n\r\n";
        let mut wire = [head.as_bytes(), b"abcd"].concat();
        wire.extend_from_slice(&icy::block("One", None));
        wire.extend_from_slice(b"efgh\0ij");
        let whole = run(&wire, usize::MAX);
        assert_eq!((whole.0.as_slice(), whole.2), (&b"abcdefghij"[..], None));
        assert!(
            whole.1[0].contains("Sun") && whole.1[1].contains("One"),
            "{:?}",
            whole.1
        );
        for step in 1..wire.len() {
            assert_eq!(run(&wire, step), whole, "slices of {step}");
        }
    }

    #[test]
    fn framing_comes_off_before_titles() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nicy-metaint: 2\r\n\r\n";
        let wire = [&head[..], b"1\r\na\r\n3\r\nb\0c\r\n0\r\n\r\n"].concat();
        let (payload, said, refused) = run(&wire, 5);
        assert_eq!((payload.as_slice(), refused), (&b"abc"[..], None));
        assert_eq!(said.last().map(String::as_str), Some("End"));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for answer in [
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 401 Unauthorized\r\n\r\n",
            "HTTP/1.1 206 Partial Content\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/HTML; charset=utf-8\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: audio/x-mpegurl\r\n\r\n",
            "HTTP/1.1 200 OK\r\nicy-metaint: x\r\n\r\n",
            "HTTP/1.1 302 Found\r\n\r\n",
            &"HTTP/1.1 100 Continue\r\n\r\n".repeat(9),
        ] {
            assert_eq!(refused(answer), Some(502), "{answer}");
        }
        for answer in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nicy-metaint: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: https://h/\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
        ] {
            assert_eq!(refused(answer), Some(400), "{answer}");
        }
        assert_eq!(
            refused(&format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(1 << 20))),
            Some(431)
        );
        assert_eq!(
            refused("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx"),
            None
        );
    }

    #[test]
    fn redirects_are_followed_so_far() {
        let mut p = pull("http://u:p@h/0");
        for n in 1..=REDIRECTS_MAX + 1 {
            let (mut to, answer) = (
                None,
                format!("HTTP/1.1 302 Found\r\nLocation: /{n}\r\n\r\n<html>"),
            );
            let fed = p.feed(at(0), answer.as_bytes(), &mut |e| match e {
                PullEvent::Redirect(url) => to = Some(url),
                e => panic!("{e:?}"),
            });
            assert_eq!(fed.is_ok(), n <= REDIRECTS_MAX, "redirect {n}");
            if let Some(to) = to {
                assert_eq!(
                    (to.path_and_query.as_str(), to.basic.is_some()),
                    (format!("/{n}").as_str(), true)
                );
                p = p.follow(to, &Config::default(), at(0));
            }
        }
    }

    #[test]
    fn the_end_of_the_connection_is_judged() {
        let done = |answer: &[u8]| {
            let mut p = pull("http://h/");
            p.feed(at(0), answer, &mut |_| ()).unwrap();
            p.peer_done().is_ok()
        };
        assert!(done(b"HTTP/1.0 200 OK\r\n\r\nabc"));
        assert!(!done(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nabc"));
        assert!(done(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"));
        assert!(!done(b"HTTP/1.0 200 OK\r\n"));
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let mut p = pull("http://h/");
        assert_eq!(p.deadline(), at(10));
        assert!(matches!(
            p.on_time(at(10)),
            Verdict::TimedOut { who: "upstream", .. }
        ));
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_nothing_is_invented(
            start in prop::sample::select(vec![
                "",
                "HTTP/1.1 200 OK\r\nicy-metaint: 3\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ]),
            noise in prop::collection::vec(any::<u8>(), 0..300),
            step in 1usize..50,
        ) {
            let wire = [start.as_bytes(), &noise].concat();
            let (payload, _, _) = run(&wire, step);
            prop_assert!(payload.len() <= noise.len());
        }
    }
}
