//! A peer from outside, behind a server that knows no links.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use peer_lite::{Options, Peer};

/// A plain server: 404 for links, the stream for everything else.
fn plain_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    at
}

fn serve(mut stream: TcpStream) {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while reader.read_line(&mut request).is_ok_and(|n| n > 2) {}
    if request.starts_with("GET /link/") {
        let _ = stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/x-sun\r\n\r\n");
    while stream.write_all(&[b'.'; 1500]).is_ok() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn get(at: SocketAddr, path: &str, bytes: u64) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    stream.take(bytes).read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn peer(url: &str) -> std::io::Result<Peer> {
    Peer::start(Options {
        listen: ([127, 0, 0, 1], 0).into(),
        ..Options::new(url)
    })
}

#[test]
fn a_plain_stream_is_pulled_where_there_is_no_link() {
    let peer = peer(&format!("http://{}/sun.bin", plain_server())).unwrap();
    while peer.status().via.is_empty() {
        thread::sleep(std::time::Duration::from_millis(10));
    }
    let stream = get(peer.listen(), "/", 4096);
    assert!(
        stream.starts_with("HTTP/1.") && stream.contains(" 200 "),
        "{stream}"
    );
    let status = peer.status();
    assert_eq!((status.via.as_str(), status.state.as_str()), ("http", "on-air"));
    assert!(status.bytes_in > 0);
    let told = get(peer.listen(), "/api/v1/status", 1 << 16);
    let json: serde_json::Value = serde_json::from_str(told.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(json["epoch"], status.epoch);
    for playlist in ["/playlist.m3u", "/sun.bin.m3u"] {
        let told = get(peer.listen(), playlist, 1 << 16);
        assert!(
            told.contains("#EXTM3U") && told.contains(&format!("http://{}/", peer.listen())),
            "{told}"
        );
    }
    assert!(get(peer.listen(), "/other.m3u", 1 << 16).contains(" 404 "));
    peer.stop().unwrap();
}

#[test]
fn it_starts_before_the_node_does() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peer = peer(&format!("http://{nobody}/sun.bin")).unwrap();
    assert_eq!(peer.status().state, "connecting");
    peer.stop().unwrap();
}

#[test]
fn mistakes_are_told_by_code_and_word() {
    let peer_lite = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_peer-lite"))
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for args in [
        &["http://127.0.0.1:1/"][..],
        &["nothing"],
        &["http://h/a", "--listen", "x"],
        &[],
    ] {
        assert_eq!(peer_lite(args).0, 2, "{args:?}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let (code, said) = peer_lite(&["http://127.0.0.1:1/a.ts", "--listen", &at]);
    assert_eq!(
        (code, said.contains(&at), said.contains("--listen")),
        (1, true, true),
        "{said}"
    );
}
