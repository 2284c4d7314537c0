//! A channel and its runs, as all workers see them.
//!
//! A [`Channel`] is a mount; a [`Run`] is one epoch of it: rings, index, headers. When a source comes back, the channel
//! gets a new run and listeners move over, each when it has drained the old one. Locks here are taken when something
//! changes or somebody joins, never per send.
//!
//! What one worker writes often lies on a cache line that no other reads often: see "What cores share" in
//! `ARCHITECTURE.md`.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use relay_media::Kind;
use relay_ring::{ChunkInfo, Index, NO_JOIN, Ring};
use relay_source::OnAir;

use crate::icy::Phases;
use crate::keep::NOT_LINKED;

/// One live stream, named by its mount path.
#[derive(Debug)]
pub struct Channel {
    /// Its mount path, beginning with `/`.
    pub mount: String,
    /// Bumped whenever `run`, `state` or the title change: what workers compare.
    version: CachePadded<AtomicU64>,
    run: RwLock<Option<Arc<Run>>>,
    about: Mutex<About>,
    on_air: Mutex<OnAir>,
    /// Taken by the source or upstream that feeds it.
    claimed: AtomicBool,
    /// Bit per worker: ring its bell when the head moves.
    pub(crate) wake: CachePadded<AtomicU64>,
    /// Counts runs.
    generation: AtomicU64,
    /// The worker that writes the present run.
    writer: AtomicUsize,
    /// Where the heads were when sleepers were last woken.
    woken_at: CachePadded<AtomicU64>,
    /// Listeners now, over all workers.
    pub listeners: AtomicUsize,
    /// Links to other nodes now, over all workers; not counted as listeners.
    pub links: AtomicUsize,
    /// Most listeners at once.
    pub listeners_peak: AtomicUsize,
    /// Stream bytes received, over all runs.
    pub bytes_in: CachePadded<AtomicU64>,
    /// Stream bytes sent, by worker: each adds to its own.
    told: CachePadded<Box<[CachePadded<AtomicU64>]>>,
}

/// What is known of a channel beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// `name`, `genre`, `description`, `url`, `br` and the like, bounded and free of control bytes.
    pub properties: Vec<(String, String)>,
    /// What is playing.
    pub title: String,
    /// Counts titles.
    pub title_version: u64,
    /// Unix seconds at which the present source began.
    pub since_s: u64,
    /// Where the bytes come from: an address, or an upstream.
    pub from: String,
    /// The source's `User-Agent`.
    pub agent: String,
    /// Whether it is on the air, and if not, what then.
    pub state: State,
    /// Ends the present source when set.
    pub kill: bool,
}

/// Whether a channel is on the air.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nobody feeds it yet.
    #[default]
    Idle,
    /// Fed.
    OnAir,
    /// Its source has gone; listeners are kept for a while.
    Holding,
    /// Its listeners hear another mount.
    Fallback(String),
    /// Over: listeners are let go.
    Ended,
}

impl State {
    /// One word.
    pub fn name(&self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::OnAir => "on-air",
            State::Holding => "holding",
            State::Fallback(_) => "fallback",
            State::Ended => "ended",
        }
    }
}

/// A header and the position from which it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// From here on.
    pub at: u64,
    /// What a newcomer needs first.
    pub bytes: Arc<[u8]>,
    /// What somebody who is playing already needs when moved.
    pub again: Arc<[u8]>,
}

