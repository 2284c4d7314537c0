//! The demo: the whole chain, and what comes out at its end.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// So much of the stream is looked at: about four seconds.
const BYTES: usize = 188 * 700;

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command
        .arg("demo")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Ends it when a test fails half-way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(place: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(place).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {place}\r\n\r\n").as_bytes())
        .unwrap();
    stream
}

/// The body's first bytes, as far as there are any.
fn body(place: &str, path: &str, max: usize) -> Vec<u8> {
    let mut stream = BufReader::new(get(place, path));
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{path}: {line}");
    while !line.trim().is_empty() {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    let mut body = Vec::new();
    stream.take(max as u64).read_to_end(&mut body).unwrap();
    body
}

#[test]
fn it_ends_by_itself_and_every_hop_has_worked() {
    let output = demo(&["--port", "0", "--seconds", "2"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in [
        "mpv     http://127.0.0.1:",
        "browser http://127.0.0.1:",
        "Every hop worked",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn a_player_at_the_end_gets_the_picture() {
    let mut child = Running(demo(&["--port", "0"]).spawn().unwrap());
    let mut said = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.trim_start().starts_with("mpv") {
        line.clear();
        assert_ne!(
            said.read_line(&mut line).unwrap(),
            0,
            "it ended without a word on players"
        );
    }
    let place = line
        .split("http://")
        .nth(1)
        .unwrap()
        .trim()
        .trim_end_matches('/')
        .to_owned();
    let stream = body(&place, "/", BYTES);
    assert_eq!(stream.len(), BYTES);
    assert!(
        stream.chunks(188).all(|packet| packet[0] == 0x47),
        "it is not a transport stream throughout"
    );
    decodes(&stream);
    let status: serde_json::Value = serde_json::from_slice(&body(&place, "/api/v1/status", 1 << 16)).unwrap();
    assert_eq!(
        (status["via"].as_str(), status["source"].as_str()),
        (Some("link"), Some("repeater"))
    );
    let playlist = String::from_utf8(body(&place, "/playlist.m3u", 1 << 16)).unwrap();
    assert!(playlist.contains(&format!("http://{place}/")), "{playlist}");
    kill(Pid::from_raw(child.0.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// With ffmpeg, where it is installed: picture and sound, from the first byte on and without a complaint.
fn decodes(stream: &[u8]) {
    let file = tempfile::Builder::new().suffix(".ts").tempfile().unwrap();
    std::fs::write(file.path(), stream).unwrap();
    // The last frame is torn, because the connection was cut there.
    let args = ["-v", "error", "-t", "2", "-i"];
    let Ok(output) = Command::new("ffmpeg")
        .args(args)
        .arg(file.path())
        .args(["-f", "null", "-"])
        .output()
    else {
        println!("skipped: no ffmpeg here to decode with");
        return;
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
}
