//! Sends without a copy: which, from what memory, and when the kernel is done with it.
//!
//! A send from registered memory (`SEND_ZC`) completes twice: first with the number of bytes that the socket took, as
//! any send does, and later, for TCP when the peer has acknowledged them, with a notification that the kernel reads
//! them no more. In between the stretch is *held* ([`relay_ring::Holder`]): the ring's writer does not overwrite it,
//! nor does it wait: it puts fresh memory under its positions and leaves the old pages to the kernel.
//!
//! What is in flight is a [`Parcel`]. Parcels outlive their connections, and are bounded in number and in bytes, for
//! each connection and for the driver; beyond a bound sends copy, which always works.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use io_uring::IoUring;
use io_uring::types::CloneBuffersFlags;
use relay_ring::{Holder, Reader};
use relay_seam::{Conn, Now};

use super::depot::{Berthed, Depot};
use super::route::{RouteId, Routes, WORTH_IT};
use crate::setup::ZeroCopy;
use crate::stats::SharedStats;
use crate::table::Table;

/// Rings that one driver has registered at once; sends from any further one copy.
const MOORINGS: usize = 16;
/// A registration that was not used for so long is dropped, and with it the driver's share of the ring's memory.
const MOORED_IDLE: Duration = Duration::from_secs(2);
/// After a registration was refused (locked memory, an old kernel), copy for so long.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Sends of one driver whose notification has not come. Each takes two entries of the completion queue.
const PARCELS_MAX: u32 = 1 << 16;
/// Bytes of one driver that the kernel may still read. They are charged to their sockets' send buffers.
const HELD_MAX: u64 = 64 << 20;
/// Bytes of one connection that the kernel may still read.
const HELD_BY_ONE_MAX: u32 = 256 * 1024;

/// The version of a mooring that is not to be used.
const NO_VERSION: u64 = u64::MAX;

/// See the module.
pub(super) struct Zero {
    mode: ZeroCopy,
    depot: Arc<Depot>,
    moorings: Vec<Option<Mooring>>,
    parcels: Table<Parcel>,
    routes: Routes,
    held: u64,
    now: Now,
    refused_until: Option<Now>,
    stats: Arc<SharedStats>,
}

/// A ring as this driver has it registered; its place is its index in the driver's table of buffers.
struct Mooring {
    ring: u64,
    version: u64,
    berthed: Berthed,
    holder: Holder,
    /// Parcels from this ring.
    out: u32,
    used: Now,
}

/// A send without a copy, until its notification.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parcel {
    /// Where its result belongs in the batch.
    pub(super) index: usize,
    /// Whose it is.
    pub(super) conn: Conn,
    /// What the kernel took; zero before it has said so.
    pub(super) len: u32,
    at: u64,
    mooring: u16,
    route: RouteId,
}

impl Parcel {
    /// What the send is to the wheel: a refusal of the *way* of sending took nothing, and is tried again with a copy.
    pub(super) fn answer(&self, result: i32) -> i32 {
        if refuses_the_way(result) {
            -libc::EAGAIN
        } else {
            result
        }
    }
}

/// Errors that speak of the registered memory or of the operation, and not of the connection: some kernels lose
/// registrations when another is replaced.
fn refuses_the_way(result: i32) -> bool {
    matches!(-result, libc::EFAULT | libc::EINVAL | libc::EOPNOTSUPP)
}

/// What a send without a copy needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// Names the parcel; comes back in both completions.
    pub(super) parcel: Conn,
    /// The registered memory, by its place in the driver's table of buffers.
    pub(super) buffer: u16,
}

impl Zero {
    pub(super) fn new(mode: ZeroCopy, depot: Arc<Depot>, stats: Arc<SharedStats>) -> Self {
        Self {
            mode,
            depot,
            moorings: Vec::new(),
            parcels: Table::new(PARCELS_MAX),
            routes: Routes::new(),
            held: 0,
            now: Now::new(0, 0),
            refused_until: None,
            stats,
        }
    }

    /// By which way a connection's bytes leave; asks for its ends only where it matters.
    pub(super) fn route(&mut self, ends: impl FnOnce() -> Option<(IpAddr, IpAddr)>) -> RouteId {
        match self.mode {
            ZeroCopy::Off => RouteId::NEVER,
            ZeroCopy::Always => RouteId::ALWAYS,
            ZeroCopy::Auto => ends().map_or(RouteId::NEVER, |(local, peer)| self.routes.of(local, peer)),
        }
    }

    /// Whether these bytes go without a copy. `held` is what the kernel still reads of their connection.
    pub(super) fn leave(
        &mut self,
        io: &IoUring,
        route: RouteId,
        held: u32,
        parcel: (usize, Conn, usize),
        from: Option<(&Reader, u64)>,
    ) -> Option<Leave> {
        let (index, conn, len) = parcel;
        let (reader, at) = from.filter(|_| len >= WORTH_IT && route != RouteId::NEVER)?;
        if held as usize + len > HELD_BY_ONE_MAX as usize || self.held + len as u64 > HELD_MAX {
            self.stats.zero_copy_capped.one();
            return None;
        }
        if self.refused_until.is_some() || !self.routes.choose(route) {
            return None;
        }
        let mooring = self.moor(io, reader)?;
        let parcel = Parcel {
            index,
            conn,
            len: 0,
            at,
            mooring,
            route,
        };
        let Ok(parcel) = self.parcels.insert(parcel) else {
            self.stats.zero_copy_capped.one();
            return None;
        };
        self.moored(mooring).out += 1;
        self.stats.zero_copy_sends.one();
        Some(Leave {
            parcel,
            buffer: mooring,
        })
    }

