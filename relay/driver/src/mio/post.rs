//! What epoll has said of each connection and what is wanted of it.

use std::os::fd::RawFd;

use relay_seam::Conn;

/// One connection.
#[derive(Clone, Copy)]
pub(super) struct Post {
    pub(super) fd: RawFd,
    generation: u32,
    /// The wheel wants its bytes.
    pub(super) reading: bool,
    /// There may be bytes, a FIN or an error.
    pub(super) readable: bool,
    /// A FIN or an error is certainly behind the bytes.
    pub(super) ending: bool,
    /// An error or a hang-up has been seen; its edge will not come again.
    pub(super) broken: bool,
    /// Stands in the queue of readable connections.
    pub(super) queued: bool,
    pub(super) wants_room: bool,
    pub(super) wants_hangup: bool,
}

/// All connections, by slot.
#[derive(Default)]
pub(super) struct Posts(Vec<Option<Post>>);

impl Posts {
    pub(super) fn open(&mut self, conn: Conn, fd: RawFd) {
        if self.0.len() <= conn.slot() {
            self.0.resize(conn.slot() + 1, None);
        }
        self.0[conn.slot()] = Some(Post {
            fd,
            generation: conn.generation(),
            reading: false,
            readable: false,
            ending: false,
            broken: false,
            queued: false,
            wants_room: false,
            wants_hangup: false,
        });
    }

    pub(super) fn get(&mut self, conn: Conn) -> Option<&mut Post> {
        self.0
            .get_mut(conn.slot())?
            .as_mut()
            .filter(|post| post.generation == conn.generation())
    }

    pub(super) fn close(&mut self, conn: Conn) {
        if self.get(conn).is_some() {
            self.0[conn.slot()] = None;
        }
    }
}
