//! O1: what a listener gets is one contiguous run of its source's bytes, but for jumps, and these land on join points.

use crate::tape::{Packing, Tape, find_unit};

/// Bytes after which a stream that fits no tape is given up: more than any header, tag and two units.
const LOST_AFTER: usize = 80_000;

/// A place on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) life: u64,
    pub(crate) at: u64,
}

/// What a listener's payload has shown so far.
#[derive(Debug)]
pub(crate) struct Order {
    packing: Packing,
    /// Within a run it may land anywhere (metadata framing keeps its phase instead).
    anywhere: bool,
    place: Option<Place>,
    /// The last matched bytes: a break may lie a little before the first byte that differs.
    tail: Vec<u8>,
    pending: Vec<u8>,
    scratch: Vec<u8>,
    pub(crate) matched: u64,
    /// Times it went forward within a life.
    pub(crate) jumps: u64,
    /// Of these, those from the middle of a packet.
    pub(crate) torn: u64,
    /// Lives it has heard.
    pub(crate) lives: Vec<u64>,
    pub(crate) first: Option<Place>,
}

impl Order {
    pub(crate) fn new(packing: Packing, anywhere: bool) -> Self {
        Self {
            packing,
            anywhere: anywhere || packing == Packing::Lines,
            place: None,
            tail: Vec::new(),
            pending: Vec::new(),
            scratch: Vec::new(),
            matched: 0,
            jumps: 0,
            torn: 0,
            lives: Vec::new(),
            first: None,
        }
    }

    /// The next byte it expects, while it knows where it is.
    pub(crate) fn next(&self) -> Option<Place> {
        self.place.filter(|_| self.pending.is_empty())
    }

    /// Takes payload.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.pending.is_empty() && self.place.is_some() {
            let same = self.follow(bytes);
            self.pending.extend_from_slice(&bytes[same..]);
        } else {
            self.pending.extend_from_slice(bytes);
        }
        while !self.pending.is_empty() {
            if !self.resolve()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many bytes are those that come next.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let Some(place) = &mut self.place else { return 0 };
        self.scratch.clear();
        Tape {
            packing: self.packing,
            life: place.life,
        }
        .read(place.at, bytes.len(), &mut self.scratch);
        let same = if self.scratch == bytes {
            bytes.len()
        } else {
            self.scratch.iter().zip(bytes).take_while(|(a, b)| a == b).count()
        };
        place.at += same as u64;
        self.matched += same as u64;
        // Less than a unit: a whole one would be found again.
        let keep = self.packing.unit() - 1;
        self.tail
            .extend_from_slice(&bytes[same.saturating_sub(keep)..same]);
        let surplus = self.tail.len().saturating_sub(keep);
        self.tail.drain(..surplus);
        same
    }

    /// Finds the place of what does not follow from what was before. False: more is needed to tell.
    fn resolve(&mut self) -> Result<bool, String> {
        let known = self.tail.len();
        let mut bytes = std::mem::take(&mut self.tail);
        bytes.extend_from_slice(&self.pending);
        let Some((life, number, begin)) = find_unit(self.packing, &bytes) else {
            bytes.truncate(known);
            self.tail = bytes;
            if self.pending.len() > LOST_AFTER {
                return Err(format!(
                    "{} bytes after {:?} are on no tape",
                    self.pending.len(),
                    self.place
                ));
            }
            return Ok(false);
        };
        let landing = self.landing(&bytes, known, life, number, begin)?;
        self.arrive(landing.place, landing.left)?;
        self.matched -= landing.left;
        self.tail = Vec::new();
        self.pending.clear();
        let same = self.follow(&bytes[landing.begin..]);
        self.pending = bytes[landing.begin + same..].to_vec();
        Ok(true)
    }

    /// Where exactly it landed: `bytes[..known]` were matched before.
    fn landing(
        &self,
        bytes: &[u8],
        known: usize,
        life: u64,
        number: u64,
        begin: usize,
    ) -> Result<Landing, String> {
        let size = self.packing.unit() as u64;
        let header_from = |end: usize| {
            (0..=known.min(end))
                .rev()
                .find(|i| self.packing.is_header(&bytes[*i..end]))
        };
        if self.packing.is_join(number)
            && let Some(left) = header_from(begin)
        {
            let place = Place {
                life,
                at: number * size,
            };
            return Ok(Landing {
                place,
                begin,
                left: (known - left) as u64,
            });
        }
        let mut before = Vec::new();
        let at = number * size;
        let back = at.min(size - 1).min(begin as u64);
        Tape {
            packing: self.packing,
            life,
        }
        .read(at - back, back as usize, &mut before);
        let same = before
            .iter()
            .rev()
            .zip(bytes[..begin].iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        let start = begin - same;
        match header_from(start) {
            Some(left) if self.anywhere => {
                let place = Place {
                    life,
                    at: at - same as u64,
                };
                Ok(Landing {
                    place,
                    begin: start,
                    left: (known - left) as u64,
                })
            }
            // It was moved before it had heard a whole unit.
            _ if self.place.is_none() && self.is_glimpse(&bytes[..start]) => Ok(Landing {
                place: Place { life, at },
                begin,
                left: 0,
            }),
            _ => Err(format!(
                "from {:?} to unit {number} of life {life:x}: {} bytes between that are no header, or no join point",
                self.place,
                begin - known.min(begin)
            )),
        }
    }

    /// Whether these bytes are headers, less than a unit, and headers again.
    fn is_glimpse(&self, bytes: &[u8]) -> bool {
        let packing = self.packing;
        let from = (0..=bytes.len())
            .rev()
            .find(|end| packing.is_header(&bytes[..*end]))
            .unwrap_or(0);
        let to = bytes.len().min(from + packing.unit());
        (from..to).any(|end| packing.is_header(&bytes[end..]))
    }

    fn arrive(&mut self, to: Place, unmatched: u64) -> Result<(), String> {
        match self.place {
            None => self.first = Some(to),
            Some(from) if from.life == to.life => {
                let left = from.at.saturating_sub(unmatched);
                if to.at < left {
                    return Err(format!(
                        "it went back in life {:x}: from {left} to {}",
                        to.life, to.at
                    ));
                }
                let is_torn = self.packing == Packing::Ts && left % self.packing.unit() as u64 != 0;
                self.torn += u64::from(is_torn);
                self.jumps += 1;
            }
            Some(_) => {}
        }
        if self.lives.last() != Some(&to.life) {
            self.lives.push(to.life);
        }
        self.place = Some(to);
        Ok(())
    }
}

