//! The checksum that MPEG sections (ISO/IEC 13818-1 annex A) and Ogg pages (RFC 3533 section 6) share: polynomial
//! 0x04C11DB7, most significant bit first, no final inversion. They differ in the initial value only.

/// Eight tables, so that eight bytes are taken per round.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ (if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 });
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[table - 1][byte];
            tables[table][byte] = (crc << 8) ^ tables[0][(crc >> 24) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// Carries a checksum on over `bytes`.
pub(crate) fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let mut rounds = bytes.chunks_exact(8);
    let crc = rounds.by_ref().fold(crc, |crc, eight| {
        let front = (crc ^ u32::from_be_bytes([eight[0], eight[1], eight[2], eight[3]])).to_be_bytes();
        let high = (0..4).fold(0, |sum, i| sum ^ TABLES[7 - i][front[i] as usize]);
        (4..8).fold(high, |sum, i| sum ^ TABLES[7 - i][eight[i] as usize])
    });
    rounds.remainder().iter().fold(crc, |crc, byte| {
        (crc << 8) ^ TABLES[0][((crc >> 24) as u8 ^ byte) as usize]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // CRC-32/MPEG-2 and its zero-initialised sister, from the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32(!0, b"123456789"), 0x0376_E6E7);
        assert_eq!(crc32(0, b"123456789"), 0x89A1_897F);
    }

    #[test]
    fn eight_at_a_time_equals_one_at_a_time() {
        let bytes: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        let slow = bytes.iter().fold(7, |crc, byte| crc32(crc, &[*byte]));
        assert_eq!(crc32(7, &bytes), slow);
    }
}
