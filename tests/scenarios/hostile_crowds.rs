//! Crowds in bad faith, or simply too many.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use totality_tests::{Backend, Crowd, Form, Listener, NODE_TOKEN, Opts, Talk, eventually, lacks, pass};

use crate::common::{MOUNT, Stage};

on_both_backends! {
    heads_that_never_end
    resets_in_mid_send
    a_flood_of_callers
    one_listener_too_many
    the_last_seats_are_kept
    one_address_too_often
    out_of_descriptors
}

const GET: &[u8] = b"GET /numbered.ts HTTP/1.1\r\nHost: relay\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);

fn heads_that_never_end(backend: Backend) {
    const SLOW: usize = 500;
    if lacks("slow heads", true, &["ip"]) {
        return;
    }
    let mut stage = Stage::set("slowloris", backend, |o| o.set("limits.head_timeout", "2s"));
    stage.world.crowd_addresses(&stage.audience);
    let mut crowd = Crowd::come(
        &stage.audience,
        stage.relay.at(),
        SLOW,
        b"GET /numbered.ts HTTP/1.1\r\nX: ",
        None,
    );
    let let_go = eventually(Duration::from_secs(20), || {
        crowd.say(b"x");
        pass(100);
        crowd.closed() == SLOW
    });
    assert!(
        let_go,
        "expected all {SLOW} to be closed at the head's time-out, {} were",
        crowd.closed()
    );
    drop(crowd);
    stage.expect_unharmed();
}

