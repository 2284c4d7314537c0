//! RTP (RFC 3550) as far as a transport stream needs it (RFC 2250), with the datagram's place in the stream in a header
//! extension (RFC 8285).

/// The static payload type of MPEG-TS (RFC 3551, section 6).
pub const PAYLOAD_TS: u8 = 33;
/// The payload type of our parity datagrams, dynamic (RFC 3551, section 6).
pub const PAYLOAD_PARITY: u8 = 97;
/// Ticks of an RTP time stamp of MPEG-TS, in Hz (RFC 2250, section 2).
pub const CLOCK_HZ: u64 = 90_000;
/// Bytes of the longest header we write.
pub const HEAD_MAX: usize = FIXED + EXTENSION;

const FIXED: usize = 12;
/// Profile, length, element head, place, padding to a word.
const EXTENSION: usize = 4 + 20;
/// "One-byte headers" follow (RFC 8285, section 4.2).
const ONE_BYTE: u16 = 0xBEDE;
/// The element that names the place; `a=extmap` in SDP says the same.
pub const PLACE_ID: u8 = 1;
const PLACE_BYTES: usize = 16;

/// Where in the stream a datagram's first byte lies; the same on every node of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The life of the channel.
    pub epoch: u64,
    /// Bytes since its beginning.
    pub at: u64,
}

/// What an RTP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What follows: [`PAYLOAD_TS`] or [`PAYLOAD_PARITY`]. Seven bits.
    pub payload_type: u8,
    /// The time stamps make a leap here (RFC 2250, section 2).
    pub marker: bool,
    /// One more with each datagram.
    pub sequence: u16,
    /// In ticks of [`CLOCK_HZ`].
    pub timestamp: u32,
    /// Whose sequence it is.
    pub ssrc: u32,
    /// Where in the stream, if the sender says so.
    pub place: Option<Place>,
}

/// Why bytes are no RTP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends too early.
    #[error("RTP: expected at least {expected} bytes, got {got}")]
    Short {
        /// Bytes there should be.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
    /// Another protocol.
    #[error("RTP: expected version 2, got {0}")]
    Version(u8),
    /// It claims more padding than it has bytes, or none at all.
    #[error("RTP: expected 1 to {most} bytes of padding, got {got}")]
    Padding {
        /// Bytes behind the header.
        most: usize,
        /// What it claims.
        got: usize,
    },
}

impl Head {
    /// The header in bytes; how many of them it takes.
    pub fn encode(&self) -> ([u8; HEAD_MAX], usize) {
        let mut out = [0; HEAD_MAX];
        out[0] = 0x80 | if self.place.is_some() { 0x10 } else { 0 };
        out[1] = self.payload_type & 0x7F | u8::from(self.marker) << 7;
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let Some(place) = self.place else {
            return (out, FIXED);
        };
        out[12..14].copy_from_slice(&ONE_BYTE.to_be_bytes());
        out[14..16].copy_from_slice(&((EXTENSION as u16 - 4) / 4).to_be_bytes());
        out[16] = PLACE_ID << 4 | (PLACE_BYTES as u8 - 1);
        out[17..25].copy_from_slice(&place.epoch.to_be_bytes());
        out[25..33].copy_from_slice(&place.at.to_be_bytes());
        (out, HEAD_MAX)
    }

    /// Reads a datagram: its header, and what it carries.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: it is no RTP datagram.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let fixed = take(bytes, 0, FIXED)?;
        if fixed[0] >> 6 != 2 {
            return Err(Malformed::Version(fixed[0] >> 6));
        }
        let mut body = FIXED + 4 * usize::from(fixed[0] & 0x0F);
        let mut place = None;
        if fixed[0] & 0x10 != 0 {
            let head = take(bytes, body, 4)?;
            let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            let elements = take(bytes, body + 4, len)?;
            if u16::from_be_bytes([head[0], head[1]]) == ONE_BYTE {
                place = find_place(elements);
            }
            body += 4 + len;
        }
        take(bytes, 0, body)?;
        let payload = unpadded(&bytes[body..], fixed[0] & 0x20 != 0)?;
        let head = Self {
            payload_type: fixed[1] & 0x7F,
            marker: fixed[1] & 0x80 != 0,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            place,
        };
        Ok((head, payload))
    }
}

/// A time stamp of the moment at which bytes came to the root, in Unix microseconds.
pub fn timestamp(capture_us: u64) -> u32 {
    // The lower bits are all there is.
    (u128::from(capture_us) * u128::from(CLOCK_HZ) / 1_000_000) as u32
}

