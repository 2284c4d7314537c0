//! WebM and Matroska (RFC 8794, RFC 9559): the header once, then clusters whose times go on.
//!
//! What comes out is always a live stream: a Segment and Clusters of unknown size (RFC 8794, section 6.2), without
//! duration, index and tags. That way a block can go when it is due, and not only with its whole cluster.

use std::collections::HashMap;

use crate::bytes::be;
use crate::clock::Clock;
use crate::error::Fault;
use crate::format::{Format, Input, Step};
use crate::out::Out;
use crate::span::Span;

const EBML: u64 = 0x1A45_DFA3;
const SEGMENT: u64 = 0x1853_8067;
const INFO: u64 = 0x1549_A966;
const TRACKS: u64 = 0x1654_AE6B;
const CLUSTER: u64 = 0x1F43_B675;
const TIMESTAMP: u64 = 0xE7;
const SIMPLE_BLOCK: u64 = 0xA3;
const BLOCK_GROUP: u64 = 0xA0;
const BLOCK: u64 = 0xA1;
const BLOCK_DURATION: u64 = 0x9B;
const DURATION: u64 = 0x4489;
const TIMESTAMP_SCALE: u64 = 0x2A_D7B1;

const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
const BITS: u32 = 64;
/// The default scale: a tick is a millisecond.
const NS_PER_TICK: u64 = 1_000_000;
/// Tracks that are measured for the loop; more are played all the same.
const TRACKS_MAX: usize = 64;

/// A WebM file.
pub(crate) struct WebM {
    clock: Clock,
    ns_per_tick: u64,
    /// Added to every cluster's time in this round, in ticks.
    shift: u64,
    /// The time of the cluster we are in, as in the file, and whether its header is sent.
    cluster: Option<(u64, bool)>,
    spans: HashMap<u64, Track>,
    begun: bool,
    greeted: bool,
    timed: bool,
}

struct Track {
    span: Span,
    /// Of the newest block, where it is said.
    duration: Option<u64>,
}

/// An element's head.
#[derive(Clone, Copy)]
struct Element {
    id: u64,
    /// Bytes of the head itself.
    head: usize,
    /// Bytes of the body; none where it is unknown.
    size: Option<u64>,
}

impl Default for WebM {
    fn default() -> Self {
        Self {
            clock: Clock::new(1_000_000_000, BITS, 0),
            ns_per_tick: NS_PER_TICK,
            shift: 0,
            cluster: None,
            spans: HashMap::new(),
            begun: false,
            greeted: false,
            timed: false,
        }
    }
}

impl Format for WebM {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        let magic = EBML.to_be_bytes();
        if !self.begun && input.data.first() != Some(&magic[4]) {
            return Err(Fault::NotThis(0));
        }
        let Some(element) = Element::read(input.data)? else {
            return Ok(Step::More);
        };
        if !self.begun && element.id != EBML {
            return Err(Fault::NotThis(0));
        }
        self.begun = true;
        match element.id {
            SEGMENT => Ok(self.segment(element, out)),
            CLUSTER => {
                self.cluster = None;
                Ok(Step::Took(element.head))
            }
            EBML | INFO | TRACKS | TIMESTAMP | SIMPLE_BLOCK | BLOCK_GROUP => {
                self.whole(element, input.data, out)
            }
            _ => element.skip(),
        }
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        if !self.timed {
            return Err(Fault::NoClock);
        }
        let ns_per_tick = self.ns_per_tick;
        let round = self
            .spans
            .drain()
            .map(|(_, track)| track.round(ns_per_tick))
            .max();
        self.shift = self.shift.saturating_add(round.unwrap_or(1));
        self.begun = false;
        self.greeted = true;
        self.cluster = None;
        Ok(())
    }
}

impl WebM {
    fn segment(&mut self, element: Element, out: &mut Out) -> Step {
        if !self.greeted {
            out.put(0, &SEGMENT.to_be_bytes()[4..]);
            out.put(0, &UNKNOWN_SIZE);
        }
        Step::Took(element.head)
    }

