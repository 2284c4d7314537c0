//! Settling: listeners whose run is over move on, come home, or are let go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_link::From as LinkFrom;
use relay_seam::{Closing, Now};
use relay_wire::link::{EndReason, encode_end};

use crate::air;
use crate::channel::{Channel, Framing, Run, State};
use crate::join::Place;
use crate::turn::Station;

/// What becomes of the listeners of a stream.
enum Fate {
    /// They stay where they are.
    Stay,
    /// They move, each when it may, to this run of this channel.
    Move(Arc<Channel>, Arc<Run>),
    /// They are let go, each when it has had everything.
    Go,
    /// They are let go as they are: they hold on to a run that its channel has left two runs ago.
    Evict,
}

impl Station {
    /// Looks at every stream whose channel is not simply on the air.
    pub(crate) fn settle(&mut self, now: Now) {
        if !self.listeners.at_rest() {
            return;
        }
        let keys: Vec<usize> = self.listeners.streams.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(stream) = self.listeners.streams.get_mut(key) else {
                continue;
            };
            let changed = stream.changed();
            if !changed && !stream.is_stale() && stream.guests == 0 {
                continue;
            }
            let members = stream.members.clone();
            for listener in members {
                self.settle_listener(now, key, listener as usize);
            }
        }
        self.listeners.sweep();
    }

    fn settle_listener(&mut self, now: Now, key: usize, listener: usize) {
        match self.fate(key, listener) {
            Fate::Stay => {}
            Fate::Evict => {
                self.counters().lag_closed.up();
                let conn = self.listeners.all[listener].conn;
                self.close(now, conn, Closing::Abort);
            }
            Fate::Go => {
                if self.listeners.drained(listener) || self.listeners.idle(listener) {
                    self.counters().listeners_ended.up();
                    self.end_listener(now, listener);
                }
            }
            Fate::Move(channel, run) => self.move_listener(now, key, listener, channel, run),
        }
    }

    fn fate(&self, key: usize, listener: usize) -> Fate {
        let stream = &self.listeners.streams[key];
        let home = &self.listeners.cold(listener).home;
        let (state, guest) = (home.state(), !Arc::ptr_eq(home, &stream.channel));
        // The memory of a channel is that of two runs: the present one, and the one that is being left.
        let passed = stream.channel.generation() - stream.run.generation.load(Ordering::Relaxed);
        if passed >= 2 && !self.listeners.drained(listener) {
            return Fate::Evict;
        }
        if state == State::Ended {
            return Fate::Go;
        }
        let Some((channel, run)) = self.heard_at(home) else {
            return Fate::Stay;
        };
        if Arc::ptr_eq(&run, &stream.run) {
            return Fate::Stay;
        }
        let may = self.listeners.drained(listener) || (guest && self.listeners.idle(listener));
        let may = may || (matches!(state, State::Fallback(_)) && self.listeners.idle(listener));
        if !may {
            return Fate::Stay;
        }
        // A player that was promised one container cannot go on with another.
        if run.kind != stream.run.kind {
            Fate::Go
        } else {
            Fate::Move(channel, run)
        }
    }

    fn move_listener(&mut self, now: Now, key: usize, listener: usize, channel: Arc<Channel>, run: Arc<Run>) {
        let framing = self.listeners.streams[key].framing;
        let place = match framing {
            // The same life goes on: so does everybody in it, at the very same byte.
            Framing::Raw if run.epoch == self.listeners.streams[key].run.epoch => {
                let cursor = self.listeners.all[listener].cursor;
                let there = (run.raw.floor()..=run.raw.head()).contains(&cursor);
                there.then(|| Place {
                    framing,
                    cursor,
                    own: Vec::new(),
                })
            }
            Framing::Raw => run.newest_join_point().map(|cursor| {
                let own = run
                    .header_at(cursor)
                    .map(|h| h.again.to_vec())
                    .unwrap_or_default();
                Place { framing, cursor, own }
            }),
            Framing::Icy if run.epoch == self.listeners.streams[key].run.epoch => {
                run.icy_wanted.store(true, Ordering::Relaxed);
                let place = self
                    .listeners
                    .icy_raw(listener)
                    .zip(self.listeners.icy_offset(listener));
                let framed = place
                    .zip(run.icy.get())
                    .and_then(|((raw, had), (_, phases))| phases.framed(raw, had));
                framed.map(|cursor| Place {
                    framing,
                    cursor,
                    own: Vec::new(),
                })
            }
            Framing::Icy => {
                let had = self.listeners.icy_offset(listener);
                run.newest_join_point().zip(had).and_then(|(at, had)| {
                    let header = run.header_at(at).map(|h| h.again.to_vec()).unwrap_or_default();
                    self.icy_place(&run, at, had, &header)
                })
            }
            // Everything whole has been told: the next chunk is the one that was in the making.
            Framing::Link if run.epoch == self.listeners.streams[key].run.epoch => {
                let old = &self.listeners.streams[key].run;
                let number = old.raw.head() / u64::from(old.chunk_size);
                let from = LinkFrom::At {
                    epoch: run.epoch,
                    number,
                };
                self.link_place(&channel, &run, from, false).map(|place| Place {
                    own: Vec::new(),
                    ..place
                })
            }
            Framing::Link => self.link_place(&channel, &run, LinkFrom::Live, false),
        };
        // No join point yet, or no framing: it asks again when the channel changes, or at the next tick.
        let Some(place) = place else { return };
        if let Some(to) = self.listeners.stream(now, &channel, &run, framing) {
            self.listeners.shift(listener, to, &place.own, place.cursor);
        }
    }

    /// Lets a listener go whose channel is over. A link is told so.
    fn end_listener(&mut self, now: Now, listener: usize) {
        let conn = self.listeners.all[listener].conn;
        let over = self.listeners.cold(listener).home.state() == State::Ended;
        let is_link = self.is_link(listener) && over;
        self.listener_leaves(now, listener);
        if let Some(entry) = self.conns.get(conn) {
            entry.role = crate::conns::Role::Leaving;
        }
        if is_link {
            let mut frame = Vec::new();
            encode_end(&mut frame, EndReason::SourceEnded, "the source is gone");
            self.conns.say(conn, frame, Some(Closing::Graceful));
        } else {
            self.close(now, conn, Closing::Graceful);
        }
    }

    /// Channels that were fed from here and are not any more: their time may be up.
    pub(crate) fn holding_on_time(&mut self, now: Now) {
        let (house, worker) = (self.house.clone(), self.worker);
        self.holding
            .retain(|channel| air::on_time(&house, worker, now, channel));
    }
}
