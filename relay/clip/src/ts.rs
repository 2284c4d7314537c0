//! MPEG-2 transport streams (ISO/IEC 13818-1): paced by PCR, looped by shifting every clock in them.

use std::collections::HashMap;

use crate::bytes::be;
use crate::clock::{Clock, STEP_MAX_NS};
use crate::error::Fault;
use crate::format::{Format, Input, SCAN_MAX, Step};
use crate::frames::Counter;
use crate::out::Out;
use crate::span::{self, Span};

/// A packet, bytes.
const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// From one packet to the next: plain, with a time stamp before each (camcorders, Blu-ray), with parity behind each.
/// Only the packets are passed on.
const STRIDES: [usize; 3] = [PACKET, 192, 204];
/// PCR base, PTS and DTS: 33 bits of 90 kHz.
const BITS: u32 = 33;
const PER_S: u64 = 90_000;
const MASK: u64 = (1 << BITS) - 1;
/// Stuffing: its counters mean nothing.
const NULL_PID: u16 = 0x1FFF;
/// The duration of an element that is alone on its PID.
const ALONE: u64 = PER_S / 25;
/// When the clock's PID has been silent for so many packets (about 1 MB), another PCR takes over.
const CLOCK_SILENT_MAX: u32 = 5_000;

/// A transport stream.
pub(crate) struct Ts {
    pids: HashMap<u16, Pid>,
    clock: Clock,
    source: Option<Source>,
    silent: u32,
    /// What is added to every time stamp in this round.
    shift: u64,
    synced: bool,
    stride: usize,
    scanned: u64,
    timed: bool,
}

/// Whose time stamps are the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Pcr(u16),
    /// Until a PCR is seen.
    Dts(u16),
}

/// What is known of one PID.
#[derive(Default)]
struct Pid {
    /// Added to the continuity counter in this round; none before its first packet.
    cc_shift: Option<u8>,
    cc_last: Option<u8>,
    pcr: Option<Span>,
    dts: Option<Span>,
    frames: Counter,
    audio: bool,
}

impl Default for Ts {
    fn default() -> Self {
        Self {
            pids: HashMap::new(),
            clock: Clock::new(PER_S, BITS, 0),
            source: None,
            silent: 0,
            shift: 0,
            synced: false,
            stride: PACKET,
            scanned: 0,
            timed: false,
        }
    }
}

impl Format for Ts {
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault> {
        // Out of sync the two next packets are looked at as well.
        let wanted = if self.synced {
            self.stride
        } else {
            2 * STRIDES[2] + 1
        };
        if input.data.len() < wanted && !input.ended {
            return Ok(Step::More);
        }
        let marks = |at: usize| input.data.get(at).is_none_or(|&byte| byte == SYNC);
        let stride = if self.synced {
            Some(self.stride)
        } else {
            STRIDES.into_iter().find(|&n| marks(n) && marks(2 * n))
        };
        let Some(stride) = stride.filter(|_| marks(0)) else {
            return self.scan(input.data, out);
        };
        let Some(bytes) = input.data.get(..PACKET) else {
            return Ok(Step::More);
        };
        let mut packet = [0; PACKET];
        packet.copy_from_slice(bytes);
        (self.synced, self.stride, self.scanned) = (true, stride, 0);
        self.packet(&mut packet);
        out.put(self.clock.due_ns(), &packet);
        Ok(Step::Took(stride.min(input.data.len())))
    }

    fn end_round(&mut self) -> Result<(), Fault> {
        if !self.timed {
            return Err(Fault::NoClock);
        }
        let round = self.pids.values().map(Pid::round).max().unwrap_or(ALONE);
        self.shift = (self.shift + round) & MASK;
        self.pids.values_mut().for_each(Pid::next_round);
        self.synced = false;
        self.scanned = 0;
        Ok(())
    }
}

impl Ts {
    /// Looks further for a packet.
    fn scan(&mut self, data: &[u8], out: &mut Out) -> Result<Step, Fault> {
        self.synced = false;
        let n = data[1..]
            .iter()
            .position(|&byte| byte == SYNC)
            .map_or(data.len(), |n| n + 1);
        self.scanned += n as u64;
        out.skip(n);
        if self.scanned > SCAN_MAX {
            Err(Fault::NotThis(self.scanned))
        } else {
            Ok(Step::Took(n))
        }
    }

    /// Shifts what is in a packet and looks at its clocks.
    fn packet(&mut self, packet: &mut [u8; PACKET]) {
        let pid = u16::from(packet[1] & 0x1F) << 8 | u16::from(packet[2]);
        let broken = packet[1] & 0x80 != 0;
        if pid == NULL_PID || broken {
            return;
        }
        self.silent = self.silent.saturating_add(1);
        self.pids.entry(pid).or_default().count(packet);
        if let Some(at) = pcr_at(packet) {
            self.pcr(pid, packet, at);
        }
        self.payload(pid, packet);
    }

