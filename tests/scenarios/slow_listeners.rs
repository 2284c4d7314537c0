//! Listeners that read slowly or not at all: they cost little, disturb nobody, and are let go in the end.

use std::time::Duration;

use totality_tests::{Backend, Checker, Crowd, Form, Listener, eventually, lacks, pass};

use crate::common::{MOUNT, Stage};

on_both_backends! {
    five_hundred_who_never_read
    a_stall_within_the_window_costs_nothing
    who_falls_behind_jumps_to_a_join_point
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
    let mut stage = Stage::set("stall", backend, |o| o);
    let listener = Listener::tune_in(&stage.audience, stage.relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    listener.stall();
    pass(3000);
    listener.resume();
    let due = stage.source.next();
    assert!(listener.reaches(due, Duration::from_secs(10)));
    listener.judge(Checker::expect_whole);
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
        // A jump lands on a join point. It may leave off in the middle of a packet, where the kernel took no
        // more of it: then that packet is torn, and nothing else.
        let (jumps, faults) = (heard.jumps().len(), heard.faults());
        assert!(
            (1..=declared).contains(&jumps),
            "{jumps} jumps, {declared} declared"
        );
        assert!(faults.len() <= 2 * jumps, "{faults:?}");
    });
    drop(listener);
    stage.expect_unharmed();
}
