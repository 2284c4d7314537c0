//! *Tell*, to a whole LAN at once: one channel goes out by IP multicast, each byte once, however many hear it.
//!
//! The worker that writes the channel sends it: it follows its own run with a pin of its own and gives the driver
//! spans of the ring, a header of its own before each where the format is RTP. A datagram begins where a packet
//! begins, whatever the grid of chunks; nothing waits for anybody, and what the kernel has no room for is gone.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use relay_cast::fec::{Encoder, Shape};
use relay_cast::rtp::{Head as Rtp, PAYLOAD_PARITY, PAYLOAD_TS, Place, timestamp};
use relay_cast::sdp::{Announcement, PARITY_PORT};
use relay_cast::{BODY_BYTES, PACKET, SYNC, is_packets};
use relay_media::Kind;
use relay_ring::Reader;
use relay_seam::{Datagram, Head, Interface, Now, Output, Payload, Span, Udp, UdpOptions};

use crate::channel::{Channel, Run};
use crate::house::House;
use crate::orders::{Event, Level};
use crate::turn::Station;

/// The name of the ring that is being cast, in spans; listeners' streams count from 0.
pub(crate) const RING: u32 = u32::MAX;
/// The name of the socket, until it has one.
const TOKEN: u64 = u64::MAX;
/// Datagrams that go out at once: more, and the socket buffers of receivers overflow (212,992 bytes hold some 90).
const BURST: u32 = 64;
/// When the next ones may go.
const BURST_EVERY: Duration = Duration::from_millis(1);
/// A bare run of datagrams in one output, at most.
const RUN_MAX: u64 = 32;
/// So many bytes without a packet are said to be no stream that can be cast.
const BARREN_MAX: u64 = 64 << 10;
/// A socket that cannot be opened, or takes nothing for so long, is opened anew after this.
const SOCKET_PATIENCE: Duration = Duration::from_secs(2);

/// What is cast, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CastSpec {
    /// The group and its port.
    pub to: SocketAddr,
    /// Where it leaves; none: where the route to the group leads.
    pub interface: Option<Interface>,
    /// Our address there, for announcements.
    pub from: Option<IpAddr>,
    /// Which channel; none: the first transport stream that comes on the air.
    pub mount: Option<String>,
    /// Behind RTP headers; otherwise bare packets.
    pub rtp: bool,
    /// How many routers it may pass.
    pub ttl: u8,
    /// Parity, where it is RTP.
    pub fec: Option<Shape>,
}

/// What the workers share of it: the sequence goes on when another of them takes the channel over.
#[derive(Debug, Default)]
pub(crate) struct Antenna {
    mount: OnceLock<String>,
    ssrc: OnceLock<u32>,
    sequence: AtomicU16,
    parity_sequence: AtomicU16,
}

impl House {
    /// The mount that is cast, once it is known.
    pub fn cast_mount(&self) -> Option<&str> {
        let named = self.config.cast.as_ref()?.mount.as_deref();
        named.or_else(|| self.antenna.mount.get().map(String::as_str))
    }

    /// How a mount is announced to players, if it is the one that is cast.
    pub fn cast_announcement(&self, mount: &str) -> Option<Announcement> {
        let spec = self.config.cast.as_ref()?;
        (self.cast_mount() == Some(mount)).then(|| Announcement {
            name: mount.to_owned(),
            from: spec.from,
            to: spec.to,
            ttl: spec.ttl,
            rtp: spec.rtp,
            fec: spec.fec,
        })
    }

    /// A channel has begun a run: where nothing was said, the first transport stream is the one.
    pub(crate) fn cast_offer(&self, mount: &str, kind: Kind) {
        let asked = self.config.cast.as_ref().is_some_and(|spec| spec.mount.is_none());
        if asked && kind == Kind::MpegTs {
            let _ = self.antenna.mount.set(mount.to_owned());
        }
    }
}

/// One worker's transmitter.
#[derive(Debug)]
pub(crate) struct Cast {
    spec: CastSpec,
    socket: Socket,
    track: Option<Track>,
    fec: Option<Encoder>,
    /// Parity, and what opens and closes sockets.
    due: VecDeque<Output>,
    /// Outputs that are with the driver.
    in_flight: u32,
    /// The kernel has taken nothing since then.
    deaf_since: Option<Now>,
    burst: u32,
    burst_since: Now,
    /// The epoch that was refused, so that it is said once.
    refused: u64,
}

