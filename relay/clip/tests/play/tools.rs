//! ffmpeg and ffprobe, as makers of files and as judges of what was played.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// `true` when ffmpeg is there. In CI it must be.
pub(crate) fn present() -> bool {
    let there = ["ffmpeg", "ffprobe"]
        .iter()
        .all(|tool| Command::new(tool).arg("-version").output().is_ok());
    assert!(
        there || std::env::var_os("CI").is_none(),
        "ffmpeg and ffprobe are needed in CI"
    );
    if !there {
        println!("skipped: ffmpeg or ffprobe is not on PATH");
    }
    there
}

fn ffmpeg(args: &[&str], cwd: &Path) -> Output {
    Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin"])
        .args(args)
        .current_dir(cwd)
        .output()
        .unwrap()
}

/// A file made of the built-in picture by these options; `name` tells the format.
pub(crate) fn made(name: &str, options: &str) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("in.ts"), relay_clip::ECLIPSE_TS).unwrap();
    let mut args = vec!["-i", "in.ts"];
    args.extend(options.split_whitespace());
    args.push(name);
    let done = ffmpeg(&args, dir.path());
    assert!(
        done.status.success(),
        "making {name}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    std::fs::read(dir.path().join(name)).unwrap()
}

/// What `ffmpeg -v error` says about these bytes when it decodes all of them from a pipe, as live.
pub(crate) fn complaints(name: &str, bytes: &[u8]) -> String {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(name), bytes).unwrap();
    let script = format!("ffmpeg -v error -i pipe:0 -map 0 -f null - < {name} 2>&1");
    let done = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// A packet as ffprobe sees it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) stream: usize,
    /// Seconds.
    pub(crate) dts: f64,
    pub(crate) duration: f64,
}

/// All packets, in file order.
pub(crate) fn packets(name: &str, bytes: &[u8]) -> Vec<Packet> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join(name), bytes).unwrap();
    let entries = "packet=stream_index,dts_time,pts_time,duration_time";
    let args = [
        "-v",
        "error",
        "-show_entries",
        entries,
        "-of",
        "compact=p=0",
        name,
    ];
    let done = Command::new("ffprobe")
        .args(args)
        .current_dir(dir.path())
        .output()
        .unwrap();
    String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter_map(packet)
        .collect()
}

fn packet(line: &str) -> Option<Packet> {
    let field = |name: &str| {
        line.split('|')
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| field(name)?.parse::<f64>().ok();
    Some(Packet {
        stream: field("stream_index")?.parse().ok()?,
        dts: number("dts_time").or_else(|| number("pts_time"))?,
        duration: number("duration_time").unwrap_or(0.0),
    })
}
