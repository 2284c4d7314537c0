//! The built-in picture: small enough for a repository, and quick to join.

use relay_clip::{ECLIPSE_TS, ECLIPSE_WEBM, Kind};
use relay_media::{Mark, Scanner};

use crate::stage::play;

/// Seconds of the picture.
const LENGTH: f64 = 9.6;

#[test]
fn both_files_together_are_small() {
    assert!(ECLIPSE_TS.len() + ECLIPSE_WEBM.len() <= 1 << 20);
}

#[test]
fn a_newcomer_waits_less_than_a_second_for_a_join_point() {
    for (kind, file) in [(Kind::MpegTs, ECLIPSE_TS), (Kind::WebM, ECLIPSE_WEBM)] {
        assert_eq!(Kind::sniff(file), Some(kind));
        let played = play(kind, file, 2, 64 * 1024).whole();
        let (mut scanner, mut marks) = (Scanner::new(kind), Vec::new());
        scanner.feed(&played.bytes, &mut marks);
        let joins = marks
            .iter()
            .filter(|mark| matches!(mark, Mark::Join { .. }))
            .count();
        // 24 pictures between key frames.
        assert_eq!(joins, (2.0 * LENGTH * 25.0 / 24.0) as usize, "{kind:?}");
    }
}
