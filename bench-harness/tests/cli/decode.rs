//! The stream decodes: what a player would show of it, where one is installed.

use std::process::Command;

use bench_harness::ts::Mux;

/// ffmpeg's own decoder is the judge; without it there is nobody to ask, and the unit tests of `ts` stand alone.
#[test]
fn a_decoder_shows_every_picture_without_a_word() {
    let Ok(version) = Command::new("ffprobe").arg("-version").output() else {
        eprintln!("no ffprobe here: not asked");
        return;
    };
    assert!(version.status.success());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.ts");
    let mut mux = Mux::new(1, 1_000_000);
    // 500 kb/s, so that groups fall anywhere within a picture's 40 ms.
    let bytes: Vec<u8> = (0..200).flat_map(|n| mux.group(n * 21_056, n)).collect();
    std::fs::write(&path, bytes).unwrap();
    let probe = [
        "-v",
        "error",
        "-select_streams",
        "v",
        "-show_entries",
        "frame=pict_type",
        "-of",
        "csv=p=0",
    ];
    let output = Command::new("ffprobe").args(probe).arg(&path).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let count = |kind| shown.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!((count("I"), count("P")), (5, 100));
}
