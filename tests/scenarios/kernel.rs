//! A kernel that says no, and signals.

use std::time::Duration;

use totality_tests::{
    Backend, Checker, Form, Listener, Opts, Relay, Signal, Source, World, eventually, lacks, pass,
};

use crate::common::{MOUNT, Stage};

on_both_backends! {
    tiny_buffers_on_both_sides
    many_fast_sources
    an_idle_relay_sleeps
    signals
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream through a relay; every byte is to arrive.
fn expect_service(world: &World, relay: &mut Relay) {
    let host = world.host("root");
    let source = Source::push(&host, relay, MOUNT, Form::Ts, 0, 1000);
    let listener = Listener::tune_in(&host, relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(2000);
    let due = source.next();
    assert!(
        listener.reaches(due, PATIENCE),
        "{due} sent, {:?} came",
        listener.next()
    );
    listener.judge(Checker::expect_whole);
    drop(listener);
    relay.expect_alive();
}

/// Sends without a copy are tried once on a way out where the kernel copies after all (veth), and then left alone.
#[test]
fn a_way_that_copies_is_probed_and_left_alone() {
    const LISTENERS: usize = 20;
    let mut stage = Stage::set("copies", Backend::Uring, |o| o);
    let listeners: Vec<Listener> = (0..LISTENERS)
        .map(|_| Listener::tune_in(&stage.audience, stage.relay.at(), MOUNT, Form::Ts))
        .collect();
    listeners.iter().for_each(Listener::expect_sound);
    pass(2000);
    let [sends, copied] = ["zero_copy_sends", "zero_copy_copied"]
        .map(|name| stage.relay.metric(&format!("totality_driver_{name}")));
    assert!(
        copied >= 1,
        "expected a probe to report a copy on a veth, got {copied} of {sends}"
    );
    assert!(
        sends < LISTENERS as u64,
        "expected single probes, got {sends} sends without a copy"
    );
    drop(listeners);
    stage.expect_unharmed();
}

/// The ring's system call is interrupted, or has no room, at every seventh turn.
#[test]
fn an_uring_that_is_interrupted() {
    if lacks("an interrupted ring", false, &["strace"]) {
        return;
    }
    for error in ["EINTR", "EAGAIN", "EBUSY"] {
        let world = World::new("enter");
        let inject = format!("inject=io_uring_enter:error={error}:when=5+7");
        let words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=io_uring_enter",
            "-e",
            &inject,
        ];
        let opts = Opts::on(Backend::Uring).under(&words);
        let mut relay = Relay::start(&world.host("root"), opts);
        expect_service(&world, &mut relay);
    }
}

/// No ring: one line says so, and epoll serves.
#[test]
fn no_uring_at_all() {
    if lacks("a kernel without io_uring", false, &["strace"]) {
        return;
    }
    for error in ["ENOSYS", "EPERM"] {
        let world = World::new("setup");
        let host = world.host("root");
        let inject = format!("inject=io_uring_setup:error={error}");
        let words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=io_uring_setup",
            "-e",
            &inject,
        ];
        let mut relay = Relay::start(&host, Opts::on(Backend::Auto).under(&words));
        expect_service(&world, &mut relay);
        let said = relay.said();
        let lines = said.lines().filter(|line| line.contains("io_uring")).count();
        assert!(
            lines == 1 && said.contains("mio"),
            "expected one line about io_uring and mio, got {lines}:\n{said}"
        );
    }
}

/// 64 KiB of lockable memory, as an ordinary user.
#[test]
fn little_memory_may_be_locked() {
    if lacks("an ordinary user", true, &["prlimit", "setpriv"]) {
        return;
    }
    for backend in [Backend::Auto, Backend::Uring, Backend::Mio] {
        let world = World::new("memlock");
        let opts = Opts::on(backend).as_nobody(&["prlimit", "--memlock=65536:65536"]);
        let mut relay = Relay::start(&world.host("root"), opts);
        expect_service(&world, &mut relay);
    }
}

