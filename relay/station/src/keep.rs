//! *Keep*: the one hand that writes a channel's run. Bytes become chunks; framings that somebody asked for follow.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use relay_media::{Mark, Scanner};
use relay_ring::{ChunkInfo, NO_JOIN, Reader, Ring, Writer};
use relay_seam::Now;
use relay_wire::icy::METAINT;
use relay_wire::link;

use crate::channel::{Channel, Header, Run};
use crate::house::House;
use crate::icy::{self, IcyWriter, Phases, write_or_skip};

/// The link position of a chunk that is not in the link's framing.
pub(crate) const NOT_LINKED: u64 = u64::MAX;

/// How often an idle channel gives its links a sign of life.
const PING_EVERY: Duration = Duration::from_secs(1);

/// How much of the past a metadata framing begins with, in bytes.
const ICY_PAST: u64 = 1 << 20;

/// How many pins a run's rings have: one for each worker's listeners, and one each for those named below.
pub(crate) fn slots(workers: usize) -> usize {
    workers + 2
}

/// The pin of what is cast. The one before it is the keeper's own.
pub(crate) fn cast_slot(workers: usize) -> usize {
    workers + 1
}

/// Writes one run of a channel.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) channel: Arc<Channel>,
    pub(crate) run: Arc<Run>,
    raw: Writer,
    /// For filling a framing with the past; has a pin of its own.
    past: Reader,
    /// None where an upstream tells us the headers and join points.
    scanner: Option<Scanner>,
    marks: Vec<Mark>,
    /// When the chunk that is being filled was begun.
    capture_us: u64,
    link: Option<Writer>,
    last_link_frame: Now,
    icy: Option<IcyWriter>,
    title_version: u64,
    seen_version: u64,
    readers: usize,
    past_slot: usize,
    meter: Meter,
}

impl Keeper {
    /// Takes over a fresh run and puts it on the air.
    pub(crate) fn new(
        now: Now,
        channel: Arc<Channel>,
        run: Arc<Run>,
        raw: Writer,
        scanner: Option<Scanner>,
        workers: usize,
    ) -> Self {
        let past = run.raw.reader(workers);
        let keeper = Self {
            channel,
            run,
            raw,
            past,
            scanner,
            marks: Vec::new(),
            capture_us: now.wall_us(),
            link: None,
            last_link_frame: now,
            icy: None,
            title_version: 0,
            seen_version: 0,
            readers: slots(workers),
            past_slot: workers,
            meter: Meter::new(now),
        };
        keeper.channel.set_run(Some(keeper.run.clone()));
        keeper
    }

    /// Whether so many bytes can be taken now.
    pub(crate) fn ready(&mut self, len: usize) -> bool {
        self.raw.ready(len)
    }

    /// The number of the next chunk that is not whole yet.
    pub(crate) fn next_chunk(&self) -> u64 {
        self.raw.head() / self.chunk_size()
    }

    /// Appends stream bytes; [`Keeper::ready`] said that there is room.
    pub(crate) fn append(&mut self, now: Now, mut bytes: &[u8]) {
        self.count(now, bytes.len());
        while !bytes.is_empty() {
            let filled = self.raw.head() % self.chunk_size();
            if filled == 0 {
                self.begin_chunk(now.wall_us());
            }
            let (piece, rest) = bytes.split_at(bytes.len().min((self.chunk_size() - filled) as usize));
            self.raw.append(piece);
            self.scan(now, piece);
            self.frame_icy(piece);
            if filled as usize + piece.len() == self.chunk_size() as usize {
                let number = self.raw.head() / self.chunk_size() - 1;
                self.finish_chunk(now, number, piece.len(), piece, 0);
            }
            bytes = rest;
        }
    }

    /// Appends a whole chunk as an upstream numbered it. A number ahead of ours leaves a hole.
    pub(crate) fn append_chunk(&mut self, now: Now, chunk: &link::Chunk<'_>) {
        let at = chunk.number * self.chunk_size();
        if at > self.raw.head() {
            self.raw.skip_to(at);
            if let (Some(icy), Some((_, phases))) = (&mut self.icy, self.run.icy.get()) {
                icy.skip_to(at, phases);
            }
        }
        if at != self.raw.head() {
            // Behind the head, or after a short chunk that was not the last: nothing that a run has room for.
            return;
        }
        self.count(now, chunk.bytes.len());
        self.begin_chunk(chunk.capture_us);
        self.raw.append(chunk.bytes);
        if let Some(join) = chunk.join {
            self.join(now, at + u64::from(join));
        }
        self.frame_icy(chunk.bytes);
        self.finish_chunk(now, chunk.number, chunk.bytes.len(), chunk.bytes, chunk.flags);
    }

    /// A header, as the scanner found it or an upstream told it.
    pub(crate) fn header(&mut self, now: Now, header: Header) {
        let mut frame = Vec::new();
        if self.link.is_some()
            && link::encode_header(&mut frame, header.at, &header.again, &header.bytes).is_ok()
        {
            self.frame_link(now, &frame);
        }
        self.run.add_header(header);
    }

