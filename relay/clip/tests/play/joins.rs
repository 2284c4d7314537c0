//! What is played must be a stream that the relay can let newcomers into, in any round.

use relay_clip::{ECLIPSE_TS, ECLIPSE_WEBM, Kind};
use relay_media::{Mark, Scanner};

use crate::stage::play;
use crate::tools;

/// Plays three rounds, lets a newcomer in shortly after each seam and has judged what it is sent.
fn newcomers(kind: Kind, name: &str, file: &[u8]) {
    let played = play(kind, file, 3, 64 * 1024).whole().bytes;
    let (mut scanner, mut marks) = (Scanner::new(kind), Vec::new());
    played
        .chunks(1316)
        .for_each(|chunk| scanner.feed(chunk, &mut marks));
    let stats = scanner.stats();
    assert_eq!(
        (stats.resyncs, stats.bad_units, stats.joins_withheld),
        (0, 0, 0),
        "{name}: {stats:?}"
    );
    for round in 1..3 {
        let seam = (played.len() * round / 3) as u64;
        let (header, at) = join(&marks, seam).unwrap();
        let late = at - seam;
        assert!(
            late < played.len() as u64 / 3 / 4,
            "{name}: no join for {late} bytes"
        );
        let sent = [&header, &played[at as usize..]].concat();
        assert_eq!(
            tools::complaints(name, &sent),
            "",
            "{name}, joined in round {round}"
        );
        assert!(tools::packets(name, &sent).len() > 300 * (3 - round));
    }
}

/// The first join point from a position on, with the header in force.
fn join(marks: &[Mark], from: u64) -> Option<(Vec<u8>, u64)> {
    let mut header = Vec::new();
    for mark in marks {
        match mark {
            Mark::Header { bytes, .. } => header = bytes.to_vec(),
            Mark::Join { at } if *at >= from => return Some((header, *at)),
            Mark::Join { .. } => {}
        }
    }
    None
}

fn made(kind: Kind, name: &str, options: &str) {
    if tools::present() {
        newcomers(kind, name, &tools::made(name, options));
    }
}

#[test]
fn into_the_built_in_mpeg_ts() {
    if tools::present() {
        newcomers(Kind::MpegTs, "out.ts", ECLIPSE_TS);
    }
}

#[test]
fn into_the_built_in_webm() {
    if tools::present() {
        newcomers(Kind::WebM, "out.webm", ECLIPSE_WEBM);
    }
}

#[test]
fn into_flv() {
    made(Kind::Flv, "out.flv", "-c copy -bsf:a aac_adtstoasc -f flv");
}

#[test]
fn into_fragmented_mp4() {
    let options = "-c copy -bsf:a aac_adtstoasc -movflags +frag_keyframe+empty_moov -f mp4";
    made(Kind::Mp4, "out.mp4", options);
}

#[test]
fn into_a_chain_of_ogg() {
    made(
        Kind::Ogg,
        "out.ogg",
        "-vn -c:a libopus -b:a 32k -page_duration 200000",
    );
}

#[test]
fn into_stitched_ogg() {
    made(
        Kind::Ogg,
        "out.ogg",
        "-c:v libtheora -b:v 200k -g 24 -c:a libvorbis -b:a 48k -page_duration 200000",
    );
}
