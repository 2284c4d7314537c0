//! The stamped stream as RTMP video: FLV's AVC packets (Adobe Flash Video 10.1, E.4.3) around H.264 in its
//! length-prefixed form (ISO/IEC 14496-15, 5.3.3).
//!
//! Each message is one picture: the same grey one as in the transport stream, which decodes, and behind it a NAL unit
//! of a type that decoders leave aside (H.264, table 7-1: 24 to 31 are unspecified), which holds the stamped groups.

use super::Media;
use crate::ts;

/// Time of a picture: 25 in a second.
pub(crate) const FRAME: std::time::Duration = std::time::Duration::from_millis(40);
/// FLV's first byte of a key picture and of others: AVC is codec 7.
const KEY: u8 = 0x17;
const INTER: u8 = 0x27;
const CODEC: u8 = 7;
/// AVC packet types.
const CONFIG: u8 = 0;
const PICTURE: u8 = 1;
/// First byte, AVC packet type and composition time of a message.
const TAG: usize = 5;
/// The type of the NAL unit that holds groups.
const STAMPED: u8 = 30;

/// Makes picture after picture.
pub(crate) struct Camera {
    gop_us: u64,
    next_gop: u64,
    gops: usize,
    frame_num: u8,
}

impl Camera {
    /// A key picture at the first picture after every `gop_us` µs.
    pub(crate) fn new(gop_us: u64) -> Camera {
        Camera {
            gop_us,
            next_gop: 0,
            gops: 0,
            frame_num: 0,
        }
    }

    /// What a decoder needs first: an AVCDecoderConfigurationRecord with lengths of four bytes.
    pub(crate) fn config() -> Vec<u8> {
        let (sequence, picture) = ts::parameter_sets();
        let mut body = vec![
            KEY,
            CONFIG,
            0,
            0,
            0,
            1,
            sequence[1],
            sequence[2],
            sequence[3],
            0xff,
            0xe1,
        ];
        for (n, set) in [sequence, picture].into_iter().enumerate() {
            if n == 1 {
                body.push(1);
            }
            body.extend((set.len() as u16).to_be_bytes());
            body.extend(set);
        }
        body
    }

    /// The picture at `at_us` with these groups.
    pub(crate) fn picture(&mut self, at_us: u64, groups: &[u8]) -> Vec<u8> {
        let key = at_us >= self.next_gop;
        let picture: Vec<u8> = if key {
            self.next_gop = (at_us / self.gop_us + 1) * self.gop_us;
            (self.frame_num, self.gops) = (0, self.gops + 1);
            ts::key_picture(self.gops).to_vec()
        } else {
            self.frame_num = (self.frame_num + 1) % 16;
            ts::next_picture(self.frame_num).to_vec()
        };
        let mut body = vec![if key { KEY } else { INTER }, PICTURE, 0, 0, 0];
        body.extend((picture.len() as u32).to_be_bytes());
        body.extend(picture);
        body.extend((1 + groups.len() as u32).to_be_bytes());
        body.push(STAMPED);
        body.extend(groups);
        body
    }
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// So many bytes of the message's own fields are still to come.
    Tag(usize),
    /// A length: so many of its bytes have come, and their value.
    Length(u8, u32),
    /// The first byte of a NAL unit of so many.
    Kind(u32),
    /// Inside one: so many bytes left, and whether they are groups.
    Unit(u32, bool),
}

/// Finds the groups in video messages cut anywhere. What is no such stream gives none.
#[derive(Debug)]
pub(crate) struct Stamps(At);

impl Default for Stamps {
    fn default() -> Stamps {
        Stamps(At::Tag(TAG))
    }
}

impl Stamps {
    /// Takes a piece of a message; hands on what of it is groups.
    pub(crate) fn feed(&mut self, media: &Media<'_>, mut groups: impl FnMut(&[u8])) {
        if !media.is_video {
            return;
        }
        if media.first {
            self.0 = At::Tag(TAG);
        }
        let mut bytes = media.bytes;
        while let [first, rest @ ..] = bytes {
            let used = match self.0 {
                At::Tag(left) => {
                    self.0 = if left == 1 {
                        At::Length(0, 0)
                    } else {
                        At::Tag(left - 1)
                    };
                    1
                }
                At::Length(have, sum) => {
                    let sum = sum << 8 | u32::from(*first);
                    self.0 = match (have, sum) {
                        (3, 0) => At::Length(0, 0),
                        (3, sum) => At::Kind(sum),
                        _ => At::Length(have + 1, sum),
                    };
                    1
                }
                At::Kind(length) => {
                    self.0 = unit(length - 1, first & 0x1f == STAMPED);
                    1
                }
                At::Unit(left, wanted) => {
                    let used = (left as usize).min(1 + rest.len());
                    if wanted {
                        groups(&bytes[..used]);
                    }
                    self.0 = unit(left - used as u32, wanted);
                    used
                }
            };
            bytes = &bytes[used..];
        }
    }
}

