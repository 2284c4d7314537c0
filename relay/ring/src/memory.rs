//! Memory mapped twice in a row, so that a stretch that crosses the end of the ring is still one slice.
//!
//! It is made of segments, each a memory file of its own. So one can be exchanged while the kernel still reads from
//! it: the pages that it reads live on until it lets go of them. (A registration keeps all pages of its version for as
//! long as one send from it is not acknowledged; the driver keeps one old version of a ring at most.)
//!
//! Large rings lie in huge pages where the host has set some aside (`vm.nr_hugepages`), segment by segment and as far
//! as they last.

#[cfg(not(miri))]
use std::fs::File;
use std::io;
#[cfg(not(miri))]
use std::num::NonZeroUsize;
use std::ptr::NonNull;

#[cfg(not(miri))]
use nix::sys::memfd::{MFdFlags, memfd_create};

/// `capacity` bytes, visible at `[0, capacity)` and again at `[capacity, 2 * capacity)`.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    capacity: usize,
    segment: usize,
    /// What is to be unmapped in the end: where it begins, and how many bytes.
    #[cfg(not(miri))]
    reserved: (NonNull<u8>, usize),
    /// Whether to ask for huge pages.
    #[cfg(not(miri))]
    huge: bool,
}

/// The length of a huge page in bytes.
#[cfg(not(miri))]
const HUGE: usize = 2 << 20;

/// A ring of fewer huge pages has ordinary ones: segments of more than an eighth would leave the writer too little
/// room between a pinned window and the segment that it wants to renew.
#[cfg(not(miri))]
const HUGE_PAGES_MIN: usize = 8;

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; who may touch which bytes is decided
// by the gate, and `Memory` hands out raw pointers only.
unsafe impl Send for Memory {}
// SAFETY: as above; `&Memory` gives pointers and lengths, never references.
unsafe impl Sync for Memory {}

#[cfg(not(miri))]
impl Memory {
    /// Maps `capacity` bytes (a power of two) of fresh memory twice, in `segments` segments (a power of two) of at
    /// least a page; in fewer where pages are huge.
    pub(crate) fn new(capacity: usize, segments: usize) -> io::Result<Self> {
        assert!(
            capacity.is_power_of_two() && segments.is_power_of_two() && capacity / segments >= page(),
            "a ring of {capacity} bytes in {segments} segments"
        );
        let large = (capacity / segments).max(HUGE);
        let first = (capacity / HUGE >= HUGE_PAGES_MIN).then(|| huge_file(large));
        let huge = matches!(first, Some(Ok(_)));
        // From here on the drop of `memory` returns the reservation, whatever fails.
        let memory = Self::reserve(capacity, if huge { large } else { capacity / segments }, huge)?;
        let mut first = first.and_then(Result::ok);
        for place in 0..capacity / memory.segment {
            let file = first.take().map_or_else(|| memory.fresh(), Ok)?;
            // SAFETY: nobody knows of this memory yet.
            unsafe { memory.lay(place, &file)? };
        }
        Ok(memory)
    }

    /// Takes address space, with nothing in it.
    fn reserve(capacity: usize, segment: usize, huge: bool) -> io::Result<Self> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
        let align = if huge { HUGE } else { page() };
        let length = NonZeroUsize::new(capacity * 2 + align).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh anonymous reservation at an address of the kernel's choice disturbs no other mapping.
        let start = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let start = start.cast::<u8>();
        // SAFETY: less than `align` bytes are left out, and so many more than needed were reserved.
        let base = unsafe { start.add(start.align_offset(align)) };
        Ok(Self {
            base,
            capacity,
            segment,
            reserved: (start, length.get()),
            huge,
        })
    }

    /// Puts fresh memory at `place`, in both halves. Its first `keep` bytes are those that were there before; what
    /// has references to the old memory keeps it as it was.
    ///
    /// # Errors
    ///
    /// When the kernel has no memory for it, or too many mappings. Then the two halves may be different memory
    /// beyond the first `keep` bytes, until a later call succeeds.
    ///
    /// # Safety
    ///
    /// Until this has succeeded nobody touches the segment beyond its first `keep` bytes, and nobody writes those.
    pub(crate) unsafe fn renew(&self, place: usize, keep: usize) -> io::Result<()> {
        assert!(keep <= self.segment, "{keep} of {} bytes", self.segment);
        let file = self.fresh()?;
        // Where there is no memory we want to know now, not by a signal at the first touch.
        allocate(&file, self.segment)?;
        if keep > 0 {
            let from = self.at((place * self.segment) as u64);
            // SAFETY: inside the mapping, and the caller promises that nobody writes there.
            let kept = unsafe { std::slice::from_raw_parts(from, keep) };
            preload(&file, self.segment, kept)?;
        }
        // SAFETY: whoever reads the kept bytes finds the same in the new memory: the kernel exchanges a mapping while
        // it keeps all others from looking. Nobody touches the rest.
        unsafe { self.lay(place, &file) }
    }

    /// A memory file as long as a segment.
    fn fresh(&self) -> io::Result<File> {
        if self.huge
            && let Ok(file) = huge_file(self.segment)
        {
            return Ok(file);
        }
        memory_file(self.segment, MFdFlags::empty())
    }

    /// Maps `file` at `place`, in both halves. The kernel looks at its limits before it takes away what was there.
    ///
    /// # Safety
    ///
    /// What readers may be reading there is in the file too.
    unsafe fn lay(&self, place: usize, file: &File) -> io::Result<()> {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap};
        let length = NonZeroUsize::new(self.segment).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        for half in 0..2 {
            let at = self.base.as_ptr() as usize + half * self.capacity + place * self.segment;
            // SAFETY: MAP_FIXED replaces one segment of our own reservation and nothing else, as `place` is below
            // the number of segments; the file is as long as a segment.
            unsafe { mmap(NonZeroUsize::new(at), length, prot, flags, file, 0)? };
        }
        Ok(())
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
        let (start, length) = self.reserved;
        // SAFETY: start and length are those of the reservation; no pointer into it outlives the `Arc` that holds us.
        let _ = unsafe { nix::sys::mman::munmap(start.cast(), length) };
    }
}

