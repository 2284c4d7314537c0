//! A relay that gets less than it wants: of memory, of a processor, of its turn.

use std::time::Duration;

use totality_tests::{
    Backend, Cage, Crowd, Form, Listener, Opts, Relay, Signal, Source, Witness, World, eventually, lacks,
    note_missing, pass,
};

use crate::common::{MOUNT, Stage};

on_both_backends! {
    a_budget_within_a_cage
    a_twentieth_of_a_processor
    all_come_back_at_once
    two_hundred_idle_mounts_beside_a_hot_one
    a_worker_that_is_stuck
    stopped_as_a_whole
}

const GET: &[u8] = b"GET /numbered.ts HTTP/1.1\r\nHost: relay\r\n\r\n";
const SOON: Duration = Duration::from_secs(15);

/// C10: the limits are chosen so that their printed sum fits into 64 MiB; then thrice as many come as there is room
/// for. Who is too many is refused; nobody is killed.
fn a_budget_within_a_cage(backend: Backend) {
    const ROOM: u64 = 64 << 20;
    const LISTENERS: usize = 300;
    const MANY: usize = 900;
    if lacks("a crowd in a cage", true, &["ip", "prlimit"]) {
        return;
    }
    let cage = Cage::memory(ROOM);
    // Without control groups: what the process itself may allocate. The kernel's share is not in it.
    let go_in = cage.as_ref().map(|cage| {
        let gate = cage.gate().display().to_string();
        ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", &gate]
            .map(str::to_owned)
            .to_vec()
    });
    let words = go_in.unwrap_or_else(|| vec!["prlimit".into(), format!("--data={ROOM}:{ROOM}")]);
    eprintln!("64 MiB by {}", words.join(" "));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let change = |o: Opts| {
        o.set("limits.listeners", LISTENERS)
            .set("limits.connections", LISTENERS + 100)
            .set("limits.reserved", 50)
            .set("limits.channels", 2)
            .set("limits.ring", "1MiB")
            .set("limits.ring_max", "1MiB")
            .set("limits.ring_seconds", 1)
            .set("limits.send_buffer", "32KiB")
            .set("limits.unsent", "16KiB")
            .under(&words)
    };
    let mut stage = Stage::set("cage", backend, change);
    let budget = stage.relay.said();
    let line = budget
        .lines()
        .find(|line| line.starts_with("budget"))
        .unwrap_or_default()
        .to_owned();
    stage.world.crowd_addresses(&stage.audience);
    let mut crowd = Crowd::come(&stage.audience, stage.relay.at(), MANY, GET, Some(4096));
    pass(4000);
    let refused = |answer: &Vec<u8>| answer.starts_with(b"HTTP/1.1 503") || answer.is_empty();
    let refusals = crowd.heard().iter().filter(|answer| refused(answer)).count();
    let rss = stage.relay.rss_kib();
    eprintln!("{refusals} of {MANY} refused; {rss} KiB resident; {line}");
    assert!(refusals >= MANY - LISTENERS, "{refusals} refused");
    assert!(rss * 1024 < ROOM, "{rss} KiB resident");
    drop(crowd);
    stage.expect_unharmed();
    drop(stage);
    drop(cage);
}

/// C11: for five seconds it gets a twentieth of a processor, with a crowd to serve. Then all is well again.
fn a_twentieth_of_a_processor(backend: Backend) {
    const MANY: usize = 150;
    const STARVED_MS: u64 = 5000;
    if lacks("a crowd", true, &["ip"]) {
        return;
    }
    let mut stage = Stage::set("cpu", backend, |o| o);
    stage.world.crowd_addresses(&stage.audience);
    let crowd = Crowd::come(&stage.audience, stage.relay.at(), MANY, GET, None).drink();
    pass(1000);
    match Cage::cpu(5).and_then(|cage| cage.hold(stage.relay.pid())) {
        Some(cage) => {
            pass(STARVED_MS);
            drop(cage);
        }
        // The same from outside: let it run for a twentieth of the time.
        None => {
            for _ in 0..STARVED_MS / 100 {
                stage.relay.signal(Signal::SIGSTOP);
                pass(95);
                stage.relay.signal(Signal::SIGCONT);
                pass(5);
            }
        }
    }
    let due = stage.source.next();
    assert!(
        stage.control.reaches(due, SOON),
        "{due} sent, {:?} came",
        stage.control.next()
    );
    stage.control.judge(totality_tests::Checker::expect_whole);
    assert!(crowd.least() > 0);
    assert_eq!(stage.relay.metric("totality_lag_closed"), 0);
    // What it was late meanwhile is not held against it.
    stage.control.mark();
    stage.witness.reset();
    drop(crowd);
    stage.expect_unharmed();
}