#[derive(Debug)]
enum Socket {
    Closed { until: Now },
    Opening,
    Open(Udp),
}

/// The run that is being cast.
#[derive(Debug)]
struct Track {
    run: Arc<Run>,
    reader: Reader,
    cursor: u64,
    pinned: bool,
    /// The next datagram is the first of an epoch, or comes after a leap.
    leap: bool,
    /// The cursor is where a packet begins.
    aligned: bool,
    /// Bytes that were left out since the last packet.
    barren: u64,
}

impl Cast {
    /// The transmitter of one worker, where anything is to be cast.
    pub(crate) fn new(house: &House, seed: u64) -> Option<Box<Self>> {
        let spec = house.config.cast.clone()?;
        let antenna = &house.antenna;
        let ssrc = *antenna.ssrc.get_or_init(|| {
            antenna.sequence.store((seed >> 32) as u16, Ordering::Relaxed);
            seed as u32
        });
        Some(Box::new(Self {
            fec: spec
                .fec
                .filter(|_| spec.rtp)
                .map(|shape| Encoder::new(shape, ssrc)),
            spec,
            socket: Socket::Closed {
                until: Now::new(0, 0),
            },
            track: None,
            due: VecDeque::new(),
            in_flight: 0,
            deaf_since: None,
            burst: 0,
            burst_since: Now::new(0, 0),
            refused: 0,
        }))
    }

    /// The bytes of a span that is with the driver.
    ///
    /// # Panics
    ///
    /// When nothing is cast.
    pub(crate) fn reader(&self) -> &Reader {
        &self.track.as_ref().expect("a span of what is cast").reader
    }

    /// When it wants to be asked again.
    pub(crate) fn deadline(&self) -> Option<Now> {
        let Socket::Open(_) = self.socket else { return None };
        let more = self.track.as_ref().is_some_and(Track::has_more);
        let paced = more.then(|| self.burst_since + BURST_EVERY);
        Now::earliest(paced, self.fec.as_ref().and_then(Encoder::due))
    }

    /// What became of a batch.
    pub(crate) fn posted(&mut self, now: Now, taken: u32) {
        if std::mem::take(&mut self.in_flight) == 0 {
            return;
        }
        if let Some(track) = &mut self.track {
            track.unpin();
        }
        let since = *self.deaf_since.get_or_insert(now);
        if taken > 0 {
            self.deaf_since = None;
        } else if now.since(since) >= SOCKET_PATIENCE {
            // Its interface may have gone, and another of the same name have come.
            self.close(now);
        }
    }

    fn close(&mut self, until: Now) {
        self.deaf_since = None;
        if let Socket::Open(udp) = std::mem::replace(&mut self.socket, Socket::Closed { until }) {
            self.due.push_back(Output::CloseUdp { udp });
        }
    }

    fn open(&mut self, now: Now) {
        if !matches!(self.socket, Socket::Closed { until } if now >= until) {
            return;
        }
        self.socket = Socket::Opening;
        let any: IpAddr = match self.spec.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.due.push_back(Output::OpenUdp {
            token: TOKEN,
            bind: SocketAddr::new(any, 0),
            options: UdpOptions {
                multicast_ttl: self.spec.ttl,
                multicast_interface: self.spec.interface,
                ..UdpOptions::default()
            },
        });
    }

    /// Looks which run this worker is to cast.
    fn look(&mut self, now: Now, house: &House, worker: usize) {
        if self.in_flight > 0 {
            return;
        }
        let wanted = wanted(house, worker);
        let goes_on = |track: &Track| {
            let next = wanted.as_ref().map(|(_, run)| run.epoch);
            !track.is_over() || next == Some(track.run.epoch)
        };
        self.track = self.track.take().filter(goes_on);
        let Some((channel, run)) = wanted else { return };
        match &self.track {
            Some(track) if Arc::ptr_eq(&track.run, &run) => {}
            // The same stream in a larger ring.
            Some(track) if track.run.epoch == run.epoch => {
                self.track = Some(Track::at(run, track.cursor, track.leap, house));
            }
            // What is left of the old one goes first.
            Some(_) => return,
            None => self.begin(house, worker, &channel, run),
        }
        if self.track.is_some() {
            self.open(now);
        }
    }

