//! The stream cut into chunks, and its beginning kept for newcomers.

/// Cuts a stream into chunks.
#[derive(Debug)]
pub(crate) struct Slicer {
    chunk_bytes: usize,
    partial: Vec<u8>,
}

impl Slicer {
    pub(crate) fn new(chunk_bytes: u16) -> Self {
        Self {
            chunk_bytes: usize::from(chunk_bytes),
            partial: Vec::new(),
        }
    }

    /// Hands each chunk that is full to `out`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut impl FnMut(Vec<u8>)) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.chunk_bytes - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if self.partial.len() == self.chunk_bytes {
                out(std::mem::take(&mut self.partial));
            }
        }
    }

    /// The stream broke off: chunks are never short, and what comes next does not continue this one. Returns how
    /// many bytes are lost.
    pub(crate) fn discard(&mut self) -> usize {
        let lost = self.partial.len();
        self.partial.clear();
        lost
    }
}

/// The first bytes of the source's answer, as a player wants to read them: an HTTP head, then the stream.
#[derive(Debug)]
pub(crate) struct Beginning {
    bytes: Vec<u8>,
    wanted: usize,
}

impl Beginning {
    /// `wanted` bytes of an answer that begins with `head`.
    pub(crate) fn new(mut head: Vec<u8>, wanted: u16) -> Self {
        head.truncate(usize::from(wanted));
        Self {
            bytes: head,
            wanted: usize::from(wanted),
        }
    }

    /// The whole beginning, once, with the bytes that complete it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let lacks = self.wanted - self.bytes.len();
        if lacks == 0 {
            return None;
        }
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(lacks)]);
        (bytes.len() >= lacks).then(|| self.bytes.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_discarded_is_in_no_chunk() {
        let (mut slicer, mut out) = (Slicer::new(4), Vec::new());
        slicer.feed(b"abcdef", &mut |chunk| out.push(chunk));
        assert_eq!((slicer.discard(), slicer.discard()), (2, 0));
        slicer.feed(b"ghij", &mut |chunk| out.push(chunk));
        assert_eq!(out, [b"abcd", b"ghij"]);
    }

    #[test]
    fn the_beginning_is_told_once() {
        let mut beginning = Beginning::new(b"HEAD".to_vec(), 7);
        assert_eq!(beginning.feed(b"ab"), None);
        assert_eq!(beginning.feed(b"cd").unwrap(), b"HEADabc");
        assert_eq!(beginning.feed(b"ef"), None);
        assert_eq!(Beginning::new(b"HEAD".to_vec(), 2).feed(b"x"), None);
    }

    proptest! {
        #[test]
        fn any_pieces_give_the_same_chunks(
            stream in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1usize..40,
            chunk_bytes in 1u16..30,
        ) {
            let (mut slicer, mut out) = (Slicer::new(chunk_bytes), Vec::new());
            stream.chunks(piece).for_each(|piece| slicer.feed(piece, &mut |chunk| out.push(chunk)));
            let size = usize::from(chunk_bytes);
            prop_assert!(out.iter().all(|chunk| chunk.len() == size));
            let data: Vec<u8> = out.iter().flat_map(|chunk| chunk.clone()).collect();
            prop_assert_eq!(&data[..], &stream[..data.len()]);
            prop_assert_eq!(data.len() + slicer.discard(), stream.len());
        }
    }
}
