//! What the first bytes of a video access unit say, for encoders that do not mark random access points.

/// Bytes of an access unit that are looked into; parameter sets and messages before the picture are far shorter.
const PROBE_MAX: usize = 16 << 10;

/// Fixed part of a PES packet's head (ISO/IEC 13818-1, 2.4.3.6).
const PES_HEAD: usize = 9;

/// What an access unit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It brings the parameters a decoder starts with.
    Parameters,
    /// A key frame, without parameters.
    Key,
    /// It needs pictures before it.
    Dependent,
}

/// A look into an access unit, start code by start code.
#[derive(Debug)]
pub(super) struct Probe {
    codec: u8,
    /// Bytes of the PES head still to pass over.
    skip: usize,
    /// The last four bytes.
    window: u32,
    seen: usize,
}

impl Probe {
    /// Begins with the payload of the unit's first packet; `None` when there is nothing to learn from it.
    pub(super) fn new(codec: u8, payload: &[u8]) -> Option<Probe> {
        let head = payload
            .first_chunk::<PES_HEAD>()
            .filter(|head| head[..3] == [0, 0, 1])?;
        judge(codec).map(|_| Probe {
            codec,
            skip: PES_HEAD + usize::from(head[8]),
            window: !0,
            seen: 0,
        })
    }

    /// Takes the next payload; `Some` when the verdict is clear.
    pub(super) fn feed(&mut self, payload: &[u8]) -> Option<Verdict> {
        let judge = judge(self.codec)?;
        let skipped = self.skip.min(payload.len());
        self.skip -= skipped;
        for byte in &payload[skipped..] {
            let after_code = self.window & 0x00FF_FFFF == 1;
            self.window = self.window << 8 | u32::from(*byte);
            if after_code && let Some(verdict) = judge(*byte) {
                return Some(verdict);
            }
        }
        self.seen += payload.len();
        (self.seen > PROBE_MAX).then_some(Verdict::Dependent)
    }
}

/// Reads the byte behind a start code.
type Judge = fn(u8) -> Option<Verdict>;

/// The rule for a `stream_type`; `None` where only the random access mark is trusted.
fn judge(codec: u8) -> Option<Judge> {
    match codec {
        0x01 | 0x02 => Some(mpeg2),
        0x10 => Some(mpeg4),
        0x1B => Some(h264),
        0x24 => Some(h265),
        _ => None,
    }
}

/// ISO/IEC 13818-2, 6.2.1: sequence header, picture.
fn mpeg2(code: u8) -> Option<Verdict> {
    match code {
        0xB3 => Some(Verdict::Parameters),
        0x00 => Some(Verdict::Dependent),
        _ => None,
    }
}

/// ISO/IEC 14496-2, 6.2.1: visual object sequence, video object layer, picture.
fn mpeg4(code: u8) -> Option<Verdict> {
    match code {
        0xB0 | 0x20..=0x2F => Some(Verdict::Parameters),
        0xB6 => Some(Verdict::Dependent),
        _ => None,
    }
}

/// ITU-T H.264, 7.4.1: sequence parameter set, slices.
fn h264(code: u8) -> Option<Verdict> {
    match code & 0x1F {
        7 => Some(Verdict::Parameters),
        5 => Some(Verdict::Key),
        1 | 2 => Some(Verdict::Dependent),
        _ => None,
    }
}

/// ITU-T H.265, 7.4.2.2: video and sequence parameter set, random access pictures, others.
fn h265(code: u8) -> Option<Verdict> {
    match code >> 1 & 0x3F {
        32 | 33 => Some(Verdict::Parameters),
        16..=23 => Some(Verdict::Key),
        0..=15 => Some(Verdict::Dependent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(codec: u8, es: &[u8]) -> Option<Verdict> {
        let payload = [&[0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1][..], es].concat();
        Probe::new(codec, &payload)?.feed(&payload)
    }

    #[test]
    fn first_bytes() {
        let aud = [0, 0, 0, 1, 9, 0xF0];
        assert_eq!(
            verdict(0x1B, &[&aud[..], &[0, 0, 0, 1, 0x67]].concat()),
            Some(Verdict::Parameters)
        );
        assert_eq!(
            verdict(0x1B, &[&aud[..], &[0, 0, 1, 6, 5, 1, 0, 0, 1, 0x65]].concat()),
            Some(Verdict::Key)
        );
        assert_eq!(
            verdict(0x1B, &[&aud[..], &[0, 0, 1, 0x41]].concat()),
            Some(Verdict::Dependent)
        );
        assert_eq!(verdict(0x1B, &aud), None);
        assert_eq!(verdict(0x24, &[0, 0, 0, 1, 0x40, 1]), Some(Verdict::Parameters));
        assert_eq!(verdict(0x24, &[0, 0, 0, 1, 0x26, 1]), Some(Verdict::Key));
        assert_eq!(verdict(0x24, &[0, 0, 0, 1, 0x02, 1]), Some(Verdict::Dependent));
        assert_eq!(verdict(0x02, &[0, 0, 1, 0xB3]), Some(Verdict::Parameters));
        assert_eq!(verdict(0x02, &[0, 0, 1, 0x00]), Some(Verdict::Dependent));
        assert_eq!(verdict(0x33, &[0, 0, 1, 0x00]), None);
    }
}