    /// The first completion of a parcel: the socket took `result` bytes, or refused with `-errno`. If no notification
    /// follows, that was all.
    pub(super) fn taken(&mut self, parcel: Conn, result: i32, notified: bool) -> Option<Parcel> {
        let held = self.parcels.get_mut(parcel)?;
        if notified {
            held.len = u32::try_from(result).unwrap_or(0);
        }
        let held = *held;
        if refuses_the_way(result) {
            self.refused();
            // Registered anew before it is used again.
            self.moored(held.mooring).version = NO_VERSION;
        }
        if held.len > 0 {
            self.held += u64::from(held.len);
            self.moored(held.mooring).holder.hold(held.at, held.len);
        }
        if !notified {
            self.parcels.remove(parcel);
            self.moored(held.mooring).out -= 1;
        }
        Some(held)
    }

    /// The second completion: the kernel reads the bytes no more, and says whether it has copied them after all.
    pub(super) fn released(&mut self, parcel: Conn, copied: bool) -> Option<Parcel> {
        let held = self.parcels.remove(parcel)?;
        if held.len > 0 {
            self.held -= u64::from(held.len);
            self.moored(held.mooring).holder.release(held.at, held.len);
            self.routes.told(held.route, copied);
            self.stats.zero_copy_bytes.add(u64::from(held.len));
            if copied {
                self.stats.zero_copy_copied.one();
            }
        }
        self.moored(held.mooring).out -= 1;
        Some(held)
    }

    /// Parcels name their mooring, which stays as long as one is out.
    fn moored(&mut self, mooring: u16) -> &mut Mooring {
        self.moorings[usize::from(mooring)]
            .as_mut()
            .unwrap_or_else(|| unreachable!("a mooring with a parcel out is kept"))
    }

    /// Where a ring's memory is registered, as it is now; registers it if need be.
    fn moor(&mut self, io: &IoUring, reader: &Reader) -> Option<u16> {
        let (ring, now) = (reader.ring(), self.now);
        // The reader has pinned what it is about to send, so the version that it sees now has that memory in it.
        let version = ring.version();
        let known = self
            .moorings
            .iter()
            .position(|m| m.as_ref().is_some_and(|m| m.ring == ring.id()));
        if let Some(place) = known
            && let Some(mooring) = &mut self.moorings[place]
        {
            mooring.used = now;
            if mooring.version == version {
                return Some(place as u16);
            }
            if mooring.out > 0 {
                // The kernel keeps all pages of a version until its last parcel is back: one old version at a time.
                return None;
            }
            self.cast_off(io, place);
        }
        let place = self.free_mooring()?;
        let Ok(berthed) = register(&self.depot, io, ring, version, place) else {
            self.refused();
            return None;
        };
        self.moorings[place] = Some(Mooring {
            ring: ring.id(),
            version,
            berthed,
            holder: reader.holder(),
            out: 0,
            used: now,
        });
        Some(place as u16)
    }

    /// The kernel refuses, or the depot is full: everything copies for a while.
    fn refused(&mut self) {
        self.stats.zero_copy_refused.one();
        self.refused_until = Some(self.now + REFUSED_FOR);
    }

    fn free_mooring(&mut self) -> Option<usize> {
        if let Some(free) = self.moorings.iter().position(Option::is_none) {
            return Some(free);
        }
        if self.moorings.len() < MOORINGS {
            self.moorings.push(None);
            return Some(self.moorings.len() - 1);
        }
        // More rings than moorings: the rest copy until one has not been used for a while ([`Zero::tidy`]).
        self.stats.zero_copy_capped.one();
        None
    }

    /// Drops a registration, and this driver's share of the ring.
    fn cast_off(&mut self, io: &IoUring, place: usize) {
        if let Some(mooring) = self.moorings[place].take() {
            let nothing = libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            };
            // SAFETY: an empty registration names no memory. Should the kernel refuse, the place keeps the pages of the
            // old one until it is overwritten; nothing is ever sent from it.
            let _ = unsafe {
                io.submitter()
                    .register_buffers_update(place as u32, &[nothing], None)
            };
            self.depot.give_back(mooring.berthed);
        }
    }

    /// Drops registrations that have not been used for a while.
    pub(super) fn tidy(&mut self, io: &IoUring, now: Now) {
        self.now = now;
        if self.refused_until.is_some_and(|until| until <= now) {
            self.refused_until = None;
        }
        for place in 0..self.moorings.len() {
            let over = |m: &Mooring| m.out == 0 && now.since(m.used) > MOORED_IDLE;
            if self.moorings[place].as_ref().is_some_and(over) {
                self.cast_off(io, place);
            }
        }
    }
}

impl Drop for Zero {
    fn drop(&mut self) {
        for mooring in self.moorings.drain(..).flatten() {
            self.depot.give_back(mooring.berthed);
        }
    }
}

/// Takes a share of a ring's registration into `place` of the driver's own table.
fn register(
    depot: &Depot,
    io: &IoUring,
    ring: &relay_ring::Ring,
    version: u64,
    place: usize,
) -> io::Result<Berthed> {
    depot.share(ring, version, |from, at| {
        io.submitter().register_buffers_clone_offset(
            from,
            at,
            place as u32,
            1,
            CloneBuffersFlags::DST_REPLACE,
        )
    })
}
