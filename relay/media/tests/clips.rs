//! Real streams, made with FFmpeg (`tests/media/make`): header and join points of every clip, and that what a newcomer
//! is sent decodes from its first byte without a word from FFmpeg.
//!
//! Without `ffmpeg` on the path the decoding part says so and is left out; where `CI` is set it must not be.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use relay_media::{Kind, LOOKBACK_MAX, Mark, SNIFF_BYTES, Scanner, Stats};

/// Join points per clip that are decoded: the first ones, and the last.
const DECODED: usize = 5;

/// Name, container, join points: the key frames of video, and of sound what spacing leaves.
const CLIPS: [(&str, Kind, usize); 22] = [
    ("h264-aac.ts", Kind::MpegTs, 3),
    ("h264-nobf.ts", Kind::MpegTs, 3),
    ("h265.ts", Kind::MpegTs, 3),
    ("mpeg2-mp2.ts", Kind::MpegTs, 4),
    ("audio.ts", Kind::MpegTs, 9),
    ("h264-aac.flv", Kind::Flv, 3),
    ("mp3.flv", Kind::Flv, 11),
    ("vorbis.ogg", Kind::Ogg, 3),
    ("opus.ogg", Kind::Ogg, 8),
    ("flac.ogg", Kind::Ogg, 14),
    ("speex.ogg", Kind::Ogg, 8),
    ("theora-vorbis.ogg", Kind::Ogg, 3),
    ("vp8-vorbis.webm", Kind::WebM, 3),
    ("vp9-opus.webm", Kind::WebM, 3),
    ("opus.webm", Kind::WebM, 7),
    ("h264-aac.mkv", Kind::WebM, 3),
    ("h264-aac.mp4", Kind::Mp4, 3),
    ("short-fragments.mp4", Kind::Mp4, 3),
    ("audio.mp4", Kind::Mp4, 9),
    ("cbr.mp3", Kind::Mp3, 12),
    ("vbr.mp3", Kind::Mp3, 12),
    ("aac.aac", Kind::Adts, 10),
];

fn clip(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/media")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn scan(kind: Kind, bytes: &[u8], slice: usize) -> (Vec<Mark>, Stats) {
    let (mut scanner, mut marks) = (Scanner::new(kind), Vec::new());
    for part in bytes.chunks(slice) {
        scanner.feed(part, &mut marks);
    }
    assert_eq!(scanner.position(), bytes.len() as u64);
    (marks, *scanner.stats())
}

/// What newcomers are sent: for each join point, header in force and stream.
fn newcomers(marks: &[Mark], bytes: &[u8]) -> Vec<(u64, Vec<u8>, usize)> {
    let (mut header, mut sent) = (Vec::new(), Vec::new());
    for mark in marks {
        match mark {
            Mark::Header { bytes, .. } => header = bytes.to_vec(),
            Mark::Join { at } => {
                let whole = [&header[..], &bytes[*at as usize..]].concat();
                sent.push((*at, whole, header.len()));
            }
        }
    }
    sent
}

fn at(mark: &Mark) -> u64 {
    match mark {
        Mark::Join { at } | Mark::Header { at, .. } => *at,
    }
}

fn run(program: &str, arguments: &[&str], input: Vec<u8>) -> std::io::Result<Output> {
    let pipe = Stdio::piped;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(pipe())
        .stdout(pipe())
        .stderr(pipe())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("piped");
    // The program may stop reading early; what it printed tells.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output();
    writer.join().expect("the writer does not panic");
    output
}

/// Whether FFmpeg is there; in CI it has to be.
fn has_ffmpeg() -> bool {
    let found = run("ffmpeg", &["-version"], Vec::new()).is_ok();
    assert!(
        found || std::env::var_os("CI").is_none(),
        "ffmpeg is not on the path, and nothing may be skipped in CI"
    );
    if !found {
        eprintln!("SKIPPED: decoding with ffmpeg (not on the path)");
    }
    found
}

/// What FFmpeg complains about when it decodes this.
fn complaints(input: Vec<u8>) -> String {
    let output = run(
        "ffmpeg",
        &["-v", "error", "-i", "pipe:0", "-f", "null", "-"],
        input,
    )
    .expect("ffmpeg runs");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        if output.status.success() { "" } else { "(failed)" }
    )
}

