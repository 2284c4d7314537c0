//! The connections of one worker: who each of them is, and what it has still to be told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use relay_seam::{Closing, Conn, Now, Output, Payload, Sent};
use slab::Slab;

use crate::sources::Source;

/// Who is at the other end.
#[derive(Debug)]
pub(crate) enum Role {
    /// Its request head is in the making.
    Door(Door),
    /// It is told something and then let go.
    Leaving,
    /// A listener or a link, by its key among the listeners.
    Listener(usize),
    /// It waits for a mount, by its key among those who wait.
    Waiting(usize),
    /// It feeds a channel.
    Source(Box<Source>),
    /// A node that we follow, by its feed's key and its attempt's number.
    Upstream(usize, u64),
}

/// A request head in the making.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) read: Vec<u8>,
    pub(crate) scanned: usize,
    pub(crate) since: Now,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) conn: Conn,
    pub(crate) peer: SocketAddr,
    pub(crate) role: Role,
    mouth: Mouth,
    /// It counts towards its address's share.
    pub(crate) counted: bool,
    /// Bytes that came without having been asked for.
    pub(crate) unasked: u32,
}

/// What a connection has still to be told that is not a stream.
#[derive(Debug, Default)]
struct Mouth {
    bytes: Option<(Arc<[u8]>, usize)>,
    state: Lips,
    then: Option<Closing>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Lips {
    #[default]
    Ready,
    InFlight,
    Full,
}

/// All connections of a worker, by the driver's slots.
#[derive(Debug, Default)]
pub(crate) struct Conns {
    entries: Vec<Option<Entry>>,
    talking: VecDeque<Conn>,
    count: usize,
}

impl Conns {
    pub(crate) fn add(&mut self, conn: Conn, peer: SocketAddr, role: Role, counted: bool) {
        if self.entries.len() <= conn.slot() {
            self.entries.resize_with(conn.slot() + 1, || None);
        }
        let entry = Entry {
            conn,
            peer,
            role,
            mouth: Mouth::default(),
            counted,
            unasked: 0,
        };
        if self.entries[conn.slot()].replace(entry).is_none() {
            self.count += 1;
        }
    }

    pub(crate) fn get(&mut self, conn: Conn) -> Option<&mut Entry> {
        self.entries
            .get_mut(conn.slot())?
            .as_mut()
            .filter(|entry| entry.conn == conn)
    }

    pub(crate) fn remove(&mut self, conn: Conn) -> Option<Entry> {
        self.get(conn)?;
        self.count -= 1;
        self.entries[conn.slot()].take()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// Something to tell a connection, after what it is being told already; `then` lets it go.
    pub(crate) fn say(&mut self, conn: Conn, bytes: Vec<u8>, then: Option<Closing>) {
        let Some(entry) = self.get(conn) else { return };
        let mouth = &mut entry.mouth;
        let bytes = match mouth.bytes.take() {
            Some((old, from)) => [&old[from..], &bytes].concat(),
            None => bytes,
        };
        mouth.bytes = Some((bytes.into(), 0));
        mouth.then = then.or(mouth.then);
        if mouth.state == Lips::Ready {
            self.talking.push_back(conn);
        }
    }

    /// The next thing to be told, or a connection that has been told all and is to be closed.
    pub(crate) fn poll(&mut self) -> Option<Output> {
        while let Some(conn) = self.talking.pop_front() {
            let Some(entry) = self.get(conn) else { continue };
            let mouth = &mut entry.mouth;
            if mouth.state != Lips::Ready {
                continue;
            }
            if let Some((bytes, from)) = &mouth.bytes {
                mouth.state = Lips::InFlight;
                return Some(Output::Send {
                    conn,
                    payload: Payload::Own(bytes.clone(), *from),
                });
            }
        }
        None
    }

    /// What became of it. Some: it has been told all, and is to be let go like this.
    pub(crate) fn sent(&mut self, conn: Conn, result: Sent) -> Option<Closing> {
        let entry = self.get(conn)?;
        let mouth = &mut entry.mouth;
        let (bytes, from) = mouth.bytes.as_mut()?;
        match result {
            Sent::All => *from = bytes.len(),
            Sent::Some(n) => *from += n as usize,
            Sent::Full => {}
            Sent::Gone => return None,
        }
        mouth.state = if result == Sent::All {
            Lips::Ready
        } else {
            Lips::Full
        };
        if *from < bytes.len() {
            return None;
        }
        mouth.bytes = None;
        mouth.then
    }

    pub(crate) fn writable(&mut self, conn: Conn) {
        if let Some(entry) = self.get(conn)
            && entry.mouth.state == Lips::Full
        {
            entry.mouth.state = Lips::Ready;
            self.talking.push_back(conn);
        }
    }
}

/// Keys that stay valid while somebody holds them, for things that come and go.
pub(crate) type Keyed<T> = Slab<T>;
