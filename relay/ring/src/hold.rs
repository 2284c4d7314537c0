//! Holds: what the kernel still reads when the batch is over.
//!
//! A zero-copy send leaves references to the ring's pages in the kernel, for as long as a peer takes to acknowledge.
//! A pin for that long would stop the writer; a hold does not (see [`crate::Writer::append`]).

use crate::gate::SEGMENTS;
use crate::ring::Ring;

/// One worker's account of what it has given to the kernel. Counted by segments, told to the writer by segments.
#[derive(Debug)]
pub struct Holder {
    ring: Ring,
    slot: usize,
    /// What is held at each place. Two laps at most: before the writer comes round to a third, it has exchanged the
    /// memory of the first, or seen that nothing of it is held.
    laps: [[Lap; 2]; SEGMENTS],
    /// What the gate was told, by place.
    told: [u64; SEGMENTS],
    /// Bytes held.
    held: u64,
}

/// How many holds touch a segment; free when there are none.
#[derive(Clone, Copy, Debug, Default)]
struct Lap {
    segment: u64,
    count: u32,
}

impl Holder {
    pub(crate) fn new(ring: Ring, slot: usize) -> Self {
        Self {
            ring,
            slot,
            laps: Default::default(),
            told: [0; SEGMENTS],
            held: 0,
        }
    }

    /// The kernel gets `len` bytes from position `at` on. To be called before it does, while the pin of the reader in
    /// the same slot protects `[at, at + len)`; the pin may go afterwards.
    ///
    /// # Panics
    ///
    /// When `len` is more than the ring's capacity, or when no pin can have protected what is held.
    pub fn hold(&mut self, at: u64, len: u32) {
        assert!(
            len as usize <= self.ring.capacity(),
            "a hold of {len} bytes would lap the ring"
        );
        self.held += u64::from(len);
        for segment in self.segments(at, len) {
            let place = self.ring.place(segment);
            let lap = self.room(place, segment);
            lap.segment = segment;
            lap.count += 1;
            self.tell(place);
        }
    }

    /// The kernel is done with what was held by the same numbers. In any order.
    ///
    /// # Panics
    ///
    /// When fewer bytes than `len` are held.
    pub fn release(&mut self, at: u64, len: u32) {
        assert!(
            u64::from(len) <= self.held,
            "{len} bytes are released, {} are held",
            self.held
        );
        self.held -= u64::from(len);
        for segment in self.segments(at, len) {
            let place = self.ring.place(segment);
            // Laps whose memory has been exchanged are forgotten when there is need of room.
            if let Some(lap) = self.laps[place]
                .iter_mut()
                .find(|lap| lap.count > 0 && lap.segment == segment)
            {
                lap.count -= 1;
                self.tell(place);
            }
        }
    }

    /// How many bytes the kernel has not said it is done with; what two sends share counts twice.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// What is held of.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    fn segments(&self, at: u64, len: u32) -> std::ops::Range<u64> {
        let length = self.ring.segment() as u64;
        if len == 0 {
            return 0..0;
        }
        at / length..(at + u64::from(len)).div_ceil(length)
    }

    /// The lap that counts `segment`, or one that is free or no longer matters.
    fn room(&mut self, place: usize, segment: u64) -> &mut Lap {
        let since = self.ring.gate().since(place);
        let laps = &mut self.laps[place];
        for lap in laps.iter_mut().filter(|lap| lap.segment < since) {
            lap.count = 0;
        }
        let same = laps
            .iter()
            .position(|lap| lap.count > 0 && lap.segment == segment);
        let free = || laps.iter().position(|lap| lap.count == 0);
        let Some(i) = same.or_else(free) else {
            panic!("segment {segment} is held without a pin: {laps:?} are held, too");
        };
        &mut laps[i]
    }

    /// Tells the writer which is the newest segment held at `place`, if that has changed.
    fn tell(&mut self, place: usize) {
        let below = self.laps[place]
            .iter()
            .filter(|lap| lap.count > 0)
            .map(|lap| lap.segment + 1)
            .max()
            .unwrap_or(0);
        if self.told[place] != below {
            self.told[place] = below;
            self.ring.gate().hold(self.slot, place, below);
        }
    }
}

impl Drop for Holder {
    /// Lets go of everything: to be dropped only when the kernel is done, or when nobody minds what it sends.
    fn drop(&mut self) {
        for place in 0..SEGMENTS {
            self.ring.gate().hold(self.slot, place, 0);
        }
    }
}
