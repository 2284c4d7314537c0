//! The world: one clock, one queue of events, one seed.

use std::collections::BTreeMap;
use std::io;

use relay_seam::{CloseReason, Conn, Now};
use relay_station::{Config, Order};

use crate::dice::Dice;
use crate::listener::Listener;
use crate::net::{Cables, End, Host, Wire, WireId};
use crate::node::{Node, Note};
use crate::pipe::Way;
use crate::source::Source;
use crate::trace::Trace;

/// Where the clock begins; rules must not depend on it.
const BEGIN_NS: u64 = 1_000_000_000;
/// Unix microseconds at the clock's zero.
const WALL_US: u64 = 1_800_000_000_000_000;
/// How long after a failed first try a connection is tried again, as TCP does.
const SYN_RETRY_NS: u64 = 1_000_000_000;
/// The port every node listens on.
const PORT: u16 = 8000;
/// How often what must always hold is looked at.
const LOOK_EVERY_NS: u64 = 500_000_000;

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// A worker's turn.
    Turn {
        node: usize,
        worker: usize,
        stamp: u64,
        incarnation: u64,
    },
    /// Something arrives by this direction of a wire.
    Land { wire: WireId, way: usize },
    /// This direction of a wire may send more.
    Pump { wire: WireId, way: usize },
    /// A reset arrives at this end.
    Reset { wire: WireId, end: usize },
    /// A connection reaches its host.
    Knock(Knock),
    /// A worker's connect takes too long.
    Expire {
        node: usize,
        worker: usize,
        call: u64,
        incarnation: u64,
    },
    /// A lingering close takes too long.
    Linger {
        node: usize,
        worker: usize,
        conn: Conn,
        incarnation: u64,
    },
    /// The kernel looks whether a peer is dead.
    Probe {
        node: usize,
        worker: usize,
        conn: Conn,
        incarnation: u64,
    },
    /// A listener does something.
    Listener(usize),
    /// A source does something.
    Source(usize),
    /// Something befalls the world.
    Fate(Fate),
    /// The checkers look.
    Look,
}

/// What can befall the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The cable between two hosts is cut.
    Cut(Host, Host),
    /// It is mended.
    Heal(Host, Host),
    /// A node's process is killed.
    Kill(usize),
    /// It is started again.
    Start(usize),
    /// Every connection between two hosts is reset.
    Sever(Host, Host),
    /// An administrator sets a title.
    Title(usize, String, String),
    /// Everybody is to be let go.
    Stop(usize),
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    Worker {
        node: usize,
        worker: usize,
        call: u64,
        incarnation: u64,
    },
    Listener(usize),
    Source(usize),
}

#[derive(Clone, Debug)]
struct Knock {
    opener: Opener,
    from: Host,
    to: Host,
    until_ns: u64,
}

/// One life of a source, for those who check what became of it.
#[derive(Debug, Default)]
pub(crate) struct Life {
    /// When which position had been written.
    pub(crate) written: Vec<(u64, u64)>,
}

impl Life {
    /// It was cut off: what was written just before may be lost.
    pub(crate) fn cut_off(&mut self, at_ns: u64) {
        self.written.retain(|(when, _)| *when < at_ns);
    }

