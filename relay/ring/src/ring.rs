//! One writer, many readers, over mirrored memory and a gate.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gate::{Gate, Lapped, SEGMENTS, UNPINNED};
use crate::hold::Holder;
use crate::memory::{Memory, page};

/// What writer and readers share. Cheap to clone; the memory goes when the last holder goes.
#[derive(Clone, Debug)]
pub struct Ring {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: u64,
    memory: Memory,
    gate: Gate,
    window: u64,
}

impl Ring {
    /// The smallest ring: below this, page and step sizes would not leave a window.
    pub const CAPACITY_MIN: usize = 64 * 1024;

    /// A ring of `capacity` bytes (rounded up to a power of two) for `readers` readers, its positions starting at
    /// `start`, and its writer. A quarter of the memory is slack, three quarters are the window. Hosts with pages
    /// of more than 4 KiB round up to [`SEGMENTS`] pages. From 16 MiB on it lies in huge pages, where the host has set
    /// some aside.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory or no address space for it.
    pub fn new(capacity: usize, readers: usize, start: u64) -> io::Result<(Writer, Ring)> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let capacity = capacity
            .max(Self::CAPACITY_MIN)
            .max(SEGMENTS * page())
            .next_power_of_two();
        let memory = Memory::new(capacity, SEGMENTS)?;
        let shared = Shared {
            id: IDS.fetch_add(1, Ordering::Relaxed),
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
                cleared: start,
                torn: 0,
                #[cfg(feature = "poison")]
                poisoned: start,
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
        self.check(slot);
        Reader {
            ring: self.clone(),
            slot,
            pinned: UNPINNED,
            seen: 0,
        }
    }

    /// The holder in `slot`, for what the kernel reads on after that slot's reader has let go. One holder per slot,
    /// as with readers.
    ///
    /// # Panics
    ///
    /// When there is no such slot.
    pub fn holder(&self, slot: usize) -> Holder {
        self.check(slot);
        Holder::new(self.clone(), slot)
    }

    /// What tells this ring from every other that the process has ever had.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// How often memory was renewed. Who registers [`Ring::mapping`] with the kernel asks this first, and asks again
    /// after each [`Reader::pin`]: if it has changed, what was written since may lie in memory that is not
    /// registered. What was written before does not: see [`Writer::append`].
    pub fn version(&self) -> u64 {
        self.shared.gate.version()
    }

    /// Start and length in bytes (twice the capacity) of the memory. It is mapped for as long as the ring is about;
    /// what may be read of it, pins and holds say.
    pub fn mapping(&self) -> (NonNull<u8>, usize) {
        (self.shared.memory.base(), 2 * self.capacity())
    }

