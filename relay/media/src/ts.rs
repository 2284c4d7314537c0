//! MPEG-2 transport stream (ISO/IEC 13818-1), in packets of 188 bytes, or 192 and 204 with something behind them.
//!
//! Header: the program association table and the program map tables, packed anew, so that each is whole and nothing
//! else is in its packets. Join point: the packet in which a video access unit begins that a decoder may start with:
//! marked as random access point, or shown to be one by its first bytes. Without video: any packet in which a unit
//! of the first audio stream begins. Packets of other streams that continue a unit begun before are dropped by every
//! demultiplexer without a word.
//!
//! A random access point of H.264 may be a recovery point rather than an IDR picture (open groups of pictures, intra
//! refresh). A decoder can start there, but FFmpeg remarks on the references it misses ("mmco: unref short failure").
//! Such streams have no better point, so it is taken.

mod psi;
mod video;

use crate::step::{Found, Parser, Step, need, until};
use psi::{Assembler, Program, Section};
use video::Probe;

const PACKET: usize = 188;
const SYNC: u8 = 0x47;
/// Distances between sync bytes that are tried.
const UNITS: [usize; 3] = [188, 192, 204];

/// Programs followed; the tables of more are not kept.
const PROGRAMS_MAX: usize = 16;

/// Scanner state for transport streams.
#[derive(Default, Debug)]
pub(crate) struct Ts {
    /// Distance between packets; `None` while searching.
    unit: Option<usize>,
    pat: Assembler,
    pat_section: Section,
    programs: Vec<Program>,
    /// One per PMT packet identifier, in the order of `programs`, without repetition.
    maps: Vec<(u16, Assembler)>,
    /// The stream that decides on join points.
    lead: Option<psi::Lead>,
    /// An access unit that is being looked into, and where its packet began.
    probe: Option<(u64, Probe)>,
    parameters_seen: bool,
}

/// How many sync bytes in their places are proof of them.
const SYNCS_SURE: usize = 3;

/// How many bytes before and after a cut [`packet_cut`] likes to see.
pub const PACKET_REACH: u64 = 3 * UNITS[2] as u64;

/// Where in a packet a stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCut {
    /// How far apart packets begin, in bytes.
    pub unit: usize,
    /// How many bytes complete the packet; 0 for a cut between two packets.
    pub rest: usize,
}

/// Where in a packet the bytes `around` are cut at `cut`; `None` where the sync bytes do not tell. It needs no state: a
/// listener may be cut off anywhere.
///
/// # Panics
///
/// When the cut is outside.
pub fn packet_cut(around: &[u8], cut: usize) -> Option<PacketCut> {
    assert!(cut <= around.len(), "a cut at {cut} of {} bytes", around.len());
    let fits = |unit: usize, done: &usize| {
        let mut syncs = ((cut + unit - done) % unit..around.len()).step_by(unit);
        syncs.len() >= SYNCS_SURE && syncs.all(|at| around[at] == SYNC)
    };
    UNITS.into_iter().find_map(|unit| {
        let done = (0..unit).find(|done| fits(unit, done))?;
        let rest = (unit - done) % unit;
        Some(PacketCut { unit, rest })
    })
}

/// The fields of a packet that matter here.
struct Packet<'a> {
    pid: u16,
    starts_unit: bool,
    is_random_access: bool,
    counter: u8,
    payload: &'a [u8],
}

impl Parser for Ts {
    fn step(&mut self, data: &[u8], at: u64, found: &mut Found<'_>) -> Step {
        if self.unit.is_some() && data[0] != SYNC {
            self.lose();
            found.stats.resyncs += 1;
        }
        let unit = match self.unit {
            Some(unit) => unit,
            None => match self.hunt(data, found) {
                Ok(unit) => unit,
                Err(step) => return step,
            },
        };
        need!(data, PACKET);
        match packet(&data[..PACKET]) {
            Some(packet) => self.packet(packet, at, unit, found),
            None => found.stats.bad_units += 1,
        }
        Step::Take(unit as u64)
    }
}