    fn pcr(&mut self, pid: u16, packet: &mut [u8; PACKET], at: usize) {
        let raw = pcr_base(packet, at);
        span::see(&mut self.pids.entry(pid).or_default().pcr, raw, BITS);
        let shifted = (raw + self.shift) & MASK;
        set_pcr_base(packet, at, shifted);
        if packet[5] & 0x08 != 0 && usize::from(packet[4]) >= 13 {
            let original = pcr_base(packet, at + 6);
            set_pcr_base(packet, at + 6, (original + self.shift) & MASK);
        }
        self.tick(Source::Pcr(pid), shifted);
    }

    fn payload(&mut self, pid: u16, packet: &mut [u8; PACKET]) {
        let start = packet[1] & 0x40 != 0;
        let scrambled = packet[3] & 0xC0 != 0;
        let Some(at) = payload_at(packet).filter(|_| !scrambled) else {
            return;
        };
        let state = self.pids.entry(pid).or_default();
        let Some(pes) = start.then(|| Pes::parse(&packet[at..])).flatten() else {
            if state.audio {
                state.frames.feed(&packet[at..]);
            }
            return;
        };
        let Some(dts) = pes.shift(&mut packet[at..], self.shift) else {
            return;
        };
        span::see(&mut state.dts, dts, BITS);
        state.audio = pes.audio;
        state.frames.restart();
        if pes.audio {
            state
                .frames
                .feed(packet.get(at + pes.header..).unwrap_or_default());
        }
        self.tick(Source::Dts(pid), (dts + self.shift) & MASK);
    }

    /// A time stamp moves the clock if it comes from the clock's source. A PCR replaces a DTS, and a clock that
    /// has fallen silent.
    fn tick(&mut self, from: Source, raw: u64) {
        let better = match (self.source, from) {
            (None, _) | (Some(Source::Dts(_)), Source::Pcr(_)) => true,
            (Some(Source::Pcr(_)), Source::Pcr(_)) => self.silent > CLOCK_SILENT_MAX,
            _ => false,
        };
        if better && self.source != Some(from) {
            self.source = Some(from);
            self.clock.forget();
        }
        if self.source == Some(from) {
            self.silent = 0;
            self.timed = true;
            self.clock.see(raw);
        }
    }
}

impl Pid {
    /// Continues the counter of the round before; inside a round, what the file does is kept.
    fn count(&mut self, packet: &mut [u8; PACKET]) {
        let counter = packet[3] & 0x0F;
        let step = u8::from(packet[3] & 0x10 != 0);
        let shift = *self.cc_shift.get_or_insert_with(|| match self.cc_last {
            Some(last) => last.wrapping_add(step).wrapping_sub(counter) & 0x0F,
            None => 0,
        });
        let shifted = counter.wrapping_add(shift) & 0x0F;
        packet[3] = packet[3] & 0xF0 | shifted;
        self.cc_last = Some(shifted);
    }

    /// How far this PID must be shifted to follow itself. An audio packet of many frames is measured by its
    /// frames, or taken to be as long as the longest.
    fn round(&self) -> u64 {
        let limit = STEP_MAX_NS / 1_000_000_000 * PER_S;
        let pcr = self
            .pcr
            .as_ref()
            .map_or(0, |span| span.reach() + span.step(ALONE, limit));
        let dts = self.dts.as_ref().map_or(0, |span| {
            let mean = span.step(ALONE, limit);
            let audio = || {
                self.frames
                    .ticks(PER_S)
                    .unwrap_or(mean.max(span.longest()))
                    .min(limit)
            };
            span.reach() + if self.audio { audio() } else { mean }
        });
        pcr.max(dts)
    }

    fn next_round(&mut self) {
        *self = Pid {
            cc_last: self.cc_last,
            ..Pid::default()
        };
    }
}

/// Where the payload begins; none where there is none.
fn payload_at(packet: &[u8; PACKET]) -> Option<usize> {
    let at = match packet[3] >> 4 & 3 {
        1 => 4,
        3 => 5 + usize::from(packet[4]),
        _ => return None,
    };
    (at < PACKET).then_some(at)
}

/// Where the PCR is; none where there is none.
fn pcr_at(packet: &[u8; PACKET]) -> Option<usize> {
    let adaptation = packet[3] & 0x20 != 0 && packet[4] >= 7 && usize::from(packet[4]) < PACKET - 4;
    (adaptation && packet[5] & 0x10 != 0).then_some(6)
}

fn pcr_base(packet: &[u8; PACKET], at: usize) -> u64 {
    be(packet, at, 5).unwrap_or_default() >> 7
}

/// Writes the 33 bits; the extension (27 MHz) behind them stays.
fn set_pcr_base(packet: &mut [u8; PACKET], at: usize, base: u64) {
    let rest = u64::from(packet[at + 4] & 0x7F);
    packet[at..at + 5].copy_from_slice(&(base << 7 | rest).to_be_bytes()[3..]);
}

/// The header of a PES packet, where it has a time stamp.
struct Pes {
    has_dts: bool,
    audio: bool,
    /// Where its payload begins.
    header: usize,
}

