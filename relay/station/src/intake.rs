//! *Hear*, last step: the bytes of whatever feeds a channel (a pushing source, a pull, a file) on their way to *keep*.
//!
//! The first bytes decide what the stream is; then a run begins and they go into its ring.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_media::{Kind, SNIFF_BYTES, Scanner};
use relay_ring::Ring;
use relay_seam::Now;
use relay_source::Properties;

use crate::air;
use crate::channel::{Channel, Run};
use crate::house::House;
use crate::keep::{Keeper, slots};

/// First bytes are looked at for so long at most before the stream is taken for what it says it is.
const SNIFF_PATIENCE: Duration = Duration::from_millis(500);

/// What holds bytes back when the ring refuses them, in bytes: one turn of a driver's reads.
const HELD_MAX: usize = 1 << 20;

/// What feeds a channel.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) channel: Arc<Channel>,
    declared: Option<String>,
    kbps: u32,
    began: Now,
    first: Vec<u8>,
    pub(crate) keeper: Option<Keeper>,
    held: Vec<u8>,
}

/// What somebody who wants to feed a channel says about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Introduction {
    pub(crate) content_type: Option<String>,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) kbps: u32,
    pub(crate) from: String,
    pub(crate) agent: String,
}

impl Introduction {
    pub(crate) fn new(properties: &Properties, from: String, agent: String) -> Self {
        Self {
            content_type: properties.content_type.clone(),
            properties: pairs(properties),
            kbps: properties.bitrate.unwrap_or(0),
            from,
            agent,
        }
    }
}

/// Properties as `icy-*` names and values.
fn pairs(p: &Properties) -> Vec<(String, String)> {
    let optional = [
        ("name", p.name.clone()),
        ("genre", p.genre.clone()),
        ("description", p.description.clone()),
        ("url", p.url.clone()),
        ("br", p.bitrate.map(|b| b.to_string())),
        ("audio-info", p.audio_info.clone()),
        ("pub", Some(u8::from(p.public).to_string())),
    ];
    optional
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

impl Intake {
    /// Somebody begins to feed a channel that it has claimed.
    pub(crate) fn new(now: Now, channel: Arc<Channel>, intro: Introduction) -> Self {
        channel.change(|about| {
            about.properties = intro.properties;
            about.since_s = now.wall_us() / 1_000_000;
            about.from = intro.from;
            about.agent = intro.agent;
            about.kill = false;
        });
        Self {
            channel,
            declared: intro.content_type,
            kbps: intro.kbps,
            began: now,
            first: Vec::new(),
            keeper: None,
            held: Vec::new(),
        }
    }

    /// Bytes came.
    ///
    /// # Errors
    ///
    /// When there is no memory for a ring: the feeder is to be let go.
    pub(crate) fn hear(&mut self, house: &House, worker: usize, now: Now, bytes: &[u8]) -> io::Result<()> {
        house.counters(worker).bytes_heard.add(bytes.len() as u64);
        if self.keeper.is_none() {
            self.first.extend_from_slice(bytes);
            return self.consider(house, worker, now);
        }
        self.keep(house, worker, now, bytes);
        Ok(())
    }

    /// Whether there are bytes that the ring has refused: the feeder is to be paused.
    pub(crate) fn is_full(&self) -> bool {
        !self.held.is_empty()
    }

    /// Time has passed: what was held back may fit now, what was sniffed at for too long begins.
    ///
    /// # Errors
    ///
    /// As [`Intake::hear`].
    pub(crate) fn on_time(&mut self, house: &House, worker: usize, now: Now) -> io::Result<()> {
        if self.keeper.is_none() && !self.first.is_empty() {
            self.consider(house, worker, now)?;
        }
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            self.keep(house, worker, now, &held);
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.service(now);
            keeper.grow(now, house)?;
        }
        Ok(())
    }

    /// The feeder has gone.
    pub(crate) fn end(&mut self, house: &House, worker: usize, now: Now) {
        if let Some(keeper) = &mut self.keeper {
            keeper.end(now);
        }
        self.channel.release();
        air::gone(house, worker, now, &self.channel);
    }

    fn keep(&mut self, house: &House, worker: usize, now: Now, bytes: &[u8]) {
        let Some(keeper) = &mut self.keeper else { return };
        if self.held.is_empty() && keeper.ready(bytes.len()) {
            keeper.append(now, bytes);
            return;
        }
        house.counters(worker).ring_refusals.up();
        if self.held.len() + bytes.len() <= HELD_MAX {
            self.held.extend_from_slice(bytes);
        } else {
            house.counters(worker).ring_lost_bytes.add(bytes.len() as u64);
        }
    }

    /// Decides what the stream is, once there is enough of it, and begins its run.
    fn consider(&mut self, house: &House, worker: usize, now: Now) -> io::Result<()> {
        let found = Kind::sniff(&self.first);
        let enough = self.first.len() >= SNIFF_BYTES || now.since(self.began) >= SNIFF_PATIENCE;
        if found.is_none() && !enough {
            return Ok(());
        }
        let (kind, content_type) = decide(found, self.declared.as_deref());
        let raw = RunSpec {
            // Never a number that has been used: the wall clock may have been set back.
            epoch: self
                .channel
                .run()
                .map_or(0, |old| old.epoch.saturating_add(1))
                .max(now.wall_us()),
            chunk_size: house.config.chunk_size,
            kind,
            content_type,
            path: Vec::new(),
            kbps: self.kbps,
            first: 0,
            rewound: false,
        };
        let scanner = (kind != Kind::Other).then(|| Scanner::new(kind));
        self.keeper = Some(raw.begin(house, worker, now, &self.channel, scanner)?);
        let first = std::mem::take(&mut self.first);
        self.keep(house, worker, now, &first);
        Ok(())
    }
}

