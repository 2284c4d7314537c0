//! When pieces go: never a burst, never slower than the stream, and no spinning.

use std::time::Duration;

use relay_clip::{CATCH_UP_MAX, Config, ECLIPSE_TS, ECLIPSE_WEBM, Kind, LEAD, Player, Poll};
use relay_seam::Now;

use crate::stage::{play, play_with};

const MS: u64 = 1_000_000;

/// Bytes that went in any window of one second, at most.
fn busiest_second(steps: &[(Duration, usize)]) -> usize {
    let total_before = |moment: Duration| {
        steps
            .iter()
            .rfind(|step| step.0 < moment)
            .map_or(0, |step| step.1)
    };
    steps
        .iter()
        .map(|step| step.1 - total_before(step.0.saturating_sub(Duration::from_secs(1))))
        .max()
        .unwrap()
}

#[test]
fn the_first_piece_goes_at_once_and_the_rest_with_the_clock() {
    for (kind, file) in [(Kind::MpegTs, ECLIPSE_TS), (Kind::WebM, ECLIPSE_WEBM)] {
        let played = play(kind, file, 1, 64 * 1024).whole();
        assert_eq!(played.steps[0].0, Duration::ZERO);
        let stream = played.player.stats().played;
        let behind = stream - played.took();
        assert!(
            behind <= LEAD && behind + Duration::from_millis(50) > LEAD,
            "{kind:?}: leads by {behind:?}"
        );
        let busiest = busiest_second(&played.steps);
        assert!(
            busiest < 3 * file.len() / 9,
            "{kind:?}: {busiest} of {} bytes in a second",
            file.len()
        );
    }
}

#[test]
fn a_constant_rate_is_kept() {
    let config = Config {
        kind: Kind::Other,
        looped: false,
        kbps: Some(800),
    };
    let played = play_with(config, &[7; 500_000], 1, |_| 9_999).whole();
    let took = played.took() + LEAD;
    assert!((took.as_secs_f64() - 5.0).abs() < 0.03, "{took:?}");
    assert_eq!(played.bytes.len(), 500_000);
}

/// Polls for `span` from `from` on, every `every`; answers the bytes that went.
fn run(player: &mut Player, file: &[u8], at: &mut usize, from: u64, span: u64, every: u64) -> usize {
    let mut sent = 0;
    let mut now = from;
    while now < from + span {
        match player.poll(Now::new(now, 0)).unwrap() {
            Poll::Piece(piece) => sent += piece.len(),
            Poll::Wait(_) => now += every,
            Poll::NeedInput => {
                let n = (file.len() - *at).min(1316);
                player.push(&file[*at..*at + n]);
                *at += n;
            }
            other => panic!("{other:?}"),
        }
    }
    sent
}

#[test]
fn after_a_stall_play_catches_up_at_twice_the_speed_and_forgets_the_rest() {
    // 100,000 bytes a second.
    let config = Config {
        kind: Kind::Other,
        looped: false,
        kbps: Some(800),
    };
    let mut player = Player::new(config).unwrap();
    let (file, mut at) = (vec![1; 5_000_000], 0);
    run(&mut player, &file, &mut at, 0, 2_000 * MS, MS);
    // A stall of a minute.
    let from = 62_000 * MS;
    let sent = run(&mut player, &file, &mut at, from, 2_000 * MS, MS);
    assert!((390_000..430_000).contains(&sent), "twice the speed: {sent}");
    run(&mut player, &file, &mut at, from + 2_000 * MS, 8_000 * MS, MS);
    let sent = run(&mut player, &file, &mut at, from + 10_000 * MS, 2_000 * MS, MS);
    assert!((195_000..205_000).contains(&sent), "its own speed: {sent}");
    let all = at as u64 / 100_000;
    assert!(
        all <= 14 + CATCH_UP_MAX.as_secs() + 1,
        "{all} s of the stream in 14 s and a minute's stall"
    );
}

#[test]
fn a_caller_with_a_coarse_clock_keeps_the_speed() {
    let config = Config {
        kind: Kind::Other,
        looped: false,
        kbps: Some(8_000),
    };
    let mut player = Player::new(config).unwrap();
    let (file, mut at) = (vec![1; 8_000_000], 0);
    run(&mut player, &file, &mut at, 0, 1_000 * MS, 50 * MS);
    let sent = run(&mut player, &file, &mut at, 1_000 * MS, 4_000 * MS, 50 * MS);
    assert!((3_900_000..4_100_000).contains(&sent), "{sent}");
}
