//! Sources: encoders that push a numbered stream, and what may happen to them.

use crate::net::{End, Host, WireId};
use crate::tape::{Packing, Tape};
use crate::world::{Opener, World};

/// What was written this long before a reset may be lost with it.
const LOSS_NS: u64 = 200_000_000;

/// How a life of a source ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// FIN (and the last chunk, where the body has chunks).
    Finish,
    /// Reset.
    Reset,
    /// Nothing is said: it falls silent with its connection open.
    Silence,
}

/// Something a source does at a time of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) at_ns: u64,
    pub(crate) act: Act,
}

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// It goes like this, and is back after so long (never, for `None`).
    Go(Exit, Option<u64>),
    /// From now on it sends so many bytes per second.
    Rate(u64),
    /// It sends so many bytes at once.
    Burst(u64),
}

/// A source, its script and where it is in it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: usize,
    pub(crate) host: Host,
    pub(crate) target: Host,
    pub(crate) mount: String,
    pub(crate) packing: Packing,
    pub(crate) chunked: bool,
    /// Bytes per second.
    pub(crate) rate: u64,
    /// How often it writes.
    pub(crate) every_ns: u64,
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
    pub(crate) script: Vec<Turn>,
    /// Who resets it is visited again after so long.
    pub(crate) retry_ns: u64,
    pub(crate) wire: Option<WireId>,
    connecting: bool,
    greeted: bool,
    last_tick_ns: u64,
    owed: u64,
    pub(crate) lives: u64,
    pos: u64,
    unsent: Vec<u8>,
    pub(crate) blocked: bool,
    back_at_ns: u64,
    heard: Vec<u8>,
    /// Statuses it was answered with.
    pub(crate) statuses: Vec<u16>,
    /// Per wire: bytes of head, and for chunked bodies the end of each chunk on the wire and in the stream.
    pub(crate) sent: Vec<Sending>,
}

/// What a source has written to one connection.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) wire: WireId,
    head: u64,
    written: u64,
    /// For each chunk: wire position and stream position of its first byte, and its length.
    chunks: Vec<(u64, u64, u64)>,
}

impl Sending {
    /// How many stream bytes are among the first `received` bytes.
    pub(crate) fn stream_bytes(&self, received: u64) -> u64 {
        let last = self.chunks.partition_point(|(wire, ..)| *wire < received);
        let Some((wire, stream, len)) = last.checked_sub(1).map(|i| self.chunks[i]) else {
            return 0;
        };
        stream + (received - wire).min(len)
    }
}

