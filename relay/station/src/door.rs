//! The door: request heads, and whom each request is for.

use std::net::SocketAddr;
use std::time::Duration;

use relay_listener as listener;
use relay_seam::{Closing, Conn, Handover, Now, Output};
use relay_wire::http::{Method, Refusal, RequestHead, Version, reason};
use relay_wire::text::http_date;

use crate::conns::{Door, Role};
use crate::join::{Waiter, Wanted};
use crate::listeners::Request;
use crate::orders::{Access, Event};
use crate::turn::Station;

/// What the access log keeps of a stranger's words, in bytes.
const AGENT_MAX: usize = 256;

/// A listener that goes on talking is not listened to beyond this many bytes.
const UNASKED_MAX: u32 = 16 * 1024;

/// Paths that the control plane answers: no mount may have them.
pub fn is_control_path(path: &str) -> bool {
    const WHOLE: &[&str] = &[
        "/",
        "/index.html",
        "/status-json.xsl",
        "/status.xsl",
        "/server_version.xsl",
        "/metrics",
        "/healthz",
        "/readyz",
        "/favicon.ico",
        "/tracker",
        "/admin",
        "/api",
        "/link",
        "/status",
    ];
    const UNDER: &[&str] = &["/admin/", "/api/", "/assets/", "/link/"];
    const ENDING: &[&str] = &[".m3u", ".sdp"];
    WHOLE.contains(&path)
        || UNDER.iter().any(|prefix| path.starts_with(prefix))
        || ENDING.iter().any(|ending| path.ends_with(ending))
}

impl Station {
    pub(crate) fn accepted(&mut self, now: Now, conn: Conn, peer: SocketAddr) {
        let config = &self.house.config;
        self.counters().accepted.up();
        let counted = self
            .house
            .admission()
            .admit_prefix(peer, config.listener.max_per_prefix);
        let connections = self.house.admission().enter();
        let door = Door {
            read: Vec::new(),
            scanned: 0,
            since: now,
        };
        let full = connections > config.connections_max;
        self.conns.add(conn, peer, Role::Door(door), counted);
        self.counters().connections.up();
        if !counted {
            self.counters().refused_prefix.up();
        }
        if full || !counted || self.finishing {
            self.turn_away(now, conn);
        } else {
            self.doors.push_back((now, conn));
        }
    }

    pub(crate) fn door_heard(&mut self, now: Now, conn: Conn, bytes: &[u8]) {
        let Some(entry) = self.conns.get(conn) else { return };
        let peer = entry.peer;
        let Role::Door(door) = &mut entry.role else { return };
        door.read.extend_from_slice(bytes);
        match RequestHead::parse_from(&door.read, &mut door.scanned) {
            Ok(None) => {}
            Ok(Some((head, used))) => {
                let (read, since) = (std::mem::take(&mut door.read), door.since);
                self.route(now, conn, peer, since, &head, read, used);
            }
            Err(refusal) => {
                self.counters().heads_refused.up();
                self.refuse(now, conn, &refusal);
            }
        }
    }

    /// The head did not come in time.
    pub(crate) fn close_late_doors(&mut self, now: Now) {
        let patience = self.house.config.head_timeout;
        while let Some((since, conn)) = self.doors.front().copied() {
            if now.since(since) < patience {
                return;
            }
            self.doors.pop_front();
            if self
                .conns
                .get(conn)
                .is_some_and(|e| matches!(e.role, Role::Door(_)))
            {
                self.counters().heads_timed_out.up();
                self.close(now, conn, Closing::Abort);
            }
        }
    }

    fn route(
        &mut self,
        now: Now,
        conn: Conn,
        peer: SocketAddr,
        since: Now,
        head: &RequestHead,
        read: Vec<u8>,
        used: usize,
    ) {
        let root = self
            .house
            .config
            .root_mount
            .as_deref()
            .filter(|_| head.path == "/");
        let path = root.unwrap_or(&head.path).to_owned();
        let hears = matches!(head.method, Method::Get | Method::Head);
        if matches!(head.method, Method::Put | Method::Source) && !is_control_path(&path) {
            return self.source_comes(now, conn, peer, since, head, &read[used..]);
        }
        if path.starts_with("/link/") {
            return self.link_comes(now, conn, peer, since, head);
        }
        if hears && (root.is_some() || self.is_mount(&path)) {
            let request = request(head, peer, since);
            return self.listener_comes(now, conn, &path, request, head.method == Method::Head);
        }
        if is_control_path(&path) {
            return self.hand_over(now, conn, read);
        }
        if head.method == Method::Options {
            self.log(now, &request(head, peer, since), None, 204, 0);
            return self.leave_with(conn, options(&self.house.config.software, &date(now)));
        }
        self.log(
            now,
            &request(head, peer, since),
            None,
            if hears { 404 } else { 405 },
            0,
        );
        if hears {
            self.counters().refused_unknown.up();
            let text = "There is no such mount here. The page at / lists those there are.\n";
            self.answer(now, conn, 404, "", text);
        } else {
            let text = "A mount answers GET and HEAD, and PUT or SOURCE from its source.\n";
            self.answer(now, conn, 405, "Allow: GET, HEAD, PUT, SOURCE\r\n", text);
        }
    }

