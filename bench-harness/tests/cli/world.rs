//! Running the program, and a server whose manners are chosen connection by connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use bench_harness::ts::Mux;
use serde_json::Value;

/// The program with these arguments.
pub(crate) fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-harness"));
    command.args(args).env_remove("RELAY_AUTH_SOURCE_PASSWORD");
    command
}

/// Runs it to its end: exit code, stdout, stderr.
pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = bench(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs it with `--json`: exit code, the report, stderr.
pub(crate) fn run_json(args: &[&str]) -> (i32, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("report.json");
    let mut args = args.to_vec();
    args.extend(["--json", path.to_str().unwrap()]);
    let (code, _, stderr) = run(&args);
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| "null".into());
    (code, serde_json::from_str(&text).unwrap(), stderr)
}

/// How the server treats one connection.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// A whole stream, without an end.
    Good,
    /// As good, but every fifth group is left out.
    Lossy,
    /// A few groups, then the end.
    ClosesEarly,
    /// A promise of a stream, and silence.
    Stalls,
    /// A Content-Length beyond what comes.
    Short,
    /// More than its Content-Length.
    Long,
    /// No HTTP.
    Lies,
    /// 404.
    Refuses,
    /// The end, before a word was read.
    ClosesAtOnce,
    /// Another protocol's greeting, before a word was read.
    Greets,
    /// Nothing, for ever.
    Silent,
    /// A head, one byte each 20 ms.
    TricklesHead,
    /// A head, and then a byte each 20 ms.
    TricklesBody,
    /// To itself, again and again.
    Redirects,
    /// Letters without an end, and no line among them.
    Babbles,
    /// A few groups, and a reset.
    Resets,
    /// A body of no bytes, as promised.
    Empty,
}

/// Serves connections on threads that end when the listener goes; the n-th connection gets the n-th manner,
/// in a circle.
pub(crate) fn server(manners: &'static [Manner]) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    thread::spawn(move || {
        for (socket, manner) in door.incoming().map_while(Result::ok).zip(manners.iter().cycle()) {
            thread::spawn(move || treat(socket, *manner));
        }
    });
    address
}

fn treat(mut socket: TcpStream, manner: Manner) {
    match manner {
        Manner::ClosesAtOnce => return,
        Manner::Greets => drop(socket.write_all(b"220 smtp ready\r\n")),
        _ => drop(read_head(&mut socket)),
    }
    let answer = match manner {
        Manner::Silent | Manner::Greets | Manner::Babbles | Manner::TricklesHead => "",
        Manner::Redirects => "HTTP/1.0 302 Found\r\nLocation: /bench.ts\r\n\r\n",
        Manner::Empty => "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        Manner::Lies => "220 smtp ready\r\n\r\n",
        Manner::Short => "HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        Manner::Long => "HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n",
        Manner::Refuses => "HTTP/1.0 404 Not Found\r\n\r\n",
        _ => "HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n",
    };
    // Whoever hangs up ends their thread; nobody else cares.
    let _ = socket.write_all(answer.as_bytes());
    match manner {
        Manner::Good | Manner::Long => stream(&mut socket, u64::MAX, |_| true),
        Manner::Lossy => stream(&mut socket, u64::MAX, |n| n % 5 != 4),
        Manner::ClosesEarly | Manner::Short => stream(&mut socket, 10, |_| true),
        Manner::Stalls | Manner::Lies => drop(socket.read(&mut [0; 1])),
        Manner::Silent | Manner::Greets => drop(socket.read(&mut [0; 1])),
        Manner::TricklesHead => trickle(
            &mut socket,
            b"HTTP/1.0 200 OK\r\nServer: it\r\n\r\n".iter().cycle(),
        ),
        Manner::TricklesBody => trickle(&mut socket, [0x47].iter().cycle()),
        Manner::Babbles => while socket.write_all(&[b'x'; 1000]).is_ok() {},
        Manner::Resets => {
            stream(&mut socket, 10, |_| true);
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        Manner::Refuses | Manner::Redirects | Manner::Empty | Manner::ClosesAtOnce => {}
    }
}

fn trickle<'a>(socket: &mut TcpStream, bytes: impl Iterator<Item = &'a u8>) {
    for byte in bytes {
        if socket.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Group after group, one each ms, until the listener goes.
fn stream(socket: &mut TcpStream, groups: u64, keep: impl Fn(u64) -> bool) {
    let mut mux = Mux::new(1, 100_000);
    for n in 0..groups {
        let group = mux.group(n * 1_000, now_us());
        if keep(n) && socket.write_all(&group).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_micros() as u64
}

/// Reads byte by byte up to the empty line, so that no body is lost.
pub(crate) fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
