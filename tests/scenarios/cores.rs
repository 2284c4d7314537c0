//! All cores serve, wherever the connections come from.

use std::net::TcpStream;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use totality_tests::{Backend, Form, Host, Listener, Opts, Relay, Source, World, eventually};

on_both_backends! {
    one_core_brings_all_and_both_workers_serve
}

const MOUNT: &str = "/numbered.ts";
const KBPS: u64 = 300;
const LISTENERS: usize = 60;
/// A worker passes on what it has over 16 more than the other: 60 make 38 and 22.
const PASSED_MIN: u64 = 16;

/// CPUs that we may use.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap())
        .collect()
}

/// Connections that are all made on one CPU: so there their packets arrive.
fn connect_from(host: &Host, cpu: usize, relay: &Relay) -> Vec<TcpStream> {
    let connect = || {
        (0..LISTENERS)
            .map(|_| host.connect(relay.at()).unwrap())
            .collect()
    };
    let pinned = || {
        let mut set = CpuSet::new();
        set.set(cpu).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        // The thread that enters the host's network inherits the CPU.
        connect()
    };
    std::thread::scope(|scope| scope.spawn(pinned).join().unwrap())
}

/// A number of each worker, from a page of metrics. Asking for the page is a connection too: one page is asked for all.
fn per_worker(page: &str, name: &str) -> [u64; 2] {
    [0, 1].map(|worker| {
        let before = format!("totality_{name}{{worker=\"{worker}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&before));
        value.unwrap_or_else(|| panic!("no {before}")).parse().unwrap()
    })
}

fn one_core_brings_all_and_both_workers_serve(backend: Backend) {
    let [.., last] = cpus()[..] else { return };
    if cpus().len() < 2 {
        assert!(std::env::var_os("CI").is_none(), "CI must have two CPUs");
        println!("skipped: one CPU only");
        return;
    }
    let world = World::new("cores");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend).workers(2).args(&["--steer", "cpu"]));
    let said = "to the worker on whose core they arrive, because server.steer says so";
    assert!(relay.said().contains(said), "{}", relay.said());
    let source = Source::push(&host, &relay, MOUNT, Form::Ts, 0, KBPS);
    let streams = connect_from(&host, last, &relay);
    let listeners: Vec<Listener> = streams
        .into_iter()
        .map(|stream| Listener::tune_in_with(stream, MOUNT, Form::Ts, ""))
        .collect();
    let due = source.next() + Form::Ts.group();
    for listener in &listeners {
        assert!(
            listener.reaches(due, Duration::from_secs(20)),
            "a listener was left behind"
        );
    }
    let page = relay.get("/metrics").text();
    let served = per_worker(&page, "listeners");
    assert_eq!(served.iter().sum::<u64>(), LISTENERS as u64);
    assert!(served.iter().all(|n| *n >= PASSED_MIN), "{served:?}");
    // Nearly all came to one worker: the kernel's hash would have spread them.
    let passed = per_worker(&page, "driver_connections_passed");
    let taken = per_worker(&page, "driver_connections_taken");
    assert!(passed.iter().any(|n| *n >= PASSED_MIN), "{passed:?}");
    assert_eq!(
        passed,
        [taken[1], taken[0]],
        "who was passed was taken over, and once"
    );
    let told = per_worker(&page, "bytes_told");
    assert!(told.iter().all(|n| *n > 0), "{told:?}");
    for listener in &listeners {
        listener.expect_sound();
        listener.judge(|checker| checker.expect_whole());
    }
    drop(listeners);
    let gone = eventually(Duration::from_secs(15), || {
        relay.metric("totality_listeners") == 0
    });
    assert!(gone, "those who left are still counted");
}
