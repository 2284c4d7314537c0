//! Sources that push: admission at the door, bytes on their way to *keep*, and their end.

use std::net::SocketAddr;
use std::time::Duration;

use relay_seam::{Closing, Conn, Now, Output};
use relay_source::{Allowance, Push, Verdict};
use relay_wire::http::RequestHead;

use crate::conns::Role;
use crate::door::request;
use crate::intake::{Intake, Introduction};
use crate::listeners::Request;
use crate::orders::{Event, Level};
use crate::turn::Station;

/// Refused sources are noted no more often than this.
const REFUSAL_NOTE_EVERY: Duration = Duration::from_secs(1);

/// A connection that feeds a channel.
#[derive(Debug)]
pub(crate) struct Source {
    push: Push,
    pub(crate) intake: Intake,
    request: Request,
    /// What it is told once its body is complete.
    at_end: &'static [u8],
    bytes: u64,
    pub(crate) paused: bool,
    /// When to read again, if its own rate is what paused it.
    pub(crate) resume_at: Option<Now>,
}

impl Station {
    pub(crate) fn source_comes(
        &mut self,
        now: Now,
        conn: Conn,
        peer: SocketAddr,
        since: Now,
        head: &RequestHead,
        body: &[u8],
    ) {
        let house = self.house.clone();
        let config = house.config.source_at(&head.path);
        let request = request(head, peer, since);
        let software = house.config.software.as_str();
        let refused = |station: &mut Station, answer: relay_source::Answer| {
            station.counters().refused_sources.up();
            station.note_refusal(now, &request, answer.status, &answer.body);
            station.log(now, &request, None, answer.status, 0);
            station.leave_with(conn, answer.to_bytes(software, now.wall_us() / 1_000_000));
        };
        let admitted = match Push::admit(head, peer.ip(), config, &mut self.throttle, now) {
            Ok(admitted) => admitted,
            Err(answer) => return refused(self, answer),
        };
        let channel = match house.directory.get_or_make(&admitted.mount, config.hold) {
            Ok(channel) => channel,
            Err(full) => return self.answer(now, conn, 503, "Retry-After: 30\r\n", &format!("{full}\n")),
        };
        if !channel.claim() {
            return refused(self, relay_source::Answer::taken(&admitted.mount));
        }
        let intro = Introduction::new(&admitted.properties, peer.to_string(), request.agent.clone());
        let (reply, push) = (admitted.reply(), Push::new(admitted.body, config, now));
        let empty = push.finished();
        let source = Source {
            push,
            intake: Intake::new(now, channel, intro),
            request,
            at_end: admitted.reply_at_end(),
            bytes: 0,
            paused: false,
            resume_at: None,
        };
        if let Some(entry) = self.conns.get(conn) {
            entry.role = Role::Source(Box::new(source));
        }
        self.sources.push(conn);
        self.counters().sources.up();
        if !reply.is_empty() {
            self.conns.say(conn, reply.to_vec(), None);
        }
        if empty {
            return self.source_finishes(now, conn);
        }
        if !body.is_empty() {
            self.source_heard(now, conn, body);
        }
    }

    /// Why a source was refused, for whoever wonders; at most a line a second, so that a flood of them is no
    /// flood of lines.
    fn note_refusal(&mut self, now: Now, request: &Request, status: u16, why: &str) {
        if now < self.next_refusal_note {
            return;
        }
        self.next_refusal_note = now + REFUSAL_NOTE_EVERY;
        let (peer, mount) = (request.peer, relay_wire::text::escape_log(&request.target));
        let text = format!("{mount}: source {peer} refused, {status}: {}", why.trim_end());
        self.house.tell(
            self.worker,
            Event::Note {
                level: Level::Warn,
                text,
            },
        );
    }

