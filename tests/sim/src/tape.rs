//! Numbered streams: every unit (packet, frame, line) says which tape it is from and which unit it is, so that any
//! byte a listener gets can be traced to its position.

/// What a unit says of itself begins with this.
const MAGIC: &[u8; 8] = b"#SIMTAPE";
/// [`MAGIC`], the life and the number in hexadecimal.
const STAMP: usize = 40;
/// Units between two tables, and so between two join points, of a transport stream.
pub(crate) const TS_GROUP: u64 = 32;

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// A transport stream of one sound: joins at the first packet of a group, header PAT and PMT.
    Ts,
    /// MP3, 128 kbit/s at 48 kHz: joins at every frame, no header; may carry ICY metadata.
    Mp3,
    /// Lines that nobody knows: joins anywhere.
    Lines,
}

impl Packing {
    pub(crate) fn unit(self) -> usize {
        match self {
            Packing::Ts => 188,
            Packing::Mp3 => 384,
            Packing::Lines => 64,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Packing::Ts => "video/mp2t",
            Packing::Mp3 => "audio/mpeg",
            Packing::Lines => "text/x-log",
        }
    }

    /// Where its stamp begins in a unit.
    fn stamp_at(self) -> usize {
        match self {
            Packing::Ts => 7,
            Packing::Mp3 => 4,
            Packing::Lines => 0,
        }
    }

    /// Whether a newcomer may start with unit `number`.
    pub(crate) fn is_join(self, number: u64) -> bool {
        self != Packing::Ts || number % TS_GROUP == 2
    }

    /// Whether these bytes are what a newcomer may be given before a join point.
    pub(crate) fn is_header(self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let len = match self {
                Packing::Ts => ts_table_len(bytes),
                Packing::Mp3 => id3_len(bytes),
                Packing::Lines => None,
            };
            match len {
                Some(len) if len <= bytes.len() => bytes = &bytes[len..],
                _ => return false,
            }
        }
        true
    }
}

/// A table packet without our stamp, as a scanner packs it anew.
fn ts_table_len(bytes: &[u8]) -> Option<usize> {
    let is_table =
        bytes.len() >= 188 && bytes[0] == 0x47 && matches!((bytes[1] & 0x1f, bytes[2]), (0 | 1, 0));
    (is_table && bytes[3] & 0x20 == 0).then_some(188)
}

fn id3_len(bytes: &[u8]) -> Option<usize> {
    let is_tag = bytes.len() >= 10 && bytes.starts_with(b"ID3");
    is_tag.then(|| 10 + bytes[6..10].iter().fold(0, |n, b| n << 7 | usize::from(*b)))
}

/// One life of a source: what it would send if it lived for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tape {
    pub(crate) packing: Packing,
    pub(crate) life: u64,
}

impl Tape {
    /// Unit `number`, into `out` (of the unit's size).
    pub(crate) fn write_unit(self, number: u64, out: &mut [u8]) {
        fill(out, number.wrapping_mul(31).wrapping_add(self.life * 13));
        match self.packing {
            Packing::Ts => ts_packet(number, out),
            Packing::Mp3 => out[..4].copy_from_slice(&[0xff, 0xfb, 0x94, 0x00]),
            Packing::Lines => out[63] = b'\n',
        }
        let stamp = &mut out[self.packing.stamp_at()..][..STAMP];
        stamp[..8].copy_from_slice(MAGIC);
        hex(self.life, &mut stamp[8..24]);
        hex(number, &mut stamp[24..40]);
    }

    /// The bytes from position `at` on, `len` of them, appended to `out`.
    pub(crate) fn read(self, mut at: u64, len: usize, out: &mut Vec<u8>) {
        let size = self.packing.unit() as u64;
        let mut unit = [0u8; 384];
        let unit = &mut unit[..size as usize];
        let end = at + len as u64;
        while at < end {
            self.write_unit(at / size, unit);
            let from = (at % size) as usize;
            let to = (size as usize).min(from + (end - at) as usize);
            out.extend_from_slice(&unit[from..to]);
            at += (to - from) as u64;
        }
    }
}