    /// A join point. One that shows itself only when its chunk has been told already follows it on the link.
    pub(crate) fn join(&mut self, now: Now, at: u64) {
        if self.run.add_join(at) && self.link.is_some() {
            let mut frame = Vec::new();
            link::encode_join(&mut frame, at);
            self.frame_link(now, &frame);
        }
    }

    /// What is due although nothing came: framings that were asked for, titles, signs of life.
    pub(crate) fn service(&mut self, now: Now) {
        if self.link.is_none() && self.run.link_wanted.load(Ordering::Relaxed) {
            self.begin_link(now);
        }
        if self.icy.is_none() && self.run.icy_wanted.load(Ordering::Relaxed) {
            self.begin_icy();
        }
        self.title(now);
        if self.link.is_some() && now.since(self.last_link_frame) >= PING_EVERY {
            let mut frame = Vec::new();
            link::encode_ping(&mut frame, now.wall_us());
            self.frame_link(now, &frame);
        }
    }

    /// The bit rate asks for a larger ring than this run has: the run is begun anew in one, with its past.
    /// Positions are the same, so whoever follows moves over at the very same byte.
    pub(crate) fn grow(&mut self, now: Now, house: &House) -> io::Result<()> {
        let wanted = house.config.ring_for(self.meter.kbps(now)).next_power_of_two();
        if wanted <= self.run.raw.capacity() {
            return Ok(());
        }
        let chunk = self.chunk_size();
        let (from, head) = (self.run.oldest().div_ceil(chunk) * chunk, self.raw.head());
        if from > head || self.past.pin(from).is_err() {
            return Ok(());
        }
        let (mut writer, ring) = Ring::new(wanted, self.readers, from)?;
        let old = self.run.clone();
        let run = Run::new(
            old.epoch,
            old.chunk_size,
            old.kind,
            old.content_type.clone(),
            old.path.clone(),
            ring,
            old.rewound,
        );
        writer.append(self.past.bytes(from, (head - from) as usize));
        self.past.unpin();
        run.take_over(&old, from / chunk, head / chunk);
        self.run = Arc::new(run);
        self.past = self.run.raw.reader(self.past_slot);
        (self.raw, self.link, self.icy) = (writer, None, None);
        old.end();
        self.channel.set_run(Some(self.run.clone()));
        self.service(now);
        house.ring_all();
        Ok(())
    }

    /// The epoch is over: the chunk in the making becomes its short last one.
    pub(crate) fn end(&mut self, now: Now) {
        let filled = self.raw.head() % self.chunk_size();
        if filled > 0 && !self.run.ended() && self.scanner.is_some() {
            let number = self.raw.head() / self.chunk_size();
            self.finish_chunk(now, number, 0, &[], link::FLAG_LAST);
        }
        self.run.end();
    }

    fn chunk_size(&self) -> u64 {
        u64::from(self.run.chunk_size)
    }

    fn begin_chunk(&mut self, capture_us: u64) {
        self.capture_us = capture_us;
        let number = self.raw.head() / self.chunk_size();
        self.run.index.set(ChunkInfo {
            number,
            capture_us,
            link_at: NOT_LINKED,
            join: NO_JOIN,
            len: 0,
        });
    }

    /// A chunk is whole: `tail` are its last bytes, those that were appended just now.
    fn finish_chunk(&mut self, now: Now, number: u64, appended: usize, tail: &[u8], flags: u8) {
        let at = number * self.chunk_size();
        let len = (self.raw.head() - at) as usize;
        let Some(mut info) = self.run.index.get(number) else {
            return;
        };
        info.len = len as u16;
        if self.link.is_some() {
            info.link_at = if appended == len {
                self.frame_chunk(now, &info, flags, |ring| write_or_skip(ring, tail))
            } else {
                self.frame_past(now, &info, flags)
            };
        }
        self.run.index.set(info);
    }

    /// Frames a chunk that came in pieces: from the ring itself.
    fn frame_past(&mut self, now: Now, info: &ChunkInfo, flags: u8) -> u64 {
        let at = info.number * self.chunk_size();
        if self.past.pin(at).is_err() {
            return NOT_LINKED;
        }
        let bytes = self.past.bytes(at, usize::from(info.len)).to_vec();
        self.past.unpin();
        self.frame_chunk(now, info, flags, |ring| write_or_skip(ring, &bytes))
    }

    fn frame_chunk(
        &mut self,
        now: Now,
        info: &ChunkInfo,
        flags: u8,
        payload: impl FnOnce(&mut Writer),
    ) -> u64 {
        let Some(ring) = &mut self.link else {
            return NOT_LINKED;
        };
        let len = usize::from(info.len);
        let at = ring.head();
        if !ring.ready(link::CHUNK_OVERHEAD + len) {
            // Half a frame would be worse than none: everybody on the link is lapped and comes back with a number.
            ring.skip_to(at + 1);
            return NOT_LINKED;
        }
        let join = (info.join != NO_JOIN).then_some(info.join);
        ring.append(&link::encode_chunk_head(
            info.number,
            info.capture_us,
            flags,
            join,
            len,
        ));
        payload(ring);
        self.last_link_frame = now;
        at
    }