    fn begin(&mut self, house: &House, worker: usize, channel: &Channel, run: Arc<Run>) {
        if run.kind != Kind::MpegTs {
            return self.refuse(house, worker, &run, &format!(
                "{} is {}, and only MPEG-TS is cast by multicast; publish it with -f mpegts, or name another mount \
                 (--multicast-mount)",
                channel.mount,
                run.kind.name()
            ));
        }
        let from = run.start.max(run.oldest());
        self.track = Some(Track::at(run, from, true, house));
        let text = format!("{} is cast to {}", channel.mount, self.spec.to);
        house.tell(
            worker,
            Event::Note {
                level: Level::Info,
                text,
            },
        );
    }

    fn refuse(&mut self, house: &House, worker: usize, run: &Run, why: &str) {
        if std::mem::replace(&mut self.refused, run.epoch) != run.epoch {
            let text = why.to_owned();
            house.tell(
                worker,
                Event::Note {
                    level: Level::Warn,
                    text,
                },
            );
        }
    }

    /// It is a transport stream, but not one that could be cast.
    fn find_barren(&mut self, house: &House, worker: usize) {
        let Some(run) = self.track.as_ref().map(|track| track.run.clone()) else {
            return;
        };
        let mount = house.cast_mount().unwrap_or_default();
        let why = format!(
            "{mount} is not cast: expected packets of 188 bytes, got none in {} KiB; packets of 192 or 204 bytes must \
             be stripped first (ffmpeg -c copy -f mpegts does)",
            BARREN_MAX >> 10
        );
        self.refuse(house, worker, &run, &why);
    }

    /// The next output, if one is due.
    fn poll(&mut self, now: Now, house: &House, worker: usize) -> Option<Output> {
        if let Some(output) = self.due.pop_front() {
            return Some(self.offered(output));
        }
        let Socket::Open(udp) = self.socket else {
            return None;
        };
        if self
            .fec
            .as_ref()
            .and_then(Encoder::due)
            .is_some_and(|due| due <= now)
        {
            let parity = self.fec.as_mut().map(Encoder::close).unwrap_or_default();
            self.put_parity(house, udp, now, parity);
        }
        let output = self.next_stretch(now, house, worker, udp);
        match output.or_else(|| self.due.pop_front()) {
            Some(output) => Some(self.offered(output)),
            None => {
                self.rest();
                None
            }
        }
    }

    fn offered(&mut self, output: Output) -> Output {
        self.in_flight += u32::from(matches!(output, Output::Datagram(_)));
        output
    }

    /// Nothing is with the driver, so nothing need be pinned.
    fn rest(&mut self) {
        if self.in_flight == 0
            && let Some(track) = &mut self.track
        {
            track.unpin();
        }
    }

    fn next_stretch(&mut self, now: Now, house: &House, worker: usize, udp: Udp) -> Option<Output> {
        if now.since(self.burst_since) >= BURST_EVERY {
            (self.burst, self.burst_since) = (BURST, now);
        }
        let counters = house.counters(worker);
        let track = self.track.as_mut().filter(|_| self.burst > 0)?;
        counters.cast_lost_bytes.add(track.pin()?);
        counters.cast_skipped_bytes.add(track.align());
        if track.barren > BARREN_MAX {
            self.find_barren(house, worker);
        }
        let track = self.track.as_mut()?;
        let most = if self.spec.rtp {
            1
        } else {
            RUN_MAX.min(u64::from(self.burst))
        };
        let len = track.stretch(most)?;
        let count = len.div_ceil(BODY_BYTES as u64);
        self.burst -= count as u32;
        counters.cast_datagrams.add(count);
        counters.cast_bytes.add(len);
        let (at, leap) = (track.cursor, std::mem::take(&mut track.leap));
        track.barren = 0;
        track.cursor += len;
        let span = Span {
            ring: RING,
            at,
            len: len as u32,
        };
        let head = match self.spec.rtp {
            true => self.rtp(now, house, udp, span, leap),
            false => Head::NONE,
        };
        Some(Output::Datagram(Datagram {
            udp,
            to: self.spec.to,
            head,
            body: Some(Payload::Span(span)),
            segment: if self.spec.rtp { 0 } else { BODY_BYTES as u16 },
        }))
    }

