//! A bell: how one thread wakes another that sleeps in its driver.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::parking::Parking;

/// Wakes a parked driver. Cheap while the driver is awake: one fence and one load, no system call.
///
/// The sleeper [`Bell::park`]s, looks once more at everything that could have changed, and only then sleeps on the
/// descriptor. A ringer changes what it wants to change, then [`Bell::ring`]s. Both sides fence between their two
/// steps, so at least one of them sees the other: no wake-up is lost ([`crate::Parking`]).
#[derive(Clone, Debug)]
pub struct Bell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parking: Parking,
    fd: OwnedFd,
}

impl Bell {
    /// A bell on a fresh `eventfd`.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        use nix::sys::eventfd::{EfdFlags, EventFd};
        let fd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self {
            inner: Arc::new(Inner {
                parking: Parking::new(),
                fd: fd.into(),
            }),
        })
    }

    /// Wakes the sleeper if it is parked.
    pub fn ring(&self) {
        if self.inner.parking.rouse() {
            // A full counter (EAGAIN) means that the sleeper has been told already.
            let _ = nix::unistd::write(&self.inner.fd, &1u64.to_ne_bytes());
        }
    }

    /// The sleeper is about to sleep; it must look at its inputs once more after this, before it does.
    pub fn park(&self) {
        self.inner.parking.park();
    }

    /// The sleeper is awake: until the next [`Bell::park`], ringing costs nothing.
    pub fn unpark(&self) {
        self.inner.parking.unpark();
    }

    /// Takes the pending ring off the descriptor, so that it is not readable any more.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        let _ = nix::unistd::read(&self.inner.fd, &mut count);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.fd.as_raw_fd()
    }
}
