//! An Ogg page (RFC 3533, section 6): reading its header, and writing it with other numbers.

use crate::bytes::{le, len};

/// A page's header without its segment table.
const HEAD: usize = 27;
const BEGIN: u8 = 2;
const END: u8 = 4;

/// A whole page.
pub(super) struct Page<'a>(pub(super) &'a [u8]);

impl<'a> Page<'a> {
    /// The length of the page that begins here; none where its segment table is not all there.
    pub(super) fn len(data: &[u8]) -> Option<usize> {
        let segments = len(data, 26, 1)?;
        let table = data.get(HEAD..HEAD + segments)?;
        Some(HEAD + segments + table.iter().map(|&n| usize::from(n)).sum::<usize>())
    }

    /// The first page of a logical stream.
    pub(super) fn begins(&self) -> bool {
        self.0[5] & BEGIN != 0
    }

    pub(super) fn serial(&self) -> u32 {
        le(self.0, 14, 4).unwrap_or_default() as u32
    }

    /// Where the last packet that ends here ends, in the codec's units; none where no packet ends here.
    pub(super) fn granule(&self) -> Option<u64> {
        le(self.0, 6, 8).filter(|&granule| granule != u64::MAX)
    }

    /// How many packets end here.
    pub(super) fn packets(&self) -> u32 {
        self.table().iter().filter(|&&n| n < 255).count() as u32
    }

    pub(super) fn body(&self) -> &'a [u8] {
        self.0.get(HEAD + self.table().len()..).unwrap_or_default()
    }

    fn table(&self) -> &'a [u8] {
        self.0
            .get(HEAD..HEAD + usize::from(self.0[26]))
            .unwrap_or_default()
    }

    /// The page under another serial number.
    pub(super) fn renamed(&self, serial: u32) -> Vec<u8> {
        let mut page = self.0.to_vec();
        page[14..18].copy_from_slice(&serial.to_le_bytes());
        sealed(page)
    }

    /// The page as a part of an endless stream: at another place of it, and never its end.
    pub(super) fn moved(&self, granule: Option<u64>, sequence: u32) -> Vec<u8> {
        let mut page = self.0.to_vec();
        page[5] &= !END;
        page[6..14].copy_from_slice(&granule.unwrap_or(u64::MAX).to_le_bytes());
        page[18..22].copy_from_slice(&sequence.to_le_bytes());
        sealed(page)
    }
}

/// With the right check sum.
fn sealed(mut page: Vec<u8>) -> Vec<u8> {
    page[22..26].fill(0);
    let sum = crc(&page);
    page[22..26].copy_from_slice(&sum.to_le_bytes());
    page
}

/// The check sum: polynomial 0x04C11DB7, not reflected, starting from zero.
fn crc(page: &[u8]) -> u32 {
    page.iter().fold(0, |sum, &byte| {
        sum << 8 ^ CRC[(sum >> 24) as usize ^ usize::from(byte)]
    })
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut sum = (i as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum >> 31 == 1 {
                sum << 1 ^ 0x04C1_1DB7
            } else {
                sum << 1
            };
            bit += 1;
        }
        table[i] = sum;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sum_is_that_of_ogg() {
        // CRC-32 with this polynomial, unreflected, from zero and without a final xor.
        assert_eq!(crc(b"123456789"), 0x89A1_897F);
        assert_eq!(crc(&[]), 0);
    }

    #[test]
    fn a_page_is_read_and_moved() {
        let mut bytes = b"OggS\0\x06".to_vec();
        bytes.extend_from_slice(&[
            9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 255, 1,
        ]);
        bytes.resize(27 + 2 + 256, 3);
        assert_eq!(Page::len(&bytes), Some(285));
        assert_eq!(Page::len(&bytes[..28]), None);
        let page = Page(&bytes);
        assert!(page.begins());
        assert_eq!(
            (page.serial(), page.granule(), page.packets(), page.body().len()),
            (5, Some(9), 1, 256)
        );
        let moved = page.moved(None, 8);
        let moved = Page(&moved);
        assert_eq!((moved.0[5], moved.granule(), moved.0[18]), (BEGIN, None, 8));
        assert_eq!(Page(&page.renamed(0x0102_0304)).serial(), 0x0102_0304);
    }
}
