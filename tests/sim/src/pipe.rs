//! One direction of a connection: send buffer, way, receive buffer. As TCP: in order, whole, pushed back by a full
//! receiver.

use std::collections::VecDeque;

use crate::dice::Dice;

/// What a way is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) latency_ns: u64,
    pub(crate) jitter_ns: u64,
    /// Bytes per second; 0: no limit.
    pub(crate) bandwidth: u64,
}

impl Way {
    /// A good local network.
    pub(crate) const LAN: Way = Way {
        latency_ns: 300_000,
        jitter_ns: 200_000,
        bandwidth: 0,
    };

    /// The longest a byte may be under way when nothing holds it up.
    pub(crate) fn longest_ns(self) -> u64 {
        self.latency_ns + self.jitter_ns
    }
}

/// Something under way.
#[derive(Debug)]
enum Load {
    Bytes(Vec<u8>),
    Fin,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) way: Way,
    /// Bytes the sender's kernel takes.
    pub(crate) room: usize,
    /// Of these, bytes that may wait to be sent (`TCP_NOTSENT_LOWAT`).
    pub(crate) unsent_max: usize,
    /// Bytes the receiver's kernel takes.
    pub(crate) window: usize,
    queued: VecDeque<u8>,
    fin_queued: bool,
    fin_sent: bool,
    flight: VecDeque<(u64, Load)>,
    flying: usize,
    pub(crate) arrived: VecDeque<u8>,
    pub(crate) fin_arrived: bool,
    line_free_ns: u64,
    last_arrival_ns: u64,
    /// When bytes last left the send buffer, or came into an empty one.
    pub(crate) progress_ns: u64,
}

impl Pipe {
    pub(crate) fn new(way: Way, room: usize, window: usize) -> Self {
        Self {
            way,
            room,
            unsent_max: usize::MAX,
            window,
            queued: VecDeque::new(),
            fin_queued: false,
            fin_sent: false,
            flight: VecDeque::new(),
            flying: 0,
            arrived: VecDeque::new(),
            fin_arrived: false,
            line_free_ns: 0,
            last_arrival_ns: 0,
            progress_ns: 0,
        }
    }

    /// Offers bytes to the sender's kernel; how many it takes.
    pub(crate) fn offer(&mut self, now_ns: u64, bytes: &[u8]) -> usize {
        if self.queued.is_empty() {
            self.progress_ns = now_ns;
        }
        let full = self.queued.len() >= self.unsent_max;
        let room = if full {
            0
        } else {
            self.room.saturating_sub(self.queued.len())
        };
        let take = bytes.len().min(room);
        self.queued.extend(&bytes[..take]);
        take
    }

    /// Nothing more will be offered.
    pub(crate) fn finish(&mut self) {
        self.fin_queued = true;
    }

    /// Whether the sender may be told that there is room again.
    pub(crate) fn has_room(&self) -> bool {
        self.queued.len() <= self.room / 2 && self.queued.len() < self.unsent_max
    }

    pub(crate) fn unsent(&self) -> usize {
        self.queued.len()
    }

    /// How many bytes wait, are under way, and have arrived: for readers of traces.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        [self.queued.len(), self.flying, self.arrived.len()]
    }

    /// Nothing is under way or waits to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.flight.is_empty()
    }

    /// Sends what the window lets through; the next arrival, if something was sent.
    pub(crate) fn pump(&mut self, now_ns: u64, dice: &mut Dice) -> Option<u64> {
        let before = self.flight.len();
        loop {
            let free = self.window.saturating_sub(self.arrived.len() + self.flying);
            let len =
                self.queued
                    .len()
                    .min(free)
                    .min(if dice.one_in(4) { dice.size(20_000) } else { 20_000 });
            if len == 0 {
                break;
            }
            let bytes: Vec<u8> = self.queued.drain(..len).collect();
            self.progress_ns = now_ns;
            self.flying += len;
            self.fly(now_ns, len, Load::Bytes(bytes), dice);
        }
        if self.fin_queued && !self.fin_sent && self.queued.is_empty() {
            self.fin_sent = true;
            self.fly(now_ns, 0, Load::Fin, dice);
        }
        (self.flight.len() > before).then(|| self.flight[before].0)
    }

    fn fly(&mut self, now_ns: u64, len: usize, load: Load, dice: &mut Dice) {
        let line = (len as u64 * 1_000_000_000)
            .checked_div(self.way.bandwidth)
            .unwrap_or(0);
        self.line_free_ns = self.line_free_ns.max(now_ns) + line;
        let at = self.line_free_ns + self.way.latency_ns + dice.range(0, self.way.jitter_ns);
        self.last_arrival_ns = self.last_arrival_ns.max(at);
        self.flight.push_back((self.last_arrival_ns, load));
    }

    /// Takes in what has arrived by now; whether anything has, and when the next will.
    pub(crate) fn land(&mut self, now_ns: u64) -> (bool, Option<u64>) {
        let mut any = false;
        while let Some((_, load)) = self.flight.pop_front_if(|(at, _)| *at <= now_ns) {
            any = true;
            match load {
                Load::Bytes(bytes) => {
                    self.flying -= bytes.len();
                    self.arrived.extend(bytes);
                }
                Load::Fin => self.fin_arrived = true,
            }
        }
        (any, self.flight.front().map(|(at, _)| *at))
    }

    /// What is under way is sent again: it will be there no sooner than this.
    pub(crate) fn delay(&mut self, until_ns: u64) {
        self.last_arrival_ns = self.last_arrival_ns.max(until_ns);
        self.flight
            .iter_mut()
            .for_each(|(at, _)| *at = (*at).max(until_ns));
    }

    /// The connection is reset: everything is lost.
    pub(crate) fn clear(&mut self) {
        self.queued.clear();
        self.flight.clear();
        self.arrived.clear();
        self.flying = 0;
        self.fin_queued = false;
        self.fin_arrived = false;
    }

    /// Takes up to `max` arrived bytes.
    pub(crate) fn take(&mut self, max: usize) -> Vec<u8> {
        let len = max.min(self.arrived.len());
        self.arrived.drain(..len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_whole_in_order_and_no_more_than_the_window() {
        let mut dice = Dice::new(1);
        let way = Way {
            latency_ns: 10,
            jitter_ns: 90,
            bandwidth: 1_000_000_000,
        };
        let mut pipe = Pipe::new(way, 1000, 700);
        let sent: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        assert_eq!(pipe.offer(0, &sent), 1000);
        assert_eq!(pipe.offer(0, &sent), 0);
        pipe.finish();
        let (mut now, mut got) = (0, Vec::new());
        while !pipe.fin_arrived {
            pipe.pump(now, &mut dice);
            now += 50;
            pipe.land(now);
            assert!(pipe.arrived.len() <= 700);
            got.extend(pipe.take(300));
        }
        got.extend(pipe.take(1000));
        assert_eq!(got, sent);
    }
}