impl Ts {
    fn lose(&mut self) {
        self.unit = None;
        self.probe = None;
        self.pat.reset();
        self.maps.iter_mut().for_each(|(_, assembler)| assembler.reset());
    }

    /// Three sync bytes at equal distances are a stream.
    fn hunt(&mut self, data: &[u8], found: &mut Found<'_>) -> Result<usize, Step> {
        if data[0] != SYNC {
            return Err(found.skip(until(data, &[SYNC])));
        }
        let seen = 2 * UNITS[2] + 1;
        if data.len() < seen {
            return Err(Step::Need(seen));
        }
        self.unit = UNITS
            .into_iter()
            .find(|unit| data[*unit] == SYNC && data[2 * unit] == SYNC);
        self.unit
            .ok_or_else(|| found.skip(1 + until(&data[1..], &[SYNC])))
    }

    fn packet(&mut self, packet: Packet<'_>, at: u64, unit: usize, found: &mut Found<'_>) {
        if packet.pid == 0 {
            self.association(packet, at, unit, found);
        } else if self.lead.is_some_and(|lead| lead.pid == packet.pid) {
            self.elementary(packet, at, unit, found);
        } else if self.maps.iter().any(|(pid, _)| *pid == packet.pid) {
            self.map(packet, at, unit, found);
        }
    }

    fn association(&mut self, packet: Packet<'_>, at: u64, unit: usize, found: &mut Found<'_>) {
        let mut latest = None;
        self.pat
            .feed(&packet, found.stats, |section| latest = Some(section));
        let Some(section) =
            latest.filter(|section| section.is_current(psi::PAT) && !section.same(&self.pat_section))
        else {
            return;
        };
        let before = std::mem::take(&mut self.programs);
        let known = |(number, pid): (u16, u16)| {
            let old = before.iter().find(|old| (old.number, old.pid) == (number, pid));
            old.cloned().unwrap_or(Program::new(number, pid))
        };
        self.programs = section.programs().take(PROGRAMS_MAX).map(known).collect();
        self.pat_section = section;
        let mut maps: Vec<(u16, Assembler)> = Vec::new();
        for program in &self.programs {
            if maps.iter().all(|(pid, _)| *pid != program.pid) {
                let old = self.maps.iter().position(|(pid, _)| *pid == program.pid);
                maps.push((
                    program.pid,
                    old.map(|old| self.maps.swap_remove(old).1).unwrap_or_default(),
                ));
            }
        }
        self.maps = maps;
        self.tables_changed(at + unit as u64, unit, found);
    }

    fn map(&mut self, packet: Packet<'_>, at: u64, unit: usize, found: &mut Found<'_>) {
        let Some((_, assembler)) = self.maps.iter_mut().find(|(pid, _)| *pid == packet.pid) else {
            return;
        };
        let programs = &mut self.programs;
        let mut changed = false;
        assembler.feed(&packet, found.stats, |section| {
            let own =
                |program: &&mut Program| program.pid == packet.pid && program.number == section.number();
            let program = programs
                .iter_mut()
                .find(own)
                .filter(|_| section.is_current(psi::PMT));
            if let Some(program) = program.filter(|program| !section.same(&program.map)) {
                program.map = section;
                changed = true;
            }
        });
        if changed {
            self.tables_changed(at + unit as u64, unit, found);
        }
    }

    /// The header is given as soon as one program is known, and again whenever a table says something new.
    fn tables_changed(&mut self, at: u64, unit: usize, found: &mut Found<'_>) {
        self.probe = None;
        let lead = psi::lead(&self.programs);
        if lead.map(|lead| lead.pid) != self.lead.map(|lead| lead.pid) {
            self.parameters_seen = false;
        }
        self.lead = lead;
        if self.programs.iter().all(|program| program.map.is_empty()) {
            return;
        }
        let mut header = self.pat_section.packets(0, unit);
        for program in self.programs.iter().filter(|program| !program.map.is_empty()) {
            header.extend(program.map.packets(program.pid, unit));
        }
        found.header(at, &header, 0);
    }