#[test]
fn every_clip_has_its_header_and_joins() {
    for (name, kind, joins) in CLIPS {
        let bytes = clip(name);
        let (marks, stats) = scan(kind, &bytes, bytes.len());
        let positions: Vec<u64> = marks
            .iter()
            .filter(|mark| matches!(mark, Mark::Join { .. }))
            .map(at)
            .collect();
        assert_eq!(positions.len(), joins, "{name}: {positions:?}");
        assert!(positions.is_sorted_by(|a, b| a < b), "{name}: {positions:?}");
        let headers = marks
            .iter()
            .filter(|mark| matches!(mark, Mark::Header { .. }))
            .count();
        assert_eq!(
            headers,
            usize::from(!matches!(kind, Kind::Mp3 | Kind::Adts)),
            "{name}"
        );
        assert_eq!(
            (stats.joins, stats.headers),
            (positions.len() as u64, headers as u64),
            "{name}"
        );
        assert_eq!(
            (stats.resyncs, stats.skipped_bytes, stats.bad_units),
            (0, 0, 0),
            "{name}"
        );
        assert_eq!(
            (
                stats.joins_withheld,
                stats.oversize_headers,
                stats.headers_refused
            ),
            (0, 0, 0),
            "{name}"
        );
    }
}

#[test]
fn marks_come_in_order_and_in_time() {
    for (name, kind, _) in CLIPS {
        let bytes = clip(name);
        let (mut scanner, mut marks) = (Scanner::new(kind), Vec::new());
        for byte in &bytes {
            let before = marks.len();
            scanner.feed(std::slice::from_ref(byte), &mut marks);
            for mark in &marks[before..] {
                assert!(at(mark) <= scanner.position(), "{name}: {mark:?}");
                assert!(scanner.position() - at(mark) <= LOOKBACK_MAX, "{name}: {mark:?}");
            }
        }
        assert!(marks.iter().map(at).is_sorted(), "{name}: {marks:?}");
        assert_eq!(marks, scan(kind, &bytes, bytes.len()).0, "{name}: byte by byte");
        for slice in [7, 188, 1316, 4096] {
            assert_eq!(marks, scan(kind, &bytes, slice).0, "{name}: slices of {slice}");
        }
    }
}

#[test]
fn the_container_shows_itself() {
    for (name, kind, _) in CLIPS {
        let bytes = clip(name);
        assert_eq!(Kind::sniff(&bytes[..SNIFF_BYTES]), Some(kind), "{name}");
        assert_eq!(Kind::from_extension(name), Some(kind), "{name}");
        if matches!(kind, Kind::MpegTs | Kind::Mp3 | Kind::Adts) {
            assert_eq!(
                Kind::sniff(&bytes[1001..1001 + SNIFF_BYTES]),
                Some(kind),
                "{name} from its middle"
            );
        }
    }
}

#[test]
fn newcomers_hear_no_complaint() {
    if !has_ffmpeg() {
        return;
    }
    for (name, kind, _) in CLIPS {
        let bytes = clip(name);
        assert_eq!(complaints(bytes.clone()), "", "{name} itself");
        let mut sent = newcomers(&scan(kind, &bytes, bytes.len()).0, &bytes);
        // Too short a rest shows no format: not a matter of where it begins.
        sent.retain(|(_, whole, header)| whole.len() - header > 2048);
        let last = sent.pop();
        for (at, whole, _) in sent.into_iter().take(DECODED - 1).chain(last) {
            assert_eq!(complaints(whole), "", "{name} from {at}");
        }
    }
}

/// The picture types of the first frame of this, as `ffprobe` sees them; empty without video.
fn first_frame(input: Vec<u8>) -> String {
    let show = [
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "frame=key_frame,pict_type",
    ];
    let rest = ["-read_intervals", "%+#1", "-of", "csv=p=0", "pipe:0"];
    let output = run("ffprobe", &[&show[..], &rest].concat(), input).expect("ffprobe runs");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(',')
        .to_owned()
}

#[test]
fn the_first_picture_is_a_key_frame() {
    if !has_ffmpeg() {
        return;
    }
    for (name, kind, _) in CLIPS.into_iter().filter(|(name, _, _)| has_video(name)) {
        let bytes = clip(name);
        for (at, whole, _) in newcomers(&scan(kind, &bytes, bytes.len()).0, &bytes)
            .into_iter()
            .skip(1)
            .take(2)
        {
            assert_eq!(first_frame(whole), "1,I", "{name} from {at}");
        }
    }
}

fn has_video(name: &str) -> bool {
    ["h26", "mpeg2", "vp", "theora", "short"]
        .iter()
        .any(|codec| name.starts_with(codec))
}

#[test]
fn ffmpeg_complains_where_we_would_not_join() {
    if !has_ffmpeg() {
        return;
    }
    // The proof that silence means something: a packet in the middle of a group of pictures.
    let bytes = clip("h264-nobf.ts");
    let Some((_, whole, header)) = newcomers(&scan(Kind::MpegTs, &bytes, 188).0, &bytes)
        .into_iter()
        .nth(1)
    else {
        panic!("no second join");
    };
    let inside = [&whole[..header], &whole[header + 20 * 188..]].concat();
    assert_ne!(complaints(inside), "");
}
