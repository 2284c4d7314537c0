//! The way to a listener: packets that are lost or late, ways that end in a hole, cables that are pulled out.

use std::time::Duration;

use totality_tests::{Backend, Checker, Form, Listener, Opts, Sky, Source, eventually, lacks, pass};

use crate::common::{MOUNT, Stage};

on_both_backends! {
    loss_and_delay_are_the_kernels_business
    a_way_that_ends_in_a_hole
    a_cable_out_and_in_again
}

const SOON: Duration = Duration::from_secs(20);
/// After so long without an acknowledgement a listener is dead: short, so that the stories are.
const DEAD_AFTER: &str = "2s";
/// For the kernel's timer to notice that, and for us to hear of it.
const REAPED: Duration = Duration::from_secs(30);

/// The relay, somebody at the far end of a bad cable, and how many listeners there are without them.
fn far(name: &str, backend: Backend) -> (Stage, totality_tests::Host) {
    let stage = Stage::set(name, backend, |o: Opts| o.set("limits.dead_after", DEAD_AFTER));
    let host = stage.world.host("far");
    (stage, host)
}

/// What is lost is sent again, what is late comes: every byte, in order. What it costs is a little lag, which is
/// nobody's fault and no reason to leave anything out.
fn loss_and_delay_are_the_kernels_business(backend: Backend) {
    const SEED: u64 = 136;
    if lacks("bad weather", true, &["ip", "ethtool"]) {
        return;
    }
    let mut stage = Stage::set("weather", backend, |o| o);
    let host = stage.world.host("far");
    let weather = stage.world.weather(&host, SEED);
    eprintln!("the weather's seed is {SEED}");
    let listener = Listener::tune_in(&host, stage.relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    let ms = Duration::from_millis;
    for (loss_permille, delay, jitter) in [(10, 50, 0), (50, 50, 20), (100, 20, 10), (10, 200, 50)] {
        weather.turn(Sky {
            loss_permille,
            delay: ms(delay),
            jitter: ms(jitter),
        });
        pass(3000);
    }
    weather.turn(Sky::default());
    let due = stage.source.next();
    assert!(
        listener.reaches(due, SOON),
        "{due} sent, {:?} came",
        listener.next()
    );
    assert!(
        weather.lost() > 20,
        "expected bad weather, got {} losses",
        weather.lost()
    );
    listener.judge(Checker::expect_whole);
    assert_eq!(stage.relay.metric("totality_lag_jumps"), 0);
    drop(listener);
    stage.expect_unharmed();
}

/// After so many bytes nothing comes through any more, in either direction, and nobody says why.
fn a_way_that_ends_in_a_hole(backend: Backend) {
    const MANY: usize = 8;
    if lacks("a hole in the net", true, &["ip", "nft"]) {
        return;
    }
    let (mut stage, host) = far("hole", backend);
    let listeners: Vec<Listener> = (0..MANY)
        .map(|_| Listener::tune_in(&host, stage.relay.at(), MOUNT, Form::Ts))
        .collect();
    listeners.iter().for_each(Listener::expect_sound);
    host.drop_after(200_000);
    let reaped = eventually(REAPED, || stage.relay.metric("totality_listeners") == 1);
    let left = stage.relay.metric("totality_listeners") - 1;
    assert!(
        reaped,
        "expected the {MANY} in the hole to be let go, {left} were not"
    );
    for listener in &listeners {
        listener.judge(Checker::expect_whole);
    }
    // None of them was judged for lagging: they were dead before.
    assert_eq!(stage.relay.metric("totality_lag_closed"), 0);
    stage.expect_unharmed();
}

/// A fifth of a second, and one that is nearly too long: nobody notices. Longer than that is a hole.
fn a_cable_out_and_in_again(backend: Backend) {
    if lacks("cables", true, &["ip"]) {
        return;
    }
    let (mut stage, host) = far("flap", backend);
    let listener = Listener::tune_in(&host, stage.relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    for out in [200, 200, 900] {
        host.cut_link(out);
        let due = stage.source.next();
        assert!(
            listener.reaches(due, SOON),
            "{out} ms: {due} sent, {:?} came",
            listener.next()
        );
    }
    listener.judge(Checker::expect_whole);
    host.unplug();
    let reaped = eventually(REAPED, || stage.relay.metric("totality_listeners") == 1);
    assert!(reaped, "expected the unplugged listener to be let go");
    host.plug();
    // It learns of it when it says something; till then it had a contiguous run.
    listener.judge(Checker::expect_whole);
    let again = Listener::tune_in(&host, stage.relay.at(), MOUNT, Form::Ts);
    again.expect_sound();
    drop((listener, again));
    stage.expect_unharmed();
}

/// Sends without a copy whose acknowledgement never comes: the kernel goes on reading what the ring has long passed. It
/// is held, up to a limit, beyond which sends copy; nobody else notices, and with the dead their pages go.
#[test]
fn who_never_acknowledges_holds_little() {
    const MANY: usize = 6;
    if lacks("a hole in the net", true, &["ip", "nft"]) {
        return;
    }
    // A ring that is lapped at once; room in the kernel for more than one connection may hold.
    let change = |o: Opts| {
        o.set("server.zero_copy", "always")
            .set("limits.ring", "1MiB")
            .set("limits.ring_seconds", 1)
            .set("limits.burst", "256KiB")
            .set("limits.send_buffer", "2MiB")
            .set("limits.unsent", "2MiB")
            .set("limits.dead_after", "4s")
            .set("limits.jumps", 200)
    };
    let mut stage = Stage::set("held", Backend::Uring, change);
    let host = stage.world.host("far");
    let driver = |stage: &Stage, name: &str| stage.relay.metric(&format!("totality_driver_{name}"));
    // Fast enough for a tick of it to be worth a send without a copy.
    let hot = Source::push(&stage.studio, &stage.relay, "/hot.ts", Form::Ts, 0, 30_000);
    let listeners: Vec<Listener> = (0..MANY)
        .map(|_| Listener::tune_in(&host, stage.relay.at(), "/hot.ts", Form::Ts))
        .collect();
    listeners.iter().for_each(Listener::expect_sound);
    let rss = stage.relay.rss_kib();
    host.drop_after(0);
    let mut worst = 0;
    let reaped = eventually(REAPED, || {
        worst = worst.max(stage.relay.rss_kib().saturating_sub(rss));
        stage.relay.metric("totality_listeners") == 1
    });
    assert!(reaped, "expected them to be let go");
    let [sends, capped] = ["zero_copy_sends", "zero_copy_capped"].map(|name| driver(&stage, name));
    eprintln!("{sends} sends without a copy, {capped} held back; {worst} KiB held");
    assert!(
        sends > 20 && capped > 0,
        "{sends} sends without a copy, {capped} held back"
    );
    drop(hot);
    // A quarter of a megabyte each, and what the ring itself was given in place of what is held.
    let allowed = (MANY as u64 + 4) * 1024;
    assert!(
        worst <= allowed,
        "expected at most {allowed} KiB to be held, got {worst}"
    );
    drop(listeners);
    stage.expect_unharmed();
}