fn resets_in_mid_send(backend: Backend) {
    const MANY: usize = 10_000;
    let mut stage = Stage::set("resets", backend, |o| o);
    for i in 0..MANY {
        let mut talk = Talk::open(&stage.audience, stage.relay.at());
        talk.say(GET);
        if i % 2 == 0 {
            talk.hear_head(SOON);
        }
        let socket = socket2::SockRef::from(talk.stream());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    stage.expect_unharmed();
}

fn a_flood_of_callers(backend: Backend) {
    const MANY: usize = 3000;
    if lacks("a flood of callers", true, &["ip"]) {
        return;
    }
    let mut stage = Stage::set("flood", backend, |o| o);
    stage.world.crowd_addresses(&stage.audience);
    // They come, say nothing, and go, as scanners do; then they come and ask for what is not there.
    drop(Crowd::come(&stage.audience, stage.relay.at(), MANY, b"", None));
    drop(Crowd::come(
        &stage.audience,
        stage.relay.at(),
        MANY,
        b"GET /nothing HTTP/1.1\r\n\r\n",
        None,
    ));
    stage.expect_unharmed();
}

/// Connections that are reserved are not for listeners, whatever their own limit says.
fn the_last_seats_are_kept(backend: Backend) {
    let change = |o: Opts| {
        o.set("limits.listeners", 50)
            .set("limits.connections", 60)
            .set("limits.reserved", 55)
    };
    let mut stage = Stage::set("seats", backend, change);
    let mut seated = Vec::new();
    let refused = eventually(SOON, || {
        let mut talk = Talk::open(&stage.audience, stage.relay.at());
        talk.say(GET);
        let status = talk.hear_head(SOON).status();
        seated.push(talk);
        status == Some(503)
    });
    assert!(
        refused && seated.len() <= 5,
        "{} were let in beside the source and the control",
        seated.len()
    );
    assert_eq!(stage.relay.get("/healthz").status(), Some(200));
    drop(seated);
    stage.expect_unharmed();
}

fn one_listener_too_many(backend: Backend) {
    let mut stage = Stage::set("full", backend, |o| o.set("limits.listeners", 3));
    let more: Vec<Listener> = (0..2)
        .map(|_| Listener::tune_in(&stage.audience, stage.relay.at(), MOUNT, Form::Ts))
        .collect();
    more.iter().for_each(Listener::expect_sound);
    let refused = stage.relay.ask(GET, SOON);
    assert_eq!(refused.status(), Some(503), "{}", refused.text());
    let wait = refused.header("Retry-After").and_then(|s| s.parse::<u32>().ok());
    assert!(
        wait.is_some_and(|s| s > 0) && refused.closed,
        "{}",
        refused.text()
    );
    // Nodes, sources and those who look after the relay still get in.
    let link = format!("GET /link{MOUNT}?from=live HTTP/1.1\r\nAuthorization: Bearer {NODE_TOKEN}\r\n\r\n");
    let linked = Talk::open(&stage.root, stage.relay.at())
        .say(link.as_bytes())
        .hear_head(SOON);
    assert_eq!(linked.status(), Some(200), "{}", linked.text());
    assert_eq!(stage.relay.get("/healthz").status(), Some(200));
    let head = stage.relay.ask(b"HEAD /numbered.ts HTTP/1.1\r\n\r\n", SOON);
    assert_eq!(head.status(), Some(200));
    drop(more);
    // Who waited as told finds a place.
    let stage_relay = &stage.relay;
    let again = || {
        let listener = Listener::tune_in(&stage.audience, stage_relay.at(), MOUNT, Form::Ts);
        eventually(SOON, || listener.units() > 0 || listener.is_closed()) && listener.units() > 0
    };
    assert!(eventually(SOON, again), "expected a place to be free again");
    stage.expect_unharmed();
}

fn one_address_too_often(backend: Backend) {
    const MANY: usize = 500;
    const SHARE: usize = 40;
    if lacks("one address too often", true, &["ip"]) {
        return;
    }
    let mut stage = Stage::set("prefix", backend, |o| o.set("limits.per_prefix", SHARE));
    stage.world.crowd_addresses(&stage.audience);
    let one = |_| IpAddr::V4(Ipv4Addr::new(10, 77, 9, 9));
    let mut crowd = Crowd::come_from(&stage.audience, stage.relay.at(), MANY, GET, None, one);
    assert!(
        eventually(SOON, || crowd.closed() >= MANY - SHARE),
        "{} were refused",
        crowd.closed()
    );
    let answers = crowd.heard();
    let count = |status: &str| {
        answers
            .iter()
            .filter(|a| a.starts_with(status.as_bytes()))
            .count()
    };
    assert_eq!(
        (count("HTTP/1.1 200"), count("HTTP/1.1 503")),
        (SHARE, MANY - SHARE)
    );
    // Somebody from elsewhere is let in meanwhile.
    let other = Crowd::come(&stage.audience, stage.relay.at(), 1, GET, None);
    pass(300);
    assert_eq!(other.closed(), 0);
    drop((crowd, other));
    stage.expect_unharmed();
}

fn out_of_descriptors(backend: Backend) {
    const MANY: usize = 200;
    if lacks("running out of descriptors", true, &["ip", "prlimit"]) {
        return;
    }
    let mut stage = Stage::set("nofile", backend, |o| o);
    // At the start the relay refuses a limit that it cannot live with; so it is taken away behind its back.
    let (pid, limit) = (format!("--pid={}", stage.relay.pid()), stage.fds + 20);
    stage
        .root
        .sh("prlimit", &[&pid, &format!("--nofile={limit}:{limit}")]);
    stage.relay.expect_loud_log();
    stage.world.crowd_addresses(&stage.audience);
    let crowd = Crowd::come(&stage.audience, stage.relay.at(), MANY, GET, None);
    let before = stage.relay.cpu();
    pass(3000);
    let used = stage.relay.cpu() - before;
    // A tenth of a core for 3 s, those who are in being served included.
    assert!(
        used <= Duration::from_millis(300),
        "expected no busy loop, got {used:?} in 3 s"
    );
    drop(crowd);
    let again = || {
        let listener = Listener::tune_in(&stage.audience, stage.relay.at(), MOUNT, Form::Ts);
        eventually(Duration::from_secs(2), || listener.units() > 0)
    };
    assert!(
        eventually(Duration::from_secs(15), again),
        "expected accepting to resume"
    );
    stage.expect_unharmed();
}