/// C12: a crowd is cut off, and is back in the same instant. Each gets its burst; the source is not kept waiting, nor
/// is anybody let go for what is not their fault.
fn all_come_back_at_once(backend: Backend) {
    const MANY: usize = 1000;
    if lacks("a crowd that comes back", true, &["ip"]) {
        return;
    }
    let mut stage = Stage::set("back", backend, |o| o);
    stage.world.crowd_addresses(&stage.audience);
    for _ in 0..2 {
        let crowd = Crowd::come(&stage.audience, stage.relay.at(), MANY, GET, None).drink();
        assert!(
            eventually(Duration::from_secs(60), || crowd.least() > 20_000),
            "the last of {MANY} has heard {} bytes",
            crowd.least()
        );
        drop(crowd);
    }
    for nothing in [
        "totality_source_pauses",
        "totality_ring_refusals",
        "totality_lag_jumps",
    ] {
        assert_eq!(stage.relay.metric(nothing), 0, "{nothing}");
    }
    assert!(!stage.source.is_over());
    stage.control.judge(totality_tests::Checker::expect_whole);
    // A gigabit a second on the cores that make the crowd, too: how long that takes says more of the machine.
    let (gap, late) = (stage.control.gap_max(), stage.witness.worst());
    eprintln!("the longest gap meanwhile: {gap:?}; the machine was {late:?} late");
    assert!(eventually(SOON, || stage.relay.metric("totality_listeners") == 1));
    let due = stage.source.next();
    assert!(stage.control.reaches(due, SOON));
    stage.control.mark();
    stage.expect_unharmed();
}

/// C13: mounts with little to say are heard as before when one beside them has a crowd.
fn two_hundred_idle_mounts_beside_a_hot_one(backend: Backend) {
    const IDLE: usize = 200;
    /// Of these, so many are listened to.
    const HEARD: usize = 20;
    const KBPS: u64 = 16;
    if lacks("a crowd", true, &["ip"]) {
        return;
    }
    let world = World::new("idle200");
    let (root, studio, audience) = (world.host("root"), world.host("studio"), world.host("audience"));
    let opts = Opts::on(backend)
        .set("limits.channels", IDLE + 10)
        .set("limits.ring", "256KiB")
        .set("limits.ring_seconds", 1)
        .set("limits.per_prefix", 0);
    let mut relay = Relay::start(&root, opts);
    let mount = |i: usize| format!("/idle-{i}.ts");
    let sources: Vec<Source> = (0..IDLE)
        .map(|i| Source::push(&studio, &relay, &mount(i), Form::Ts, 0, KBPS))
        .collect();
    let listeners: Vec<Listener> = (0..HEARD)
        .map(|i| Listener::tune_in(&audience, relay.at(), &mount(i * IDLE / HEARD), Form::Ts))
        .collect();
    listeners.iter().for_each(Listener::expect_sound);
    let witness = Witness::watch();
    let longest = || {
        pass(500);
        witness.reset();
        listeners.iter().for_each(Listener::mark);
        pass(3000);
        let gap = listeners.iter().map(Listener::gap_max).max().unwrap_or_default();
        (gap, witness.worst())
    };
    let (before, _) = longest();
    let hot = Source::push(&studio, &relay, MOUNT, Form::Ts, 0, 4000);
    world.crowd_addresses(&audience);
    let crowd = Crowd::come(&audience, relay.at(), 50, GET, None).drink();
    assert!(eventually(SOON, || crowd.least() > 0));
    let (after, late) = longest();
    eprintln!(
        "the longest gap of an idle mount: {before:?} alone, {after:?} beside a hot one ({late:?} late)"
    );
    // Oracle O4: nobody waits 250 ms longer for it.
    assert!(
        after <= before + Duration::from_millis(250) + late,
        "{before:?}, then {after:?}; {late:?} late"
    );
    for listener in &listeners {
        listener.judge(totality_tests::Checker::expect_whole);
    }
    drop((crowd, hot, listeners, sources));
    relay.expect_alive();
}

/// D9: one worker does not turn any more; the process says so and ends, for somebody to start it again.
fn a_worker_that_is_stuck(backend: Backend) {
    let world = World::new("stuck");
    let opts = Opts::on(backend).workers(2).set("server.watchdog", "1s");
    let mut relay = Relay::start(&world.host("root"), opts);
    // Idle for longer than that is no fault.
    pass(3000);
    relay.expect_alive();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", relay.pid())).unwrap();
    let is_worker = |tid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", relay.pid()));
        name.is_ok_and(|name| name.trim() == "worker-1")
    };
    let tid = tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .find(is_worker)
        .unwrap();
    let Some(cages) = Cage::freeze_thread(relay.pid(), tid) else {
        note_missing(
            "a stuck worker: no control group freezes a thread here; the watchdog's own tests remain",
        );
        return;
    };
    let ended = relay.wait(SOON);
    drop(cages);
    let signal = ended.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
    assert_eq!(
        signal,
        Some(Signal::SIGABRT as i32),
        "{ended:?}: {}",
        relay.said()
    );
    let said = relay.said();
    assert!(said.contains("worker 1 is stuck"), "{said}");
}

/// The whole process stands still for longer than the watchdog allows a worker to; nobody is blamed.
fn stopped_as_a_whole(backend: Backend) {
    let mut stage = Stage::set("stopped", backend, |o| o.set("server.watchdog", "1s"));
    for _ in 0..2 {
        stage.relay.signal(Signal::SIGSTOP);
        pass(2500);
        stage.relay.signal(Signal::SIGCONT);
        pass(1500);
    }
    let due = stage.source.next();
    assert!(stage.control.reaches(due, SOON));
    stage.control.judge(totality_tests::Checker::expect_whole);
    stage.control.mark();
    stage.witness.reset();
    stage.expect_unharmed();
}