    pub(crate) fn source_heard(&mut self, now: Now, conn: Conn, bytes: &[u8]) {
        let (house, worker) = (self.house.clone(), self.worker);
        let Some(entry) = self.conns.get(conn) else { return };
        let Role::Source(source) = &mut entry.role else {
            return;
        };
        let Source {
            push,
            intake,
            bytes: heard,
            ..
        } = &mut **source;
        let mut no_memory = None;
        let fed = push.feed(now, bytes, &mut |piece| {
            *heard += piece.len() as u64;
            if no_memory.is_none() {
                no_memory = intake.hear(&house, worker, now, piece).err();
            }
        });
        let channel = intake.channel.clone();
        self.news(&channel);
        match (fed, no_memory) {
            (_, Some(error)) => self.source_ends(now, conn, &format!("no memory for its ring: {error}")),
            (Err(refusal), _) => {
                self.source_is_over(now, conn, &refusal.to_string());
                self.refuse(now, conn, &refusal);
            }
            (Ok(progress), _) if progress.finished => self.source_finishes(now, conn),
            (Ok(_), _) => self.source_pace(now, conn),
        }
    }

    /// A source whose body had an end has come to it.
    fn source_finishes(&mut self, now: Now, conn: Conn) {
        let Some(entry) = self.conns.get(conn) else { return };
        let Role::Source(source) = &entry.role else { return };
        let at_end = source.at_end;
        self.source_is_over(now, conn, "it has said all");
        if at_end.is_empty() {
            self.close(now, conn, Closing::Graceful);
        } else {
            self.leave_with(conn, at_end.to_vec());
        }
    }

    /// Whether a source may go on: its own rate, and the ring.
    pub(crate) fn source_pace(&mut self, now: Now, conn: Conn) {
        let Some(entry) = self.conns.get(conn) else { return };
        let Role::Source(source) = &mut entry.role else {
            return;
        };
        source.resume_at = match source.push.allowance(now) {
            Allowance::Go => None,
            Allowance::Pause { until } => Some(until),
        };
        let pause = source.resume_at.is_some() || source.intake.is_full();
        if pause != source.paused {
            source.paused = pause;
            self.outbox.push_back(if pause {
                Output::Pause { conn }
            } else {
                Output::Resume { conn }
            });
            if pause {
                self.counters().source_pauses.up();
            }
        }
    }

    /// Time has passed for all sources.
    pub(crate) fn sources_on_time(&mut self, now: Now) {
        let (house, worker) = (self.house.clone(), self.worker);
        for conn in self.sources.clone() {
            let Some(entry) = self.conns.get(conn) else {
                continue;
            };
            let Role::Source(source) = &mut entry.role else {
                continue;
            };
            let kept = source.intake.on_time(&house, worker, now);
            let channel = source.intake.channel.clone();
            let killed = channel.about().kill;
            let why = match (source.push.on_time(now), kept) {
                (_, Err(error)) => Some(format!("no memory for its ring: {error}")),
                (Verdict::TimedOut { why, .. }, _) => Some(why.to_owned()),
                (Verdict::TooSlow, _) => Some("it sent less than the least that is a stream".to_owned()),
                (Verdict::Keep, _) if killed => Some("an administrator ended it".to_owned()),
                (Verdict::Keep, _) => None,
            };
            match why {
                Some(why) => {
                    self.counters().source_timeouts.up();
                    self.source_ends(now, conn, &why);
                }
                None => self.source_pace(now, conn),
            }
            self.news(&channel);
        }
    }

    /// A source will send no more, or is told so.
    pub(crate) fn source_ends(&mut self, now: Now, conn: Conn, why: &str) {
        self.source_is_over(now, conn, why);
        self.close(now, conn, Closing::Graceful);
    }

    /// The channel's side of it; the connection stays for whoever wants to say something.
    pub(crate) fn source_is_over(&mut self, now: Now, conn: Conn, why: &str) {
        let Some(entry) = self.conns.get(conn) else { return };
        let Role::Source(mut source) = std::mem::replace(&mut entry.role, Role::Leaving) else {
            return;
        };
        self.sources.retain(|c| *c != conn);
        self.counters().sources.down();
        source.intake.end(&self.house, self.worker, now);
        self.holding.push(source.intake.channel.clone());
        self.log(
            now,
            &source.request,
            Some(relay_source::push::USER),
            200,
            source.bytes,
        );
        let text = format!(
            "{}: source {} is gone: {why}",
            source.intake.channel.mount, source.request.peer
        );
        self.house.tell(
            self.worker,
            Event::Note {
                level: Level::Info,
                text,
            },
        );
    }
}