struct Landing {
    place: Place,
    /// Where it is in the bytes.
    begin: usize,
    /// How many of the bytes matched before belonged to the landing.
    left: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tape: Tape, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        tape.read(at, len, &mut bytes);
        bytes
    }

    const TAPE: Tape = Tape {
        packing: Packing::Ts,
        life: 3,
    };

    fn join(group: u64) -> u64 {
        (group * crate::tape::TS_GROUP + 2) * 188
    }

    #[test]
    fn a_run_from_a_join_point_is_fine_in_any_slices() {
        let bytes = read(TAPE, join(2), 20_000);
        for size in [1, 100, 188, 20_000] {
            let mut order = Order::new(Packing::Ts, false);
            bytes.chunks(size).for_each(|piece| order.feed(piece).unwrap());
            assert_eq!((order.matched, order.jumps), (20_000, 0));
            assert_eq!(order.first, Some(Place { life: 3, at: join(2) }));
        }
    }

    #[test]
    fn a_jump_forward_to_a_join_point_is_counted_and_one_elsewhere_is_wrong() {
        let mut order = Order::new(Packing::Ts, false);
        order.feed(&read(TAPE, join(0), 188 * 5)).unwrap();
        order.feed(&read(TAPE, join(3), 188 * 5)).unwrap();
        assert_eq!(order.jumps, 1);
        assert!(order.feed(&read(TAPE, join(5) + 188, 1000)).is_err());
    }

    #[test]
    fn a_jump_from_the_middle_of_a_packet_is_torn() {
        let mut order = Order::new(Packing::Ts, false);
        order.feed(&read(TAPE, join(0), 188 * 5)).unwrap();
        order.feed(&read(TAPE, join(3), 1000)).unwrap();
        assert_eq!((order.jumps, order.torn), (1, 0));
        order.feed(&read(TAPE, join(5), 1000)).unwrap();
        assert_eq!((order.jumps, order.torn), (2, 1));
    }

    #[test]
    fn going_back_twice_the_same_or_foreign_bytes_are_wrong() {
        let mut order = Order::new(Packing::Ts, false);
        order.feed(&read(TAPE, join(3), 1000)).unwrap();
        assert!(order.feed(&read(TAPE, join(2), 1000)).is_err());
        let mut order = Order::new(Packing::Ts, false);
        order.feed(&read(TAPE, join(3), 1000)).unwrap();
        assert!(order.feed(&[b'x'; LOST_AFTER + 1]).is_err());
        let mut order = Order::new(Packing::Mp3, false);
        let tape = Tape {
            packing: Packing::Mp3,
            life: 1,
        };
        order.feed(&read(tape, 0, 3840)).unwrap();
        assert!(order.feed(&read(tape, 1920, 3840)).is_err());
    }

    #[test]
    fn a_jump_at_the_end_of_a_unit_is_one_jump() {
        let mut order = Order::new(Packing::Ts, false);
        order.feed(&read(TAPE, join(0), 188 * 5)).unwrap();
        order.feed(&read(TAPE, join(3), 188 * 5)).unwrap();
        assert_eq!((order.jumps, order.matched), (1, 188 * 10));
    }

    #[test]
    fn who_is_moved_before_the_first_unit_is_over_may_begin_anew() {
        let tag = [b"ID3\x04\0\0\0\0\x01\0".as_slice(), &[0; 128]].concat();
        let tape = Tape {
            packing: Packing::Mp3,
            life: 1,
        };
        let moved = |heard: usize| {
            let mut order = Order::new(Packing::Mp3, true);
            let bytes = [
                tag.clone(),
                read(tape, 384, heard),
                tag.clone(),
                read(tape, 38_400, 1000),
            ]
            .concat();
            order.feed(&bytes).map(|()| order.first)
        };
        assert_eq!(moved(220), Ok(Some(Place { life: 1, at: 38_400 })));
        assert_eq!(moved(1000), Ok(Some(Place { life: 1, at: 384 })));
        let mut order = Order::new(Packing::Mp3, true);
        assert!(
            order
                .feed(&[vec![b'x'; 400], read(tape, 384, 1000)].concat())
                .is_err()
        );
    }

    #[test]
    fn metadata_framing_may_land_anywhere() {
        let tape = Tape {
            packing: Packing::Mp3,
            life: 1,
        };
        let mut order = Order::new(Packing::Mp3, true);
        order.feed(&read(tape, 0, 1000)).unwrap();
        order.feed(&read(tape, 50_001, 1000)).unwrap();
        assert_eq!((order.jumps, order.matched), (1, 2000));
    }
}
