//! The program as its users see it: a real process, fed by an HTTP server, with generation B peers over real sockets.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::Peer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use splitter::wire::b::Welcome;

/// What hangs for so long has failed.
const HANGS: Duration = Duration::from_secs(30);
const CHUNK_BYTES: usize = 1024;
/// Chunks under way at most: enough for DBS to go on, few enough for any socket buffer.
const WINDOW: u64 = 24;
const TEAM: usize = 3;

/// The chunk with this number, different from every other.
fn chunk(number: u64) -> Vec<u8> {
    let words = (0..CHUNK_BYTES as u64 / 8).map(|word| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word);
    words.flat_map(u64::to_be_bytes).collect()
}

/// How far each peer is: chunks that it has without a gap. The source goes no further than the slowest allows.
#[derive(Default)]
struct Progress {
    have: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Progress {
    fn set(&self, peer: usize, chunks: u64) {
        self.have.lock().unwrap()[peer] = chunks;
        self.changed.notify_all();
    }

    fn slowest(&self) -> u64 {
        self.have.lock().unwrap().iter().copied().min().unwrap_or(0)
    }

    /// Until the slowest of `team` peers has so many chunks.
    fn wait(&self, team: usize, chunks: u64) {
        let waits = |have: &mut Vec<u64>| have.len() < team || have.iter().any(|&n| n < chunks);
        let (_guard, timeout) = self
            .changed
            .wait_timeout_while(self.have.lock().unwrap(), HANGS, waits)
            .unwrap();
        assert!(!timeout.timed_out(), "the team does not reach chunk {chunks}");
    }
}

/// Serves `/eclipse.ts`: to the splitter as fast as the team follows, to peers (who send no `Host`) the beginning.
/// Ends the splitter's connection within the chunk `breaks`, and goes on from there on the next.
fn serve(listener: TcpListener, progress: Arc<Progress>, breaks: u64, ends: u64) {
    let mut next = 0;
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let request = read_request(&mut connection);
        assert!(request.starts_with("GET /eclipse.ts HTTP/1.1\r\n"), "{request}");
        connection
            .write_all(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
            .unwrap();
        if !request.contains("Host:") {
            // A peer hangs up when it has enough.
            let _ = (0..9).try_for_each(|number| connection.write_all(&chunk(number)));
            continue;
        }
        let end = if next < breaks { breaks } else { ends };
        let (progress, from) = (Arc::clone(&progress), next);
        next = end;
        std::thread::spawn(move || stream(connection, &progress, from..end, end == breaks));
    }
}

/// To the end of its head: it may come in pieces.
fn read_request(connection: &mut TcpStream) -> String {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

fn stream(mut connection: TcpStream, progress: &Progress, numbers: std::ops::Range<u64>, breaks: bool) {
    for number in numbers.clone() {
        progress.wait(TEAM, number.saturating_sub(WINDOW));
        if connection.write_all(&chunk(number)).is_err() {
            return;
        }
    }
    if breaks {
        connection.write_all(&chunk(numbers.end)[..100]).unwrap();
    } else {
        // It stays on the air, silent, until the splitter goes.
        let _ = connection.read(&mut [0]);
    }
}

struct Splitter {
    child: Child,
    said: BufReader<ChildStdout>,
    at: SocketAddrV4,
}

impl Splitter {
    fn start(source: SocketAddr, more: &[&str]) -> Self {
        let url = format!("http://{source}/eclipse.ts");
        let mut child = Command::new(env!("CARGO_BIN_EXE_splitter"))
            .args(["--listen", "127.0.0.1:0", "--json", "--source", &url])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut splitter = Self {
            child,
            said,
            at: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        };
        splitter.at = splitter.next().unwrap()["listen"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        splitter
    }

    /// Its next line.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The first line of which this is true.
    fn until(&mut self, true_of: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next().expect("the splitter goes on");
            if true_of(&line) {
                return line;
            }
        }
    }

    /// Ctrl-C: its last line.
    fn interrupt(mut self) -> Value {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let last = std::iter::from_fn(|| self.next()).last().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        last
    }
}

impl Drop for Splitter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("expected IPv4, got {address}"),
    }
}

/// A TCP connection, and a UDP socket on the same port.
fn sockets(splitter: SocketAddrV4) -> (TcpStream, UdpSocket) {
    loop {
        let tcp = TcpStream::connect(splitter).unwrap();
        // Another program may have that port for UDP.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            tcp.set_read_timeout(Some(HANGS)).unwrap();
            return (tcp, udp);
        }
    }
}

