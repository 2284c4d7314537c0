//! How the granule positions of each codec are time: the mapping each codec's specification states.

use crate::bytes::{be, le};

const NS: u128 = 1_000_000_000;

/// How granule positions are time, and how many packets are headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codec {
    units: Units,
    /// Packets before the first with sound or picture; none where it is not said.
    pub(super) headers: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// Samples, of which the first `skip` are before time zero.
    Samples { per_s: u64, skip: u64 },
    /// The number of a key frame, shifted, and the pictures since.
    Frames { num: u64, den: u64, shift: u32 },
}

impl Codec {
    /// The codec by the first packet of its stream; none where it is none that we know.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let samples = |per_s, skip, headers: u64| {
            let units = Units::Samples { per_s, skip };
            let headers = u32::try_from(headers).ok();
            (per_s > 0).then_some(Codec { units, headers })
        };
        if packet.starts_with(b"\x01vorbis") {
            samples(le(packet, 12, 4)?, 0, 3)
        } else if packet.starts_with(b"OpusHead") {
            samples(48_000, le(packet, 10, 2)?, 2)
        } else if packet.starts_with(b"\x7FFLAC") {
            // Zero says that the number of headers is not known.
            let more = be(packet, 7, 2)?;
            let codec = samples(be(packet, 27, 3)? >> 4, 0, 1 + more)?;
            Some(Codec {
                headers: codec.headers.filter(|_| more > 0),
                ..codec
            })
        } else if packet.starts_with(b"Speex   ") {
            samples(le(packet, 36, 4)?, 0, 2 + le(packet, 68, 4)?)
        } else if packet.starts_with(b"\x80theora") {
            let (num, den) = (be(packet, 22, 4)?, be(packet, 26, 4)?);
            let units = Units::Frames {
                num,
                den,
                shift: (be(packet, 40, 2)? >> 5 & 31) as u32,
            };
            (num > 0 && den > 0).then_some(Codec {
                units,
                headers: Some(3),
            })
        } else {
            None
        }
    }

    /// When a granule position is, in ns.
    pub(super) fn ns(self, granule: u64) -> u64 {
        let ns = match self.units {
            Units::Samples { per_s, skip } => {
                (u128::from(granule.saturating_sub(skip)) * NS).div_ceil(u128::from(per_s))
            }
            Units::Frames { num, den, shift } => {
                let frames = (granule >> shift) + (granule & ((1 << shift) - 1));
                (u128::from(frames) * u128::from(den) * NS).div_ceil(u128::from(num))
            }
        };
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// A granule position, so many ns later.
    pub(super) fn later(self, granule: u64, ns: u64) -> u64 {
        let units = match self.units {
            Units::Samples { per_s, .. } => u128::from(ns) * u128::from(per_s) / NS,
            Units::Frames { num, den, shift } => {
                (u128::from(ns) * u128::from(num) / (u128::from(den) * NS)) << shift
            }
        };
        granule.wrapping_add(units as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granules_of_each_codec() {
        let mut opus = b"OpusHead\x01\x02\x38\x01".to_vec();
        opus.resize(19, 0);
        let opus = Codec::read(&opus).unwrap();
        assert_eq!(
            (opus.headers, opus.ns(312 + 480), opus.ns(0)),
            (Some(2), 10_000_000, 0)
        );
        assert_eq!(opus.later(100, 10_000_000), 580);
        let mut theora = b"\x80theora".to_vec();
        theora.resize(42, 0);
        theora[25] = 25;
        theora[29] = 1;
        theora[40..42].copy_from_slice(&[0, 6 << 5]);
        let theora = Codec::read(&theora).unwrap();
        assert_eq!(theora.ns(24 << 6 | 1), 1_000_000_000);
        assert_eq!(theora.later(24 << 6 | 1, 2_000_000_000), 74 << 6 | 1);
        assert_eq!(Codec::read(b"\x01vorbis"), None);
        assert_eq!(Codec::read(b"fishead\0"), None);
    }
}
