//! However a file is cut, the same bytes go at the same time.

use proptest::prelude::*;
use relay_clip::{Config, ECLIPSE_TS, ECLIPSE_WEBM, Kind};

use crate::stage::{play, play_with};
use crate::tools;

/// Two rounds, cut by these lengths in turn, against the same file in one piece.
fn same(kind: Kind, file: &[u8], slices: &[usize]) {
    let config = Config {
        kind,
        looped: true,
        kbps: None,
    };
    let whole = play(kind, file, 2, file.len()).whole();
    let cut = play_with(config, file, 2, |push| slices[push % slices.len()]).whole();
    assert!(
        whole.bytes == cut.bytes,
        "{kind:?}: other bytes in slices of {slices:?}"
    );
    assert_eq!(
        whole.steps.last(),
        cut.steps.last(),
        "{kind:?} in slices of {slices:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_matter(slices in prop::collection::vec(1_usize..3_000, 1..40)) {
        same(Kind::MpegTs, &ECLIPSE_TS[..60 * 188], &slices);
        same(Kind::WebM, &ECLIPSE_WEBM[..20_000], &slices);
    }
}

#[test]
fn cuts_do_not_matter_to_the_others() {
    if !tools::present() {
        return;
    }
    let mp4 = "-t 2 -c copy -bsf:a aac_adtstoasc -movflags +frag_keyframe+empty_moov -f mp4";
    let files = [
        (
            Kind::Flv,
            tools::made("a.flv", "-t 2 -c copy -bsf:a aac_adtstoasc -f flv"),
        ),
        (Kind::Mp4, tools::made("a.mp4", mp4)),
        (Kind::Ogg, tools::made("a.ogg", "-t 2 -vn -c:a libvorbis")),
        (Kind::Mp3, tools::made("a.mp3", "-t 2 -vn -c:a libmp3lame")),
        (Kind::Adts, tools::made("a.aac", "-t 2 -vn -c:a copy -f adts")),
    ];
    for (kind, file) in files {
        same(kind, &file, &[1]);
        same(kind, &file, &[7, 1, 188, 4_096, 2]);
    }
}
