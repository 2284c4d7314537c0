//! The receive buffers: one ring of them, shared by all connections of a driver.
//!
//! The kernel takes a buffer when bytes are there and not before, so a few hundred serve any number of idle
//! connections. Ordinary memory, page aligned; touched only when used.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::ops::GROUP;

/// `IORING_REGISTER_PBUF_RING` wants a page-aligned address.
const PAGE: usize = 4096;
/// The kernel's limit on the entries of a buffer ring, and a floor below which receiving would crawl.
const ENTRIES_MAX: u16 = 1 << 15;
const ENTRIES_MIN: u16 = 2;

/// See the module. Freed only after [`Buffers::detach`], or never.
pub(super) struct Buffers {
    entries: Area,
    memory: Area,
    count: u16,
    size: u32,
    tail: u16,
    /// The kernel cannot reach the memory any more.
    detached: bool,
}

/// Zeroed memory by address: the kernel writes to parts of it while we read others, so no reference may span it.
struct Area {
    start: NonNull<u8>,
    layout: Layout,
}

impl Area {
    fn new(bytes: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes.max(PAGE), PAGE).map_err(io::Error::other)?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        let no_memory = || {
            io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("no {bytes} bytes for receive buffers"),
            )
        };
        Ok(Self {
            start: start.ok_or_else(no_memory)?,
            layout,
        })
    }

    fn free(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once: only `Buffers::drop` calls this.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl Buffers {
    /// As many buffers as there is memory for: `count` or, again and again, half of it.
    ///
    /// # Errors
    ///
    /// When not even two fit, or the kernel refuses them for another reason.
    pub(super) fn that_fit(ring: &IoUring, mut count: u16, size: u32) -> io::Result<Self> {
        loop {
            match Self::new(ring, count, size) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory && count > ENTRIES_MIN => count /= 2,
                other => return other,
            }
        }
    }

    /// `count` buffers (rounded up to a power of two) of `size` bytes, all of them the kernel's to fill.
    fn new(ring: &IoUring, count: u16, size: u32) -> io::Result<Self> {
        let count = count.clamp(ENTRIES_MIN, ENTRIES_MAX).next_power_of_two();
        let size = size.max(1);
        let entries = Area::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Area::new(usize::from(count) * size as usize)?;
        let mut buffers = Self {
            entries,
            memory,
            count,
            size,
            tail: 0,
            detached: true,
        };
        let address = buffers.entries.start.as_ptr() as u64;
        // SAFETY: the area is page aligned, holds `count` entries, and stays until `detach`: `drop` keeps it otherwise.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, GROUP, 0)
        }
        .map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("the kernel refuses {count} receive buffers: {e}"),
            )
        })?;
        buffers.detached = false;
        (0..count).for_each(|id| buffers.give(id));
        Ok(buffers)
    }

    /// The first `len` bytes of a buffer that a completion has named.
    pub(super) fn bytes(&self, id: u16, len: u32) -> &[u8] {
        let len = len.min(self.size) as usize;
        // SAFETY: `address` is inside the area, and `len` is at most the size of one buffer. The kernel does not write
        // to a buffer between the completion that names it and `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(id), len) }
    }

    /// Gives a buffer (back) to the kernel.
    pub(super) fn give(&mut self, id: u16) {
        let address = self.address(id) as u64;
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`, the number of entries in the area.
        let entry = unsafe { self.entries.start.as_ptr().cast::<BufRingEntry>().add(at) };
        // SAFETY: the entry is inside the area, aligned and zero-initialised, and the kernel reads it only after the
        // tail has passed it. No other reference to it exists. The setters leave the tail (in entry 0) alone.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.publish();
    }

    fn publish(&self) {
        // SAFETY: the area begins with initialised entry 0, whose last field is the tail.
        let tail = unsafe { BufRingEntry::tail(self.entries.start.as_ptr().cast()) };
        // SAFETY: aligned, inside the area, and only ever written here; the kernel only reads it, as an atomic.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, id: u16) -> *mut u8 {
        let id = usize::from(id & (self.count - 1));
        // SAFETY: `id` is below `count`, so the offset is inside the area.
        unsafe { self.memory.start.as_ptr().add(id * self.size as usize) }
    }

    /// Says that no operation is in flight, and takes the buffers from the kernel: they may be freed now.
    pub(super) fn detach(&mut self, ring: &IoUring) {
        self.detached |= ring.submitter().unregister_buf_ring(GROUP).is_ok();
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // Memory that the kernel may still write to is kept for ever rather than freed under its hands.
        if self.detached {
            self.entries.free();
            self.memory.free();
        }
    }
}
