//! Three rounds of a file must look like one long stream to ffmpeg: no complaint, no step back, no gap.

use relay_clip::{ECLIPSE_TS, ECLIPSE_WEBM, Kind};

use crate::stage::play;
use crate::tools::{self, Packet};

/// Seconds of one round of the built-in picture.
const ROUND: f64 = 9.6;
/// The longest acceptable gap between two packets of a stream, in seconds, where it has to be continuous.
const GAP: f64 = 0.12;

/// Plays three rounds in real time by a clock of our own.
fn three_rounds(kind: Kind, name: &str, file: &[u8]) -> Vec<u8> {
    let played = play(kind, file, 3, 64 * 1024).whole();
    let took = played.took().as_secs_f64();
    assert!((took - 3.0 * ROUND).abs() < 1.0, "{name} took {took} s");
    played.bytes
}

/// Time stamps of every stream go up, without gaps, over three rounds.
fn continuous(name: &str, bytes: &[u8], streams: usize) {
    let packets = tools::packets(name, bytes);
    for stream in 0..streams {
        let of: Vec<&Packet> = packets.iter().filter(|packet| packet.stream == stream).collect();
        let (first, last) = (of.first().unwrap(), of.last().unwrap());
        for pair in of.windows(2) {
            let step = pair[1].dts - pair[0].dts;
            assert!(
                step > 0.0 && step < GAP,
                "{name}, stream {stream}: {:?} then {:?}",
                pair[0],
                pair[1]
            );
        }
        let length = last.dts + last.duration - first.dts;
        assert!(
            (length - 3.0 * ROUND).abs() < 0.3,
            "{name}, stream {stream}: {length} s"
        );
    }
}

fn looped(kind: Kind, name: &str, file: &[u8], streams: usize) {
    if tools::present() {
        let played = three_rounds(kind, name, file);
        assert_eq!(tools::complaints(name, &played), "");
        continuous(name, &played, streams);
    }
}

/// The same for a file that ffmpeg makes.
fn made(kind: Kind, name: &str, options: &str, streams: usize) {
    if tools::present() {
        looped(kind, name, &tools::made(name, options), streams);
    }
}

/// A chain of links: ffmpeg starts the time anew at each, so only decoding is judged. Of any chain of Vorbis, made
/// by whomever, it says that the time stands still at the seam.
fn chained(name: &str, options: &str) {
    if tools::present() {
        let played = three_rounds(Kind::Ogg, name, &tools::made(name, options));
        let complaints = tools::complaints(name, &played);
        let others = complaints
            .lines()
            .filter(|line| !line.contains("non monotonically increasing dts"));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}

#[test]
fn the_built_in_mpeg_ts() {
    looped(Kind::MpegTs, "out.ts", ECLIPSE_TS, 2);
}

#[test]
fn the_built_in_webm() {
    looped(Kind::WebM, "out.webm", ECLIPSE_WEBM, 2);
}

#[test]
fn mpeg_ts_with_many_frames_per_packet_and_reordered_pictures() {
    let options = "-c:v libx264 -preset ultrafast -bf 2 -g 25 -c:a copy -f mpegts";
    made(Kind::MpegTs, "out.ts", options, 2);
}

#[test]
fn mpeg_ts_that_wraps() {
    made(
        Kind::MpegTs,
        "out.ts",
        "-c copy -copyts -output_ts_offset 95433 -f mpegts",
        2,
    );
}

#[test]
fn mpeg_ts_with_time_stamps_or_parity_becomes_plain() {
    for (before, after) in [(4, 0), (0, 16)] {
        let padded = |packet: &[u8]| [&vec![1; before][..], packet, &vec![2; after]].concat();
        let file: Vec<u8> = ECLIPSE_TS.chunks(188).flat_map(padded).collect();
        let played = play(Kind::MpegTs, &file, 2, 1_000).whole();
        assert!(played.bytes == play(Kind::MpegTs, ECLIPSE_TS, 2, 1_000).whole().bytes);
        assert_eq!(played.player.stats().bytes_skipped, 2 * before as u64);
    }
}

#[test]
fn flv() {
    made(Kind::Flv, "out.flv", "-c copy -bsf:a aac_adtstoasc -f flv", 2);
}

#[test]
fn matroska_with_known_sizes_and_an_index() {
    made(
        Kind::WebM,
        "out.mkv",
        "-c copy -bsf:a aac_adtstoasc -f matroska",
        2,
    );
}

#[test]
fn fragmented_mp4() {
    let options = "-c copy -bsf:a aac_adtstoasc -movflags +frag_keyframe+empty_moov+default_base_moof -f mp4";
    made(Kind::Mp4, "out.mp4", options, 2);
}

#[test]
fn fragmented_mp4_with_absolute_places() {
    made(
        Kind::Mp4,
        "out.mp4",
        "-c copy -bsf:a aac_adtstoasc -movflags +frag_keyframe+empty_moov -f mp4",
        2,
    );
}

#[test]
fn mp3_with_tags() {
    made(
        Kind::Mp3,
        "out.mp3",
        "-vn -c:a libmp3lame -b:a 64k -metadata title=Eclipse -write_id3v1 1",
        1,
    );
}

#[test]
fn adts() {
    made(Kind::Adts, "out.aac", "-vn -c:a copy -f adts", 1);
}

#[test]
fn ogg_with_vorbis() {
    chained("out.ogg", "-vn -c:a libvorbis -b:a 48k");
}

#[test]
fn ogg_with_opus() {
    chained("out.ogg", "-vn -c:a libopus -b:a 32k");
}

#[test]
fn ogg_with_flac() {
    chained("out.ogg", "-vn -c:a flac");
}

#[test]
fn ogg_with_theora_and_vorbis() {
    made(
        Kind::Ogg,
        "out.ogg",
        "-c:v libtheora -b:v 200k -c:a libvorbis -b:a 48k",
        2,
    );
}

#[test]
fn ogg_with_theora_and_opus() {
    made(
        Kind::Ogg,
        "out.ogg",
        "-c:v libtheora -b:v 200k -c:a libopus -b:a 48k",
        2,
    );
}