    /// Elements that are handled when they are there to the last byte.
    fn whole(&mut self, element: Element, data: &[u8], out: &mut Out) -> Result<Step, Fault> {
        let Some(size) = element.size else {
            return Err(Fault::Damaged(
                "an element of known size",
                format!("{:#x} of unknown size", element.id),
            ));
        };
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| size.checked_add(element.head));
        let Some((end, whole)) = end.and_then(|end| Some((end, data.get(..end)?))) else {
            return Ok(Step::More);
        };
        let body = &whole[element.head..];
        match element.id {
            EBML | TRACKS if self.greeted => {}
            EBML | TRACKS => out.put(0, whole),
            INFO => self.info(body, out),
            TIMESTAMP => self.cluster = Some((be(body, 0, body.len()).unwrap_or_default(), false)),
            _ => self.block(element.id, whole, body, out)?,
        }
        Ok(Step::Took(end))
    }

    /// The scale is noted, the duration left out.
    fn info(&mut self, body: &[u8], out: &mut Out) {
        let mut kept = Vec::new();
        for (id, whole, value) in children(body) {
            if id == TIMESTAMP_SCALE && !self.greeted {
                self.ns_per_tick = be(value, 0, value.len())
                    .filter(|&ns| ns > 0)
                    .unwrap_or(NS_PER_TICK);
            }
            if id != DURATION {
                kept.extend_from_slice(whole);
            }
        }
        if !self.greeted {
            out.put(0, &INFO.to_be_bytes()[4..]);
            out.put(0, &(kept.len() as u64 | 1 << 56).to_be_bytes());
            out.put(0, &kept);
        }
    }

    fn block(&mut self, id: u64, whole: &[u8], body: &[u8], out: &mut Out) -> Result<(), Fault> {
        let Some((cluster, sent)) = self.cluster else {
            return Err(Fault::Damaged(
                "a cluster's time before its blocks",
                format!("element {id:#x}"),
            ));
        };
        let group = if id == BLOCK_GROUP { Some(body) } else { None };
        let block = group.map_or(Some(body), |body| child(body, BLOCK));
        let Some((track, relative)) = block.and_then(block_head) else {
            return Err(Fault::Damaged(
                "a block with track and time",
                format!("{} bytes", body.len()),
            ));
        };
        let at = cluster.saturating_add_signed(i64::from(relative));
        let duration = group.and_then(|body| child(body, BLOCK_DURATION));
        self.measure(track, at, duration.and_then(|value| be(value, 0, value.len())));
        self.timed = true;
        let due = self
            .clock
            .see(at.saturating_add(self.shift).saturating_mul(self.ns_per_tick));
        if !sent {
            self.cluster = Some((cluster, true));
            out.put(due, &cluster_head(cluster.saturating_add(self.shift)));
        }
        out.put(due, whole);
        Ok(())
    }

    fn measure(&mut self, track: u64, at: u64, duration: Option<u64>) {
        if let Some(track) = self.spans.get_mut(&track) {
            track.span.see(at);
            track.duration = duration;
        } else if self.spans.len() < TRACKS_MAX {
            self.spans.insert(
                track,
                Track {
                    span: Span::new(at, BITS),
                    duration,
                },
            );
        }
    }
}

impl Track {
    /// From the first block to the end of the last, in ticks.
    fn round(&self, ns_per_tick: u64) -> u64 {
        let (alone, limit) = (40_000_000 / ns_per_tick, 1_000_000_000 / ns_per_tick);
        let last = self.duration.unwrap_or(0).min(limit);
        self.span.reach() + last.max(self.span.step(alone.max(1), limit.max(1)))
    }
}