    fn frame_link(&mut self, now: Now, frame: &[u8]) {
        if let Some(ring) = &mut self.link {
            write_or_skip(ring, frame);
            self.last_link_frame = now;
        }
    }

    fn frame_icy(&mut self, bytes: &[u8]) {
        if let (Some(icy), Some((_, phases))) = (&mut self.icy, self.run.icy.get()) {
            icy.append(bytes, phases);
        }
    }

    fn scan(&mut self, now: Now, piece: &[u8]) {
        let Some(scanner) = &mut self.scanner else { return };
        scanner.feed(piece, &mut self.marks);
        let mut marks = std::mem::take(&mut self.marks);
        for mark in marks.drain(..) {
            match mark {
                Mark::Join { at } => self.join(now, at),
                Mark::Header { at, bytes, again } => self.header(now, Header { at, bytes, again }),
            }
        }
        self.marks = marks;
    }

    /// Begins the link's framing, with as much of the past as the ring holds.
    fn begin_link(&mut self, now: Now) {
        let Ok((writer, ring)) = Ring::new(self.run.raw.capacity(), self.readers, 0) else {
            return;
        };
        self.link = Some(writer);
        let oldest = self.run.oldest().div_ceil(self.chunk_size());
        for number in oldest..self.next_chunk() {
            if let Some(mut info) = self.run.index.get(number).filter(|info| info.len > 0) {
                info.link_at = self.frame_past(now, &info, 0);
                self.run.index.set(info);
            }
        }
        self.last_link_frame = now;
        let _ = self.run.link.set(ring);
        self.channel.change(|_| ());
    }

    /// Begins the framing with metadata blocks, with enough of the past for a newcomer's burst.
    fn begin_icy(&mut self) {
        if !icy::carries(self.run.kind) {
            return;
        }
        let Ok((writer, ring)) = Ring::new(self.run.raw.capacity(), self.readers, 0) else {
            return;
        };
        let head = self.raw.head();
        let from = head
            .saturating_sub(ICY_PAST.min(self.run.raw.window() / 2))
            .max(self.run.raw.floor());
        let from = match self.run.icy_alignment.get() {
            Some(alignment) => {
                (from + (alignment + METAINT as u64 - from % METAINT as u64) % METAINT as u64).min(head)
            }
            None => from,
        };
        let phases = Phases::default();
        let mut icy = IcyWriter::new(writer, from, &self.channel.about().title, &phases);
        if self.past.pin(from).is_ok() {
            icy.append(self.past.bytes(from, (head - from) as usize), &phases);
            self.past.unpin();
        }
        self.icy = Some(icy);
        let _ = self.run.icy.set((ring, phases));
        self.channel.change(|_| ());
    }

    fn title(&mut self, now: Now) {
        let version = self.channel.version();
        if std::mem::replace(&mut self.seen_version, version) == version {
            return;
        }
        let about = self.channel.about();
        if about.title_version == self.title_version {
            return;
        }
        self.title_version = about.title_version;
        if let Some(icy) = &mut self.icy {
            icy.set_title(&about.title);
        }
        let mut frame = Vec::new();
        if link::encode_metadata(&mut frame, &about.title).is_ok() {
            self.frame_link(now, &frame);
        }
    }

    fn count(&mut self, now: Now, bytes: usize) {
        self.channel.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(rate) = self.meter.count(now, bytes as u64) {
            self.run.bitrate.store(rate, Ordering::Relaxed);
        }
    }
}

/// Measures a bit rate: over the last second or so, and since the beginning.
#[derive(Debug)]
struct Meter {
    since: Now,
    bytes: u64,
    began: Now,
    total: u64,
}

impl Meter {
    /// A rate over less than this says little: encoders begin with a burst.
    const SETTLED: Duration = Duration::from_secs(3);

    fn new(now: Now) -> Self {
        Self {
            since: now,
            bytes: 0,
            began: now,
            total: 0,
        }
    }

    /// Bits per second, once a stretch of a second is over.
    fn count(&mut self, now: Now, bytes: u64) -> Option<u64> {
        self.bytes += bytes;
        self.total += bytes;
        let passed = now.since(self.since);
        if passed < Duration::from_secs(1) {
            return None;
        }
        let rate = (self.bytes as f64 * 8.0 / passed.as_secs_f64()) as u64;
        (self.since, self.bytes) = (now, 0);
        Some(rate)
    }

    /// Kilobits per second since the beginning; 0 until that says something.
    fn kbps(&self, now: Now) -> u64 {
        let passed = now.since(self.began);
        if passed < Self::SETTLED {
            return 0;
        }
        (self.total as f64 * 8.0 / 1000.0 / passed.as_secs_f64()) as u64
    }
}
