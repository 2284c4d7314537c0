//! A15: metadata blocks stay where they were announced, for as long as the stream lasts.

/// Takes a stream with metadata blocks apart, and is stricter about them than any player.
#[derive(Debug)]
pub(crate) struct Unlace {
    metaint: usize,
    until: usize,
    /// Bytes of the block that are missing, and those that are there; none between blocks.
    block: Option<(usize, Vec<u8>)>,
    pub(crate) titles: Vec<String>,
    pub(crate) blocks: u64,
}

impl Unlace {
    pub(crate) fn new(metaint: usize) -> Self {
        Self {
            metaint,
            until: metaint,
            block: None,
            titles: Vec::new(),
            blocks: 0,
        }
    }

    /// The payload among these bytes.
    ///
    /// # Errors
    ///
    /// What is no block where one was announced.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut payload = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            let taken = match &mut self.block {
                Some((left, text)) => {
                    let take = (*left).min(bytes.len());
                    text.extend_from_slice(&bytes[..take]);
                    *left -= take;
                    take
                }
                None if self.until > 0 => {
                    let take = self.until.min(bytes.len());
                    payload.extend_from_slice(&bytes[..take]);
                    self.until -= take;
                    take
                }
                None => {
                    self.block = Some((usize::from(bytes[0]) * 16, Vec::new()));
                    1
                }
            };
            bytes = &bytes[taken..];
            if let Some((_, text)) = self.block.take_if(|(left, _)| *left == 0) {
                self.until = self.metaint;
                self.block_is_over(&text)?;
            }
        }
        Ok(payload)
    }

    fn block_is_over(&mut self, text: &[u8]) -> Result<(), String> {
        self.blocks += 1;
        if text.is_empty() {
            return Ok(());
        }
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        let padded = text[end..].iter().all(|b| *b == 0) && text.len() - end < 16;
        let title = std::str::from_utf8(&text[..end]).ok().filter(|_| padded);
        let title = title
            .and_then(|t| t.strip_prefix("StreamTitle='"))
            .and_then(|t| t.strip_suffix("';"));
        let Some(title) = title else {
            return Err(format!(
                "block {} is none: {:?}",
                self.blocks,
                String::from_utf8_lossy(text)
            ));
        };
        if self.titles.last().is_none_or(|last| last != title) {
            self.titles.push(title.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_in_any_slices_and_misplaced_ones_are_wrong() {
        let mut stream = b"12345".to_vec();
        stream.extend(relay_wire::icy::block("a", None));
        stream.extend(b"67890\0abcde\0");
        for size in 1..stream.len() {
            let mut unlace = Unlace::new(5);
            let payload: Vec<u8> = stream
                .chunks(size)
                .flat_map(|piece| unlace.feed(piece).unwrap())
                .collect();
            assert_eq!(payload, b"1234567890abcde");
            assert_eq!((unlace.titles.clone(), unlace.blocks), (vec!["a".to_owned()], 3));
        }
        assert!(
            Unlace::new(4)
                .feed(&[b"12345".as_slice(), &[b'x'; 2000]].concat())
                .is_err()
        );
    }
}
