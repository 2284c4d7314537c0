//! Direct descriptors: connections in io_uring's own table of files, so that no operation looks one up in the
//! process's and takes a reference to it.
//!
//! Only where the kernel lets go of a file as soon as its place is cleared (Linux 6.13: before, one long receive
//! kept every file that was cleared after it began), and where nothing is sent without a copy: after a crash the kernel
//! keeps the table until the last notification has come, and with it every connection, healthy or not.
//!
//! A connection keeps its ordinary descriptor as well, for socket options and for the way to the control plane. Its
//! place in the table is its slot. A place is cleared where a descriptor is closed: when nothing is queued any more
//! that might name it.

use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, types};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::utsname::uname;

use crate::setup::ZeroCopy;

/// What an operation works on.
#[derive(Clone, Copy, Debug)]
pub(super) enum File {
    /// A descriptor of the process.
    Plain(RawFd),
    /// A place in the ring's own table.
    Direct(u32),
}

impl File {
    /// The number, as an operation names it.
    pub(super) fn number(self) -> types::Fd {
        match self {
            Self::Plain(fd) => types::Fd(fd),
            Self::Direct(place) => types::Fd(place as RawFd),
        }
    }

    /// Says in the operation which of the two it is.
    pub(super) fn mark(self, entry: Entry) -> Entry {
        match self {
            Self::Plain(_) => entry,
            Self::Direct(_) => entry.flags(Flags::FIXED_FILE),
        }
    }
}

/// Whether this kernel is 6.13 or newer.
fn lets_go_at_once() -> bool {
    let release = uname().ok();
    let release = release.as_ref().and_then(|name| name.release().to_str());
    release
        .and_then(version)
        .is_some_and(|version| version >= (6, 13))
}

/// Major and minor of a kernel's release: `6.18.44-fc` is `(6, 18)`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The table of files of one ring.
pub(super) struct Direct {
    places: u32,
    /// Places to be cleared when nothing is queued any more.
    leaving: Vec<u32>,
}

impl Direct {
    /// A table for `conns` connections, or for as many as the process may have files. Where the kernel refuses it,
    /// there are no places, and every operation names a descriptor of the process.
    pub(super) fn new(io: &IoUring, conns: u32, zero_copy: ZeroCopy) -> Self {
        let conns = if zero_copy == ZeroCopy::Off && lets_go_at_once() {
            conns
        } else {
            0
        };
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let places = conns.min(u32::try_from(files).unwrap_or(u32::MAX));
        let made = places > 0 && io.submitter().register_files_sparse(places).is_ok();
        Self {
            places: if made { places } else { 0 },
            leaving: Vec::new(),
        }
    }

    /// Puts a connection into its place; `false` when it has none.
    pub(super) fn enter(&self, io: &IoUring, place: usize, fd: RawFd) -> bool {
        place < self.places as usize && io.submitter().register_files_update(place as u32, &[fd]).is_ok()
    }

    /// A place is to be cleared by the next [`Direct::clear`].
    pub(super) fn leave(&mut self, place: usize) {
        self.leaving.push(place as u32);
    }

    /// The last holder of a place has gone, but what is queued may still name it.
    pub(super) fn is_leaving(&self, place: usize) -> bool {
        self.leaving.contains(&(place as u32))
    }

    /// Clears the places that were left. To be called when nothing is queued.
    pub(super) fn clear(&mut self, io: &IoUring) {
        for place in self.leaving.drain(..) {
            // What is in flight keeps its file; a place that cannot be cleared keeps its connection half open until
            // the next takes it.
            let _ = io.submitter().register_files_update(place, &[-1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_understood() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("6.1.0-32-amd64"), Some((6, 1)));
        assert_eq!(version("unknown"), None);
    }
}