/// Joins as the reference's peer does: greeting, welcome, header from the source, ready.
fn join(splitter: SocketAddrV4) -> (Vec<u8>, UdpSocket) {
    let (mut tcp, udp) = sockets(splitter);
    tcp.write_all(b"P").unwrap();
    let (mut told, mut more) = (Vec::new(), [0; 512]);
    while Welcome::parse(&told).unwrap().is_none() {
        let n = tcp.read(&mut more).unwrap();
        assert!(n > 0, "the welcome breaks off");
        told.extend_from_slice(&more[..n]);
    }
    fetch_header(&told);
    tcp.write_all(b"R").unwrap();
    assert_eq!(
        tcp.read(&mut more).unwrap(),
        0,
        "the splitter hangs up when the peer is ready"
    );
    (told, udp)
}

fn fetch_header(told: &[u8]) {
    let (welcome, _) = Welcome::parse(told).unwrap().unwrap();
    let mut source = TcpStream::connect(welcome.source).unwrap();
    write!(
        source,
        "GET /{} HTTP/1.1\r\n\r\n",
        std::str::from_utf8(welcome.channel).unwrap()
    )
    .unwrap();
    let mut header = vec![0; usize::from(welcome.header_bytes)];
    source.read_exact(&mut header).unwrap();
    assert!(header.starts_with(b"HTTP/1.0 200 OK"));
}

/// A peer's life: relay until everybody has `target` chunks, then leave politely. Returns what it got.
fn live(splitter: SocketAddrV4, progress: &Progress, target: u64) -> Peer {
    let (told, udp) = join(splitter);
    let (mut peer, hellos) = Peer::new(splitter, &told, 0);
    let send = |out: Vec<common::Datagram>| {
        out.into_iter()
            .for_each(|(to, datagram)| drop(udp.send_to(&datagram, to)));
    };
    send(hellos);
    let me = {
        let mut have = progress.have.lock().unwrap();
        have.push(0);
        have.len() - 1
    };
    progress.changed.notify_all();
    // Short, so that the end of the others is noticed in silence.
    udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (mut buffer, mut have, mut leaving) = ([0; 2048], 0, false);
    while !peer.left {
        if let Ok((n, from)) = udp.recv_from(&mut buffer) {
            send(peer.hear(v4(from), &buffer[..n]));
        }
        while peer.got.contains_key(&have) {
            have += 1;
            progress.set(me, have);
        }
        if !leaving && progress.slowest() >= target {
            leaving = true;
            send(peer.leave());
        }
    }
    peer
}

