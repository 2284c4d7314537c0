//! Where the memory of stream rings is registered with the kernel: once for the process, cloned for each worker.
//!
//! Registering pins every page and takes the kernel a fraction of a millisecond; cloning a registration into another
//! io_uring takes a reference. The depot is a small io_uring of its own that nobody submits to: it only holds the
//! registrations. Its lock is taken when a worker meets a ring for the first time, or after the ring's memory was
//! renewed: never for a send.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

use io_uring::IoUring;

/// Rings that are registered at once; sends from any further one copy.
const PLACES: usize = 64;

/// The registrations of one process (or of one relay in it). See the module.
#[derive(Debug, Default)]
pub struct Depot {
    inner: Mutex<Option<Inner>>,
}

struct Inner {
    io: IoUring,
    places: Vec<Option<Place>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("places", &self.places).finish()
    }
}

/// A version of a ring's memory, registered.
#[derive(Debug)]
struct Place {
    ring: u64,
    version: u64,
    /// Workers that have cloned it.
    clones: usize,
}

/// A registration that a worker has a share in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Berthed(u32);

impl Depot {
    /// Registers a version of a ring's memory, if nobody has, and lets `clone` take a share of it: it gets the
    /// descriptor and the place in its table of buffers to clone from.
    ///
    /// # Errors
    ///
    /// When the kernel refuses (locked memory, an old kernel), when all places are taken, and those of `clone`.
    pub(super) fn share(
        &self,
        ring: &relay_ring::Ring,
        version: u64,
        clone: impl FnOnce(RawFd, u32) -> io::Result<()>,
    ) -> io::Result<Berthed> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.is_none() {
            *inner = Some(Inner::new()?);
        }
        let Some(inner) = inner.as_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let place = inner.place(ring, version)?;
        let cloned = clone(inner.io.as_raw_fd(), place as u32);
        if cloned.is_ok()
            && let Some(held) = &mut inner.places[place]
        {
            held.clones += 1;
        }
        inner.clear_if_unused(place);
        cloned.map(|()| Berthed(place as u32))
    }

    /// A worker has dropped its share.
    pub(super) fn give_back(&self, berthed: Berthed) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = inner.as_mut() {
            let place = berthed.0 as usize;
            if let Some(held) = &mut inner.places[place] {
                held.clones -= 1;
            }
            inner.clear_if_unused(place);
        }
    }
}

impl Inner {
    fn new() -> io::Result<Self> {
        let io = IoUring::new(2)?;
        io.submitter().register_buffers_sparse(PLACES as u32)?;
        Ok(Self {
            io,
            places: (0..PLACES).map(|_| None).collect(),
        })
    }

    /// Where a version of a ring is registered, now if not before.
    fn place(&mut self, ring: &relay_ring::Ring, version: u64) -> io::Result<usize> {
        let is_it = |held: &Place| held.ring == ring.id() && held.version == version;
        if let Some(place) = self.places.iter().position(|p| p.as_ref().is_some_and(is_it)) {
            return Ok(place);
        }
        let free = self.places.iter().position(Option::is_none);
        let place = free.ok_or_else(|| io::Error::other("the depot of registered rings is full"))?;
        let (base, len) = ring.mapping();
        self.update(place, base.as_ptr().cast(), len)?;
        self.places[place] = Some(Place {
            ring: ring.id(),
            version,
            clones: 0,
        });
        Ok(place)
    }

    fn clear_if_unused(&mut self, place: usize) {
        if self.places[place].as_ref().is_some_and(|held| held.clones == 0) {
            // Removing a registration cannot fail for any reason that matters here: at worst the place stays taken in
            // the kernel until it is overwritten.
            let _ = self.update(place, std::ptr::null_mut(), 0);
            self.places[place] = None;
        }
    }

    fn update(&self, place: usize, base: *mut libc::c_void, len: usize) -> io::Result<()> {
        let memory = libc::iovec {
            iov_base: base,
            iov_len: len,
        };
        // SAFETY: the kernel pins the pages themselves, so they outlive even their mapping; it only ever reads them,
        // for sends whose positions the ring's gate keeps from being written.
        unsafe {
            self.io
                .submitter()
                .register_buffers_update(place as u32, &[memory], None)
        }
    }
}