    /// Whether somebody may listen at a path, now or in a moment.
    fn is_mount(&mut self, path: &str) -> bool {
        let known = self.house.directory.get(path).is_some() || self.house.is_following(path);
        known || (!is_control_path(path) && self.may_follow(path))
    }

    fn listener_comes(&mut self, now: Now, conn: Conn, mount: &str, request: Request, head_only: bool) {
        if !head_only && !self.admits_listener() {
            self.counters().refused_full.up();
            self.log(now, &request, None, 503, 0);
            return self.turn_away(now, conn);
        }
        let wanted = if head_only { Wanted::Head } else { Wanted::Stream };
        self.wait(
            now,
            Waiter::new(
                conn,
                mount,
                request,
                wanted,
                now + self.house.config.listener.patience,
            ),
        );
    }

    /// Whether there is room for one more listener. The last connections are kept for sources, links and the control
    /// plane: whoever comes to look after a full house gets in.
    fn admits_listener(&self) -> bool {
        let (admission, config) = (self.house.admission(), &self.house.config);
        let open_to_listeners = config.connections_max.saturating_sub(config.reserved);
        admission.connections() <= open_to_listeners && admission.admit_listener(config.listener.max)
    }

    /// Gives a connection to the control plane, with all that was read from it.
    pub(crate) fn hand_over(&mut self, _now: Now, conn: Conn, read: Vec<u8>) {
        self.counters().handed_over.up();
        self.forget(conn);
        self.outbox.push_back(Output::HandOver(Handover {
            conn,
            read_so_far: read,
        }));
    }

    /// A refusal by the parser, or by a rule that speaks its language.
    pub(crate) fn refuse(&mut self, now: Now, conn: Conn, refusal: &Refusal) {
        let bytes = refusal.answer(&self.house.config.software, now.wall_us() / 1_000_000);
        self.leave_with(conn, bytes);
    }

    /// 503, with a time to come back at that differs from caller to caller.
    pub(crate) fn turn_away(&mut self, now: Now, conn: Conn) {
        let spread = conn.slot() as u64 ^ now.mono_ns() >> 10;
        let bytes = listener::busy(5 + (spread % 26) as u32, &self.house.config.software, &date(now));
        self.leave_with(conn, bytes);
    }

    /// A short answer in words.
    pub(crate) fn answer(&mut self, now: Now, conn: Conn, status: u16, extra: &str, text: &str) {
        let bytes = listener::refusal(
            status,
            reason(status),
            extra,
            text,
            &self.house.config.software,
            &date(now),
        );
        self.leave_with(conn, bytes);
    }

    /// Says this and lets go.
    pub(crate) fn leave_with(&mut self, conn: Conn, bytes: Vec<u8>) {
        if let Some(entry) = self.conns.get(conn) {
            entry.role = Role::Leaving;
            self.conns.say(conn, bytes, Some(Closing::Graceful));
        }
    }

    /// Bytes from somebody who has nothing to say any more: never read as another request.
    pub(crate) fn unasked(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(entry) = self.conns.get(conn) else { return };
        let before = entry.unasked;
        entry.unasked = before.saturating_add(bytes.len() as u32);
        if before <= UNASKED_MAX && entry.unasked > UNASKED_MAX {
            self.outbox.push_back(Output::Pause { conn });
        }
    }

    /// A line for the access log.
    pub(crate) fn log(&self, now: Now, request: &Request, user: Option<&str>, status: u16, bytes: u64) {
        let seconds = now.since(request.since);
        let access = Access {
            peer: request.peer,
            user: user.map(str::to_owned),
            at_s: (now.wall_us() / 1_000_000).saturating_sub(seconds.as_secs()),
            method: request.method,
            target: request.target.clone(),
            version: request.version,
            status,
            bytes,
            referer: request.referer.clone(),
            agent: request.agent.clone(),
            seconds: (seconds + Duration::from_millis(500)).as_secs(),
        };
        self.house.tell(self.worker, Event::Access(access));
    }
}

/// What may be asked here: libshout looks before it sends, browsers before they play a stream of another origin.
fn options(server: &str, date: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 204 No Content\r\nServer: {server}\r\nDate: {date}\r\nConnection: close\r\n\
         Allow: GET, HEAD, PUT, SOURCE, OPTIONS\r\nAccess-Control-Allow-Origin: *\r\n\
         Access-Control-Allow-Methods: GET, HEAD\r\nAccess-Control-Allow-Headers: icy-metadata, range\r\n\r\n"
    )
    .into_bytes()
}

/// What is kept of a request.
pub(crate) fn request(head: &RequestHead, peer: SocketAddr, since: Now) -> Request {
    let field = |name: &str| {
        let text = head.header(name).unwrap_or_default();
        text[..text.floor_char_boundary(AGENT_MAX)].to_owned()
    };
    Request {
        peer,
        since,
        method: head.method.as_str(),
        target: head.target[..head.target.floor_char_boundary(AGENT_MAX)].to_owned(),
        version: head.version,
        agent: field("user-agent"),
        referer: field("referer"),
        icy: head.wants_icy(),
    }
}

/// The `Date` of an answer.
pub(crate) fn date(now: Now) -> String {
    http_date(now.wall_us() / 1_000_000)
}

/// Whether an answer is to be in HTTP/1.0.
pub(crate) fn is_http10(version: Version) -> bool {
    version != Version::Http11
}
