//! Listeners: players of every manner, each of which checks what it gets.

use relay_wire::http::ResponseHead;

use crate::check::icy::Unlace;
use crate::check::order::Order;
use crate::net::{Host, WireId};
use crate::tape::Packing;
use crate::world::{Opener, World};

/// How often a slow reader reads.
const SLOW_TICK_NS: u64 = 20_000_000;

/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is still there.
    Open,
    /// It left by itself.
    Left,
    /// The server ended the stream.
    Finished,
    /// The connection was reset.
    Reset,
    /// It could not connect.
    Unreached,
}

/// How it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    Close,
    Reset,
    /// It says nothing and reads nothing any more.
    Vanish,
}

/// A listener: its manners, and what it has met.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) host: Host,
    pub(crate) target: Host,
    pub(crate) mount: String,
    pub(crate) packing: Packing,
    pub(crate) http10: bool,
    pub(crate) icy: bool,
    pub(crate) from_ns: u64,
    pub(crate) leave: Option<(u64, Leave)>,
    /// Bytes per second it reads; 0: as they come.
    pub(crate) rate: u64,
    /// When it reads nothing.
    pub(crate) stalls: Vec<(u64, u64)>,
    /// Sizes of the pieces its request comes in; the last is what is left.
    pub(crate) pieces: Vec<usize>,
    pub(crate) half_closes: bool,
    /// It sends the pieces, and never the rest.
    pub(crate) stops_asking: bool,
    /// Its receive buffer, in bytes.
    pub(crate) window: usize,
    /// It hears whole chunks only, of this size: its node follows a link.
    pub(crate) chunk: u64,
    /// It must be served.
    pub(crate) served: bool,
    /// It must get every byte from its first on.
    pub(crate) whole: bool,
    pub(crate) longest_way_ns: u64,
    /// Waiting beyond this is wrong for one that reads as bytes come.
    pub(crate) patience_ns: u64,
    pub(crate) wire: Option<WireId>,
    request: Option<Vec<u8>>,
    opened: bool,
    head: Vec<u8>,
    pub(crate) status: Option<u16>,
    pub(crate) order: Order,
    pub(crate) unlace: Option<Unlace>,
    pub(crate) last_ns: Option<u64>,
    read_at_ns: u64,
    pub(crate) ending: Ending,
    pub(crate) ended_ns: u64,
    pub(crate) longest_wait_ns: u64,
    pub(crate) first_ns: Option<u64>,
}

impl Listener {
    pub(crate) fn new(target: Host, mount: &str, packing: Packing, from_ns: u64) -> Self {
        Self {
            host: 0,
            target,
            mount: mount.to_owned(),
            packing,
            http10: false,
            icy: false,
            from_ns,
            leave: None,
            rate: 0,
            stalls: Vec::new(),
            pieces: Vec::new(),
            half_closes: false,
            stops_asking: false,
            window: 128 << 10,
            chunk: 1,
            served: false,
            whole: false,
            longest_way_ns: 0,
            patience_ns: 0,
            wire: None,
            request: None,
            opened: false,
            head: Vec::new(),
            status: None,
            order: Order::new(packing, false),
            unlace: None,
            last_ns: None,
            read_at_ns: 0,
            ending: Ending::Open,
            ended_ns: 0,
            longest_wait_ns: 0,
            first_ns: None,
        }
    }

    /// One that reads as bytes come.
    fn is_eager(&self) -> bool {
        self.rate == 0 && self.stalls.is_empty()
    }

    fn request(&self) -> Vec<u8> {
        let version = if self.http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let icy = if self.icy { "Icy-MetaData: 1\r\n" } else { "" };
        format!(
            "GET {} {version}\r\nHost: node\r\nUser-Agent: sim/1\r\n{icy}\r\n",
            self.mount
        )
        .into_bytes()
    }

    fn stalled_until(&self, now_ns: u64) -> Option<u64> {
        self.stalls
            .iter()
            .find(|(from, to)| (*from..*to).contains(&now_ns))
            .map(|(_, to)| *to)
    }

    /// Takes what came.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut bytes = bytes.to_vec();
        if self.status.is_none() {
            self.head.extend_from_slice(&bytes);
            let parsed =
                ResponseHead::parse(&self.head).map_err(|e| format!("its answer has a bad head: {e}"))?;
            let Some((head, used)) = parsed else { return Ok(()) };
            self.status = Some(head.status);
            let metaint = head.header("icy-metaint").and_then(|n| n.parse().ok());
            if let Some(metaint) = metaint {
                if !self.icy {
                    return Err("it got metadata that it had not asked for".to_owned());
                }
                self.unlace = Some(Unlace::new(metaint));
                self.order = Order::new(self.packing, true);
            }
            bytes = self.head.split_off(used);
        }
        if self.status != Some(200) {
            return Ok(());
        }
        match &mut self.unlace {
            None => self.order.feed(&bytes),
            Some(unlace) => {
                let payload = unlace.feed(&bytes)?;
                self.order.feed(&payload)
            }
        }
    }
}

/// What can be seen of its connection, for readers of traces.
fn listener_wire(listener: &Listener, wires: &[crate::net::Wire]) -> String {
    let sizes = listener.wire.map(|wire| wires[wire].pipes[1].sizes());
    format!(
        "mount {}, icy {}, window {}, queued, flying and arrived {sizes:?}",
        listener.mount, listener.icy, listener.window
    )
}