fn take(bytes: &[u8], at: usize, len: usize) -> Result<&[u8], Malformed> {
    bytes.get(at..at + len).ok_or(Malformed::Short {
        expected: at + len,
        got: bytes.len(),
    })
}

fn unpadded(body: &[u8], is_padded: bool) -> Result<&[u8], Malformed> {
    if !is_padded {
        return Ok(body);
    }
    let got = usize::from(body.last().copied().unwrap_or(0));
    if got == 0 || got > body.len() {
        return Err(Malformed::Padding {
            most: body.len(),
            got,
        });
    }
    Ok(&body[..body.len() - got])
}

/// The element with our place, among others (RFC 8285, section 4.2).
fn find_place(mut elements: &[u8]) -> Option<Place> {
    while let Some((first, rest)) = elements.split_first() {
        let (id, len) = (first >> 4, usize::from(first & 0x0F) + 1);
        if *first == 0 {
            elements = rest;
            continue;
        }
        // The value 15 ends the list.
        if id == 15 {
            return None;
        }
        let (value, rest) = rest.split_at_checked(len)?;
        if id == PLACE_ID && len == PLACE_BYTES {
            let (epoch, at) = value.split_at(8);
            return Some(Place {
                epoch: u64::from_be_bytes(epoch.try_into().ok()?),
                at: u64::from_be_bytes(at.try_into().ok()?),
            });
        }
        elements = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_head() -> impl Strategy<Value = Head> {
        let place = any::<Option<(u64, u64)>>();
        (0u8..128, any::<(bool, u16, u32, u32)>(), place).prop_map(
            |(payload_type, (marker, sequence, timestamp, ssrc), place)| Head {
                payload_type,
                marker,
                sequence,
                timestamp,
                ssrc,
                place: place.map(|(epoch, at)| Place { epoch, at }),
            },
        )
    }

    fn written(head: &Head, body: &[u8]) -> Vec<u8> {
        let (bytes, len) = head.encode();
        [&bytes[..len], body].concat()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(head in any_head(), body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = written(&head, &body);
            prop_assert_eq!(Head::parse(&bytes), Ok((head, &body[..])));
        }

        #[test]
        fn every_cut_is_refused_or_shorter(head in any_head(), body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bytes = written(&head, &body);
            for cut in 0..bytes.len() {
                match Head::parse(&bytes[..cut]) {
                    Ok((same, rest)) => prop_assert!(same == head && rest.len() < body.len()),
                    Err(error) => {
                        let short = matches!(error, Malformed::Short { .. });
                        prop_assert!(short, "{}", error);
                    }
                }
            }
        }

        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok((_, body)) = Head::parse(&bytes) {
                prop_assert!(body.len() <= bytes.len() - 12);
            }
        }
    }

    #[test]
    fn what_others_write_is_read() {
        // Two contributing sources, an extension of another kind, three bytes of padding (RFC 3550, 5.1 and 5.3.1).
        let mut bytes = vec![0xB2, 0xA1, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5];
        bytes.extend([1; 8]);
        bytes.extend([0x10, 0x00, 0, 1, 1, 2, 3, 4]);
        bytes.extend(b"body\0\0\x03");
        let (head, body) = Head::parse(&bytes).unwrap();
        assert_eq!((head.payload_type, head.sequence, head.ssrc), (PAYLOAD_TS, 7, 5));
        assert!(head.marker && head.place.is_none());
        assert_eq!(body, b"body");
        *bytes.last_mut().unwrap() = 8;
        assert_eq!(Head::parse(&bytes), Err(Malformed::Padding { most: 7, got: 8 }));
        bytes[0] = 0x40;
        assert_eq!(Head::parse(&bytes), Err(Malformed::Version(1)));
    }

    #[test]
    fn the_place_is_found_behind_other_elements() {
        let place = [&[0x1F][..], &7u64.to_be_bytes(), &8u64.to_be_bytes()].concat();
        let found = Some(Place { epoch: 7, at: 8 });
        assert_eq!(find_place(&[&[0x21, 9, 9, 0, 0][..], &place].concat()), found);
        assert_eq!(find_place(&[&[0xF0][..], &place].concat()), None);
        assert_eq!(find_place(&place[..16]), None);
    }

    #[test]
    fn stamps_tick_ninety_thousand_times_a_second() {
        let (one, other) = (timestamp(1_700_000_000_000_000), timestamp(1_700_000_001_000_000));
        assert_eq!(other.wrapping_sub(one), 90_000);
    }
}
