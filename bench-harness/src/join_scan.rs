//! When a transport stream becomes decodable: PAT, then the PMT it names, then a random-access packet of the video
//! (ISO/IEC 13818-1, 2.4.3.4 and 2.4.4). Any slicing; anything else is skipped.

use crate::ts::PACKET;

const SYNC: u8 = 0x47;
/// Stream types that are video: MPEG-1, MPEG-2, MPEG-4, H.264, H.265, H.266.
const VIDEO: [u8; 6] = [0x01, 0x02, 0x10, 0x1b, 0x24, 0x33];

/// Looks for the first join point.
#[derive(Debug, Default)]
pub(crate) struct JoinScan {
    /// Less than one packet and its successor's first byte.
    held: Vec<u8>,
    map: Option<u16>,
    /// PIDs whose random access makes a join point.
    media: Vec<u16>,
}

impl JoinScan {
    /// True as soon as the stream so far holds all that a decoder needs.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.held.extend(bytes);
        let (mut at, mut found) = (0, false);
        // A packet counts when the next one begins where it ends, so that a 0x47 in a payload deceives nobody.
        while self.held.len() > at + PACKET && !found {
            match (self.held[at], self.held[at + PACKET]) {
                (SYNC, SYNC) => {
                    let mut packet = [0; PACKET];
                    packet.copy_from_slice(&self.held[at..at + PACKET]);
                    found = self.packet(&packet);
                    at += PACKET;
                }
                _ => at += 1,
            }
        }
        self.held.drain(..at);
        found
    }

    fn packet(&mut self, packet: &[u8; PACKET]) -> bool {
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        if pid == 0 {
            self.map = section(packet, 0x00).and_then(first_program).or(self.map);
        } else if let Some(section) = section(packet, 0x02).filter(|_| Some(pid) == self.map) {
            self.media = media(section);
        }
        let random_access = packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x40 != 0;
        random_access && self.media.contains(&pid)
    }
}

/// The body of the table section that starts in this packet, without its CRC. Sections over several packets are not
/// followed: a PAT or PMT that long does not occur in what is measured here.
fn section(packet: &[u8; PACKET], table: u8) -> Option<&[u8]> {
    let starts = packet[1] & 0x40 != 0 && packet[3] & 0x10 != 0;
    let payload = 4 + if packet[3] & 0x20 != 0 {
        1 + usize::from(packet[4])
    } else {
        0
    };
    let from = payload + 1 + usize::from(*packet.get(payload)?);
    let head = packet.get(from..from + 3)?;
    let length = usize::from(head[1] & 0x0f) << 8 | usize::from(head[2]);
    let body = packet.get(from + 8..from + 3 + length.checked_sub(4)?)?;
    (starts && head[0] == table).then_some(body)
}

fn first_program(body: &[u8]) -> Option<u16> {
    let mut programs = body.chunks_exact(4).filter(|program| program[..2] != [0, 0]);
    programs
        .next()
        .map(|program| u16::from(program[2] & 0x1f) << 8 | u16::from(program[3]))
}

/// The video PIDs of a program map; all its PIDs where it has no video.
fn media(body: &[u8]) -> Vec<u16> {
    let mut all = Vec::new();
    let descriptors = body
        .get(2..4)
        .map_or(0, |len| usize::from(len[0] & 0x0f) << 8 | usize::from(len[1]));
    let mut rest = body.get(4 + descriptors..).unwrap_or_default();
    while let [kind, pid_high, pid_low, len_high, len_low, after @ ..] = rest {
        all.push((*kind, u16::from(pid_high & 0x1f) << 8 | u16::from(*pid_low)));
        let skip = usize::from(len_high & 0x0f) << 8 | usize::from(*len_low);
        rest = after.get(skip..).unwrap_or_default();
    }
    let video = all.iter().filter(|(kind, _)| VIDEO.contains(kind));
    let video: Vec<u16> = video.map(|(_, pid)| *pid).collect();
    if video.is_empty() {
        all.iter().map(|(_, pid)| *pid).collect()
    } else {
        video
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ts::{GROUP, Mux};
    use proptest::prelude::*;

    fn stream() -> Vec<u8> {
        let mut mux = Mux::new(1, 100_000);
        (0..40).flat_map(|i| mux.group(i * 5_000, i)).collect()
    }

    /// Number of bytes after which the scan is satisfied, fed in pieces.
    fn satisfied_after(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut scan = JoinScan::default();
        bytes
            .chunks(piece)
            .position(|piece| scan.feed(piece))
            .map(|n| n * piece)
    }

    #[test]
    fn a_stream_from_its_start_is_decodable_at_its_fourth_packet() {
        assert_eq!(satisfied_after(&stream(), 1), Some(4 * PACKET));
    }

    #[test]
    fn without_tables_or_without_a_key_frame_there_is_no_join() {
        let bytes = stream();
        let from_second_group = &bytes[GROUP..10 * GROUP];
        assert_eq!(satisfied_after(from_second_group, 500), None);
        // The first picture at or after 100 ms, on its grid of 40 ms and 5 ms a group: the 24th group.
        let next_key = satisfied_after(&bytes[GROUP..], 1).unwrap();
        assert_eq!(next_key, 23 * GROUP + 4 * PACKET);
    }

    #[test]
    fn a_start_in_mid_packet_is_overcome() {
        assert_eq!(
            satisfied_after(&stream()[100..], 1).map(|at| (at + 100) % GROUP),
            Some(4 * PACKET)
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000), piece in 1usize..400) {
            let mut scan = JoinScan::default();
            bytes.chunks(piece).for_each(|piece| { scan.feed(piece); });
            prop_assert!(scan.held.len() <= PACKET);
        }

        #[test]
        fn hostile_tables_do_no_harm(table in proptest::collection::vec(any::<u8>(), 184)) {
            let mut packet = [0; PACKET];
            packet[..4].copy_from_slice(&[SYNC, 0x40, 0, 0x10]);
            packet[4..].copy_from_slice(&table);
            let mut scan = JoinScan { map: Some(0x1000), ..JoinScan::default() };
            scan.packet(&packet);
            packet[1] = 0x50;
            scan.packet(&packet);
        }
    }
}
