//! Datagrams: a batch of letters in one submission, the large ones from registered memory without a copy.

use std::io;

use io_uring::squeue::Entry;
use relay_seam::Conn;

use super::Uring;
use super::direct::File;
use super::ops::{self, Kind};
use crate::udp::Laid;

/// Bytes from which on a train is worth a notification: with registered memory a send of datagrams without a copy
/// costs as much as one that copies some 8 KB from the cache.
const DATAGRAMS_WORTH_IT: usize = 10 * 1024;

/// A parcel of datagrams belongs to no connection. No table of connections grows to this slot.
const NOBODY: (u32, u32) = (Conn::SLOTS_MAX - 1, u32::MAX);

impl Uring {
    /// See [`crate::shore::Shore::post`].
    pub(super) fn post_letters(&mut self, letters: &Laid<'_>, results: &mut [i32]) -> io::Result<()> {
        for i in 0..letters.letters.len() {
            let entry = self.letter(letters, i);
            // SAFETY: headers and bytes are borrowed for the whole of this function, which returns only after
            // `collect` has seen the completion of every send, or after an error has poisoned the ring: then nothing
            // that is still queued is ever submitted, and what was submitted has been copied (`MSG_DONTWAIT` sends
            // finish inside the call that submits them). A send without a copy reads registered memory, whose pages the
            // kernel holds by itself, and whose bytes the ring's holder keeps as they are.
            unsafe { self.ring.push_entry(&entry) }?;
        }
        let Self { ring, zero, .. } = self;
        ring.collect(letters.letters.len(), |done| match done.tag.kind {
            Kind::Zero => {
                if let Some(parcel) = zero.taken(done.tag.conn, done.result, done.more()) {
                    results[parcel.index] = done.result;
                }
            }
            _ => results[done.tag.conn.slot()] = done.result,
        })
    }

    fn letter(&mut self, letters: &Laid<'_>, i: usize) -> Entry {
        let letter = &letters.letters[i];
        let Some(bytes) = letters.bare(i) else {
            return ops::send_message(letter.route.fd, letters.header(i), i);
        };
        if !letter.route.connected {
            return ops::send_to(letter.route.fd, bytes, letters.header(i), i);
        }
        // The registered memory's send takes no control message: only what the socket knows how to cut.
        let from = letter.from.filter(|_| bytes.len() >= DATAGRAMS_WORTH_IT);
        let leave = from.and_then(|from| {
            let ends = (letter.route.local, letter.route.to.ip());
            let route = self.zero.route(|| Some(ends));
            let parcel = (i, Conn::new(NOBODY.0, NOBODY.1), bytes.len());
            self.zero.leave(&self.ring.io, route, 0, parcel, Some(from))
        });
        let file = File::Plain(letter.route.fd);
        match leave {
            Some(leave) => ops::send_zc(file, bytes, leave.buffer, leave.parcel),
            None => ops::send(file, bytes, i),
        }
    }
}
