//! One connection, as the wheel sees it.

use std::os::fd::OwnedFd;

/// One connection. The descriptor is closed once, where the seat ends.
pub(crate) struct Seat {
    pub(crate) fd: OwnedFd,
    pub(crate) phase: Phase,
    /// The peer has said FIN.
    pub(crate) fin: bool,
    /// The machine has been told of a full socket and waits for [`relay_seam::Input::Writable`].
    pub(crate) wants_room: bool,
}

/// What a connection is doing.
pub(crate) enum Phase {
    /// Being connected, for this call.
    Connecting(u64),
    /// The machine's.
    Open,
    /// Let go; so many bytes have been discarded.
    Leaving(usize),
    /// Going to the control plane as soon as nothing is on its way; what was read so far.
    HandingOver(Vec<u8>),
}

impl Seat {
    pub(crate) fn new(fd: OwnedFd, phase: Phase) -> Self {
        Self {
            fd,
            phase,
            fin: false,
            wants_room: false,
        }
    }
}
