//! Test streams whose content proves their position, and the judge of what became of them (oracle O1).
//!
//! Unit `n` of a stream is a function of `n` alone: a transport stream packet, or an MPEG audio frame, that carries its
//! number. So a listener's bytes can be compared with the source's without keeping those, and a jump is seen for what
//! it is.

/// What the units of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Transport stream packets of 188 bytes; a table pair and a random access point begin every group of units.
    Ts,
    /// MPEG-1 layer III frames of 417 bytes (128 kb/s, 44.1 kHz): a join point each, and ICY metadata fit in.
    Mp3,
}

/// Packets from one random access point to the next.
const GROUP: u64 = 64;
const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
/// What the time stamps claim; nothing is paced by it.
const NOMINAL_BITS: u64 = 1_000_000;

impl Form {
    /// Bytes of a unit.
    pub fn unit_bytes(self) -> usize {
        match self {
            Form::Ts => 188,
            Form::Mp3 => 417,
        }
    }

    /// The content type to announce.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Ts => "video/mp2t",
            Form::Mp3 => "audio/mpeg",
        }
    }

    /// Units from one join point to the next: where a source begins so that its first units are a head.
    pub fn group(self) -> u64 {
        match self {
            Form::Ts => GROUP,
            Form::Mp3 => 1,
        }
    }

    /// Unit `n`.
    pub fn unit(self, n: u64) -> Vec<u8> {
        match self {
            Form::Ts => ts_unit(n),
            Form::Mp3 => mp3_unit(n),
        }
    }

    /// The number that a unit carries, if it carries one.
    fn number(self, unit: &[u8]) -> Option<u64> {
        let at = match self {
            Form::Mp3 => 4,
            Form::Ts if pid(unit) != VIDEO_PID => return None,
            Form::Ts if unit[1] & 0x40 != 0 => 26,
            Form::Ts => 4,
        };
        Some(u64::from_be_bytes(unit[at..at + 8].try_into().ok()?))
    }

    fn begins_unit(self, bytes: &[u8]) -> bool {
        match self {
            Form::Ts => bytes[0] == 0x47,
            Form::Mp3 => bytes.starts_with(&[0xFF, 0xFB, 0x90]),
        }
    }
}

fn pid(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1F, packet[2]])
}

fn mp3_unit(n: u64) -> Vec<u8> {
    let mut unit = vec![0xFF, 0xFB, 0x90, 0x00];
    unit.extend(n.to_be_bytes());
    unit.resize(Form::Mp3.unit_bytes(), (n % 100) as u8);
    unit
}

fn ts_unit(n: u64) -> Vec<u8> {
    let (group, k) = (n / GROUP, n % GROUP);
    match k {
        0 => table(
            0,
            group,
            &[
                0x00,
                0xB0,
                13,
                0,
                1,
                0xC1,
                0,
                0,
                0,
                1,
                0xE0 | (PMT_PID >> 8) as u8,
                PMT_PID as u8,
            ],
        ),
        1 => {
            let [high, low] = VIDEO_PID.to_be_bytes();
            let (high, low) = (0xE0 | high, low);
            table(
                PMT_PID,
                group,
                &[
                    2, 0xB0, 18, 0, 1, 0xC1, 0, 0, high, low, 0xF0, 0, 0x1B, high, low, 0xF0, 0,
                ],
            )
        }
        _ => video(n, group * (GROUP - 2) + k - 2, k == 2),
    }
}

fn table(pid: u16, group: u64, section: &[u8]) -> Vec<u8> {
    let mut packet = vec![
        0x47,
        0x40 | (pid >> 8) as u8,
        pid as u8,
        0x10 | (group & 15) as u8,
        0,
    ];
    packet.extend(section);
    packet.extend(crc32(section).to_be_bytes());
    packet.resize(188, 0xFF);
    packet
}