    /// The header of a datagram; it enters the code on the way.
    fn rtp(&mut self, now: Now, house: &House, udp: Udp, span: Span, leap: bool) -> Head {
        let Some(track) = &self.track else {
            return Head::NONE;
        };
        let (run, antenna) = (&track.run, &house.antenna);
        let chunk = run.index.get(span.at / u64::from(run.chunk_size));
        let sequence = antenna.sequence.fetch_add(1, Ordering::Relaxed);
        let rtp = Rtp {
            payload_type: PAYLOAD_TS,
            marker: leap,
            sequence,
            timestamp: timestamp(chunk.map_or(now.wall_us(), |chunk| chunk.capture_us)),
            ssrc: antenna.ssrc.get().copied().unwrap_or_default(),
            place: Some(Place {
                epoch: run.epoch,
                at: span.at,
            }),
        };
        let (bytes, len) = rtp.encode();
        if let Some(fec) = &mut self.fec {
            let body = track.reader.bytes(span.at, span.len as usize);
            let parity = fec.push(now, sequence, &bytes[..len], body);
            self.put_parity(house, udp, now, parity);
        }
        Head::new(&bytes[..len]).unwrap_or(Head::NONE)
    }

    fn put_parity(&mut self, house: &House, udp: Udp, now: Now, parity: Vec<Vec<u8>>) {
        let antenna = &house.antenna;
        for payload in parity {
            let rtp = Rtp {
                payload_type: PAYLOAD_PARITY,
                marker: false,
                sequence: antenna.parity_sequence.fetch_add(1, Ordering::Relaxed),
                timestamp: timestamp(now.wall_us()),
                ssrc: antenna.ssrc.get().copied().unwrap_or_default().wrapping_add(1),
                place: None,
            };
            let (bytes, len) = rtp.encode();
            let to = SocketAddr::new(self.spec.to.ip(), self.spec.to.port().saturating_add(PARITY_PORT));
            self.due.push_back(Output::Datagram(Datagram {
                udp,
                to,
                head: Head::new(&bytes[..len]).unwrap_or(Head::NONE),
                body: Some(Payload::Own(payload.into(), 0)),
                segment: 0,
            }));
        }
    }
}

impl Track {
    fn at(run: Arc<Run>, cursor: u64, leap: bool, house: &House) -> Self {
        let reader = run.raw.reader(crate::keep::cast_slot(house.config.workers));
        Self {
            run,
            reader,
            cursor,
            pinned: false,
            leap,
            aligned: false,
            barren: 0,
        }
    }

    fn has_more(&self) -> bool {
        self.run.raw.head().saturating_sub(self.cursor) >= BODY_BYTES as u64
    }

    /// Its run is over, and less than a packet is left.
    fn is_over(&self) -> bool {
        self.run.ended() && self.run.raw.head().saturating_sub(self.cursor) < PACKET as u64
    }

    /// Pins what is still to be sent; answers how many bytes were lost on the way. `None`: there is nothing to send.
    fn pin(&mut self) -> Option<u64> {
        if self.pinned {
            return Some(0);
        }
        if !self.has_more() && (!self.run.ended() || self.is_over()) {
            return None;
        }
        let old = self.cursor;
        while self.reader.pin(self.cursor).is_err() {
            self.lapped();
        }
        self.pinned = true;
        Some(self.cursor - old)
    }

    /// What was to come is gone: a hole in what came over a link, or a window in which nothing could be sent.
    fn lapped(&mut self) {
        let (floor, head) = (self.run.raw.floor(), self.run.raw.head());
        let after_a_hole = head.saturating_sub(floor) < self.run.raw.window() / 2;
        let newest = self.run.newest_join_point().filter(|_| !after_a_hole);
        self.cursor = newest.unwrap_or(floor).max(floor).max(self.cursor);
        (self.leap, self.aligned) = (true, false);
    }

    fn unpin(&mut self) {
        if std::mem::take(&mut self.pinned) {
            self.reader.unpin();
        }
    }

    /// Goes to where a packet begins; answers how many bytes that left out.
    fn align(&mut self) -> u64 {
        let old = self.cursor;
        while self.skip() {}
        let left_out = self.cursor - old;
        self.barren += left_out;
        self.leap |= left_out > 0;
        left_out
    }

    /// Goes as far as one look tells; whether another may tell more.
    fn skip(&mut self) -> bool {
        let ready = self.reader.seen().saturating_sub(self.cursor);
        let around = ready.min(2 * BODY_BYTES as u64) as usize;
        let around = self.reader.bytes(self.cursor, around);
        let over = self.run.ended();
        if self.aligned && around.first() == Some(&SYNC) || !over && around.len() < BODY_BYTES {
            return false;
        }
        let found = first_packet(around, over);
        self.aligned = found.is_some();
        let left_out = found.unwrap_or(beyond_doubt(around.len()));
        self.cursor += left_out as u64;
        !self.aligned && left_out > 0
    }