impl World {
    /// A listener acts: connects, asks, reads, leaves.
    pub(crate) fn listener_acts(&mut self, id: usize) {
        let now_ns = self.now_ns;
        let listener = &mut self.listeners[id];
        if listener.ending != Ending::Open {
            return;
        }
        if !listener.opened {
            listener.opened = true;
            let (host, target) = (listener.host, listener.target);
            if let Some((at, _)) = listener.leave {
                self.listener_at(at, id);
            }
            return self.open(Opener::Listener(id), host, target, 5_000_000_000);
        }
        if let Some((_, how)) = listener.leave.filter(|(at, _)| *at <= now_ns) {
            return self.listener_leaves(id, how);
        }
        let Some(wire) = listener.wire else { return };
        if listener.request.is_none() || listener.request.as_ref().is_some_and(|r| !r.is_empty()) {
            self.listener_asks(id, wire);
        }
        self.listener_reads(id, wire);
    }

    fn listener_asks(&mut self, id: usize, wire: WireId) {
        let listener = &mut self.listeners[id];
        if listener.stops_asking && listener.pieces.is_empty() {
            return;
        }
        let mut request = listener.request.take().unwrap_or_else(|| listener.request());
        let size = if listener.pieces.is_empty() {
            request.len()
        } else {
            listener.pieces.remove(0)
        };
        let rest = request.split_off(size.min(request.len()));
        let (more, closes) = (!rest.is_empty(), listener.half_closes);
        listener.request = Some(rest);
        self.offer(wire, 0, &request);
        if more {
            self.listener_at(self.now_ns + 3_000_000, id);
        } else if closes {
            self.finish(wire, 0);
        }
    }

    fn listener_reads(&mut self, id: usize, wire: WireId) {
        let now_ns = self.now_ns;
        let listener = &mut self.listeners[id];
        if let Some(until) = listener.stalled_until(now_ns) {
            return self.listener_at(until, id);
        }
        let mut most = usize::MAX;
        if listener.rate > 0 {
            if now_ns < listener.read_at_ns {
                return;
            }
            most = (listener.rate * SLOW_TICK_NS / 1_000_000_000) as usize;
            listener.read_at_ns = now_ns + SLOW_TICK_NS;
            self.listener_at(now_ns + SLOW_TICK_NS, id);
        }
        let bytes = self.read(wire, 0, most);
        if !bytes.is_empty() {
            self.listener_hears(id, &bytes);
        }
        let pipe = &self.wires[wire].pipes[1];
        if pipe.fin_arrived && pipe.arrived.is_empty() {
            self.listener_ends(id, Ending::Finished);
            self.abandon(wire, 0);
        }
    }

    fn listener_hears(&mut self, id: usize, bytes: &[u8]) {
        let now_ns = self.now_ns;
        self.check_wait(id);
        let listener = &mut self.listeners[id];
        let heard = listener.hear(bytes);
        if listener.order.matched > 0 {
            listener.first_ns.get_or_insert(now_ns);
        }
        listener.last_ns = Some(now_ns);
        if let Err(what) = heard {
            self.wrong(format!("listener {id}: {what}"));
        }
    }

    /// Something came for a listener: had it to wait for it for too long?
    pub(crate) fn check_wait(&mut self, id: usize) {
        let now_ns = self.now_ns;
        let listener = &self.listeners[id];
        let (Some(last), Some(place)) = (listener.last_ns, listener.order.next()) else {
            return;
        };
        // On a link a byte travels with the rest of its chunk.
        let at = (place.at / listener.chunk + 1) * listener.chunk - 1;
        let Some(written) = self.lives.get(&place.life).and_then(|life| life.written_at(at)) else {
            return;
        };
        let since = last.max(written);
        let in_trouble = self
            .troubles
            .iter()
            .any(|(from, to)| since < *to && now_ns > *from);
        if in_trouble || !listener.is_eager() {
            return;
        }
        let wait = now_ns.saturating_sub(since);
        let (patience, id_text) = (listener.patience_ns, format!("listener {id}"));
        self.listeners[id].longest_wait_ns = self.listeners[id].longest_wait_ns.max(wait);
        if patience > 0 && wait > patience {
            let wire = listener_wire(&self.listeners[id], &self.wires);
            self.trace.say(now_ns, || format!("{id_text}: {wire}"));
            let ms = |ns: u64| ns / 1_000_000;
            self.wrong(format!(
                "{id_text} waited {} ms for {place:?}, expected at most {} ms",
                ms(wait),
                ms(patience)
            ));
        }
    }

    fn listener_leaves(&mut self, id: usize, how: Leave) {
        let wire = self.listeners[id].wire;
        self.check_wait(id);
        self.listener_ends(id, Ending::Left);
        match (wire, how) {
            (Some(wire), Leave::Close) => self.abandon(wire, 0),
            (Some(wire), Leave::Reset) => self.send_reset(wire, 0),
            (Some(_), Leave::Vanish) | (None, _) => {}
        }
    }

    fn listener_ends(&mut self, id: usize, ending: Ending) {
        let now_ns = self.now_ns;
        let listener = &mut self.listeners[id];
        listener.ending = ending;
        listener.ended_ns = now_ns;
        self.trace.note(
            now_ns,
            "ended",
            [id as u64, ending as u64, listener.order.matched],
        );
    }

    pub(crate) fn listener_reset(&mut self, id: usize) {
        if self.listeners[id].ending == Ending::Open {
            self.listener_ends(id, Ending::Reset);
        }
    }

    pub(crate) fn listener_unreached(&mut self, id: usize) {
        self.listener_ends(id, Ending::Unreached);
    }
}