/// The first whole unit in `bytes`, if there is one: its tape's life, its number, and where it begins.
pub(crate) fn find_unit(packing: Packing, bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (size, stamp_at) = (packing.unit(), packing.stamp_at());
    let mut unit = [0u8; 384];
    let mut from = 0;
    while let Some(at) = bytes[from..]
        .windows(8)
        .position(|w| w == MAGIC)
        .map(|i| from + i)
    {
        from = at + 1;
        let Some(begin) = at.checked_sub(stamp_at) else {
            continue;
        };
        let Some(found) = bytes.get(begin..begin + size) else {
            continue;
        };
        let stamp = &found[stamp_at..][..STAMP];
        let (Some(life), Some(number)) = (unhex(&stamp[8..24]), unhex(&stamp[24..40])) else {
            continue;
        };
        Tape { packing, life }.write_unit(number, &mut unit[..size]);
        if found == &unit[..size] {
            return Some((life, number, begin));
        }
    }
    None
}

fn hex(mut n: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

fn unhex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Printable bytes that differ from unit to unit: never a sync byte of any format.
fn fill(out: &mut [u8], salt: u64) {
    const TURN: usize = 37;
    const PATTERN: [u8; 384 + TURN] = {
        let mut pattern = [0; 384 + TURN];
        let mut i = 0;
        while i < pattern.len() {
            pattern[i] = b'a' + ((i * i + i / 7) % TURN % 26) as u8;
            i += 1;
        }
        pattern
    };
    let from = (salt % TURN as u64) as usize;
    out.copy_from_slice(&PATTERN[from..from + out.len()]);
}

fn ts_packet(number: u64, out: &mut [u8]) {
    const STUFFED: usize = 7 + STAMP;
    let (group, place) = (number / TS_GROUP, number % TS_GROUP);
    let (pid, unit_begins, counter) = match place {
        0 => (0x000u16, true, group),
        1 => (0x100, true, group),
        _ => (0x101, place == 2, number - 2 * (group + 1)),
    };
    out[..3].copy_from_slice(&[0x47, u8::from(unit_begins) << 6 | (pid >> 8) as u8, pid as u8]);
    out[3] = 0x30 | (counter & 15) as u8;
    // An adaptation field that holds private data: our stamp.
    out[4..7].copy_from_slice(&[(STAMP + 2) as u8, 0x02, STAMP as u8]);
    let section: &[u8] = match place {
        0 => &[0x00, 0xb0, 0x0d, 0, 1, 0xc1, 0, 0, 0, 1, 0xe1, 0x00],
        1 => &[
            0x02, 0xb0, 0x12, 0, 1, 0xc1, 0, 0, 0xe1, 0x01, 0xf0, 0, 0x0f, 0xe1, 0x01, 0xf0, 0,
        ],
        2 => {
            let pes = [0, 0, 1, 0xc0, 0, 0, 0x80, 0, 0];
            return out[STUFFED..STUFFED + pes.len()].copy_from_slice(&pes);
        }
        _ => return,
    };
    let body = &mut out[STUFFED..];
    body.fill(0xff);
    body[0] = 0;
    body[1..1 + section.len()].copy_from_slice(section);
    body[1 + section.len()..][..4].copy_from_slice(&crc32_mpeg(section).to_be_bytes());
}

/// CRC-32/MPEG-2 (ISO/IEC 13818-1, annex A).
fn crc32_mpeg(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_wherever_reading_begins() {
        for packing in [Packing::Ts, Packing::Mp3, Packing::Lines] {
            let tape = Tape { packing, life: 7 };
            let size = packing.unit() as u64;
            for at in [0, 1, size - 1, size, 5 * size + 17] {
                let mut bytes = Vec::new();
                tape.read(at, 3 * size as usize, &mut bytes);
                let first = at.div_ceil(size);
                assert_eq!(
                    find_unit(packing, &bytes),
                    Some((7, first, (first * size - at) as usize)),
                    "{packing:?}"
                );
            }
        }
    }

    #[test]
    fn a_bit_more_or_less_is_another_unit() {
        let tape = Tape {
            packing: Packing::Lines,
            life: 1,
        };
        let mut bytes = Vec::new();
        tape.read(0, 64, &mut bytes);
        bytes[50] ^= 1;
        assert_eq!(find_unit(Packing::Lines, &bytes), None);
    }
}
