//! Plays a file, or a pipe, as a live stream.

use std::time::Duration;

use relay_seam::Now;

use crate::format::{self, Format, Input, Step};
use crate::out::Out;
use crate::pace::Pace;
use crate::{Error, Kind};

/// The largest element (a frame, a tag, a `moov`) that is held in memory, in bytes. With the 64 KiB of one
/// [`Player::push`] it bounds what a player holds.
pub const UNIT_MAX: usize = 8 * 1024 * 1024;

/// So many bytes without the stream's time moving on mean that there is no clock.
pub const UNTIMED_MAX: u64 = 8 * 1024 * 1024;

/// What is played, and how.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The format.
    pub kind: Kind,
    /// Begin again at the end, with continuous time stamps. Needs a source that can be read again.
    pub looped: bool,
    /// Play the bytes as they are at this rate, in thousand bits per second, whatever the format. Nothing is
    /// rewritten then, so a loop shows its seam.
    pub kbps: Option<u32>,
}

/// What a player wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// These bytes are due. Ask again at once.
    Piece(Vec<u8>),
    /// Nothing is due before then.
    Wait(Now),
    /// Call [`Player::push`] with the next bytes, or [`Player::end_of_input`].
    NeedInput,
    /// The round is over: start again from the file's first byte. Told once per round, in a loop only.
    Rewind,
    /// Everything has been played.
    Finished,
}

/// What a player has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes pushed.
    pub bytes_in: u64,
    /// Bytes handed out.
    pub bytes_out: u64,
    /// Bytes of the file that were no part of the stream: damage and a torn end. (What a live stream has no use
    /// for, such as an index or a tag, is not counted.)
    pub bytes_skipped: u64,
    /// Rounds that are over.
    pub rounds: u64,
    /// The stream's time: how much of it has been read so far.
    pub played: Duration,
}

/// Plays one file. See [`Player::poll`] for the caller's loop.
pub struct Player {
    config: Config,
    format: Box<dyn Format>,
    held: Vec<u8>,
    skip: u64,
    at: u64,
    ended: bool,
    failed: Option<Error>,
    out: Out,
    pace: Pace,
    round_from_ns: u64,
    stats: Stats,
}

impl Player {
    /// A player that has not begun.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for [`Kind::Other`] without a rate.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self {
            config,
            format: format::of(config.kind, config.kbps)?,
            held: Vec::new(),
            skip: 0,
            at: 0,
            ended: false,
            failed: None,
            out: Out::default(),
            pace: Pace::default(),
            round_from_ns: 0,
            stats: Stats::default(),
        })
    }

    /// The next bytes of the file, at most 64 KiB at a time to keep the memory bounded. They may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.stats.bytes_in += bytes.len() as u64;
        if self.failed.is_some() || self.ended {
            return;
        }
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= skipped as u64;
        self.at += skipped as u64;
        self.held.extend_from_slice(&bytes[skipped..]);
        self.run();
    }

    /// The file is at its end (for this round).
    pub fn end_of_input(&mut self) {
        if self.failed.is_some() || self.ended {
            return;
        }
        self.ended = true;
        self.run();
        self.out.skip(self.held.len());
        if self.failed.is_none() {
            self.failed = self.end_round().err();
        }
    }

    /// What is next at `now`. The caller's loop is: hand on a piece, wait, read, rewind, as told, until
    /// [`Poll::Finished`].
    ///
    /// The first piece goes at once. Play then runs at twice the speed until it leads the stream's clock by
    /// [`LEAD`](crate::LEAD), and keeps that lead. After a stall of the caller or of its input it catches up at
    /// twice the speed, at most [`CATCH_UP_MAX`](crate::CATCH_UP_MAX); beyond that the clock is moved.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, once everything before the fault has been played; the same one from then on.
    pub fn poll(&mut self, now: Now) -> Result<Poll, Error> {
        let Some(due_ns) = self.out.next_due() else {
            return self.poll_empty();
        };
        let wait = self.pace.wait(now, due_ns);
        if !wait.is_zero() {
            return Ok(Poll::Wait(now + wait));
        }
        let bytes = self.out.take().map(|unit| unit.bytes).unwrap_or_default();
        self.stats.bytes_out += bytes.len() as u64;
        Ok(Poll::Piece(bytes))
    }

    /// What has been done so far.
    pub fn stats(&self) -> Stats {
        let played = Duration::from_nanos(self.out.due_ns());
        Stats {
            bytes_skipped: self.out.skipped(),
            played,
            ..self.stats
        }
    }

    fn poll_empty(&mut self) -> Result<Poll, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.ended {
            return Ok(Poll::NeedInput);
        }
        if !self.config.looped {
            return Ok(Poll::Finished);
        }
        self.rewind();
        Ok(Poll::Rewind)
    }

    fn rewind(&mut self) {
        self.held.clear();
        self.skip = 0;
        self.at = 0;
        self.ended = false;
    }

    /// Steps through what is held; afterwards at most one unfinished element is left in it.
    fn run(&mut self) {
        let mut from = 0;
        while self.failed.is_none() {
            let at = self.at;
            let input = Input {
                data: &self.held[from..],
                at,
                ended: self.ended,
            };
            if input.data.is_empty() {
                break;
            }
            match self.format.step(input, &mut self.out) {
                Ok(Step::Took(n)) => from += self.took(n as u64, from),
                Ok(Step::Skip(n)) => from += self.took(n, from),
                Ok(Step::More) => break,
                Err(fault) => self.failed = Some(fault.at(self.config.kind, at)),
            }
            self.check_clock();
        }
        self.held.drain(..from);
        self.check_length();
    }

    /// Moves on by `n` bytes; answers how many of them are held.
    fn took(&mut self, n: u64, from: usize) -> usize {
        let here = (self.held.len() - from) as u64;
        self.skip = n.saturating_sub(here);
        self.at += n.min(here);
        n.min(here) as usize
    }

    fn check_clock(&mut self) {
        let bytes = self.out.still();
        if bytes > UNTIMED_MAX && self.failed.is_none() {
            self.failed = Some(Error::NoClock {
                kind: self.config.kind,
                bytes,
            });
        }
    }

    fn check_length(&mut self) {
        if self.held.len() > UNIT_MAX && self.failed.is_none() {
            self.failed = Some(Error::TooLong {
                kind: self.config.kind,
                at: self.at,
                limit: UNIT_MAX,
            });
        }
    }

    /// A round must have had bytes and a clock, and a later one must have taken time: a loop never spins.
    fn end_round(&mut self) -> Result<(), Error> {
        let kind = self.config.kind;
        if self.at == 0 && self.held.is_empty() {
            return Err(Error::Empty { kind });
        }
        self.format.end_round().map_err(|fault| fault.at(kind, self.at))?;
        if self.stats.rounds > 0 && self.out.due_ns() == self.round_from_ns {
            return Err(Error::NoClock { kind, bytes: self.at });
        }
        self.round_from_ns = self.out.due_ns();
        self.stats.rounds += 1;
        Ok(())
    }
}