    /// Where position `at` lies in the mapping, from its start on; below the capacity.
    pub fn offset(&self, at: u64) -> usize {
        self.shared.memory.offset(at)
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

    /// The length of a segment in bytes: what holds are counted by, and what is renewed at once.
    pub fn segment(&self) -> usize {
        self.shared.memory.segment()
    }

    /// Where in the memory a segment lies.
    pub(crate) fn place(&self, segment: u64) -> usize {
        (segment % (self.capacity() / self.segment()) as u64) as usize
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    fn check(&self, slot: usize) {
        let readers = self.shared.gate.readers();
        assert!(slot < readers, "reader slot {slot} of {readers}");
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
    /// Up to here nobody reads or holds what the segments lap, and nobody will.
    cleared: u64,
    /// Segments, by place, whose exchange has failed: to be exchanged before they are written again, held or not.
    torn: u32,
    /// Up to here what may no longer be read has been spoiled.
    #[cfg(feature = "poison")]
    poisoned: u64,
}

impl Writer {
    /// How far ahead the floor is raised at once, so that small appends share one look at the pins.
    const STEP: u64 = 8 * 1024;

    /// Appends as much of `bytes` as no pin forbids and publishes it. Returns how many bytes were taken: fewer than
    /// all only when a reader has kept a pin for longer than the slack lasts.
    ///
    /// It does not wait for a [`Holder`]: where memory is still held, other memory is put in its place, and
    /// [`Ring::version`] goes up before the head does. The held bytes stay as they are for whoever has references
    /// to their pages. So does what was written of the segment already: it is in the old memory and in the new.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let piece = (bytes.len() - taken).min(Self::STEP as usize);
            let piece = self.grant(piece as u64) as usize;
            if piece == 0 {
                break;
            }
            // SAFETY: `grant` said that [head, head + piece) is beyond every pin by less than the capacity, so no
            // reader's slice covers the memory behind it, and that nobody holds that memory; `piece` is at most STEP,
            // below the capacity.
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
        let granted = self.head + want + Self::STEP;
        self.floor = self.floor.max(granted.saturating_sub(self.ring.window()));
        let oldest_pin = self.ring.gate().raise_floor(self.floor);
        #[cfg(feature = "poison")]
        self.poison(oldest_pin);
        let unpinned = oldest_pin.saturating_add(self.ring.capacity() as u64);
        // What was granted stays so: whoever might hold it now would have had to pin it then.
        self.granted = self.clear(granted.min(unpinned), unpinned).max(self.granted);
        want.min(self.granted.saturating_sub(self.head))
    }

    /// Sees to it that nobody holds what is lapped up to `end`; returns how far that is so. The pins have been looked
    /// at: no reader reads what is lapped before `unpinned`.
    fn clear(&mut self, end: u64, unpinned: u64) -> u64 {
        let length = self.ring.segment() as u64;
        while self.cleared.max(self.head) < end {
            let at = self.cleared.max(self.head);
            let segment = at / length;
            let next = (segment + 1) * length;
            let alone = next <= unpinned;
            let place = self.ring.place(segment);
            let stale = self.ring.gate().held(place) || self.torn & 1 << place != 0;
            if stale && !(alone && self.renew(segment)) {
                return at;
            }
            if !alone {
                // A reader may still hold what it reads: to be looked at again.
                return end;
            }
            self.cleared = next;
        }
        end
    }

    /// Puts other memory in place of what a segment laps. Only when no reader is in there, nor can come: after this
    /// nobody holds anything of an earlier lap.
    fn renew(&mut self, segment: u64) -> bool {
        let shared = &self.ring.shared;
        let length = self.ring.segment();
        let written = self.head.saturating_sub(segment * length as u64);
        let place = self.ring.place(segment);
        // SAFETY: no pin and no floor lets a reader into the earlier lap, so only what was written of this segment is
        // read; nobody but us writes.
        let renewed = unsafe { shared.memory.renew(place, (written as usize).min(length)) };
        if renewed.is_ok() {
            shared.gate.renewed(place, segment);
            self.torn &= !(1 << place);
        } else {
            // The two halves of the mirror may be different memory now.
            self.torn |= 1 << place;
        }
        renewed.is_ok()
    }

    /// Spoils what lies below the floor and every pin, save for segments that are held.
    #[cfg(feature = "poison")]
    fn poison(&mut self, oldest_pin: u64) {
        let ring = &self.ring;
        let length = ring.segment() as u64;
        // Older than this, the memory is in use again.
        let mut at = self
            .poisoned
            .max(self.head.saturating_sub(ring.capacity() as u64));
        let end = self.floor.min(oldest_pin);
        while at < end {
            let segment = at / length;
            let next = end.min((segment + 1) * length);
            if !ring.gate().held(ring.place(segment)) {
                // SAFETY: nobody may pin below the floor, nobody has pinned below `end`, nobody holds the segment, and
                // what is less than a capacity behind the head is not written yet; a segment is below the capacity.
                unsafe { ring.shared.memory.fill(at, (next - at) as usize, crate::POISON) };
            }
            at = next;
        }
        self.poisoned = self.poisoned.max(end);
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

    /// The account of what goes to the kernel under this reader's pin. One for each reader.
    pub fn holder(&self) -> Holder {
        self.ring.holder(self.slot)
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