#[cfg(not(miri))]
fn memory_file(length: usize, flags: MFdFlags) -> io::Result<File> {
    let file = memfd_create(c"totality-ring", MFdFlags::MFD_CLOEXEC | flags)?;
    let file = File::from(file);
    file.set_len(length as u64)?;
    Ok(file)
}

/// A file of huge pages. They are taken at once: one that lacks a page is found out by a signal at its first touch.
#[cfg(not(miri))]
fn huge_file(length: usize) -> io::Result<File> {
    let file = memory_file(length, MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB)?;
    allocate(&file, length)?;
    Ok(file)
}

/// Takes memory for all of a file.
#[cfg(not(miri))]
fn allocate(file: &File, length: usize) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let length = i64::try_from(length).map_err(io::Error::other)?;
    Ok(fallocate(file, FallocateFlags::empty(), 0, length)?)
}

/// Puts `bytes` at the start of a memory file of `length` bytes, by a mapping: files of huge pages cannot be written.
#[cfg(not(miri))]
fn preload(file: &File, length: usize, bytes: &[u8]) -> io::Result<()> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    assert!(bytes.len() <= length, "{} of {length} bytes", bytes.len());
    let whole = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice disturbs no other; the file is `length` long.
    let to = unsafe { mmap(None, whole, prot, MapFlags::MAP_SHARED, file, 0)? };
    // SAFETY: the mapping is at least as long as `bytes`, nobody else knows of it, and its memory is allocated.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast().as_ptr(), bytes.len()) };
    // SAFETY: just what was mapped above, and no pointer into it is left.
    unsafe { munmap(to, length)? };
    Ok(())
}

/// Miri knows no double mapping: there the two halves are plain memory, written twice.
#[cfg(miri)]
impl Memory {
    pub(crate) fn new(capacity: usize, segments: usize) -> io::Result<Self> {
        let twice = vec![0u8; capacity * 2].into_boxed_slice();
        let base = NonNull::new(Box::into_raw(twice).cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            capacity,
            segment: capacity / segments,
        })
    }

    /// Where there is no kernel, nobody reads on behind our back.
    pub(crate) unsafe fn renew(&self, _place: usize, _keep: usize) -> io::Result<()> {
        Ok(())
    }

    pub(crate) unsafe fn write(&self, at: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let offset = self.offset(at + i as u64);
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
    /// Fills `len` bytes from position `at` on.
    ///
    /// # Safety
    ///
    /// As for `write`.
    #[cfg(feature = "poison")]
    pub(crate) unsafe fn fill(&self, at: u64, len: usize, byte: u8) {
        let bytes = vec![byte; len];
        // SAFETY: the caller's promise is the same.
        unsafe { self.write(at, &bytes) };
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The length of a segment in bytes, a power of two.
    pub(crate) fn segment(&self) -> usize {
        self.segment
    }

    /// Where both halves begin.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Where position `at` lies, from the base on; below the capacity.
    pub(crate) fn offset(&self, at: u64) -> usize {
        (at as usize) & (self.capacity - 1)
    }

    /// Where position `at` lies; at least `capacity` bytes from there on are mapped.
    pub(crate) fn at(&self, at: u64) -> *mut u8 {
        // SAFETY: the offset is below the capacity, inside the mapping.
        unsafe { self.base.as_ptr().add(self.offset(at)) }
    }
}

/// The size of the host's pages in bytes.
pub(crate) fn page() -> usize {
    if cfg!(miri) {
        return 4096;
    }
    // SAFETY: asks a number and touches nothing.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
