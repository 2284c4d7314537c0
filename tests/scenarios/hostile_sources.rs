//! Sources that are too fast, too slow, or gone without a word; and titles in bad faith.

use std::time::Duration;

use totality_tests::{
    Backend, Form, Host, Listener, Opts, Relay, Source, Talk, World, basic, eventually, lacks, pass,
};

use crate::common::Stage;

on_both_backends! {
    a_source_at_twenty_times_the_rate
    a_source_that_hangs
    a_source_that_trickles
    a_source_that_vanishes
    a_flood_of_titles
    metadata_stays_in_phase_after_a_jump
}

const PATIENCE: Duration = Duration::from_secs(15);

fn a_source_at_twenty_times_the_rate(backend: Backend) {
    let file = "[mounts.\"/fast.ts\"]\nmax_rate = \"2Mbit/s\"\n";
    let mut stage = Stage::set("fast", backend, |o| o.file(file));
    let fast = Source::push(&stage.studio, &stage.relay, "/fast.ts", Form::Ts, 0, 40_000);
    pass(1000);
    let listener = Listener::tune_in(&stage.audience, stage.relay.at(), "/fast.ts", Form::Ts);
    listener.expect_sound();
    let from = listener.bytes();
    pass(4000);
    let rate = (listener.bytes() - from) * 8 / 4;
    assert!(
        rate <= 4_000_000,
        "expected push-back at 2 Mbit/s, got {rate} bit/s"
    );
    listener.judge(totality_tests::Checker::expect_whole);
    assert!(stage.relay.metric("totality_source_pauses") > 0);
    drop((fast, listener));
    stage.expect_unharmed();
}

fn a_source_that_hangs(backend: Backend) {
    let mut stage = Stage::set("hangs", backend, |o| {
        o.set("source.timeout", "2s").set("source.hold", "0s")
    });
    let mut source = Source::push(&stage.studio, &stage.relay, "/hangs.ts", Form::Ts, 0, 1000);
    let listener = Listener::tune_in(&stage.audience, stage.relay.at(), "/hangs.ts", Form::Ts);
    listener.expect_sound();
    source.hang();
    assert!(
        eventually(PATIENCE, || listener.is_closed()),
        "expected the source to be cut at its time-out"
    );
    assert_eq!(stage.relay.metric("totality_source_timeouts"), 1);
    drop((source, listener));
    stage.expect_unharmed();
}

fn a_source_that_trickles(backend: Backend) {
    let change = |o: Opts| {
        o.set("source.timeout", "2s")
            .set("source.rate_window", "3s")
            .set("source.hold", "0s")
    };
    let mut stage = Stage::set("trickles", backend, change);
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    let mut talk = Talk::open(&stage.studio, stage.relay.at());
    talk.say(format!("PUT /trickle.ts HTTP/1.1\r\n{login}\r\n").as_bytes());
    assert_eq!(talk.hear_head(PATIENCE).status(), Some(200));
    let cut = eventually(PATIENCE, || {
        talk.say(b"x");
        talk.hear(Duration::from_millis(300)).closed
    });
    assert!(cut, "expected a source of 3 B/s to be cut");
    assert_eq!(stage.relay.metric("totality_source_timeouts"), 1);
    stage.expect_unharmed();
}

fn a_source_that_vanishes(backend: Backend) {
    if lacks("a source that vanishes", true, &["ip", "nft"]) {
        return;
    }
    let change = |o: Opts| o.set("source.timeout", "2s").set("source.hold", "1s");
    let mut stage = Stage::set("vanishes", backend, change);
    let elsewhere = stage.world.host("elsewhere");
    let source = Source::push(&elsewhere, &stage.relay, "/gone.ts", Form::Ts, 0, 1000);
    let listener = Listener::tune_in(&stage.audience, stage.relay.at(), "/gone.ts", Form::Ts);
    listener.expect_sound();
    elsewhere.sh(
        "nft",
        &["add table inet t; add chain inet t o { type filter hook output priority 0; policy drop; }"],
    );
    assert!(
        eventually(PATIENCE, || listener.is_closed()),
        "expected the listener to be let go"
    );
    listener.judge(totality_tests::Checker::expect_whole);
    assert_eq!(stage.relay.metric("totality_source_timeouts"), 1);
    // The mount is free for whoever comes next.
    let next = Source::push(&stage.studio, &stage.relay, "/gone.ts", Form::Ts, 0, 1000);
    drop((source, next, listener));
    stage.expect_unharmed();
}

/// Asks for a new title, from a host.
fn updinfo(from: &Host, relay: &Relay, query: &str, login: &str) -> u16 {
    let said = format!(
        "GET /admin/metadata?mode=updinfo&{query} HTTP/1.1\r\nHost: {}\r\n{login}Connection: close\r\n\r\n",
        relay.at()
    );
    Talk::open(from, relay.at())
        .say(said.as_bytes())
        .hear(PATIENCE)
        .status()
        .unwrap_or(0)
}

