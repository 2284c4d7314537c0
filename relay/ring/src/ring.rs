//! One writer, many readers, over mirrored memory and a gate.

use std::io;
use std::sync::Arc;

use crate::gate::{Gate, Lapped, UNPINNED};
use crate::memory::Memory;

/// What writer and readers share. Cheap to clone; the memory goes when the last holder goes.
#[derive(Clone, Debug)]
pub struct Ring {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Memory,
    gate: Gate,
    window: u64,
}

impl Ring {
    /// The smallest ring: below this, page and step sizes would not leave a window.
    pub const CAPACITY_MIN: usize = 64 * 1024;

    /// A ring of `capacity` bytes (rounded up to a power of two) for `readers` readers, its positions starting at
    /// `start`, and its writer. A quarter of the memory is slack, three quarters are the window.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory or no address space for it.
    pub fn new(capacity: usize, readers: usize, start: u64) -> io::Result<(Writer, Ring)> {
        let capacity = capacity.max(Self::CAPACITY_MIN).next_power_of_two();
        let memory = Memory::new(capacity)?;
        let shared = Shared {
            memory,
            gate: Gate::new(readers, start),
            window: (capacity - capacity / 4) as u64,
        };
        let ring = Ring {
            shared: Arc::new(shared),
        };
        Ok((
            Writer {
                ring: ring.clone(),
                head: start,
                floor: start,
                granted: start,
            },
            ring,
        ))
    }

    /// The reader in `slot`. One reader per slot: two would share a pin, and one's letting go would unpin the other.
    ///
    /// # Panics
    ///
    /// When there is no such slot.
    pub fn reader(&self, slot: usize) -> Reader {
        assert!(
            slot < self.shared.gate.readers(),
            "reader slot {slot} of {}",
            self.shared.gate.readers()
        );
        Reader {
            ring: self.clone(),
            slot,
            pinned: UNPINNED,
            seen: 0,
        }
    }

    /// The end of what is published.
    pub fn head(&self) -> u64 {
        self.shared.gate.head()
    }

    /// The oldest position that may still be read.
    pub fn floor(&self) -> u64 {
        self.shared.gate.floor()
    }

    /// How many bytes behind the head a reader may be, in bytes.
    pub fn window(&self) -> u64 {
        self.shared.window
    }

    /// The memory it costs, in bytes.
    pub fn capacity(&self) -> usize {
        self.shared.memory.capacity()
    }
}

/// The one hand that writes.
#[derive(Debug)]
pub struct Writer {
    ring: Ring,
    head: u64,
    floor: u64,
    /// Up to here the floor has been raised and the pins been checked.
    granted: u64,
}

impl Writer {
    /// How far ahead the floor is raised at once, so that small appends share one look at the pins.
    const STEP: u64 = 8 * 1024;

    /// Appends as much of `bytes` as no pin forbids and publishes it. Returns how many bytes were taken: fewer than
    /// all only when a reader has held a pin for longer than the slack lasts.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let piece = (bytes.len() - taken).min(Self::STEP as usize);
            let piece = self.grant(piece as u64) as usize;
            if piece == 0 {
                break;
            }
            // SAFETY: `grant` said that [head, head + piece) is beyond every pin by less than the capacity, so no
            // reader's slice covers the memory behind it; `piece` is at most STEP, below the capacity.
            unsafe {
                self.shared()
                    .memory
                    .write(self.head, &bytes[taken..taken + piece])
            };
            self.head += piece as u64;
            taken += piece;
            self.shared().gate.publish(self.head);
        }
        taken
    }

    /// Whether the next [`Writer::append`] of `len` bytes will take all of them.
    pub fn ready(&mut self, len: usize) -> bool {
        len as u64 <= self.ring.shared.window && self.grant(len as u64) == len as u64
    }

    /// The next position to be written.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// What readers share.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Leaves a hole: the next byte will have position `to`, and nothing older may be read any more.
    ///
    /// # Panics
    ///
    /// When `to` is behind the head.
    pub fn skip_to(&mut self, to: u64) {
        assert!(to >= self.head, "skip to {to}, behind the head {}", self.head);
        self.floor = to;
        self.head = to;
        // Nothing is granted: the next append looks at the pins, which may still hold what the hole laps.
        self.granted = to;
        self.shared().gate.raise_floor(to);
        self.shared().gate.publish(to);
    }

    /// Raises the floor and looks at the pins until `want` bytes (or fewer, as the pins say) may be written.
    fn grant(&mut self, want: u64) -> u64 {
        if self.head + want <= self.granted {
            return want;
        }
        let shared = &self.ring.shared;
        let capacity = shared.memory.capacity() as u64;
        let granted = self.head + want + Self::STEP;
        self.floor = self.floor.max(granted.saturating_sub(shared.window));
        let oldest_pin = shared.gate.raise_floor(self.floor);
        self.granted = granted.min(oldest_pin.saturating_add(capacity));
        want.min(self.granted.saturating_sub(self.head))
    }

    fn shared(&self) -> &Shared {
        &self.ring.shared
    }
}

/// One worker's right to read. It pins the oldest position it is about to read, for all its listeners at once.
#[derive(Debug)]
pub struct Reader {
    ring: Ring,
    slot: usize,
    pinned: u64,
    /// The head as of the pin: what is published and may be sliced.
    seen: u64,
}

impl Reader {
    /// Pins `at` and everything after it; returns the head. The `&mut` sees to it that no slice of an earlier pin is
    /// still about.
    ///
    /// # Errors
    ///
    /// [`Lapped`] when the window has moved past `at`; nothing is pinned then.
    pub fn pin(&mut self, at: u64) -> Result<u64, Lapped> {
        self.pinned = UNPINNED;
        self.ring.shared.gate.pin(self.slot, at)?;
        self.pinned = at;
        self.seen = self.ring.head();
        Ok(self.seen)
    }

    /// Lets go.
    pub fn unpin(&mut self) {
        if self.pinned != UNPINNED {
            self.pinned = UNPINNED;
            self.ring.shared.gate.unpin(self.slot);
        }
    }

    /// `len` bytes from position `at` on.
    ///
    /// # Panics
    ///
    /// When that is not wholly between the pin and the head as of the pin.
    pub fn bytes(&self, at: u64, len: usize) -> &[u8] {
        assert!(
            self.pinned <= at && at.saturating_add(len as u64) <= self.seen,
            "[{at}, +{len}) is not within the pinned [{}, {})",
            self.pinned,
            self.seen
        );
        assert!(
            len <= self.ring.capacity(),
            "a slice of {len} bytes would lap the ring"
        );
        // SAFETY: pinned <= at, so the writer overwrites nothing in [at, at + len) until the pin is raised, which
        // needs `&mut self`; at + len <= head, so the bytes are initialised and published (Acquire); the double
        // mapping makes the stretch contiguous.
        unsafe { std::slice::from_raw_parts(self.ring.shared.memory.at(at), len) }
    }

    /// What is shared.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The oldest position that may be sliced; [`UNPINNED`] when none may.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// The head as of the last pin.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.unpin();
    }
}
