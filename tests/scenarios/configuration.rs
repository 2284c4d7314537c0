//! Bad configurations: exit code 2, and a text that says where, which key, and what was perhaps meant.

use std::process::{Command, Output};

use totality_tests::{Backend, Opts, Relay, World, bin};

fn run(world: &World, toml: &str, args: &[&str]) -> (Output, String) {
    let path = world.host("root").file("bad.toml");
    std::fs::write(&path, toml).unwrap();
    let mut command = Command::new(bin("relay"));
    command
        .args(["run", "--listen", "127.0.0.1:0", "-c"])
        .arg(path)
        .args(args);
    let out = command.env("RELAY_AUTH_SOURCE_PASSWORD", "x").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    (out, said)
}

#[test]
fn mistakes_are_named() {
    let world = World::new("config");
    let cases = [
        (
            "an unknown key",
            "[limits]\n\nlistners = 5\n",
            &["bad.toml:3", "listners", "limits.listeners"][..],
        ),
        (
            "an unknown table",
            "[limit]\nlisteners = 5\n",
            &["bad.toml:1", "limits"],
        ),
        (
            "a bad value",
            "[server]\nbackend = \"kqueue\"\n",
            &["bad.toml:2", "backend", "kqueue", "mio"],
        ),
        ("no TOML", "[server\n", &["bad.toml:1"]),
        (
            "a bad time",
            "[source]\nhold = \"ten\"\n",
            &["bad.toml:2", "hold", "ten"],
        ),
        ("binary", "\0\u{1}\u{2}", &["bad.toml:1"]),
    ];
    for (name, toml, parts) in cases {
        let (out, said) = run(&world, toml, &[]);
        assert_eq!(out.status.code(), Some(2), "{name}: {said}");
        for part in parts {
            assert!(said.contains(part), "{name}: expected {part:?} in: {said}");
        }
    }
    let (out, said) = run(&world, "", &["--no-such-flag"]);
    assert_eq!(out.status.code(), Some(2), "{said}");
    let (out, said) = run(&world, "", &["--workers", "-3"]);
    assert_eq!(out.status.code(), Some(2), "{said}");
}

#[test]
fn secrets_are_not_printed() {
    let world = World::new("secrets");
    let (out, said) = run(&world, "[auth]\nnode_token = [\"geheim\"]\n", &[]);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(!said.contains("geheim"), "{said}");
}

/// Without a password nobody publishes.
#[test]
fn no_password_no_ingest() {
    let world = World::new("closed");
    let host = world.host("root");
    // With a file, so that none is made up.
    let opts = Opts::on(Backend::Auto)
        .without("RELAY_AUTH_SOURCE_PASSWORD")
        .file("[server]\n");
    let mut relay = Relay::start(&host, opts);
    for login in [
        "",
        &totality_tests::basic("source", ""),
        &totality_tests::basic("source", "hackme"),
    ] {
        let said = format!("PUT /x.ts HTTP/1.1\r\n{login}\r\n");
        let answer = relay.ask(said.as_bytes(), std::time::Duration::from_secs(5));
        assert_eq!(answer.status(), Some(403), "{}", answer.text());
    }
    assert_eq!(relay.get("/x.ts").status(), Some(404));
    relay.expect_alive();
}