    /// How many bytes from the cursor on are whole datagrams, at most `most` of them; at the end of a run, or before
    /// something that is no packet, whole packets.
    fn stretch(&self, most: u64) -> Option<u64> {
        let ready = self.reader.seen().saturating_sub(self.cursor);
        let whole = ready / BODY_BYTES as u64 * BODY_BYTES as u64;
        let len = if whole > 0 {
            whole.min(most * BODY_BYTES as u64)
        } else {
            self.tail(ready)
        };
        let bytes = self.reader.bytes(self.cursor, len as usize);
        let packets = bytes
            .chunks_exact(PACKET)
            .take_while(|packet| is_packets(packet))
            .count();
        let len = (packets * PACKET) as u64;
        // A run is cut into equal datagrams: a short one ends it anyway.
        (len > 0).then_some(len)
    }

    fn tail(&self, ready: u64) -> u64 {
        let whole = ready / PACKET as u64 * PACKET as u64;
        if self.run.ended() { whole } else { 0 }
    }
}

/// The run that is to be cast, if this worker writes it.
fn wanted(house: &House, worker: usize) -> Option<(Arc<Channel>, Arc<Run>)> {
    let channel = house.directory.get(house.cast_mount()?)?;
    let run = channel.run().filter(|run| !run.ended())?;
    (channel.writer() == worker).then_some((channel, run))
}

/// Where the first packet begins that two others follow; where nothing more comes, the end will do.
fn first_packet(bytes: &[u8], over: bool) -> Option<usize> {
    let packet = |at: usize| bytes.get(at).map_or(over, |first| *first == SYNC);
    let whole =
        |at: usize| bytes.len() - at > 2 * PACKET || (over && (bytes.len() - at).is_multiple_of(PACKET));
    let sure = |at: &usize| whole(*at) && packet(*at) && packet(at + PACKET) && packet(at + 2 * PACKET);
    (0..bytes.len()).find(sure)
}

/// Of so many bytes in which no packet begins, those in which none will, whatever comes.
fn beyond_doubt(len: usize) -> usize {
    // Less than that is the end of a run: nothing comes.
    if len > 2 * PACKET { len - 2 * PACKET } else { len }
}

impl Station {
    /// Time has passed: which run is to be cast?
    pub(crate) fn cast_on_time(&mut self, now: Now) {
        if let Some(cast) = &mut self.cast {
            cast.look(now, &self.house, self.worker);
        }
    }

    pub(crate) fn cast_poll(&mut self, now: Now) -> Option<Output> {
        self.cast.as_mut()?.poll(now, &self.house, self.worker)
    }

    /// A socket has been opened for us, or not. Answers whether it was us who asked.
    pub(crate) fn cast_opened(
        &mut self,
        now: Now,
        token: u64,
        result: &std::io::Result<(Udp, SocketAddr)>,
    ) -> bool {
        let Some(cast) = self.cast.as_mut().filter(|_| token == TOKEN) else {
            return false;
        };
        match result {
            Ok((udp, _)) => cast.socket = Socket::Open(*udp),
            Err(error) => {
                cast.socket = Socket::Closed {
                    until: now + SOCKET_PATIENCE,
                };
                let text = format!("multicast to {}: {error}; it is tried again", cast.spec.to);
                self.house.tell(
                    self.worker,
                    Event::Note {
                        level: Level::Warn,
                        text,
                    },
                );
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_by_those_that_follow() {
        let packets = |n: usize| [&[SYNC; 1][..], &[0; PACKET - 1]].concat().repeat(n);
        for before in [0, 1, 100, PACKET - 1, 500] {
            let bytes = [vec![7; before], packets(4)].concat();
            assert_eq!(first_packet(&bytes, false), Some(before));
        }
        // The last of a run: as many as there are.
        for n in 1..4 {
            assert_eq!(first_packet(&packets(n), true), Some(0));
            assert_eq!(first_packet(&packets(n), false), Some(0).filter(|_| n > 2));
        }
        // A byte that looks like one.
        let mut bytes = [vec![7; 50], packets(4)].concat();
        bytes[20] = SYNC;
        assert_eq!(first_packet(&bytes, false), Some(50));
        assert_eq!(first_packet(&[7; 3000], false), None);
        assert_eq!(first_packet(&[], true), None);
        assert_eq!(
            (beyond_doubt(3000), beyond_doubt(376), beyond_doubt(5)),
            (2624, 376, 5)
        );
    }
}