    fn elementary(&mut self, packet: Packet<'_>, at: u64, unit: usize, found: &mut Found<'_>) {
        let Some(lead) = self.lead else { return };
        let end = at + unit as u64;
        if packet.starts_unit {
            self.probe = None;
            if packet.is_random_access || !lead.is_video {
                return found.join(at, end);
            }
            self.probe = video::Probe::new(lead.codec, packet.payload).map(|probe| (at, probe));
        }
        self.look(packet, end, found);
    }

    /// Looks into the access unit until its first bytes have shown what it is.
    fn look(&mut self, packet: Packet<'_>, end: u64, found: &mut Found<'_>) {
        let Some((at, probe)) = &mut self.probe else {
            return;
        };
        let Some(verdict) = probe.feed(packet.payload) else {
            return;
        };
        let at = *at;
        self.probe = None;
        self.parameters_seen |= verdict == video::Verdict::Parameters;
        // A key frame without its parameters will not do where others bring theirs.
        if verdict == video::Verdict::Parameters || (verdict == video::Verdict::Key && !self.parameters_seen)
        {
            found.join(at, end);
        }
    }
}

/// Reads a packet (2.4.3.2); `None` when it is damaged. Scrambled payload is taken for none.
fn packet(bytes: &[u8]) -> Option<Packet<'_>> {
    let (head, body) = bytes.split_at(4);
    let has_adaptation = head[3] & 0x20 != 0;
    let (adaptation, rest) = match has_adaptation {
        true => body[1..].split_at_checked(usize::from(body[0]))?,
        false => (&[][..], body),
    };
    let clear = head[3] & 0xC0 == 0;
    let payload = if head[3] & 0x10 != 0 && clear { rest } else { &[] };
    (head[1] & 0x80 == 0).then_some(Packet {
        pid: u16::from_be_bytes([head[1] & 0x1F, head[2]]),
        starts_unit: head[1] & 0x40 != 0,
        is_random_access: adaptation.first().is_some_and(|flags| flags & 0x40 != 0),
        counter: head[3] & 0x0F,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_packet_is_told_wherever_it_was_cut() {
        for unit in UNITS {
            let packet = |i: u8| [vec![SYNC], vec![i; unit - 1]].concat();
            let stream: Vec<u8> = (0..6).flat_map(packet).collect();
            for cut in 0..=stream.len() {
                let rest = (unit - cut % unit) % unit;
                assert_eq!(packet_cut(&stream, cut), Some(PacketCut { unit, rest }));
                // Wherever one begins to look.
                let from = cut.min(unit + 7);
                assert_eq!(
                    packet_cut(&stream[from..], cut - from),
                    Some(PacketCut { unit, rest })
                );
            }
        }
        assert_eq!(packet_cut(&[0; 2000], 1000), None);
        assert_eq!(packet_cut(&[], 0), None);
        assert_eq!(packet_cut(&[&[SYNC; 1][..], &[0; 187]].concat(), 50), None);
    }

    #[test]
    fn damaged_packets() {
        let mut bytes = [0xFF; PACKET];
        bytes[..5].copy_from_slice(&[0x47, 0x41, 0x00, 0x30, 183]);
        let fits = packet(&bytes).unwrap();
        assert!(fits.payload.is_empty() && fits.starts_unit && fits.is_random_access && fits.pid == 0x100);
        bytes[4] = 184;
        assert!(packet(&bytes).is_none());
        bytes[4] = 255;
        assert!(packet(&bytes).is_none());
        bytes[1] |= 0x80;
        bytes[4] = 0;
        assert!(packet(&bytes).is_none());
    }
}
