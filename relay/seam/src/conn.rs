//! The name of a connection.

use std::fmt;

/// One connection, named by its driver: a slot and the slot's generation.
///
/// Never reused: a slot that is taken again has a new generation, so a late event for the old holder names
/// nobody. Slots are small and dense (below [`Conn::SLOTS_MAX`]), so both sides may index tables by them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn {
    slot: u32,
    generation: u32,
}

impl Conn {
    /// Slots are numbered below this; the io_uring driver packs a slot into 24 bits of `user_data`.
    pub const SLOTS_MAX: u32 = 1 << 24;

    /// A connection in `slot`, the `generation`-th holder of it. Called by drivers.
    ///
    /// # Panics
    ///
    /// When `slot` is not below [`Conn::SLOTS_MAX`].
    pub fn new(slot: u32, generation: u32) -> Self {
        assert!(
            slot < Self::SLOTS_MAX,
            "slot {slot} is outside the driver's table"
        );
        Self { slot, generation }
    }

    /// The table index.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// Which holder of the slot this is.
    pub fn generation(self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}#{}", self.slot, self.generation)
    }
}
