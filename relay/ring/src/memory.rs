//! Memory mapped twice in a row, so that a stretch that crosses the end of the ring is still one slice.

use std::io;
#[cfg(not(miri))]
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// `capacity` bytes, visible at `[0, capacity)` and again at `[capacity, 2 * capacity)`.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; who may touch which bytes is decided
// by the gate, and `Memory` hands out raw pointers only.
unsafe impl Send for Memory {}
// SAFETY: as above; `&Memory` gives pointers and lengths, never references.
unsafe impl Sync for Memory {}

#[cfg(not(miri))]
impl Memory {
    /// Maps a fresh memory file of `capacity` bytes (a power of two, at least a page) twice.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};

        assert!(
            capacity.is_power_of_two() && capacity >= 4096,
            "ring capacity {capacity} is not a power of two"
        );
        let file = memfd_create(c"totality-ring", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&file, i64::try_from(capacity).map_err(io::Error::other)?)?;
        let once = NonZeroUsize::new(capacity).ok_or(io::ErrorKind::InvalidInput)?;
        let twice = NonZeroUsize::new(capacity * 2).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh anonymous reservation at an address of the kernel's choice disturbs no other mapping.
        let base = unsafe { mmap_anonymous(None, twice, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        // From here on the drop of `memory` returns the reservation, whatever fails.
        let memory = Self {
            base: base.cast(),
            capacity,
        };
        for half in 0..2 {
            let at = NonZeroUsize::new(base.as_ptr() as usize + half * capacity);
            let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: MAP_FIXED replaces one half of our own reservation and nothing else; the file is `capacity` long.
            unsafe { mmap(at, once, prot, flags, &file, 0)? };
        }
        Ok(memory)
    }

    /// Copies `bytes` to position `at`.
    ///
    /// # Safety
    ///
    /// `bytes` is at most the capacity long, and nobody reads the positions written while this runs.
    pub(crate) unsafe fn write(&self, at: u64, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.capacity);
        let to = self.at(at);
        // SAFETY: `to` is in the first half, so `to + len` stays in the double mapping; the caller promises that
        // nobody reads there, and `bytes` is a Rust slice, which never lies in this mapping's unread part.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
}

#[cfg(not(miri))]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the reservation; no pointer into it outlives the `Arc` that holds us.
        let _ = unsafe { nix::sys::mman::munmap(self.base.cast(), self.capacity * 2) };
    }
}

/// Miri knows no double mapping: there the two halves are plain memory, written twice.
#[cfg(miri)]
impl Memory {
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let twice = vec![0u8; capacity * 2].into_boxed_slice();
        let base = NonNull::new(Box::into_raw(twice).cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, capacity })
    }

    pub(crate) unsafe fn write(&self, at: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let offset = (at as usize + i) & (self.capacity - 1);
            // SAFETY: the offset is below the capacity; the caller promises that nobody reads there.
            unsafe { self.base.as_ptr().add(offset).write(*byte) };
            // SAFETY: the mirror of the same byte, below twice the capacity.
            unsafe { self.base.as_ptr().add(offset + self.capacity).write(*byte) };
        }
    }
}

#[cfg(miri)]
impl Drop for Memory {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.capacity * 2);
        // SAFETY: made by `Box::into_raw` in `new` with just this length, and dropped once.
        drop(unsafe { Box::from_raw(slice) });
    }
}

impl Memory {
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where position `at` lies; at least `capacity` bytes from there on are mapped.
    pub(crate) fn at(&self, at: u64) -> *mut u8 {
        let offset = (at as usize) & (self.capacity - 1);
        // SAFETY: the offset is below the capacity, inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }
}
