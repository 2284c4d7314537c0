//! `source` against a sink.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use bench_harness::stamp::Scanner;

use crate::world::{bench, read_head, run, run_json};

/// Answers one source with `answer`, then reads to the end. Gives the request head and the body.
fn sink(answer: &'static str) -> (String, JoinHandle<(String, Vec<u8>)>) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/bench.ts", door.local_addr().unwrap());
    let reader = thread::spawn(move || {
        let (mut socket, _) = door.accept().unwrap();
        let head = read_head(&mut socket);
        socket.write_all(answer.as_bytes()).unwrap();
        let mut body = Vec::new();
        let _ = socket.read_to_end(&mut body);
        (head, body)
    });
    (url, reader)
}

#[test]
fn every_byte_arrives_stamped_and_in_order() {
    let (url, reader) = sink("HTTP/1.1 100 Continue\r\n\r\n");
    let (code, report, _) = run_json(&["source", &url, "--kbps", "800", "--seconds", "1"]);
    let (head, body) = reader.join().unwrap();
    assert_eq!(code, 0);
    assert!(
        head.starts_with("PUT /bench.ts HTTP/1.1\r\n") && head.contains("Content-Type: video/mp2t"),
        "{head}"
    );
    let mut scanner = Scanner::default();
    scanner.feed(&body, |_| {});
    assert!(
        scanner.seen().is_perfect() && scanner.seen().groups > 10,
        "{:?}",
        scanner.seen()
    );
    assert!(body.chunks(188).all(|packet| packet[0] == 0x47));
    assert_eq!(report["bytes"], body.len());
}

#[test]
fn the_raw_kind_and_the_source_method_work_too() {
    let (url, reader) = sink("HTTP/1.0 200 OK\r\n\r\n");
    let args = [
        "source",
        &url,
        "--kbps",
        "800",
        "--seconds",
        "1",
        "--kind",
        "raw",
        "--method",
        "source",
    ];
    let status = bench(&args)
        .env("RELAY_AUTH_SOURCE_PASSWORD", "pw")
        .output()
        .unwrap()
        .status;
    let (head, body) = reader.join().unwrap();
    assert!(status.success());
    assert!(head.starts_with("SOURCE /bench.ts HTTP/1.0\r\n"), "{head}");
    assert!(head.contains("Authorization: Basic c291cmNlOnB3\r\n"), "{head}");
    let mut scanner = Scanner::default();
    scanner.feed(&body, |_| {});
    assert!(
        scanner.seen().is_perfect() && scanner.seen().groups > 10,
        "{:?}",
        scanner.seen()
    );
}

#[test]
fn a_refusal_is_named() {
    let (url, reader) = sink("HTTP/1.1 401 Unauthorized\r\n\r\n");
    let (code, _, stderr) = run(&["source", &url]);
    reader.join().unwrap();
    assert!(
        code == 1 && stderr.contains("expected 100 or 200") && stderr.contains("401"),
        "{code} {stderr}"
    );
}

#[test]
fn wrong_usage_is_2() {
    assert_eq!(run(&["source", "ftp://127.0.0.1/x"]).0, 2);
    assert_eq!(run(&["source", "http://127.0.0.1/x", "--kbps", "0"]).0, 2);
    assert_eq!(
        run(&["listeners", "http://127.0.0.1/x", "--count", "5", "--stall", "6"]).0,
        2
    );
    assert_eq!(run(&["compare", "--relay", "/nonexistent/relay"]).0, 2);
}