impl Pes {
    /// A PES packet with a PTS; none for sections, for streams without the optional header (ISO/IEC 13818-1,
    /// 2.4.3.6) and where the header does not fit in this packet.
    fn parse(data: &[u8]) -> Option<Self> {
        let id = be(data, 0, 4).filter(|id| id >> 8 == 1)? & 0xFF;
        let plain = matches!(id, 0xBC | 0xBE | 0xBF | 0xF0 | 0xF1 | 0xF2 | 0xF8 | 0xFF);
        let flags = be(data, 6, 2)?;
        if plain || flags >> 14 != 2 || flags & 0x80 == 0 {
            return None;
        }
        let has_dts = flags & 0x40 != 0;
        let header = 9 + usize::from(*data.get(8)?);
        let needed = if has_dts { 19 } else { 14 };
        let fits = header >= needed && data.len() >= needed;
        fits.then_some(Self {
            has_dts,
            audio: matches!(id, 0xC0..=0xDF | 0xBD),
            header,
        })
    }

    /// Shifts PTS and DTS; answers the DTS (the PTS where there is none) as it was.
    fn shift(&self, data: &mut [u8], shift: u64) -> Option<u64> {
        let pts = shift_stamp(data, 9, shift)?;
        if self.has_dts {
            shift_stamp(data, 14, shift)
        } else {
            Some(pts)
        }
    }
}

/// Shifts the time stamp of 5 bytes (4 bits of prefix, 33 bits in three parts with marker bits between).
fn shift_stamp(data: &mut [u8], at: usize, shift: u64) -> Option<u64> {
    let raw = be(data, at, 5)?;
    let stamp = raw >> 33 & 7;
    let stamp = stamp << 30 | (raw >> 17 & 0x7FFF) << 15 | raw >> 1 & 0x7FFF;
    let shifted = (stamp + shift) & MASK;
    let parts = (shifted >> 30) << 33 | (shifted >> 15 & 0x7FFF) << 17 | (shifted & 0x7FFF) << 1;
    let kept = raw & 0xF1_0001_0001;
    data.get_mut(at..at + 5)?
        .copy_from_slice(&(kept | parts).to_be_bytes()[3..]);
    Some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pid: u16, counter: u8, payload: bool) -> [u8; PACKET] {
        let mut packet = [0xFF; PACKET];
        let control = if payload { 0x10 } else { 0x20 };
        packet[..5].copy_from_slice(&[SYNC, (pid >> 8) as u8, pid as u8, control | counter, 183]);
        if !payload {
            packet[5] = 0;
        }
        packet
    }

    #[test]
    fn stamps_are_shifted_over_the_wrap_and_keep_their_marks() {
        let mut data = [0x21, 0xFF, 0xFF, 0xFF, 0xFF].to_vec();
        data[0] = 0x2F;
        assert_eq!(shift_stamp(&mut data, 0, 1), Some(MASK));
        assert_eq!(data, [0x21, 0x00, 0x01, 0x00, 0x01]);
        assert_eq!(shift_stamp(&mut data, 0, MASK), Some(0));
        assert_eq!(data, [0x2F, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(shift_stamp(&mut data, 1, 1), None);
    }

    #[test]
    fn a_pcr_is_shifted_over_the_wrap_and_keeps_its_extension() {
        let mut bytes = packet(0x100, 0, false);
        bytes[5] = 0x10;
        bytes[6..12].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x2B]);
        let mut ts = Ts {
            shift: 90_000,
            ..Ts::default()
        };
        ts.packet(&mut bytes);
        assert_eq!(pcr_base(&bytes, 6), 89_999);
        assert_eq!((bytes[10] & 0x7F, bytes[11]), (0x7F, 0x2B));
        assert_eq!(ts.source, Some(Source::Pcr(0x100)));
    }

    #[test]
    fn counters_go_on_over_the_seam() {
        let mut pid = Pid::default();
        for counter in [5, 6, 6, 7] {
            let mut bytes = packet(0x100, counter, true);
            pid.count(&mut bytes);
            assert_eq!(bytes[3], 0x10 | counter);
        }
        pid.next_round();
        let mut seen = Vec::new();
        for counter in [5, 6, 6, 7] {
            let mut bytes = packet(0x100, counter, true);
            pid.count(&mut bytes);
            seen.push(bytes[3] & 15);
        }
        assert_eq!(seen, [8, 9, 9, 10]);
        pid.next_round();
        let mut bytes = packet(0x100, 3, false);
        pid.count(&mut bytes);
        assert_eq!(
            bytes[3],
            0x20 | 10,
            "a packet without payload repeats the counter"
        );
    }

    #[test]
    fn sections_and_torn_headers_are_no_pes() {
        assert!(Pes::parse(&[0, 0, 0xB0, 0x0D, 0, 1, 0xC1, 0, 0]).is_none());
        assert!(Pes::parse(&[0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5, 0x21]).is_none());
        assert!(Pes::parse(&[]).is_none());
        assert!(Pes::parse(&[0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]).is_some());
    }
}