impl Element {
    /// Reads an element's head; none where there is too little of it.
    fn read(data: &[u8]) -> Result<Option<Self>, Fault> {
        let Some(&first) = data.first() else {
            return Ok(None);
        };
        let id_len = first.leading_zeros() as usize + 1;
        if id_len > 4 {
            return Err(Fault::Damaged("an element's ID", format!("byte {first:#04x}")));
        }
        let Some(id) = be(data, 0, id_len) else {
            return Ok(None);
        };
        let Some(&byte) = data.get(id_len) else {
            return Ok(None);
        };
        let size_len = byte.leading_zeros() as usize + 1;
        if size_len > 8 {
            return Err(Fault::Damaged("an element's size", format!("byte {byte:#04x}")));
        }
        let Some(size) = vint(data, id_len, size_len) else {
            return Ok(None);
        };
        let unknown = (1 << (7 * size_len)) - 1;
        Ok(Some(Self {
            id,
            head: id_len + size_len,
            size: (size != unknown).then_some(size),
        }))
    }

    fn skip(&self) -> Result<Step, Fault> {
        match self.size {
            Some(size) => Ok(Step::Skip(size.saturating_add(self.head as u64))),
            None => Err(Fault::Damaged(
                "an element of known size",
                format!("{:#x} of unknown size", self.id),
            )),
        }
    }
}

/// A number of `n` bytes without its length marker.
fn vint(data: &[u8], at: usize, n: usize) -> Option<u64> {
    Some(be(data, at, n)? & ((1 << (7 * n)) - 1))
}

/// The children of a whole element: ID, all of it, its body. Stops at damage.
fn children(mut body: &[u8]) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let element = Element::read(body).ok()??;
        let end = element.head.checked_add(usize::try_from(element.size?).ok()?)?;
        let whole = body.get(..end)?;
        body = &body[end..];
        Some((element.id, whole, &whole[element.head..]))
    })
}

fn child(body: &[u8], id: u64) -> Option<&[u8]> {
    children(body).find(|child| child.0 == id).map(|child| child.2)
}

/// A block's track and its time relative to the cluster.
fn block_head(block: &[u8]) -> Option<(u64, i16)> {
    let n = block.first()?.leading_zeros() as usize + 1;
    let track = if n <= 8 { vint(block, 0, n)? } else { return None };
    Some((track, be(block, n, 2)? as i16))
}

/// A cluster of unknown size that begins at `time`.
fn cluster_head(time: u64) -> Vec<u8> {
    let mut head = CLUSTER.to_be_bytes()[4..].to_vec();
    head.extend_from_slice(&UNKNOWN_SIZE);
    head.extend_from_slice(&[TIMESTAMP as u8, 0x88]);
    head.extend_from_slice(&time.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_elements() {
        let segment = Element::read(&[0x18, 0x53, 0x80, 0x67, 0x01, 255, 255, 255, 255, 255, 255, 255]);
        let segment = segment.unwrap().unwrap();
        assert_eq!((segment.id, segment.head, segment.size), (SEGMENT, 12, None));
        let simple = Element::read(&[0xA3, 0x41, 0x02]).unwrap().unwrap();
        assert_eq!(
            (simple.id, simple.head, simple.size),
            (SIMPLE_BLOCK, 3, Some(0x102))
        );
        assert!(Element::read(&[0xA3, 0x41]).unwrap().is_none());
        assert!(Element::read(&[0x00, 0x41]).is_err());
        assert!(Element::read(&[0xA3, 0x00]).is_err());
        assert!(Element::read(&[0xA3, 0xFF]).unwrap().unwrap().size.is_none());
    }

    #[test]
    fn blocks_and_children() {
        assert_eq!(block_head(&[0x81, 0xFF, 0xF9, 0x80]), Some((1, -7)));
        assert_eq!(block_head(&[0x81, 0xFF]), None);
        assert_eq!(block_head(&[0x00, 0xFF, 0xF9, 0x80]), None);
        let group = [0x9B, 0x81, 20, 0xA1, 0x84, 0x82, 0, 5, 0];
        assert_eq!(child(&group, BLOCK).and_then(block_head), Some((2, 5)));
        assert_eq!(child(&group, BLOCK_DURATION), Some(&[20][..]));
        assert_eq!(child(&group[..8], BLOCK), None);
    }
}
