//! What fuzzing feeds: each function takes any bytes at all, and panics where the rules break a promise.
//!
//! `tests/corpora.rs` runs the committed corpora through the same functions with every ordinary test.

#![allow(missing_docs, unreachable_pub)]

use std::time::Duration;

use relay_cast::receive::{HELD_BYTES_MAX, Receive};
use relay_cast::rtp::{Head, Place};
use relay_cast::sdp::Announcement;
use relay_seam::Now;

fn at(ms: u64) -> Now {
    Now::new(ms * 1_000_000, ms * 1000)
}

/// Events: a byte says what, two say how long, then come the bytes of it.
fn events(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[what, high, low], behind) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (event, next) = behind.split_at(behind.len().min(length));
        rest = next;
        Some((what, event))
    })
}

/// A receiver, and whatever comes from the LAN and over a link.
pub fn receive(bytes: &[u8]) {
    let mut receive = Receive::new(Duration::from_millis(100));
    let (mut ms, mut came, mut played) = (0, 0, 0);
    for (what, event) in events(bytes) {
        ms += u64::from(what >> 2);
        match what & 3 {
            0 => receive.media(at(ms), event),
            1 => receive.parity(at(ms), event),
            2 => {
                if let Some((&place, rest)) = event.split_first_chunk::<16>() {
                    let (epoch, at_byte) = (u128::from_be_bytes(place) >> 64, u128::from_be_bytes(place));
                    let place = Place {
                        epoch: epoch as u64,
                        at: at_byte as u64,
                    };
                    receive.repaired(at(ms), place, rest);
                }
            }
            _ => played += drain(&mut receive, ms),
        }
        came += event.len();
        if let Some(hole) = receive.hole() {
            assert!(hole.from.at < hole.to);
        }
    }
    played += drain(&mut receive, ms + 1000);
    assert!(receive.deadline().is_none(), "nothing is held for ever");
    // Parity brings back no more than a block of the longest datagrams for each of its own.
    assert!(played <= came + 64 * 2048 * receive.stats().recovered as usize + HELD_BYTES_MAX);
}

fn drain(receive: &mut Receive, ms: u64) -> usize {
    std::iter::from_fn(|| receive.poll(at(ms)))
        .map(|bytes| bytes.len())
        .sum()
}

/// What is read is written, and read again.
pub fn texts(bytes: &[u8]) {
    if let Ok((head, body)) = Head::parse(bytes) {
        let (again, len) = head.encode();
        let again = [&again[..len], body].concat();
        assert_eq!(Head::parse(&again), Ok((head, body)));
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(said) = Announcement::read(&text) {
        let again = Announcement::read(&said.text()).expect("what we write is read");
        assert_eq!(
            (again.to, again.from, again.rtp, again.fec),
            (said.to, said.from, said.rtp, said.fec)
        );
    }
}