fn a_flood_of_titles(backend: Backend) {
    let mut stage = Stage::set("titles", backend, |o| o);
    let radio = Source::push(&stage.studio, &stage.relay, "/radio.mp3", Form::Mp3, 0, 400);
    let stream = stage.audience.connect(stage.relay.at()).unwrap();
    let listener = Listener::tune_in_with(stream, "/radio.mp3", Form::Mp3, "Icy-MetaData: 1\r\n");
    listener.expect_sound();
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    assert_eq!(
        updinfo(
            &stage.studio,
            &stage.relay,
            "mount=/radio.mp3&song=Totality",
            &login
        ),
        200
    );
    let heard = |listener: &Listener, part: &str| listener.titles().iter().any(|title| title.contains(part));
    assert!(
        eventually(PATIENCE, || heard(&listener, "StreamTitle='Totality';")),
        "{:?}",
        listener.titles()
    );
    let refused = [401, 403];
    assert!(refused.contains(&updinfo(
        &stage.studio,
        &stage.relay,
        "mount=/radio.mp3&song=Mine",
        ""
    )));
    assert!(refused.contains(&updinfo(
        &stage.studio,
        &stage.relay,
        "mount=/radio.mp3&song=Mine",
        &basic("source", "wrong")
    )));
    if stage.world.is_isolated() {
        // The right password, but from elsewhere than the source.
        let elsewhere = updinfo(
            &stage.audience,
            &stage.relay,
            "mount=/radio.mp3&song=Mine",
            &login,
        );
        assert_eq!(elsewhere, 403);
    }
    let mut refused = 0;
    for i in 0..10_000 {
        let status = updinfo(
            &stage.studio,
            &stage.relay,
            &format!("mount=/radio.mp3&song=flood-{i}"),
            &login,
        );
        assert!(matches!(status, 200 | 429), "{status}");
        refused += usize::from(status == 429);
    }
    assert!(refused > 0, "10,000 titles in a row, and none too many");
    let long = "y".repeat(5000);
    for song in [
        &long,
        "a%0D%0AX-Injected:%20b",
        "%ff%fe%fd",
        "it%27s%3B%20StreamUrl%3D%27x",
    ] {
        // Let the flood's second pass: these are judged for what they say.
        pass(1100);
        let status = updinfo(
            &stage.studio,
            &stage.relay,
            &format!("mount=/radio.mp3&song={song}"),
            &login,
        );
        assert!(matches!(status, 200 | 400 | 413 | 414 | 431), "{status}");
    }
    let far = "z".repeat(64 * 1024);
    let status = updinfo(
        &stage.studio,
        &stage.relay,
        &format!("mount=/radio.mp3&song={far}"),
        &login,
    );
    assert!(
        matches!(status, 400 | 413 | 414 | 431),
        "64 KiB of title: {status}"
    );
    let due = radio.next() + 200;
    assert!(listener.reaches(due, PATIENCE));
    listener.judge(totality_tests::Checker::expect_whole);
    let titles = listener.titles();
    assert!(
        titles
            .iter()
            .all(|t| t.len() <= 4080 && !t.contains(['\r', '\n'])),
        "{titles:?}"
    );
    assert!(!heard(&listener, "Mine"));
    drop((radio, listener));
    stage.expect_unharmed();
}

fn metadata_stays_in_phase_after_a_jump(backend: Backend) {
    let world = World::new("phase");
    let host = world.host("root");
    let opts = Opts::on(backend)
        .set("limits.ring", "256KiB")
        .set("limits.ring_seconds", 1)
        .set("limits.jumps", 100);
    let mut relay = Relay::start(&host, opts);
    let source = Source::push(&host, &relay, "/radio.mp3", Form::Mp3, 0, 4000);
    let stream = host.connect_from(host.ip(), relay.at(), Some(16 * 1024)).unwrap();
    let listener = Listener::tune_in_with(stream, "/radio.mp3", Form::Mp3, "Icy-MetaData: 1\r\n");
    listener.expect_sound();
    assert!(
        listener.head().to_lowercase().contains("icy-metaint:"),
        "{}",
        listener.head()
    );
    listener.stall();
    assert!(
        eventually(PATIENCE, || relay.metric("totality_lag_jumps") > 0),
        "expected a jump"
    );
    listener.resume();
    let from = listener.bytes();
    assert!(
        eventually(PATIENCE, || listener.bytes() > from + 1_000_000),
        "{} bytes came",
        listener.bytes()
    );
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    updinfo(&host, &relay, "mount=/radio.mp3&song=After", &login);
    let heard = || listener.titles().iter().any(|title| title.contains("After"));
    assert!(eventually(PATIENCE, heard), "{:?}", listener.titles());
    listener.judge(|judge| {
        // Where it jumped, a frame may have been cut; nothing else may be out of phase.
        let (faults, jumps) = (judge.faults(), judge.jumps());
        assert!(
            !jumps.is_empty() && faults.len() <= 2 * jumps.len(),
            "{faults:?}, {jumps:?}"
        );
    });
    assert!(source.next() > 0);
    relay.expect_alive();
}
