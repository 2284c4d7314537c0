//! What a container format does for the player.

use crate::error::Fault;
use crate::out::Out;
use crate::{Error, Kind, flv, frames, mp4, ogg, rate, ts, webm};

/// After damage, this much is searched for the next whole element before the file is given up.
pub(crate) const SCAN_MAX: u64 = 256 * 1024;

/// Where a step looks.
pub(crate) struct Input<'a> {
    /// The bytes that are there, from the current position on.
    pub(crate) data: &'a [u8],
    /// Offset of the first of them in the file.
    pub(crate) at: u64,
    /// `true` when no more will come in this round.
    pub(crate) ended: bool,
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes are done with, at least one.
    Took(usize),
    /// So many bytes are not wanted, whether they are there already or not.
    Skip(u64),
    /// Nothing can be said before more bytes are there. At the end of the file: the rest is torn off.
    More,
}

/// A container format: cuts a file into pieces, finds out when they are due and makes rounds follow each other.
pub(crate) trait Format: Send {
    /// Handles the next element. What it answers must not depend on how much more than that element is there.
    fn step(&mut self, input: Input<'_>, out: &mut Out) -> Result<Step, Fault>;

    /// The file is at its end. The next step begins at its beginning again and must continue the stream.
    fn end_round(&mut self) -> Result<(), Fault>;
}

/// The format of a kind; a rate overrides the stream's own clock.
pub(crate) fn of(kind: Kind, kbps: Option<u32>) -> Result<Box<dyn Format>, Error> {
    Ok(match (kind, kbps) {
        (_, Some(kbps)) => Box::new(rate::Rate::new(kbps)),
        (Kind::MpegTs, None) => Box::<ts::Ts>::default(),
        (Kind::Flv, None) => Box::<flv::Flv>::default(),
        (Kind::Ogg, None) => Box::<ogg::Ogg>::default(),
        (Kind::WebM, None) => Box::<webm::WebM>::default(),
        (Kind::Mp4, None) => Box::<mp4::Mp4>::default(),
        (Kind::Mp3, None) => Box::new(frames::Frames::mp3()),
        (Kind::Adts, None) => Box::new(frames::Frames::adts()),
        (Kind::Other, None) => {
            return Err(Error::Unsupported {
                what: "the format is not known, so it has no clock to be paced by",
                remedy: "give the rate with --kbps, or name the format with --content-type",
            });
        }
    })
}
