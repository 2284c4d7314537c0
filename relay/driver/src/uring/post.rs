//! Datagrams: a batch of letters in one submission.

use std::io;

use super::direct::File;
use super::{Uring, ops};
use crate::udp::Laid;

impl Uring {
    /// See [`crate::shore::Shore::post`].
    pub(super) fn post_letters(&mut self, letters: &Laid<'_>, results: &mut [i32]) -> io::Result<()> {
        for (i, letter) in letters.letters.iter().enumerate() {
            let entry = match letters.plain(i) {
                Some(bytes) => ops::send(File::Plain(letter.route.fd), bytes, i),
                None => ops::send_message(letter.route.fd, letters.header(i), i),
            };
            // SAFETY: headers and bytes are borrowed for the whole of this function, which returns only after
            // `collect` has seen the completion of every send, or after an error has poisoned the ring: then nothing
            // that is still queued is ever submitted, and what was submitted has been copied (`MSG_DONTWAIT` sends
            // finish inside the call that submits them).
            unsafe { self.ring.push_entry(&entry) }?;
        }
        self.ring.collect(letters.letters.len(), |done| {
            results[done.tag.conn.slot()] = done.result
        })
    }
}
