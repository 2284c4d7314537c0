//! What goes around a chunk's data in its datagram.
//!
//! Rules name a chunk by its number and never touch its data: the caller has it, in a ring or a buffer, and sends
//! [`Frame::head`], the data and [`Frame::tail`] as one datagram, gathered without a copy.

use std::fmt;

/// The most bytes that any generation puts around the data.
pub const FRAME_MAX: usize = 48;

/// The bytes before and after the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; FRAME_MAX],
    head: u8,
    end: u8,
}

impl Frame {
    /// # Panics
    ///
    /// When both together are longer than [`FRAME_MAX`]: layouts are ours.
    pub(crate) fn new(head: &[u8], tail: &[u8]) -> Self {
        let (at, end) = (head.len(), head.len() + tail.len());
        assert!(end <= FRAME_MAX, "a frame of {end} bytes");
        let mut bytes = [0; FRAME_MAX];
        bytes[..at].copy_from_slice(head);
        bytes[at..end].copy_from_slice(tail);
        Self {
            bytes,
            head: at as u8,
            end: end as u8,
        }
    }

    /// What goes before the data.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..usize::from(self.head)]
    }

    /// What goes after it; empty in most generations.
    pub fn tail(&self) -> &[u8] {
        &self.bytes[usize::from(self.head)..usize::from(self.end)]
    }

    /// The whole datagram, copied together, for callers that cannot gather.
    pub fn datagram(&self, data: &[u8]) -> Vec<u8> {
        [self.head(), data, self.tail()].concat()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:02x?}, {:02x?})", self.head(), self.tail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_between_head_and_tail() {
        let frame = Frame::new(&[1, 2], &[9]);
        assert_eq!((frame.head(), frame.tail()), (&[1, 2][..], &[9][..]));
        assert_eq!(frame.datagram(b"ab"), [1, 2, b'a', b'b', 9]);
        assert_eq!(Frame::new(&[], &[]).datagram(b"x"), b"x");
        assert_eq!(Frame::new(&[7; FRAME_MAX], &[]).head().len(), FRAME_MAX);
    }

    #[test]
    #[should_panic(expected = "a frame of 49 bytes")]
    fn a_frame_has_its_limit() {
        Frame::new(&[0; FRAME_MAX], &[0]);
    }
}