    /// When the byte at a position was written, if it was.
    pub(crate) fn written_at(&self, at: u64) -> Option<u64> {
        let index = self.written.partition_point(|(_, end)| *end <= at);
        self.written.get(index).map(|(when, _)| *when)
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ns: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    next_call: u64,
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
    pub(crate) cables: Cables,
    pub(crate) wires: Vec<Wire>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sources: Vec<Source>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) lives: BTreeMap<u64, Life>,
    /// Stretches of time in which something was broken: waiting then proves nothing.
    pub(crate) troubles: Vec<(u64, u64)>,
    /// What was wrong.
    pub(crate) wrongs: Vec<String>,
    /// Bytes that stations were told of, by wire.
    pub(crate) heard: BTreeMap<WireId, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, print: bool) -> Self {
        let mut world = Self {
            now_ns: BEGIN_NS,
            queue: BTreeMap::new(),
            next_event: 0,
            next_call: 0,
            dice: Dice::new(seed),
            trace: Trace::new(print),
            cables: Cables::default(),
            wires: Vec::new(),
            nodes: Vec::new(),
            sources: Vec::new(),
            listeners: Vec::new(),
            lives: BTreeMap::new(),
            troubles: Vec::new(),
            wrongs: Vec::new(),
            heard: BTreeMap::new(),
        };
        world.at(BEGIN_NS + LOOK_EVERY_NS, Event::Look);
        world
    }

    /// The moment, as machines see it.
    pub(crate) fn moment(ns: u64) -> Now {
        Now::new(ns, WALL_US + ns / 1000)
    }

    /// The beginning of time, plus so many milliseconds.
    pub(crate) fn ms(ms: u64) -> u64 {
        BEGIN_NS + ms * 1_000_000
    }

    pub(crate) fn add_node(&mut self, name: &str, way: Way, config: Config) -> usize {
        let host = self.cables.add(name, way);
        self.nodes.push(Node::new(host, config));
        let node = self.nodes.len() - 1;
        self.start_node(node);
        node
    }

    pub(crate) fn add_source(&mut self, mut source: Source, way: Way) -> usize {
        let id = self.sources.len();
        source.host = self.cables.add(&format!("source-{id}"), way);
        source.id = id;
        let from = source.from_ns;
        self.sources.push(source);
        self.at(from, Event::Source(id));
        id
    }

    pub(crate) fn add_listener(&mut self, mut listener: Listener, way: Way) -> usize {
        let id = self.listeners.len();
        listener.host = self.cables.add(&format!("listener-{id}"), way);
        listener.longest_way_ns = way.longest_ns();
        let from = listener.from_ns;
        self.listeners.push(listener);
        self.at(from, Event::Listener(id));
        id
    }

    pub(crate) fn fate(&mut self, at_ns: u64, fate: Fate) {
        self.at(at_ns, Event::Fate(fate));
    }

    pub(crate) fn listener_at(&mut self, at_ns: u64, id: usize) {
        self.at(at_ns, Event::Listener(id));
    }

    pub(crate) fn source_at(&mut self, at_ns: u64, id: usize) {
        self.at(at_ns, Event::Source(id));
    }

    fn at(&mut self, at_ns: u64, event: Event) {
        self.next_event += 1;
        self.queue
            .insert((at_ns.max(self.now_ns), self.next_event), event);
    }

    /// Lets the world turn until a moment; stops early once something is wrong.
    pub(crate) fn run_until(&mut self, end_ns: u64) {
        while self.wrongs.is_empty() {
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= end_ns => {}
                _ => break,
            }
            let Some(((at, _), event)) = self.queue.pop_first() else {
                break;
            };
            self.now_ns = at;
            self.happen(event);
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn {
                node,
                worker,
                stamp,
                incarnation,
            } => {
                if self.nodes[node].incarnation == incarnation {
                    self.turn(node, worker, stamp);
                }
            }
            Event::Land { wire, way } => self.land(wire, way),
            Event::Pump { wire, way } => self.pump(wire, way),
            Event::Reset { wire, end } => self.reset_arrives(wire, end),
            Event::Knock(knock) => self.knock(knock),
            Event::Expire {
                node,
                worker,
                call,
                incarnation,
            } => {
                self.unreach(
                    Opener::Worker {
                        node,
                        worker,
                        call,
                        incarnation,
                    },
                    io::ErrorKind::TimedOut,
                );
            }
            Event::Linger {
                node,
                worker,
                conn,
                incarnation,
            } => {
                if self.nodes[node].incarnation == incarnation {
                    self.cut_short(node, worker, conn);
                }
            }
            Event::Probe {
                node,
                worker,
                conn,
                incarnation,
            } => {
                if self.nodes[node].incarnation == incarnation {
                    self.probe(node, worker, conn);
                }
            }
            Event::Listener(id) => self.listener_acts(id),
            Event::Source(id) => self.source_acts(id),
            Event::Fate(fate) => self.befall(fate),
            Event::Look => {
                self.look();
                self.at(self.now_ns + LOOK_EVERY_NS, Event::Look);
            }
        }
    }

    fn befall(&mut self, fate: Fate) {
        self.trace.note(self.now_ns, "fate", [0; 3]);
        self.trace.say(self.now_ns, || format!("{fate:?}"));
        match fate {
            Fate::Cut(a, b) => self.cables.cut(a, b),
            Fate::Heal(a, b) => self.heal(a, b),
            Fate::Kill(node) => self.kill_node(node),
            Fate::Start(node) => self.start_node(node),
            Fate::Sever(a, b) => self.sever(a, b),
            Fate::Title(node, mount, title) => {
                let running = self.nodes[node].running.as_ref();
                if let Some(channel) = running.and_then(|r| r.house.directory.get(&mount)) {
                    channel.set_title(&title);
                    self.ring(node);
                }
            }
            Fate::Stop(node) => {
                let Some(running) = &self.nodes[node].running else {
                    return;
                };
                running.house.drain();
                for worker in 0..running.workers.len() {
                    let posted = running.house.mailbox(worker).post(Order::Stop);
                    assert!(posted.is_ok(), "a mailbox is full");
                }
                self.ring(node);
            }
        }
    }

    fn ring(&mut self, node: usize) {
        if let Some(running) = &self.nodes[node].running {
            running.house.ring_all();
        }
        self.answer_bells(node);
    }

    /// Notes something wrong; the story ends.
    pub(crate) fn wrong(&mut self, what: String) {
        let at = self.now_ns as f64 / 1e9;
        self.wrongs.push(format!("at {at:.6} s: {what}"));
    }

    // Nodes.

    fn start_node(&mut self, node: usize) {
        let seed = self.dice.next();
        if let Err(error) = self.nodes[node].start(seed) {
            return self.wrong(format!("node {node} does not start: {error}"));
        }
        for worker in 0..self.nodes[node].config.workers {
            self.wake(node, worker, self.now_ns);
        }
    }

    fn kill_node(&mut self, node: usize) {
        self.nodes[node].watch();
        if self.nodes[node].running.take().is_none() {
            return;
        }
        for wire in 0..self.wires.len() {
            for end in 0..2 {
                if matches!(self.wires[wire].ends[end], End::Seat { node: n, .. } if n == node) {
                    self.abandon(wire, end);
                }
            }
        }
    }

    /// Arranges a turn of a worker, unless an earlier one is arranged.
    pub(crate) fn wake(&mut self, node: usize, worker: usize, at_ns: u64) {
        let incarnation = self.nodes[node].incarnation;
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        let w = &mut running.workers[worker];
        let at_ns = at_ns.max(w.busy_until_ns);
        if w.due.is_some_and(|(due, _)| due <= at_ns) {
            return;
        }
        w.stamp += 1;
        w.due = Some((at_ns, w.stamp));
        let stamp = w.stamp;
        self.at(
            at_ns,
            Event::Turn {
                node,
                worker,
                stamp,
                incarnation,
            },
        );
    }

    /// Leaves a note for a worker, which will read it soon.
    pub(crate) fn leave_note(&mut self, node: usize, worker: usize, note: Note) {
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        running.workers[worker].notes.push_back(note);
        let soon = self.now_ns + self.dice.range(1_000, 60_000);
        self.wake(node, worker, soon);
    }

    pub(crate) fn arrange_linger(&mut self, node: usize, worker: usize, conn: Conn, until_ns: u64) {
        let incarnation = self.nodes[node].incarnation;
        self.at(
            until_ns,
            Event::Linger {
                node,
                worker,
                conn,
                incarnation,
            },
        );
    }

    pub(crate) fn arrange_probe(&mut self, node: usize, worker: usize, conn: Conn, at_ns: u64) {
        let incarnation = self.nodes[node].incarnation;
        self.at(
            at_ns,
            Event::Probe {
                node,
                worker,
                conn,
                incarnation,
            },
        );
    }

    // Opening connections.

    /// A worker connects.
    pub(crate) fn call(
        &mut self,
        node: usize,
        worker: usize,
        token: u64,
        name: &str,
        port: u16,
        timeout_ns: u64,
    ) {
        self.next_call += 1;
        let (call, incarnation) = (self.next_call, self.nodes[node].incarnation);
        let from = self.nodes[node].host;
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        running.workers[worker].calls.insert(call, token);
        let opener = Opener::Worker {
            node,
            worker,
            call,
            incarnation,
        };
        self.at(
            self.now_ns + timeout_ns,
            Event::Expire {
                node,
                worker,
                call,
                incarnation,
            },
        );
        match self.cables.find(name).filter(|_| port == PORT) {
            Some(to) => self.open(opener, from, to, timeout_ns),
            None => self.unreach(opener, io::ErrorKind::NotFound),
        }
    }

    /// Opens a connection to the node at a host.
    pub(crate) fn open(&mut self, opener: Opener, from: Host, to: Host, timeout_ns: u64) {
        let way = self.cables.way(from, to);
        let until_ns = self.now_ns + timeout_ns;
        self.at(
            self.now_ns + way.latency_ns,
            Event::Knock(Knock {
                opener,
                from,
                to,
                until_ns,
            }),
        );
    }

    fn knock(&mut self, knock: Knock) {
        let Knock {
            opener,
            from,
            to,
            until_ns,
        } = knock;
        if self.cables.is_cut(from, to) {
            if self.now_ns + SYN_RETRY_NS < until_ns {
                return self.at(
                    self.now_ns + SYN_RETRY_NS,
                    Event::Knock(Knock {
                        opener,
                        from,
                        to,
                        until_ns,
                    }),
                );
            }
            return self.unreach(opener, io::ErrorKind::TimedOut);
        }
        let node = self
            .nodes
            .iter()
            .position(|n| n.host == to && n.running.is_some());
        let Some(node) = node else {
            return self.unreach(opener, io::ErrorKind::ConnectionRefused);
        };
        let wire = self.wires.len();
        let way = self.cables.way(from, to);
        let worker = self.dice.range(0, self.nodes[node].config.workers as u64 - 1) as usize;
        let window = match opener {
            Opener::Listener(id) => self.listeners[id].window,
            _ => 256 << 10,
        };
        self.wires
            .push(Wire::new([from, to], [End::Nobody; 2], way, window));
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        let conn = running.workers[worker].seat(wire, 1);
        self.wires[wire].ends[1] = End::Seat { node, worker, conn };
        self.trace.note(
            self.now_ns,
            "accept",
            [node as u64, worker as u64, conn.slot() as u64],
        );
        self.leave_note(node, worker, Note::Accepted(wire, from));
        self.reach(opener, wire, to);
    }

    fn reach(&mut self, opener: Opener, wire: WireId, to: Host) {
        match opener {
            Opener::Listener(id) => {
                self.wires[wire].ends[0] = End::Listener(id);
                self.listeners[id].wire = Some(wire);
                self.listener_acts(id);
            }
            Opener::Source(id) => {
                self.wires[wire].ends[0] = End::Source(id);
                self.sources[id].wire = Some(wire);
                self.source_acts(id);
            }
            Opener::Worker {
                node,
                worker,
                call,
                incarnation,
            } => {
                let current = self.nodes[node].incarnation == incarnation;
                let running = self.nodes[node].running.as_mut().filter(|_| current);
                let token = running.and_then(|r| r.workers[worker].calls.remove(&call));
                match token {
                    Some(token) => self.leave_note(node, worker, Note::Reached(token, wire, to)),
                    None => self.send_reset(wire, 0),
                }
            }
        }
    }

    fn unreach(&mut self, opener: Opener, kind: io::ErrorKind) {
        match opener {
            Opener::Listener(id) => self.listener_unreached(id),
            Opener::Source(id) => self.source_unreached(id),
            Opener::Worker {
                node,
                worker,
                call,
                incarnation,
            } => {
                if self.nodes[node].incarnation != incarnation {
                    return;
                }
                let Some(running) = &mut self.nodes[node].running else {
                    return;
                };
                if let Some(token) = running.workers[worker].calls.remove(&call) {
                    self.leave_note(node, worker, Note::Unreached(token, kind));
                }
            }
        }
    }

    // Wires.

    /// An end offers bytes; how many its kernel takes.
    pub(crate) fn offer(&mut self, wire: WireId, end: usize, bytes: &[u8]) -> usize {
        let taken = self.wires[wire].pipes[end].offer(self.now_ns, bytes);
        self.at(self.now_ns, Event::Pump { wire, way: end });
        taken
    }

    /// An end says that it will send no more.
    pub(crate) fn finish(&mut self, wire: WireId, end: usize) {
        self.wires[wire].pipes[end].finish();
        self.at(self.now_ns, Event::Pump { wire, way: end });
    }

    /// An end reads up to `max` bytes.
    pub(crate) fn read(&mut self, wire: WireId, end: usize, max: usize) -> Vec<u8> {
        let pipe = &mut self.wires[wire].pipes[1 - end];
        let bytes = pipe.take(max);
        if !bytes.is_empty() && pipe.unsent() > 0 {
            let later = self.now_ns + pipe.way.latency_ns;
            self.at(later, Event::Pump { wire, way: 1 - end });
        }
        bytes
    }

    fn pump(&mut self, wire: WireId, way: usize) {
        let [a, b] = self.wires[wire].hosts;
        if self.cables.is_cut(a, b) {
            return;
        }
        let now_ns = self.now_ns;
        let arrival = self.wires[wire].pipes[way].pump(now_ns, &mut self.dice);
        if let Some(at) = arrival {
            self.at(at, Event::Land { wire, way });
        }
        if self.wires[wire].pipes[way].has_room() {
            self.tell_room(wire, way);
        }
    }

    pub(crate) fn tell_room(&mut self, wire: WireId, end: usize) {
        match self.wires[wire].ends[end] {
            End::Seat { node, worker, conn } => {
                let Some(running) = &mut self.nodes[node].running else {
                    return;
                };
                let seat = running.workers[worker].find(conn);
                if seat.is_some_and(|seat| std::mem::take(&mut seat.wants_room)) {
                    self.leave_note(node, worker, Note::Room(conn));
                }
            }
            End::Source(id) if std::mem::take(&mut self.sources[id].blocked) => self.source_acts(id),
            _ => {}
        }
    }

    fn land(&mut self, wire: WireId, way: usize) {
        let [a, b] = self.wires[wire].hosts;
        if self.cables.is_cut(a, b) {
            return;
        }
        let (any, next) = self.wires[wire].pipes[way].land(self.now_ns);
        if let Some(at) = next {
            self.at(at, Event::Land { wire, way });
        }
        if any {
            self.wires[wire].pipes[way].progress_ns = self.now_ns;
            self.trace.note(
                self.now_ns,
                "land",
                [
                    wire as u64,
                    way as u64,
                    self.wires[wire].pipes[way].arrived.len() as u64,
                ],
            );
            self.arrived(wire, 1 - way);
        }
    }

    /// Something can be read at an end.
    pub(crate) fn arrived(&mut self, wire: WireId, end: usize) {
        match self.wires[wire].ends[end] {
            End::Seat { node, worker, conn } => self.note_readable(node, worker, conn),
            End::Listener(id) => self.listener_acts(id),
            End::Source(id) => self.source_hears(id),
            End::Mute => {}
            End::Nobody => {
                if !self.wires[wire].pipes[1 - end].arrived.is_empty() {
                    self.send_reset(wire, end);
                }
            }
        }
    }

    pub(crate) fn note_readable(&mut self, node: usize, worker: usize, conn: Conn) {
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        let Some(seat) = running.workers[worker].find(conn) else {
            return;
        };
        if !seat.readable_noted && (!seat.paused || seat.leaving.is_some()) {
            seat.readable_noted = true;
            self.leave_note(node, worker, Note::Readable(conn));
        }
    }

    /// An end resets the connection: its own side is gone, the other hears of it later.
    pub(crate) fn send_reset(&mut self, wire: WireId, end: usize) {
        let now_ns = self.now_ns;
        let w = &mut self.wires[wire];
        w.ends[end] = End::Nobody;
        w.pipes[end].clear();
        w.pipes[1 - end].clear();
        let later = now_ns + w.pipes[end].way.latency_ns;
        self.at(later, Event::Reset { wire, end: 1 - end });
    }

    fn reset_arrives(&mut self, wire: WireId, end: usize) {
        let [a, b] = self.wires[wire].hosts;
        if self.cables.is_cut(a, b) || self.wires[wire].reset[end] {
            return;
        }
        let w = &mut self.wires[wire];
        w.reset[end] = true;
        w.pipes.iter_mut().for_each(crate::pipe::Pipe::clear);
        self.trace
            .note(self.now_ns, "reset", [wire as u64, end as u64, 0]);
        match self.wires[wire].ends[end] {
            End::Seat { node, worker, conn } => {
                self.leave_note(node, worker, Note::Broken(conn, CloseReason::Reset));
            }
            End::Listener(id) => self.listener_reset(id),
            End::Source(id) => self.source_reset(id),
            End::Nobody | End::Mute => {}
        }
    }

    /// The holder of an end closes it: what was sent is delivered, what comes now is answered by a reset.
    pub(crate) fn abandon(&mut self, wire: WireId, end: usize) {
        let unread = !self.wires[wire].pipes[1 - end].arrived.is_empty();
        if unread {
            return self.send_reset(wire, end);
        }
        self.wires[wire].ends[end] = End::Nobody;
        self.finish(wire, end);
    }

    fn heal(&mut self, a: Host, b: Host) {
        self.cables.heal(a, b);
        for wire in 0..self.wires.len() {
            let hosts = self.wires[wire].hosts;
            if hosts != [a, b] && hosts != [b, a] {
                continue;
            }
            for way in 0..2 {
                // What was lost is sent again after a while.
                let again = self.now_ns + self.dice.range(10_000_000, 800_000_000);
                self.wires[wire].pipes[way].delay(again);
                self.at(again, Event::Land { wire, way });
                self.at(again, Event::Pump { wire, way });
                if self.wires[wire].ends[way] == End::Nobody && !self.wires[wire].reset[1 - way] {
                    self.at(again, Event::Land { wire, way: 1 - way });
                }
            }
        }
    }

    fn sever(&mut self, a: Host, b: Host) {
        for wire in 0..self.wires.len() {
            let hosts = self.wires[wire].hosts;
            if hosts == [a, b] || hosts == [b, a] {
                for end in 0..2 {
                    self.at(self.now_ns + end as u64 * 1_000_000, Event::Reset { wire, end });
                }
            }
        }
    }
}

impl World {
    /// What the story has come to.
    pub(crate) fn outcome(&self, seed: u64) -> crate::Outcome {
        let (hash, events) = self.trace.sum();
        crate::Outcome {
            seed,
            wrongs: self.wrongs.clone(),
            hash,
            events,
            simulated_ms: (self.now_ns - BEGIN_NS) / 1_000_000,
            checked_bytes: self.listeners.iter().map(|l| l.order.matched).sum(),
            jumps: self.listeners.iter().map(|l| l.order.jumps).sum(),
        }
    }
}