fn video(n: u64, count: u64, is_key: bool) -> Vec<u8> {
    let start = if is_key { 0x40 } else { 0 };
    let adaptation = if is_key { 0x30 } else { 0x10 };
    let mut packet = vec![
        0x47,
        start | (VIDEO_PID >> 8) as u8,
        VIDEO_PID as u8,
        adaptation | (count & 15) as u8,
    ];
    if is_key {
        let time = n * 188 * 8 * 90_000 / NOMINAL_BITS;
        // An adaptation field with the random access flag and a PCR, then the head of a PES packet with a PTS.
        packet.extend([7, 0x50]);
        packet.extend(&(time << 31).to_be_bytes()[..4]);
        packet.extend([((time & 1) << 7) as u8 | 0x7E, 0]);
        packet.extend([0, 0, 1, 0xE0, 0, 0, 0x80, 0x80, 5]);
        packet.extend([0x21, 0, 1, 0, 1]);
        let pts = packet.len() - 5;
        packet[pts] |= (time >> 29) as u8 & 0x0E;
        packet[pts + 1] = (time >> 22) as u8;
        packet[pts + 2] |= (time >> 14) as u8 & 0xFE;
        packet[pts + 3] = (time >> 7) as u8;
        packet[pts + 4] |= (time << 1) as u8 & 0xFE;
    }
    packet.extend(n.to_be_bytes());
    packet.resize(188, 0xA0 | (n % 16) as u8);
    packet
}

/// CRC-32/MPEG-2 (ISO/IEC 13818-1, annex A).
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc & 1 << 31 != 0 {
                crc << 1 ^ 0x04C1_1DB7
            } else {
                crc << 1
            }
        })
    })
}

/// A place at which a listener did not get the next unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The unit that was due.
    pub due: u64,
    /// The unit that came.
    pub came: u64,
}

/// Judges a listener's payload as it comes.
#[derive(Debug)]
pub struct Checker {
    form: Form,
    rest: Vec<u8>,
    /// Bytes of a tag still to be passed over.
    filling: usize,
    next: Option<u64>,
    first: Option<u64>,
    offset: u64,
    units: u64,
    jumps: Vec<Jump>,
    faults: Vec<String>,
}

/// More faults than this are not described.
const FAULTS_KEPT: usize = 8;

