//! Files that are not what they should be: an error that says what to do, never a panic, a hang or a flood.

use proptest::prelude::*;
use relay_clip::{Config, ECLIPSE_TS, ECLIPSE_WEBM, Error, Kind, Player, UNIT_MAX, UNTIMED_MAX};

use crate::stage::{play, play_with};
use crate::tools;

const KINDS: [Kind; 7] = [
    Kind::MpegTs,
    Kind::Flv,
    Kind::Ogg,
    Kind::WebM,
    Kind::Mp4,
    Kind::Mp3,
    Kind::Adts,
];

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn an_empty_file_is_named_as_such() {
    for kind in KINDS {
        for rounds in [1, 3] {
            assert_eq!(play(kind, &[], rounds, 1).end, Err(Error::Empty { kind }));
        }
    }
}

#[test]
fn noise_and_zeros_are_refused() {
    for kind in KINDS {
        for file in [noise(2_000_000), vec![0; 2_000_000], noise(100), vec![0x47; 150]] {
            let played = play(kind, &file, 2, 64 * 1024);
            assert!(played.end.is_err(), "{kind:?} took {} bytes of noise", file.len());
            assert!(played.player.stats().bytes_in <= 2_000_000);
        }
    }
}

#[test]
fn packets_without_a_clock_name_the_remedy() {
    let mut packet = [0xFF; 188];
    packet[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
    let file = packet.repeat(2 * UNTIMED_MAX as usize / 188);
    let played = play(Kind::MpegTs, &file, 2, 64 * 1024);
    let error = played.end.unwrap_err();
    assert!(
        matches!(error, Error::NoClock { .. }) && error.to_string().contains("--kbps"),
        "{error}"
    );
    assert!(played.bytes.len() as u64 <= UNTIMED_MAX + 64 * 1024);
    let short = play(Kind::MpegTs, &packet.repeat(10), 2, 64 * 1024);
    assert!(matches!(short.end, Err(Error::NoClock { .. })), "{:?}", short.end);
}

#[test]
fn an_unknown_format_needs_a_rate() {
    let config = Config {
        kind: Kind::Other,
        looped: true,
        kbps: None,
    };
    let error = Player::new(config).err().unwrap();
    assert!(error.to_string().contains("--kbps"), "{error}");
}

#[test]
fn a_file_that_shrinks_to_nothing_between_rounds_ends_the_loop() {
    let config = Config {
        kind: Kind::MpegTs,
        looped: true,
        kbps: None,
    };
    let mut player = Player::new(config).unwrap();
    player.push(ECLIPSE_TS);
    player.end_of_input();
    let mut now = relay_seam::Now::new(0, 0);
    let end = loop {
        match player.poll(now) {
            Ok(relay_clip::Poll::Wait(then)) => now = then,
            Ok(relay_clip::Poll::Rewind) => player.end_of_input(),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end, Error::Empty { kind: Kind::MpegTs });
}

#[test]
fn an_element_longer_than_memory_is_refused() {
    // An FLV tag of 16 MB, and a WebM Tracks of 2 GB.
    let mut flv = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x09\xFF\xFF\xFF".to_vec();
    flv.resize(2 * UNIT_MAX, 0);
    let mut webm = vec![
        0x1A, 0x45, 0xDF, 0xA3, 0x80, 0x16, 0x54, 0xAE, 0x6B, 0x08, 0x7F, 0xFF, 0xFF, 0xFF,
    ];
    webm.resize(2 * UNIT_MAX, 0);
    for (kind, file) in [(Kind::Flv, flv), (Kind::WebM, webm)] {
        let played = play(kind, &file, 2, 64 * 1024);
        assert!(
            matches!(played.end, Err(Error::TooLong { .. })),
            "{kind:?}: {:?}",
            played.end
        );
        assert!(played.player.stats().bytes_in <= (UNIT_MAX + 128 * 1024) as u64);
    }
}

#[test]
fn a_torn_end_is_left_out_and_the_loop_goes_on() {
    let torn = &ECLIPSE_TS[..ECLIPSE_TS.len() / 2 + 77];
    let played = play(Kind::MpegTs, torn, 3, 5_000).whole();
    assert_eq!(played.bytes.len() % 188, 0);
    assert_eq!(played.player.stats().bytes_skipped, 3 * (torn.len() as u64 % 188));
    play(Kind::WebM, &ECLIPSE_WEBM[..ECLIPSE_WEBM.len() / 2], 3, 5_000).whole();
}

#[test]
fn damage_in_a_transport_stream_is_skipped() {
    let mut file = ECLIPSE_TS.to_vec();
    let at = 500 * 188;
    file.splice(at..at, noise(1_000).into_iter().filter(|&byte| byte != 0x47));
    let played = play(Kind::MpegTs, &file, 1, 1_000).whole();
    assert!(played.bytes == ECLIPSE_TS);
}

#[test]
fn an_mp4_that_is_not_fragmented_names_the_remedy() {
    if !tools::present() {
        return;
    }
    for options in ["", "-movflags +faststart"] {
        let file = tools::made("a.mp4", &format!("-t 1 -c copy -bsf:a aac_adtstoasc {options}"));
        let error = play(Kind::Mp4, &file, 2, 4_096).end.unwrap_err();
        assert!(error.to_string().contains("frag_keyframe"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Real files with bytes changed, cut short, and said to be something else.
    #[test]
    fn nothing_panics_or_spins(
        which in 0_usize..9,
        as_kind in 0_usize..14,
        cut in 0_usize..60_000,
        hits in prop::collection::vec((0_usize..60_000, any::<u8>()), 0..30),
        slice in 1_usize..5_000,
    ) {
        let (own, file) = files()[which % files().len()].clone();
        let mut file = file;
        file.truncate(cut);
        for (at, value) in hits {
            if let Some(byte) = file.get_mut(at) {
                *byte = value;
            }
        }
        let kind = *KINDS.get(as_kind).unwrap_or(&own);
        let config = Config { kind, looped: true, kbps: None };
        let played = play_with(config, &file, 3, |_| slice);
        // Rewriting may add heads of clusters and fields of fragments, and no more than that.
        prop_assert!(played.bytes.len() <= 3 * 3 * file.len() + 64);
    }
}

/// One short file of each kind.
fn files() -> &'static [(Kind, Vec<u8>)] {
    static FILES: std::sync::OnceLock<Vec<(Kind, Vec<u8>)>> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = vec![
            (Kind::MpegTs, ECLIPSE_TS[..60_160].to_vec()),
            (Kind::WebM, ECLIPSE_WEBM.to_vec()),
        ];
        if tools::present() {
            let mp4 = "-t 2 -c copy -bsf:a aac_adtstoasc -movflags +frag_keyframe+empty_moov -f mp4";
            files.push((
                Kind::Flv,
                tools::made("a.flv", "-t 2 -c copy -bsf:a aac_adtstoasc -f flv"),
            ));
            files.push((Kind::Mp4, tools::made("a.mp4", mp4)));
            files.push((Kind::Ogg, tools::made("a.ogg", "-t 2 -vn -c:a libopus")));
            files.push((Kind::Mp3, tools::made("a.mp3", "-t 2 -vn -c:a libmp3lame")));
            files.push((Kind::Adts, tools::made("a.aac", "-t 2 -vn -c:a copy -f adts")));
        }
        files
    })
}
