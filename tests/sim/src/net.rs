//! Hosts, names, connections between them, and what goes wrong with these.

use std::collections::BTreeSet;

use relay_seam::Conn;

use crate::pipe::{Pipe, Way};

/// A machine of the world, by its number.
pub(crate) type Host = usize;
/// A connection, by its number; never reused.
pub(crate) type WireId = usize;

/// Who holds an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody any more: what arrives is answered by a reset.
    Nobody,
    /// Somebody who says and reads nothing any more, and does not close either.
    Mute,
    /// A worker of a node.
    Seat { node: usize, worker: usize, conn: Conn },
    /// A listener.
    Listener(usize),
    /// A source.
    Source(usize),
}

/// One connection: end 0 opened it, end 1 accepted it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) hosts: [Host; 2],
    pub(crate) ends: [End; 2],
    /// From end 0 to end 1, and back.
    pub(crate) pipes: [Pipe; 2],
    /// This end's kernel has been told of a reset.
    pub(crate) reset: [bool; 2],
}

impl Wire {
    /// How connections are made: their buffers are those of Linux, made smaller so that stories get to the point.
    pub(crate) fn new(hosts: [Host; 2], ends: [End; 2], way: Way, receive_window: usize) -> Self {
        Self {
            hosts,
            ends,
            pipes: [
                Pipe::new(way, 128 << 10, 256 << 10),
                Pipe::new(way, 128 << 10, receive_window),
            ],
            reset: [false; 2],
        }
    }
}

/// Cables between hosts.
#[derive(Debug, Default)]
pub(crate) struct Cables {
    names: Vec<String>,
    ways: Vec<Way>,
    cut: BTreeSet<(Host, Host)>,
}

impl Cables {
    pub(crate) fn add(&mut self, name: &str, way: Way) -> Host {
        self.names.push(name.to_owned());
        self.ways.push(way);
        self.names.len() - 1
    }

    pub(crate) fn find(&self, name: &str) -> Option<Host> {
        self.names.iter().position(|n| n == name)
    }

    /// The way between two hosts: the worse of their ways in everything.
    pub(crate) fn way(&self, a: Host, b: Host) -> Way {
        let (a, b) = (self.ways[a], self.ways[b]);
        let bandwidth = match (a.bandwidth, b.bandwidth) {
            (0, n) | (n, 0) => n,
            (n, m) => n.min(m),
        };
        let latency_ns = a.latency_ns.max(b.latency_ns);
        Way {
            latency_ns,
            jitter_ns: a.jitter_ns.max(b.jitter_ns),
            bandwidth,
        }
    }

    pub(crate) fn is_cut(&self, a: Host, b: Host) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(crate) fn cut(&mut self, a: Host, b: Host) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&mut self, a: Host, b: Host) {
        self.cut.remove(&(a.min(b), a.max(b)));
    }
}