impl Checker {
    /// A judge who has seen nothing.
    pub fn new(form: Form) -> Self {
        Self {
            form,
            rest: Vec::new(),
            filling: 0,
            next: None,
            first: None,
            offset: 0,
            units: 0,
            jumps: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Looks at the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let size = self.form.unit_bytes();
        let mut at = self.past_filling(0);
        while self.rest.len() - at >= size {
            let unit = &self.rest[at..at + size];
            if !self.form.begins_unit(unit) {
                let skip = unit.len();
                let skip = (1..skip)
                    .find(|i| self.form.begins_unit(&self.rest[at + i..]))
                    .unwrap_or(skip);
                self.fault(format!("no unit begins at byte {}", self.offset));
                (at, self.offset) = (at + skip, self.offset + skip as u64);
                continue;
            }
            let unit = unit.to_vec();
            self.unit(&unit);
            self.offset += size as u64;
            at = self.past_filling(at + size);
        }
        self.rest.drain(..at);
    }

    /// Passes over an ID3v2 tag (its length is four times seven bits): with one the relay fills up to the first
    /// metadata block, so that all listeners have theirs at the same places.
    fn past_filling(&mut self, at: usize) -> usize {
        if let (Form::Mp3, Some([b'I', b'D', b'3', _, _, _, a, b, c, d])) =
            (self.form, self.rest[at..].first_chunk())
        {
            let body = [a, b, c, d]
                .iter()
                .fold(0, |sum, seven| sum << 7 | usize::from(**seven));
            self.filling = 10 + body;
        }
        let skip = self.filling.min(self.rest.len() - at);
        self.filling -= skip;
        self.offset += skip as u64;
        at + skip
    }

    fn unit(&mut self, unit: &[u8]) {
        if let Some(next) = self.next
            && unit == self.form.unit(next)
        {
            self.next = Some(next + 1);
            self.units += 1;
            return;
        }
        match self.form.number(unit) {
            Some(n) if self.form.unit(n) == unit => self.lands(n),
            // Tables that are not the next unit: a header for a newcomer.
            None if matches!(pid(unit), 0 | PMT_PID) => {}
            _ => self.fault(format!(
                "the unit at byte {} is none of the source's (due: {:?})",
                self.offset, self.next
            )),
        }
    }

    fn lands(&mut self, n: u64) {
        self.first.get_or_insert(n);
        if let Some(due) = self.next {
            self.jumps.push(Jump { due, came: n });
        }
        self.next = Some(n + 1);
        self.units += 1;
    }

    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(text);
        }
    }

    /// The first unit that came.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The unit that is due.
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Units that came in their place.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// Where units were left out, or came again.
    pub fn jumps(&self) -> &[Jump] {
        &self.jumps
    }

    /// Bytes that are none of the source's, or not where a unit may begin.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// O1: a contiguous run of the source's units.
    ///
    /// # Panics
    ///
    /// When it is not, or empty.
    pub fn expect_whole(&self) {
        self.expect_jumps(0);
    }

    /// O1 with so many declared jumps, each forward.
    ///
    /// # Panics
    ///
    /// When there are more or fewer, or bytes that are not the source's.
    pub fn expect_jumps(&self, declared: usize) {
        assert!(
            self.faults.is_empty(),
            "bytes that are not the source's: {:#?}",
            self.faults
        );
        assert!(self.units > 0, "nothing came");
        assert_eq!(
            self.jumps.len(),
            declared,
            "jumps: {:?} in {} units",
            self.jumps,
            self.units
        );
        assert!(
            self.jumps.iter().all(|j| j.came >= j.due),
            "units came twice: {:?}",
            self.jumps
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(form: Form, units: impl Iterator<Item = u64>) -> Vec<u8> {
        units.flat_map(|n| form.unit(n)).collect()
    }

    #[test]
    fn a_run_is_whole_however_it_is_cut() {
        for form in [Form::Ts, Form::Mp3] {
            for cut in [1, 7, 188, 1000] {
                let mut checker = Checker::new(form);
                bytes(form, 66..200)
                    .chunks(cut)
                    .for_each(|piece| checker.feed(piece));
                checker.expect_whole();
                assert_eq!((checker.first(), checker.next()), (Some(66), Some(200)));
            }
        }
    }

    #[test]
    fn a_header_before_a_join_point_is_no_jump() {
        let mut checker = Checker::new(Form::Ts);
        checker.feed(&bytes(Form::Ts, [0, 1].into_iter()));
        checker.feed(&bytes(Form::Ts, 66..130));
        checker.expect_whole();
    }

    #[test]
    fn a_tag_that_fills_up_is_no_fault() {
        for cut in [1, 300, 5000] {
            let mut checker = Checker::new(Form::Mp3);
            let tag = [b"ID3\x04\0\0\0\0\x07\x68".as_slice(), &[0; 1000]].concat();
            let all = [tag, bytes(Form::Mp3, 5..20)].concat();
            all.chunks(cut).for_each(|piece| checker.feed(piece));
            checker.expect_whole();
            assert_eq!((checker.first(), checker.next()), (Some(5), Some(20)));
        }
    }

    #[test]
    fn what_is_lost_or_doubled_or_spoilt_is_seen() {
        let mut checker = Checker::new(Form::Ts);
        checker.feed(&bytes(Form::Ts, (66..80).chain(82..90).chain(85..95)));
        assert_eq!(
            checker.jumps(),
            [Jump { due: 80, came: 82 }, Jump { due: 90, came: 85 }]
        );
        let mut checker = Checker::new(Form::Ts);
        let mut spoilt = bytes(Form::Ts, 66..80);
        spoilt[188 * 3 + 100] ^= 1;
        checker.feed(&spoilt);
        assert_eq!(checker.faults().len(), 1);
        let mut checker = Checker::new(Form::Ts);
        let mut cut = bytes(Form::Ts, 66..80);
        cut.drain(188 * 3 + 50..188 * 4);
        checker.feed(&cut);
        assert!(!checker.faults().is_empty());
    }
}