fn tiny_buffers_on_both_sides(backend: Backend) {
    let mut stage = Stage::set("tiny", backend, |o| o.set("limits.send_buffer", "4KiB"));
    let host = stage.audience.clone();
    let small = host
        .connect_from(host.ip(), stage.relay.at(), Some(2048))
        .unwrap();
    let listener = Listener::tune_in_with(small, MOUNT, Form::Ts, "");
    listener.expect_sound();
    pass(3000);
    let due = stage.source.next();
    assert!(
        listener.reaches(due, PATIENCE),
        "{due} sent, {:?} came",
        listener.next()
    );
    listener.judge(Checker::expect_whole);
    assert!(
        stage.relay.metric("totality_sends_short") > 0,
        "expected sends that were cut short"
    );
    drop(listener);
    stage.expect_unharmed();
}

/// More at once than there are receive buffers: what was interrupted goes on, and nothing is lost.
fn many_fast_sources(backend: Backend) {
    let mut stage = Stage::set("bursts", backend, |o| o.set("source.hold", "0s"));
    let mount = |i: usize| format!("/burst-{i}.ts");
    let sources: Vec<Source> = (0..6)
        .map(|i| Source::push(&stage.studio, &stage.relay, &mount(i), Form::Ts, 0, 8000))
        .collect();
    let listeners: Vec<Listener> = (0..6)
        .map(|i| Listener::tune_in(&stage.audience, stage.relay.at(), &mount(i), Form::Ts))
        .collect();
    listeners.iter().for_each(Listener::expect_sound);
    pass(3000);
    for (source, listener) in sources.iter().zip(&listeners) {
        let due = source.next();
        assert!(
            listener.reaches(due, PATIENCE),
            "{due} sent, {:?} came",
            listener.next()
        );
        listener.judge(Checker::expect_whole);
    }
    drop((sources, listeners));
    stage.expect_unharmed();
}

/// O8: less than a hundredth of a core; processor time is counted in steps of 10 ms.
fn an_idle_relay_sleeps(backend: Backend) {
    let world = World::new("idle");
    let relay = Relay::start(&world.host("root"), Opts::on(backend));
    pass(1000);
    let before = relay.cpu();
    pass(5000);
    let used = relay.cpu() - before;
    assert!(
        used <= Duration::from_millis(50),
        "expected less than 1 % of a core, got {used:?} in 5 s"
    );
}

fn signals(backend: Backend) {
    let mut stage = Stage::set("signals", backend, |o| o);
    stage.relay.signal(Signal::SIGPIPE);
    for _ in 0..100 {
        stage.relay.signal(Signal::SIGHUP);
        pass(5);
    }
    stage.expect_unharmed();
    // Two at once would be one to the kernel: the second comes when the first has been understood.
    stage.relay.signal(Signal::SIGTERM);
    assert!(eventually(PATIENCE, || stage
        .relay
        .said()
        .contains("once more to close at once")));
    stage.relay.signal(Signal::SIGTERM);
    let ended = stage.relay.wait(Duration::from_secs(5));
    let code = ended.and_then(|status| status.code());
    assert_eq!(
        code,
        Some(1),
        "the second SIGTERM ends it at once, not in good order"
    );
    assert!(eventually(PATIENCE, || stage.control.is_closed()));
}

/// One SIGTERM: listeners get what there is, and the process ends by itself with 0.
#[test]
fn an_orderly_end() {
    for backend in [Backend::Uring, Backend::Mio] {
        let mut stage = Stage::set("term", backend, |o| o);
        let status = stage.relay.stop();
        assert_eq!(status.code(), Some(0), "{}", stage.relay.said());
        assert!(eventually(PATIENCE, || stage.control.is_closed()));
        stage.control.judge(Checker::expect_whole);
    }
}
