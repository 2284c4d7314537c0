//! The caller of a player, with a clock that jumps from one deadline to the next.

use std::time::Duration;

use relay_clip::{Config, Error, Kind, Player, Poll};
use relay_seam::Now;

/// Polls per run after which a player is held to spin.
const POLLS_MAX: usize = 2_000_000;

/// What came out.
pub(crate) struct Played {
    pub(crate) bytes: Vec<u8>,
    /// When which of the bytes went: moment and how many were out then.
    pub(crate) steps: Vec<(Duration, usize)>,
    pub(crate) end: Result<(), Error>,
    pub(crate) player: Player,
}

/// Plays `file`, pushed in slices of `slice` bytes, for so many rounds.
pub(crate) fn play(kind: Kind, file: &[u8], rounds: u64, slice: usize) -> Played {
    play_with(
        Config {
            kind,
            looped: rounds > 1,
            kbps: None,
        },
        file,
        rounds,
        |_| slice,
    )
}

/// As [`play`], with the length of each slice by its number.
pub(crate) fn play_with(config: Config, file: &[u8], rounds: u64, slice: impl Fn(usize) -> usize) -> Played {
    let mut player = Player::new(config).unwrap();
    let start = Now::new(5_000_000_000, 0);
    let (mut now, mut bytes, mut steps) = (start, Vec::new(), Vec::new());
    let (mut at, mut pushes) = (0, 0);
    let mut end = None;
    for _ in 0..POLLS_MAX {
        match player.poll(now) {
            Ok(Poll::Piece(piece)) => {
                assert!(!piece.is_empty());
                bytes.extend_from_slice(&piece);
                steps.push((now - start, bytes.len()));
            }
            Ok(Poll::Wait(then)) => {
                assert!(then > now, "waits for a moment that has passed");
                now = then;
            }
            Ok(Poll::NeedInput) if at == file.len() => player.end_of_input(),
            Ok(Poll::NeedInput) => {
                let n = slice(pushes).clamp(1, file.len() - at);
                player.push(&file[at..at + n]);
                at += n;
                pushes += 1;
            }
            Ok(Poll::Rewind) if player.stats().rounds == rounds => end = Some(Ok(())),
            Ok(Poll::Rewind) => at = 0,
            Ok(Poll::Finished) => end = Some(Ok(())),
            Err(error) => end = Some(Err(error)),
        }
        if let Some(end) = end {
            return Played {
                bytes,
                steps,
                end,
                player,
            };
        }
    }
    panic!("the player never came to an end");
}

impl Played {
    /// Nothing went wrong.
    pub(crate) fn whole(self) -> Self {
        assert_eq!(self.end, Ok(()));
        self
    }

    /// From the first piece to the last.
    pub(crate) fn took(&self) -> Duration {
        self.steps.last().map_or(Duration::ZERO, |step| step.0)
    }
}
