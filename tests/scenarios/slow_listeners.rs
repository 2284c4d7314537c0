//! Listeners that read slowly or not at all: they cost little, disturb nobody, and are let go in the end.

use std::time::Duration;

use totality_tests::{Backend, Checker, Crowd, Form, Listener, eventually, lacks, pass};

use crate::common::{KBPS, MOUNT, Stage};

on_both_backends! {
    five_hundred_who_never_read
    a_stall_within_the_window_costs_nothing
    who_falls_behind_jumps_to_a_join_point
    half_the_rate_skips_whole_packets_or_is_let_go
    every_byte_of_those_who_are_lapped
    who_sips_is_sent_no_drops
}

const GET: &[u8] = b"GET /numbered.ts HTTP/1.1\r\nHost: relay\r\n\r\n";
const SILENT: usize = 500;
/// What a reader who never reads may cost the kernel.
const KERNEL_PER_READER: u64 = 100 * 1024;
/// What a listener may cost in user memory, in KiB.
const USER_KIB_PER_LISTENER: u64 = 4;
/// What the first listeners' coming costs once, in KiB: code paths taken for the first time.
const USER_KIB_ONCE: u64 = 2048;

fn five_hundred_who_never_read(backend: Backend) {
    if lacks("a crowd that never reads", true, &["ip"]) {
        return;
    }
    // A window of 8 s of the stream: long enough to fill every socket, short enough to see the ladder's end.
    let mut stage = Stage::set("silent", backend, |o| {
        o.set("limits.ring", "1MiB").set("limits.ring_seconds", 2)
    });
    stage.world.crowd_addresses(&stage.audience);
    let (kernel, user) = (stage.root.tcp_memory(), stage.relay.rss_kib());
    let crowd = Crowd::come(&stage.audience, stage.relay.at(), SILENT, GET, Some(4096));
    let mut worst = 0;
    let let_go = eventually(Duration::from_secs(60), || {
        worst = worst.max(stage.root.tcp_memory().saturating_sub(kernel));
        // Who never reads never sees the end of it either: ask the other side.
        pass(200);
        stage.relay.metric("totality_listeners") == 1
    });
    let used = stage.relay.rss_kib().saturating_sub(user);
    let left = stage.relay.metric("totality_listeners") - 1;
    assert!(let_go, "expected all {SILENT} to be let go, {left} were not");
    let each = worst / SILENT as u64;
    eprintln!(
        "{SILENT} silent readers: {each} bytes of kernel memory each, {used} KiB of user memory in all"
    );
    assert!(
        each <= KERNEL_PER_READER,
        "expected at most {KERNEL_PER_READER} bytes of kernel memory each, got {each}"
    );
    // Not a test of our own patience: they must have been full at some time.
    assert!(
        each > 4096,
        "expected their sockets to fill, got {each} bytes each"
    );
    let allowed = SILENT as u64 * USER_KIB_PER_LISTENER + USER_KIB_ONCE;
    assert!(
        used <= allowed,
        "expected at most {allowed} KiB more of user memory, got {used}"
    );
    drop(crowd);
    stage.expect_unharmed();
}