#[test]
fn three_peers_get_every_chunk_across_a_break_of_the_source() {
    let (breaks, target) = (700, 1_500);
    let progress = Arc::new(Progress::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = listener.local_addr().unwrap();
    let served = Arc::clone(&progress);
    std::thread::spawn(move || serve(listener, served, breaks, target + WINDOW));
    let mut splitter = Splitter::start(source, &[]);
    let at = splitter.at;
    let peers: Vec<_> = (0..TEAM)
        .map(|_| {
            let progress = Arc::clone(&progress);
            std::thread::spawn(move || live(at, &progress, target))
        })
        .collect();
    // What came before the third peer was there is not in everybody's stream; so nothing did.
    let peers: Vec<Peer> = peers.into_iter().map(|peer| peer.join().unwrap()).collect();
    for peer in &peers {
        for number in 0..target {
            assert_eq!(peer.got[&number], chunk(number), "chunk {number}");
        }
    }
    splitter.until(|line| line["team"]["goodbyes"] == TEAM);
    let last = splitter.interrupt();
    assert_eq!(
        (&last["team"]["joins"], &last["peers"]),
        (&TEAM.into(), &Value::Array(vec![]))
    );
    assert_eq!(
        (&last["source"]["discarded_bytes"], &last["source"]["begun"]),
        (&100.into(), &2.into())
    );
    assert_eq!(
        (&last["udp"]["dropped"], &last["udp"]["refused"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn a_dead_peer_is_expelled_and_the_team_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = listener.local_addr().unwrap();
    // No peer reports its progress here: an endless stream, as fast as a slow codec.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                read_request(&mut connection);
                let _ = connection.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
                while connection.write_all(&chunk(0)).is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    let mut splitter = Splitter::start(source, &[]);
    let (_, alive) = join(splitter.at);
    let (_, dead) = join(splitter.at);
    let dead_at = dead.local_addr().unwrap().to_string();
    drop(dead);
    let line = splitter.until(|line| line["team"]["expelled_closed"] == 1);
    let here = alive.local_addr().unwrap().to_string();
    assert_eq!(line["peers"], Value::Array(vec![here.into()]), "{dead_at} is out");
    alive.set_read_timeout(Some(HANGS)).unwrap();
    assert_eq!(alive.recv(&mut [0; 2048]).unwrap(), CHUNK_BYTES + 2);
}

#[test]
fn the_header_is_sent_where_peers_cannot_ask_the_source() {
    let progress = Arc::new(Progress::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = listener.local_addr().unwrap();
    let served = Arc::clone(&progress);
    std::thread::spawn(move || serve(listener, served, 0, WINDOW));
    // The team that the source waits for: it is far ahead.
    *progress.have.lock().unwrap() = vec![u64::MAX; TEAM];
    let mut splitter = Splitter::start(source, &["--send-header", "--header-chunks", "4"]);
    splitter.until(|line| line["team"]["chunks"] == WINDOW);
    let (mut tcp, _udp) = sockets(splitter.at);
    tcp.write_all(b"MR").unwrap();
    let mut told = Vec::new();
    tcp.read_to_end(&mut told).unwrap();
    let (welcome, n) = Welcome::parse(&told).unwrap().unwrap();
    assert_eq!((usize::from(welcome.header_bytes), told.len() - n), (4096, 4096));
    let head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n";
    assert_eq!(&told[n..n + head.len()], head);
    let stream = &told[n + head.len()..];
    assert_eq!(
        stream,
        &(0..4).flat_map(chunk).collect::<Vec<u8>>()[..stream.len()]
    );
}

#[test]
fn exit_codes_say_whose_fault_it_is() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_splitter"))
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    // Nobody listens there: a source that is not there yet is no reason to end.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}/x.ts");
    let (code, said) = run(&["--source", &url, "--listen", "127.0.0.1:0", "--seconds", "1"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("cannot connect") && said.contains("source down"),
        "{said}"
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    for (arguments, remedy) in [
        (vec!["--source", &url, "--listen", &listen], "takes another port"),
        (
            vec!["--source", &url, "--listen", "192.168.77.77:8001"],
            "address of this machine",
        ),
        (
            vec!["--source", &url, "--listen", "0.0.0.0:8001"],
            "--i-know-this-wire-is-open",
        ),
        (vec!["--source", "https://127.0.0.1/x"], "http://"),
        (
            vec!["--source", &url, "--max-peers", "300"],
            "no larger than the buffer",
        ),
        (vec![], "--source"),
    ] {
        let (code, said) = run(&arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(remedy), "{arguments:?}: {said}");
    }
}

/// Pseudo-random bytes, the same each time.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| byte()).collect()
}

#[test]
fn noise_from_strangers_and_members_disturbs_nobody() {
    let progress = Arc::new(Progress::default());
    *progress.have.lock().unwrap() = vec![0; TEAM];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = listener.local_addr().unwrap();
    let served = Arc::clone(&progress);
    std::thread::spawn(move || serve(listener, served, 0, 10 * WINDOW));
    let mut splitter = Splitter::start(source, &[]);
    splitter.until(|line| line["source"]["bytes"] == (WINDOW + 1) * CHUNK_BYTES as u64);
    let (_, member) = join(splitter.at);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Two bytes from a member are a complaint, and `G` would be its goodbye: everything else is noise.
    for length in (0..2000).filter(|&length| length > 2) {
        let bytes = noise(length, length as u64);
        member.send_to(&bytes, splitter.at).unwrap();
        stranger.send_to(&bytes, splitter.at).unwrap();
        if length % 50 == 0 {
            stranger.send_to(b"G", splitter.at).unwrap();
            member.send_to(b"H", splitter.at).unwrap();
            let mut stream = TcpStream::connect(splitter.at).unwrap();
            stream.set_read_timeout(Some(HANGS)).unwrap();
            stream.write_all(&[b"x", &bytes[..]].concat()).unwrap();
            // Hung up on; with a reset, as its noise was not read to the end.
            let _ = stream.read(&mut [0]);
        }
    }
    // Idle ones: as many as may be on their way in, and more.
    let _idle: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(splitter.at).unwrap())
        .collect();
    let line = splitter.until(|line| {
        line["team"]["refused_protocol"] == 39 && line["team"]["refused_arrivals"].as_u64() >= Some(8)
    });
    assert_eq!(
        (&line["arrivals"], line["peers"].as_array().unwrap().len()),
        (&32.into(), 1)
    );
    // And the stream goes on: to the one member, every chunk.
    *progress.have.lock().unwrap() = vec![u64::MAX; TEAM];
    progress.changed.notify_all();
    member.set_read_timeout(Some(HANGS)).unwrap();
    let mut buffer = [0; 2048];
    for number in WINDOW + 1..WINDOW + 40 {
        assert_eq!(member.recv(&mut buffer).unwrap(), CHUNK_BYTES + 2);
        assert_eq!(buffer[..2], (number as u16).to_be_bytes());
        assert_eq!(buffer[2..CHUNK_BYTES + 2], chunk(number));
    }
    let last = splitter.interrupt();
    assert!(last["team"]["datagrams_unknown"].as_u64() > Some(0));
    assert_eq!(
        (&last["team"]["losses"], &last["team"]["goodbyes"]),
        (&0.into(), &0.into())
    );
}