fn unit(left: u32, wanted: bool) -> At {
    if left == 0 {
        At::Length(0, 0)
    } else {
        At::Unit(left, wanted)
    }
}

/// When a stream becomes decodable: the codec's configuration, then a key picture.
#[derive(Debug, Default)]
pub(crate) struct JoinWatch {
    /// The first two bytes of the message at hand.
    head: Vec<u8>,
    configured: bool,
}

impl JoinWatch {
    /// True as soon as the stream so far holds all that a decoder needs.
    pub(crate) fn feed(&mut self, media: &Media<'_>) -> bool {
        if !media.is_video {
            return false;
        }
        if media.first {
            self.head.clear();
        }
        let before = self.head.len();
        self.head.extend(media.bytes.iter().take(2 - before));
        if before == 2 || self.head.len() < 2 {
            return false;
        }
        let (key, codec) = (self.head[0] >> 4 == 1, self.head[0] & 0x0f);
        match (codec, self.head[1]) {
            (CODEC, CONFIG) => {
                self.configured = true;
                false
            }
            (CODEC, _) => key && self.configured,
            _ => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{self, Scanner, Stamp};
    use proptest::prelude::*;

    fn group(seq: u64) -> Vec<u8> {
        let mut group = vec![seq as u8; 500];
        stamp::write(
            &mut group,
            0,
            Stamp {
                stream: 1,
                seq,
                due_us: seq,
            },
        );
        group
    }

    /// Twelve pictures of 40 ms, two groups in each.
    fn pictures() -> Vec<Vec<u8>> {
        let mut camera = Camera::new(200_000);
        let two = |n| [group(2 * n), group(2 * n + 1)].concat();
        (0..12).map(|n| camera.picture(n * 40_000, &two(n))).collect()
    }

    #[test]
    fn every_group_is_found_in_any_slicing() {
        for piece in [1, 3, 300, 5000] {
            let (mut stamps, mut scanner, mut whole) = (Stamps::default(), Scanner::default(), 0);
            for message in [Camera::config()].iter().chain(&pictures()) {
                for (n, bytes) in message.chunks(piece).enumerate() {
                    let media = Media {
                        is_video: true,
                        first: n == 0,
                        bytes,
                    };
                    stamps.feed(&media, |groups| scanner.feed(groups, |_| whole += 1));
                }
            }
            assert_eq!(
                (whole, scanner.seen().is_perfect(), scanner.seen().lead_in),
                (24, true, 0)
            );
        }
    }

    #[test]
    fn a_player_may_begin_at_a_key_picture_behind_the_configuration() {
        let mut watch = JoinWatch::default();
        let mut feed = |message: &[u8]| {
            let first = watch.feed(&Media {
                is_video: true,
                first: true,
                bytes: &message[..1],
            });
            first
                || watch.feed(&Media {
                    is_video: true,
                    first: false,
                    bytes: &message[1..],
                })
        };
        let all = pictures();
        assert!(!feed(&all[0]), "no configuration yet");
        assert!(!feed(&Camera::config()) && !feed(&all[1]));
        assert!(feed(&all[5]), "a group of pictures is five long");
    }

    proptest! {
        #[test]
        fn hostile_messages_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000), piece in 1usize..400) {
            let (mut stamps, mut watch, mut count) = (Stamps::default(), JoinWatch::default(), 0);
            for (n, piece) in bytes.chunks(piece).enumerate() {
                let media = Media { is_video: true, first: n == 0, bytes: piece };
                stamps.feed(&media, |groups| count += groups.len());
                watch.feed(&media);
            }
            prop_assert!(count <= bytes.len() && watch.head.len() <= 2);
        }
    }
}