impl Source {
    pub(crate) fn new(
        target: Host,
        mount: &str,
        packing: Packing,
        rate: u64,
        from_ns: u64,
        until_ns: u64,
    ) -> Self {
        Self {
            id: 0,
            host: 0,
            target,
            mount: mount.to_owned(),
            packing,
            chunked: false,
            rate,
            every_ns: 20_000_000,
            from_ns,
            until_ns,
            script: Vec::new(),
            retry_ns: 500_000_000,
            wire: None,
            connecting: false,
            greeted: false,
            last_tick_ns: 0,
            owed: 0,
            lives: 0,
            pos: 0,
            unsent: Vec::new(),
            blocked: false,
            back_at_ns: 0,
            heard: Vec::new(),
            statuses: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The number of its present life, unique in the world.
    pub(crate) fn life(&self) -> u64 {
        (self.id as u64) << 32 | self.lives
    }

    fn head(&self) -> Vec<u8> {
        let method = if self.chunked || self.packing != Packing::Lines {
            "PUT"
        } else {
            "SOURCE"
        };
        let version = if method == "PUT" { "HTTP/1.1" } else { "HTTP/1.0" };
        let framing = if self.chunked {
            "Transfer-Encoding: chunked\r\n"
        } else {
            ""
        };
        // source:hackme
        format!(
            "{method} {} {version}\r\nHost: root\r\nAuthorization: Basic c291cmNlOmhhY2ttZQ==\r\n\
             Content-Type: {}\r\nIce-Name: tape {}\r\n{framing}\r\n",
            self.mount,
            self.packing.content_type(),
            self.id
        )
        .into_bytes()
    }
}

impl World {
    /// A source acts: it connects, writes what is due, does what its script says.
    pub(crate) fn source_acts(&mut self, id: usize) {
        let now_ns = self.now_ns;
        if now_ns >= self.sources[id].until_ns {
            return self.source_goes(id, Exit::Finish, None);
        }
        let source = &mut self.sources[id];
        if now_ns < source.back_at_ns {
            return;
        }
        let Some(wire) = source.wire else {
            if !source.connecting {
                source.connecting = true;
                let (host, target) = (source.host, source.target);
                self.open(Opener::Source(id), host, target, 3_000_000_000);
            }
            return;
        };
        if !source.greeted {
            self.source_greets(id, wire);
        }
        while let Some(turn) = self.sources[id]
            .script
            .first()
            .copied()
            .filter(|turn| turn.at_ns <= now_ns)
        {
            self.sources[id].script.remove(0);
            match turn.act {
                Act::Rate(rate) => self.sources[id].rate = rate,
                Act::Burst(bytes) => self.sources[id].owed += bytes,
                Act::Go(exit, back) => return self.source_goes(id, exit, back),
            }
        }
        self.source_writes(id, wire);
        let next = now_ns + self.sources[id].every_ns;
        if now_ns >= self.sources[id].last_tick_ns + self.sources[id].every_ns
            || now_ns == self.sources[id].last_tick_ns
        {
            self.source_at(next, id);
        }
    }

    fn source_greets(&mut self, id: usize, wire: WireId) {
        let now_ns = self.now_ns;
        let source = &mut self.sources[id];
        source.connecting = false;
        source.greeted = true;
        source.lives += 1;
        source.pos = 0;
        source.owed = 0;
        source.blocked = false;
        source.heard.clear();
        source.last_tick_ns = now_ns;
        let head = source.head();
        let len = head.len() as u64;
        source.unsent = head;
        source.sent.push(Sending {
            wire,
            head: len,
            written: len,
            chunks: Vec::new(),
        });
        let life = source.life();
        self.lives.insert(life, crate::world::Life::default());
        self.trace.note(now_ns, "life", [id as u64, life, wire as u64]);
    }

    fn source_writes(&mut self, id: usize, wire: WireId) {
        let now_ns = self.now_ns;
        let source = &mut self.sources[id];
        if now_ns >= source.last_tick_ns + source.every_ns {
            source.owed += source.rate * (now_ns - source.last_tick_ns) / 1_000_000_000;
            source.last_tick_ns = now_ns;
        }
        if source.unsent.is_empty() && source.owed > 0 {
            let len = source.owed.min(64 << 10);
            source.owed -= len;
            let tape = Tape {
                packing: source.packing,
                life: source.life(),
            };
            let Some(sending) = source.sent.last_mut() else {
                return;
            };
            let mut bytes = if source.chunked {
                format!("{len:x}\r\n").into_bytes()
            } else {
                Vec::new()
            };
            debug_assert!(sending.written >= sending.head);
            sending
                .chunks
                .push((sending.written + bytes.len() as u64, source.pos, len));
            tape.read(source.pos, len as usize, &mut bytes);
            bytes.extend_from_slice(if source.chunked { b"\r\n" } else { b"" });
            sending.written += bytes.len() as u64;
            source.pos += len;
            source.unsent = bytes;
            let (life, pos) = (source.life(), source.pos);
            self.lives.entry(life).or_default().written.push((now_ns, pos));
        }
        let unsent = std::mem::take(&mut self.sources[id].unsent);
        let taken = if unsent.is_empty() {
            0
        } else {
            self.offer(wire, 0, &unsent)
        };
        let source = &mut self.sources[id];
        source.unsent = unsent[taken..].to_vec();
        source.blocked = !source.unsent.is_empty();
        if !source.blocked && source.owed > 0 {
            self.source_writes(id, wire);
        }
    }

    fn source_goes(&mut self, id: usize, exit: Exit, back_ns: Option<u64>) {
        let now_ns = self.now_ns;
        self.trace.note(
            now_ns,
            "source-goes",
            [id as u64, exit as u64, back_ns.unwrap_or(0)],
        );
        let source = &mut self.sources[id];
        source.back_at_ns = back_ns.map_or(u64::MAX, |back| now_ns + back);
        let wire = source.wire.take();
        let life = source.life();
        source.greeted = false;
        source.connecting = false;
        if let Some(back) = back_ns {
            self.source_at(now_ns + back, id);
        }
        let Some(wire) = wire else { return };
        if exit != Exit::Finish || !self.sources[id].unsent.is_empty() {
            self.lives
                .entry(life)
                .or_default()
                .cut_off(now_ns.saturating_sub(LOSS_NS));
        }
        let chunked = self.sources[id].chunked && self.sources[id].unsent.is_empty();
        match exit {
            Exit::Finish => {
                if chunked {
                    self.offer(wire, 0, b"0\r\n\r\n");
                }
                self.abandon(wire, 0);
            }
            Exit::Reset => self.send_reset(wire, 0),
            Exit::Silence => self.wires[wire].ends[0] = End::Mute,
        }
    }

    /// What a source is told: only the status matters to it.
    pub(crate) fn source_hears(&mut self, id: usize) {
        let Some(wire) = self.sources[id].wire else { return };
        let bytes = self.read(wire, 0, 64 << 10);
        let over = {
            let pipe = &self.wires[wire].pipes[1];
            pipe.fin_arrived && pipe.arrived.is_empty()
        };
        let source = &mut self.sources[id];
        source.heard.extend_from_slice(&bytes);
        if let Ok(Some((head, used))) = relay_wire::http::ResponseHead::parse(&source.heard) {
            source.statuses.push(head.status);
            source.heard.drain(..used);
        }
        if over {
            let retry = source.retry_ns;
            self.source_goes(id, Exit::Finish, Some(retry));
        }
    }

    pub(crate) fn source_reset(&mut self, id: usize) {
        self.sources[id].wire = None;
        let retry = self.sources[id].retry_ns;
        self.source_goes(id, Exit::Reset, Some(retry));
    }

    pub(crate) fn source_unreached(&mut self, id: usize) {
        let retry = self.sources[id].retry_ns;
        self.source_goes(id, Exit::Reset, Some(retry));
    }
}