/// What the bytes show goes before what was said: encoders that were told nothing say `audio/mpeg`.
fn decide(found: Option<Kind>, declared: Option<&str>) -> (Kind, String) {
    let said = declared.and_then(Kind::from_content_type);
    match (found, said, declared) {
        (Some(found), Some(said), Some(text)) if found == said => (found, text.to_owned()),
        (Some(found), _, _) => (found, found.content_type().to_owned()),
        // What its bytes do not show it to be, it is not: garbage said to be MP3 is passed through.
        (None, _, Some(text)) => (
            said.filter(|k| *k == Kind::Mp3 || *k == Kind::Adts)
                .unwrap_or(Kind::Other),
            text.to_owned(),
        ),
        (None, _, None) => (Kind::Other, Kind::Other.content_type().to_owned()),
    }
}

/// What a run is made from.
#[derive(Debug)]
pub(crate) struct RunSpec {
    pub(crate) epoch: u64,
    pub(crate) chunk_size: u16,
    pub(crate) kind: Kind,
    pub(crate) content_type: String,
    pub(crate) path: Vec<String>,
    pub(crate) kbps: u32,
    /// The number of the first chunk.
    pub(crate) first: u64,
    /// Whether it begins there for another node's sake.
    pub(crate) rewound: bool,
}

impl RunSpec {
    /// Begins the run and puts it on the air.
    pub(crate) fn begin(
        self,
        house: &House,
        worker: usize,
        now: Now,
        channel: &Arc<Channel>,
        scanner: Option<Scanner>,
    ) -> io::Result<Keeper> {
        let workers = house.config.workers;
        let start = self.first * u64::from(self.chunk_size);
        let (writer, ring) = Ring::new(house.config.ring_for(u64::from(self.kbps)), slots(workers), start)?;
        channel.written_by(worker);
        house.cast_offer(&channel.mount, self.kind);
        if let Some(old) = channel.run() {
            old.end();
        }
        let run = Run::new(
            self.epoch,
            self.chunk_size,
            self.kind,
            self.content_type,
            self.path,
            ring,
            self.rewound,
        );
        let keeper = Keeper::new(now, channel.clone(), Arc::new(run), writer, scanner, workers);
        house.counters(worker).epochs.up();
        air::up(house, worker, channel);
        Ok(keeper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_before_words() {
        let ts = Some(Kind::MpegTs);
        assert_eq!(
            decide(ts, Some("video/MP2T")),
            (Kind::MpegTs, "video/MP2T".to_owned())
        );
        assert_eq!(decide(ts, Some("audio/mpeg")).0, Kind::MpegTs);
        assert_ne!(decide(ts, Some("audio/mpeg")).1, "audio/mpeg");
        assert_eq!(decide(None, Some("audio/mpeg")).0, Kind::Mp3);
        assert_eq!(
            decide(None, Some("video/mp2t")),
            (Kind::Other, "video/mp2t".to_owned())
        );
        assert_eq!(
            decide(None, Some("text/x-log")),
            (Kind::Other, "text/x-log".to_owned())
        );
    }
}