fn a_stall_within_the_window_costs_nothing(backend: Backend) {
    // Four seconds and a half of the stream in its window, and a little in the kernel.
    let mut stage = Stage::set("stall", backend, |o| {
        o.set("limits.ring", "768KiB").set("limits.ring_seconds", 1)
    });
    let listener = Listener::tune_in(&stage.audience, stage.relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    listener.stall();
    pass(3000);
    listener.resume();
    let due = stage.source.next();
    assert!(listener.reaches(due, Duration::from_secs(10)));
    // The same again, and again, is no reason either: what counts is how far behind it is.
    for _ in 0..3 {
        listener.stall();
        pass(1500);
        listener.resume();
        let due = stage.source.next();
        assert!(listener.reaches(due, Duration::from_secs(10)));
    }
    listener.judge(Checker::expect_whole);
    assert_eq!(stage.relay.metric("totality_lag_jumps"), 0);
    drop(listener);
    stage.expect_unharmed();
}

fn who_falls_behind_jumps_to_a_join_point(backend: Backend) {
    let change = |o: totality_tests::Opts| o.set("limits.ring", "256KiB").set("limits.ring_seconds", 1);
    let mut stage = Stage::set("behind", backend, change);
    let host = stage.audience.clone();
    let small = host
        .connect_from(host.ip(), stage.relay.at(), Some(8192))
        .unwrap();
    let listener = Listener::tune_in_with(small, MOUNT, Form::Ts, "");
    listener.expect_sound();
    listener.stall();
    let jumped = eventually(Duration::from_secs(30), || {
        stage.relay.metric("totality_lag_jumps") > 0
    });
    assert!(
        jumped,
        "expected a jump, got none: {}",
        stage.relay.get("/metrics").text()
    );
    listener.resume();
    let due = stage.source.next() + 500;
    assert!(
        listener.reaches(due, Duration::from_secs(15)),
        "{:?}",
        listener.next()
    );
    let declared = stage.relay.metric("totality_lag_jumps") as usize;
    listener.judge(|heard| {
        let jumps = heard.jumps().len();
        assert!(
            (1..=declared).contains(&jumps),
            "{jumps} jumps, {declared} declared"
        );
        heard.expect_jumps(jumps);
    });
    drop(listener);
    stage.expect_unharmed();
}

/// A quarter of a megabyte of ring: a second and a half of the stream.
fn small_ring(o: totality_tests::Opts) -> totality_tests::Opts {
    o.set("limits.ring", "256KiB").set("limits.ring_seconds", 1)
}

/// A listener whose kernel takes little beforehand.
fn narrow(stage: &Stage, receive: usize) -> Listener {
    let host = stage.audience.clone();
    let small = host
        .connect_from(host.ip(), stage.relay.at(), Some(receive))
        .unwrap();
    Listener::tune_in_with(small, MOUNT, Form::Ts, "")
}

/// C2: the ladder, step by step: whole packets are left out, each time it is counted, and the third time it goes.
fn half_the_rate_skips_whole_packets_or_is_let_go(backend: Backend) {
    let mut stage = Stage::set("half", backend, small_ring);
    let listener = narrow(&stage, 8192);
    listener.expect_sound();
    listener.pace(KBPS * 1000 / 8 / 2);
    assert!(
        eventually(Duration::from_secs(60), || listener.is_closed()),
        "expected it to be let go for its third jump: {}",
        stage.relay.get("/metrics").text()
    );
    listener.judge(|heard| heard.expect_jumps(2));
    let counted = ["totality_lag_jumps", "totality_lag_closed"].map(|name| stage.relay.metric(name));
    assert_eq!(counted, [2, 1]);
    assert!(stage.relay.metric("totality_lag_jumped_bytes") > 0);
    assert_eq!(stage.relay.metric("totality_lag_jumps_torn"), 0);
    drop(listener);
    stage.expect_unharmed();
}

/// Every listener is compared with the source byte by byte, however it lags: in a ring that is far too small for them.
fn every_byte_of_those_who_are_lapped(backend: Backend) {
    const MANY: usize = 24;
    let mut stage = Stage::set("lapped", backend, |o| small_ring(o).set("limits.jumps", 200));
    let listeners: Vec<Listener> = (0..MANY).map(|i| narrow(&stage, 4096 << (i % 4))).collect();
    listeners.iter().for_each(Listener::expect_sound);
    for (i, listener) in listeners.iter().enumerate() {
        listener.pace(KBPS * 1000 / 8 * (i as u64 % 8 + 1) / 10);
    }
    pass(12_000);
    listeners.iter().for_each(|listener| listener.pace(0));
    let due = stage.source.next() + 100;
    for listener in &listeners {
        assert!(
            listener.reaches(due, Duration::from_secs(20)),
            "{due} sent, {:?} came",
            listener.next()
        );
    }
    let declared = stage.relay.metric("totality_lag_jumps") as usize;
    let jumped = |listener: &Listener| {
        listener.judge(|heard| {
            heard.expect_jumps(heard.jumps().len());
            heard.jumps().len()
        })
    };
    let seen: Vec<usize> = listeners.iter().map(jumped).collect();
    let sum: usize = seen.iter().sum();
    assert!(
        sum > MANY / 2 && sum <= declared,
        "{declared} jumps declared, {seen:?} seen"
    );
    drop(listeners);
    stage.expect_unharmed();
}

/// C4: a window of next to nothing, read byte by byte: no silly windows, no busy relay.
fn who_sips_is_sent_no_drops(backend: Backend) {
    const SECONDS: u64 = 4;
    let mut stage = Stage::set("sips", backend, |o| o);
    let told = |stage: &Stage| ["totality_sends", "totality_bytes_told"].map(|name| stage.relay.metric(name));
    let listener = narrow(&stage, 1);
    listener.expect_sound();
    listener.sip();
    listener.pace(KBPS * 1000 / 8 / 4);
    // What it has been sent at once was sent to somebody who read.
    pass(1000);
    let (before, heard, cpu) = (told(&stage), listener.bytes(), stage.relay.cpu());
    pass(SECONDS * 1000);
    let (after, sipped) = (told(&stage), listener.bytes() - heard);
    let (sends, bytes) = (after[0] - before[0], after[1] - before[1]);
    let used = stage.relay.cpu() - cpu;
    eprintln!("{sipped} bytes sipped; {bytes} told in {sends} sends, {used:?} of processor time");
    assert!(sipped > 10_000, "expected it to be served, got {sipped} bytes");
    // The control listener's sends are among them, a hundred a second at most.
    let allowed = 100 * SECONDS + sipped / 256;
    assert!(
        sends <= allowed + 50,
        "expected at most {allowed} sends, got {sends}"
    );
    assert!(
        used <= Duration::from_millis(300 * SECONDS),
        "{used:?} in {SECONDS} s"
    );
    drop(listener);
    stage.expect_unharmed();
}