/// One epoch of a channel. Aligned, so that counting who holds it does not disturb who reads it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Run {
    /// Which: Unix microseconds at its root's start of it.
    pub epoch: u64,
    /// Bytes per chunk.
    pub chunk_size: u16,
    /// The container.
    pub kind: Kind,
    /// As the source said, or as was found.
    pub content_type: String,
    /// Node ids from the root to here, ours excluded.
    pub path: Vec<String>,
    /// The stream's bytes; positions are offsets within the epoch.
    pub raw: Ring,
    /// What is known of each chunk.
    pub index: Index,
    /// The stream in the link's framing, once somebody has asked for it.
    pub(crate) link: OnceLock<Ring>,
    pub(crate) link_wanted: AtomicBool,
    /// The stream with metadata blocks, once somebody has asked for it.
    pub(crate) icy: OnceLock<(Ring, Phases)>,
    pub(crate) icy_wanted: AtomicBool,
    /// Where metadata intervals begin, modulo their length, if a framing of the same epoch has said so.
    pub(crate) icy_alignment: OnceLock<u64>,
    /// The how-manieth run of its channel it is.
    pub(crate) generation: AtomicU64,
    /// The position it began at here: what is older was never here.
    pub start: u64,
    /// It begins where it does because another node wanted to go on from there.
    pub rewound: bool,
    /// The chunk from which another node wants to go on, older than the start; [`NO_REWIND`] when none does.
    pub(crate) rewind_to: AtomicU64,
    headers: RwLock<Vec<Header>>,
    ended: AtomicBool,
    /// Measured over the last seconds, bits per second.
    pub bitrate: AtomicU64,
}

/// How the bytes of a run are framed for a kind of reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// As they are.
    Raw,
    /// With metadata blocks in between.
    Icy,
    /// As frames of the link.
    Link,
}

/// Headers that are remembered: enough for a window in which a stream changes them often.
const HEADERS_MAX: usize = 8;

/// Nobody wants a run to begin earlier.
pub(crate) const NO_REWIND: u64 = u64::MAX;

impl Channel {
    pub(crate) fn new(mount: &str, hold: Duration, workers: usize) -> Self {
        Self {
            mount: mount.to_owned(),
            on_air: Mutex::new(OnAir::new(hold)),
            version: CachePadded::new(AtomicU64::new(1)),
            run: RwLock::new(None),
            about: Mutex::new(About::default()),
            claimed: AtomicBool::new(false),
            wake: CachePadded::default(),
            woken_at: CachePadded::default(),
            generation: AtomicU64::new(0),
            writer: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            links: AtomicUsize::new(0),
            listeners_peak: AtomicUsize::new(0),
            bytes_in: CachePadded::default(),
            told: CachePadded::new((0..workers).map(|_| CachePadded::default()).collect()),
        }
    }

