//! What the control plane may ask of a worker, and what a worker tells the control plane.

use std::net::SocketAddr;

use crossbeam::channel::Sender;
use relay_wire::http::Version;

/// An order to one worker.
#[derive(Debug)]
pub enum Order {
    /// Which listeners of a mount are here? (None: of every mount.)
    List {
        /// The mount.
        mount: Option<String>,
        /// Where to answer; dropped when the worker has said all.
        reply: Sender<ListenerInfo>,
    },
    /// Let a listener go; answers whether it was here.
    Kill {
        /// Its id.
        id: u64,
        /// Where to answer.
        reply: Sender<bool>,
    },
    /// Move every listener of one mount to another; answers how many were here.
    Move {
        /// From.
        from: String,
        /// To.
        to: String,
        /// Where to answer.
        reply: Sender<usize>,
    },
    /// Follow a mount of the configured upstreams, for good.
    Follow {
        /// The mount.
        mount: String,
    },
    /// A source inside the process (a file, standard input, the built-in picture) begins a mount.
    Begin {
        /// The mount.
        mount: String,
        /// Its content type; none: find out.
        content_type: Option<String>,
        /// Name, genre and the like.
        properties: Vec<(String, String)>,
        /// Where from, for people.
        from: String,
    },
    /// More bytes of such a source.
    Feed {
        /// The mount.
        mount: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The end of such a source.
    End {
        /// The mount.
        mount: String,
    },
    /// Something happened to the connection of a newcomer to the team.
    Team(crate::team::Newcomer),
    /// Let everybody go and finish.
    Stop,
}

/// A listener, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Unique in this process.
    pub id: u64,
    /// The mount it asked for.
    pub mount: String,
    /// Who.
    pub peer: SocketAddr,
    /// Its `User-Agent`.
    pub agent: String,
    /// Seconds connected.
    pub seconds: u64,
    /// Bytes sent to it.
    pub bytes: u64,
    /// Bytes of the stream that wait for it in the ring.
    pub lag: u64,
    /// Whether it is another node.
    pub link: bool,
}

/// Something that a worker tells the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A request is over: a line for the access log.
    Access(Access),
    /// Something that an operator wants to know.
    Note {
        /// How much.
        level: Level,
        /// One sentence, free of control bytes.
        text: String,
    },
}

/// How much an operator wants to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All is well.
    Info,
    /// Something is not as it should be.
    Warn,
}

/// A request that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub peer: SocketAddr,
    /// The user, for sources.
    pub user: Option<String>,
    /// Unix seconds at which it began.
    pub at_s: u64,
    /// The request's method.
    pub method: &'static str,
    /// The request's target, as it came.
    pub target: String,
    /// The request's version.
    pub version: Version,
    /// What was answered.
    pub status: u16,
    /// Bytes of body, sent or (for a source) received.
    pub bytes: u64,
    /// `Referer`.
    pub referer: String,
    /// `User-Agent`.
    pub agent: String,
    /// Seconds connected.
    pub seconds: u64,
}
