//! The program from outside: exit codes and what it says.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn relay(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RELAY_") {
            command.env_remove(name);
        }
    }
    command
}

fn output(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = relay(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn usage_is_code_2_and_help_is_code_0() {
    for args in [
        &["run", "--listn", "x"][..],
        &["run", "--listen", "nowhere"],
        &["run", "--loop"],
        &["run", "--source", "/does/not/exist.ts"],
        &["run", "--upstream", "here"],
        &["run", "--auth-source-password", "x"],
        &[
            "run",
            "--limits-connections",
            "99999999",
            "--limits-listeners",
            "1",
            "--listen",
            "127.0.0.1:0",
        ],
        &["check", "-c", "/does/not/exist.toml"],
        &["status", "https://there"],
        &["demo", "--port", "65000"],
        &["nonsense"],
        &[],
    ] {
        let (code, _, said) = output(args);
        assert_eq!(code, 2, "{args:?}: {said}");
        assert!(!said.trim().is_empty(), "{args:?} says nothing");
    }
    for args in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["demo", "-h"],
        &["check", "--example"],
    ] {
        let (code, said, _) = output(args);
        assert_eq!(code, 0, "{args:?}");
        assert!(!said.is_empty());
    }
}

#[test]
fn help_teaches_and_names_no_secret_flag() {
    let (_, help, _) = output(&["run", "--help"]);
    for part in [
        "Examples:",
        "icecast://source:$RELAY_AUTH_SOURCE_PASSWORD@",
        "--upstream",
        "--limits-ring",
    ] {
        assert!(help.contains(part), "{part} is not in the help");
    }
    assert!(!help.contains("--auth"));
}

#[test]
fn check_says_what_is_in_force() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "[server]\nworkers = 2\n[auth]\nsource_password = 'hackme'\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let (code, said, _) = output(&["check", "-c", path, "--limits-ring", "8MiB"]);
    assert_eq!(code, 0);
    for part in [
        "workers = 2",
        "ring = \"8MiB\"",
        "# --limits-ring",
        "source_password = \"***\"",
        "budget: at most",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!said.contains("hackme"));
    std::fs::write(file.path(), "[server]\nlistn = 1\n").unwrap();
    let (code, _, said) = output(&["check", "-c", path]);
    assert_eq!(
        (code, said.contains(&format!("{path}:2: unknown key"))),
        (2, true),
        "{said}"
    );
}

#[test]
fn keys_are_random() {
    let ((_, a, _), (_, b, _)) = (output(&["keygen"]), output(&["keygen"]));
    assert_eq!((a.trim().len(), a == b), (43, false));
}

#[test]
fn no_node_is_code_1() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (code, _, said) = output(&["status", &free.to_string()]);
    assert_eq!((code, said.contains("is it running?")), (1, true), "{said}");
}

#[test]
fn a_port_in_use_is_code_1_and_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let (code, _, said) = output(&["run", "--listen", &at, "--workers", "1"]);
    assert_eq!(
        (code, said.contains(&at), said.contains("--listen")),
        (1, true, true),
        "{said}"
    );
}

/// A node at work, and its standard error read as far as the address to listen at.
struct Running {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
    head: String,
    base: String,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut head = String::new();
        while !head.contains("Listen ") {
            assert_ne!(said.read_line(&mut head).unwrap(), 0, "it ended: {head}");
        }
        let at = head.rfind("http://").unwrap();
        let base = head[at..].split(['/', ')']).nth(2).unwrap().to_owned();
        Self {
            child,
            said,
            head,
            base,
        }
    }

    fn end(mut self, signal: Signal) -> (i32, String) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        let mut rest = std::mem::take(&mut self.head);
        self.said.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}

/// Ends it when a test fails half-way.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_first_run_says_how_to_publish_and_ends_in_good_order() {
    for (backend, signal) in [("auto", Signal::SIGTERM), ("mio", Signal::SIGINT)] {
        let node = Running::start(&mut relay(&[
            "run",
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
            "--backend",
            backend,
        ]));
        kill(Pid::from_raw(node.child.id() as i32), Signal::SIGHUP).unwrap();
        let (code, table, _) = output(&["status", &node.base]);
        assert_eq!(code, 0, "{table}");
        assert!(table.contains("no channels"), "{table}");
        let (_, json, _) = output(&["status", &node.base, "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["node"]["workers"], 1);
        let (code, said) = node.end(signal);
        assert_eq!(code, 0, "{said}");
        for part in [
            "backend: ",
            "budget: at most",
            "export RELAY_AUTH_SOURCE_PASSWORD=",
            "icecast://source:$RELAY",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/clip/assets/eclipse.ts");
    let mut node = Running::start(&mut relay(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--source",
        clip,
        "--loop",
    ]));
    let read_until = |node: &mut Running, words: &str| {
        while !node.head.contains(words) {
            assert_ne!(
                node.said.read_line(&mut node.head).unwrap(),
                0,
                "it ended: {}",
                node.head
            );
        }
    };
    read_until(&mut node, "is on the air");
    // A listener that stays: letting it go takes two seconds.
    let mut listener = std::net::TcpStream::connect(&node.base).unwrap();
    std::io::Write::write_all(&mut listener, b"GET /eclipse.ts HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    listener.read_exact(&mut [0; 64]).unwrap();
    kill(Pid::from_raw(node.child.id() as i32), Signal::SIGTERM).unwrap();
    read_until(&mut node, "closing");
    assert_eq!(node.end(Signal::SIGTERM).0, 1);
}

#[test]
fn beyond_loopback_no_password_is_made_up() {
    let node = Running::start(&mut relay(&["run", "--listen", "0.0.0.0:0", "--workers", "1"]));
    let (code, said) = node.end(Signal::SIGTERM);
    assert_eq!(code, 0);
    assert!(
        said.contains("refused") && said.contains("RELAY_AUTH_SOURCE_PASSWORD"),
        "{said}"
    );
    assert!(!said.contains("export "), "{said}");
}

#[test]
fn standard_input_becomes_a_channel() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/clip/assets/eclipse.ts");
    let mut command = relay(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--source",
        "-",
        "--mount",
        "/pipe.ts",
    ]);
    command.stdin(std::fs::File::open(clip).unwrap());
    let mut node = Running::start(&mut command);
    while !node.head.contains("is on the air") {
        assert_ne!(
            node.said.read_line(&mut node.head).unwrap(),
            0,
            "it ended: {}",
            node.head
        );
    }
    let mut stream = std::net::TcpStream::connect(&node.base).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /pipe.ts HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 4096];
    stream.read_exact(&mut first).unwrap();
    let text = String::from_utf8_lossy(&first);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let (code, said) = node.end(Signal::SIGTERM);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_team_that_cannot_be_led_is_code_2_with_the_remedy() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    for (args, remedy) in [
        (&["--team-listen", &at][..], "--team-listen takes another address"),
        (
            &["--team-listen", "203.0.113.7:8001", "--i-know-this-wire-is-open"],
            "does not have that address",
        ),
        (
            &["--team-listen", "203.0.113.7:8001"],
            "--i-know-this-wire-is-open",
        ),
        (&["--wire", "t"], "expected b or c"),
    ] {
        let all = [&["run", "--listen", "127.0.0.1:0", "--team", "/a.ts"][..], args].concat();
        let (code, _, said) = output(&all);
        assert_eq!(code, 2, "{args:?}: {said}");
        assert!(said.contains(remedy), "{args:?}: {said}");
    }
}