    /// Counts changes of the run, the state and the title.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The present run, if there is or was one.
    pub fn run(&self) -> Option<Arc<Run>> {
        self.run.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy of what is known.
    pub fn about(&self) -> About {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is on the air.
    pub fn state(&self) -> State {
        self.about
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .state
            .clone()
    }

    /// Changes what is known; every worker notices when it next looks.
    pub fn change<T>(&self, change: impl FnOnce(&mut About) -> T) -> T {
        let result = change(&mut self.about.lock().unwrap_or_else(PoisonError::into_inner));
        self.version.fetch_add(1, Ordering::Release);
        result
    }

    /// Sets the title that metadata blocks carry.
    pub fn set_title(&self, title: &str) {
        self.change(|about| {
            about.title = title.to_owned();
            about.title_version += 1;
        });
    }

    /// Asks or tells the rule that says what listeners hear.
    pub(crate) fn on_air<T>(&self, ask: impl FnOnce(&mut OnAir) -> T) -> T {
        ask(&mut self.on_air.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which worker writes the present run.
    pub(crate) fn writer(&self) -> usize {
        self.writer.load(Ordering::Relaxed)
    }

    /// A worker begins to write a run.
    pub(crate) fn written_by(&self, worker: usize) {
        self.writer.store(worker, Ordering::Relaxed);
    }

    /// How many runs there have been.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn set_run(&self, run: Option<Arc<Run>>) {
        if let Some(run) = &run {
            run.generation.store(
                self.generation.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
        }
        *self.run.write().unwrap_or_else(PoisonError::into_inner) = run;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether any head of the present run has moved since this was last asked. One worker asks: the one that writes.
    pub(crate) fn has_moved(&self) -> bool {
        let run = self.run.read().unwrap_or_else(PoisonError::into_inner);
        let Some(run) = run.as_deref() else { return false };
        let framed = run
            .link
            .get()
            .map_or(0, Ring::head)
            .wrapping_add(run.icy.get().map_or(0, |(ring, _)| ring.head()));
        let now = run.raw.head().wrapping_add(framed).wrapping_add(run.epoch);
        self.woken_at.swap(now, Ordering::Relaxed) != now
    }

    /// A worker has sent so many stream bytes.
    pub(crate) fn told(&self, worker: usize, bytes: u64) {
        let told = &self.told[worker];
        // A load and a store: each worker has its own.
        told.store(
            told.load(Ordering::Relaxed).wrapping_add(bytes),
            Ordering::Relaxed,
        );
    }

    /// Stream bytes sent, by all workers.
    pub fn bytes_out(&self) -> u64 {
        let told = self.told.iter().map(|told| told.load(Ordering::Relaxed));
        told.fold(0, u64::wrapping_add)
    }

    /// One source at a time: `true` for whoever comes first.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn release(&self) {
        self.claimed.store(false, Ordering::Release);
    }

    /// Whether a source or an upstream has it.
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    pub(crate) fn came(&self, framing: Framing) {
        if framing == Framing::Link {
            self.links.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = self.listeners.fetch_add(1, Ordering::Relaxed) + 1;
        self.listeners_peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn left(&self, framing: Framing) {
        let count = if framing == Framing::Link {
            &self.links
        } else {
            &self.listeners
        };
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether anybody follows it.
    pub fn is_followed(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) + self.links.load(Ordering::Relaxed) > 0
    }
}

impl Run {
    pub(crate) fn new(
        epoch: u64,
        chunk_size: u16,
        kind: Kind,
        content_type: String,
        path: Vec<String>,
        raw: Ring,
        rewound: bool,
    ) -> Self {
        let start = raw.head();
        let chunks = raw.capacity() / usize::from(chunk_size) + 2;
        Self {
            epoch,
            chunk_size,
            kind,
            content_type,
            path,
            raw,
            index: Index::new(chunks),
            link: OnceLock::new(),
            link_wanted: AtomicBool::new(false),
            icy: OnceLock::new(),
            icy_wanted: AtomicBool::new(false),
            icy_alignment: OnceLock::new(),
            generation: AtomicU64::new(0),
            start,
            rewound,
            rewind_to: AtomicU64::new(NO_REWIND),
            headers: RwLock::new(Vec::new()),
            ended: AtomicBool::new(false),
            bitrate: AtomicU64::new(0),
        }
    }

    /// Nothing will be appended any more.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The ring in a framing, if it is there.
    pub(crate) fn ring(&self, framing: Framing) -> Option<&Ring> {
        match framing {
            Framing::Raw => Some(&self.raw),
            Framing::Icy => self.icy.get().map(|(ring, _)| ring),
            Framing::Link => self.link.get(),
        }
    }

    pub(crate) fn add_header(&self, header: Header) {
        let mut headers = self.headers.write().unwrap_or_else(PoisonError::into_inner);
        if headers.len() == HEADERS_MAX {
            headers.remove(0);
        }
        headers.push(header);
    }

    /// The header in force at a position.
    pub fn header_at(&self, at: u64) -> Option<Header> {
        let headers = self.headers.read().unwrap_or_else(PoisonError::into_inner);
        headers.iter().rev().find(|h| h.at <= at).cloned()
    }

    /// What somebody who is playing needs when moved from `old` to `new` within this run: nothing, unless the header
    /// has changed in between. (Players complain of headers that they have had already.)
    pub(crate) fn header_between(&self, old: u64, new: u64) -> Option<Arc<[u8]>> {
        let (before, after) = (self.header_at(old), self.header_at(new)?);
        (before.as_ref() != Some(&after)).then_some(after.again)
    }

    /// Remembers a join point, in the entry of its chunk. Answers whether it is news, and the chunk is whole already.
    pub(crate) fn add_join(&self, at: u64) -> bool {
        let chunk = u64::from(self.chunk_size);
        let Some(mut info) = self.index.get(at / chunk).filter(|info| info.join == NO_JOIN) else {
            return false;
        };
        info.join = (at % chunk) as u16;
        self.index.set(info);
        info.len > 0
    }

    /// What is known of another run of the same epoch, for chunks `first..=last`.
    pub(crate) fn take_over(&self, old: &Run, first: u64, last: u64) {
        let headers = old.headers.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.headers.write().unwrap_or_else(PoisonError::into_inner) = headers;
        for number in first..=last {
            if let Some(info) = old.index.get(number) {
                self.index.set(ChunkInfo {
                    link_at: NOT_LINKED,
                    ..info
                });
            }
        }
        self.link_wanted
            .store(old.link_wanted.load(Ordering::Relaxed), Ordering::Relaxed);
        self.icy_wanted
            .store(old.icy_wanted.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Some(alignment) = old.icy.get().and_then(|(_, phases)| phases.alignment()) {
            let _ = self.icy_alignment.set(alignment);
        }
        self.bitrate
            .store(old.bitrate.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The oldest position worth starting at: anything nearer to the floor would be lapped before the first send.
    pub(crate) fn oldest(&self) -> u64 {
        let window = self.raw.window();
        self.raw
            .floor()
            .max(self.raw.head().saturating_sub(window - window / 8))
    }

    /// Where a newcomer starts: the newest join point at least `burst` bytes behind the head; while the stream is
    /// younger than that, the oldest there is; none at all while it has shown none. A stream whose container nobody
    /// knows starts anywhere.
    pub fn join_point(&self, burst: u64) -> Option<u64> {
        let (head, oldest) = (self.raw.head(), self.oldest());
        if self.kind == Kind::Other {
            return Some(head.saturating_sub(burst).max(oldest).min(head));
        }
        let chunk = u64::from(self.chunk_size);
        let at = |info: ChunkInfo| info.number * chunk + u64::from(info.join);
        let behind = head.saturating_sub(burst);
        let newest = |upto: u64| self.index.newest_join(upto / chunk, oldest / chunk).map(at);
        newest(behind)
            .filter(|at| *at <= behind && *at >= oldest)
            .or_else(|| {
                self.index
                    .oldest_join(head / chunk, oldest.max(behind) / chunk)
                    .map(at)
            })
            .filter(|at| *at >= oldest)
            .or_else(|| newest(head).filter(|at| *at >= oldest))
    }

    /// The newest join point there is: where somebody goes who has lost the place, or comes from another run.
    pub fn newest_join_point(&self) -> Option<u64> {
        self.join_point(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::{apart, line};

    #[test]
    fn what_one_worker_writes_disturbs_no_other() {
        let channel = Arc::new(Channel::new("/x", Duration::ZERO, 3));
        // By the one that feeds it: per receive. By each of the others: per sleep, and per send to its own.
        let written = [
            line(&*channel.woken_at),
            line(&*channel.bytes_in),
            line(&*channel.wake),
            line(&*channel.told[0]),
            line(&*channel.told[1]),
            line(&*channel.told[2]),
        ];
        // By all: what a send or a look needs. The count of an Arc's holders stands before what it holds.
        let read = [line(&*channel.version), line(&*channel.told)];
        let cold = [line(&channel.run), line(&channel.about), line(&channel.listeners)];
        apart(&[&written[..], &read[..]].concat());
        assert!(
            cold.iter()
                .all(|cold| !written.contains(cold) && !read.contains(cold))
        );
        assert!(Arc::as_ptr(&channel).addr().is_multiple_of(128) && align_of::<Run>() == 128);
    }

    #[test]
    fn what_workers_told_adds_up() {
        let channel = Channel::new("/x", Duration::ZERO, 2);
        channel.told(0, 5);
        channel.told(1, 7);
        channel.told(0, 1);
        assert_eq!(channel.bytes_out(), 13);
    }
}
