//! Half-closed connections: waiting for room, or for the end, after the peer's FIN.
//!
//! io_uring's poll reports `POLLRDHUP` whether asked for or not. After a FIN it would therefore complete at once,
//! for ever, and a slow listener that half-closes would keep a core busy. epoll reports it only when asked, so these
//! few connections are watched by an epoll instance, and the ring watches that.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use relay_seam::Conn;

use super::ops::{Kind, Tag};

/// Events taken in one call.
const EVENTS: usize = 64;

/// What is known of one of them.
pub(super) struct News {
    pub(super) conn: Conn,
    /// It is broken, and not merely writable.
    pub(super) broken: bool,
}

/// See the module.
pub(super) struct Halves(Epoll);

impl Halves {
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }

    /// Watches a connection from now on: its present state is news, and then every change of it.
    pub(super) fn add(&self, conn: Conn, fd: BorrowedFd<'_>) -> io::Result<()> {
        // Errors and hang-ups are always reported.
        let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        match self
            .0
            .add(fd, EpollEvent::new(flags, Tag::new(Kind::Halves, conn).pack()))
        {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Stops watching a connection that goes elsewhere; one that is closed need not be removed.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = self.0.delete(fd.as_fd());
    }

    /// Tells all news there is.
    pub(super) fn drain(&self, mut each: impl FnMut(News)) {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let n = self.0.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            for event in &events[..n] {
                let broken = event
                    .events()
                    .intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
                if let Some(tag) = Tag::unpack(event.data()) {
                    each(News {
                        conn: tag.conn,
                        broken,
                    });
                }
            }
            if n < EVENTS {
                return;
            }
        }
    }
}
