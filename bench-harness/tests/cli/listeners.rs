//! `listeners` against good and bad servers: clear counts, and always an end.

use std::net::TcpListener;

use serde_json::Value;

use crate::world::{Manner, run_json, server};

fn crowd(manners: &'static [Manner], more: &[&str]) -> (i32, Value, String) {
    let url = format!("http://{}/bench.ts", server(manners));
    let mut args = vec!["listeners", &url, "--seconds", "1"];
    args.extend(if more.contains(&"--warm-up") {
        &[]
    } else {
        ["--warm-up", "0"].as_slice()
    });
    args.extend(more);
    run_json(&args)
}

#[test]
fn a_good_server_has_a_clean_row() {
    let (code, report, stderr) = crowd(
        &[Manner::Good],
        &["--count", "10", "--latency-sample", "3", "--strict"],
    );
    assert_eq!(code, 0, "{stderr} {report}");
    assert_eq!(
        (&report["served"], &report["silent"], &report["closed"]),
        (&10.into(), &0.into(), &0.into())
    );
    assert!(report["bytes_min"].as_u64().unwrap() > 0 && report["gbit_per_s"].as_f64().unwrap() > 0.0);
    assert!(report["latency_ms"]["samples"].as_u64().unwrap() > 100);
    assert!(
        report["latency_ms"]["p50"].as_f64().unwrap() < 60_000.0,
        "due times are wall-clock times"
    );
    assert!(report["seen"]["groups"].as_u64().unwrap() > 100);
}

#[test]
fn each_way_to_fail_has_its_own_count() {
    const MIXED: &[Manner] = &[
        Manner::Good,
        Manner::ClosesEarly,
        Manner::Stalls,
        Manner::Lies,
        Manner::Refuses,
    ];
    // The warm-up is time for those who close early to do so: what they gave is not in the window.
    let (code, report, _) = crowd(
        MIXED,
        &["--count", "10", "--latency-sample", "0", "--warm-up", "2"],
    );
    assert_eq!(code, 0);
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(count("served"), 6, "{report}");
    assert_eq!(
        [
            count("closed"),
            count("errors"),
            count("rejected"),
            count("refused")
        ],
        [2, 2, 2, 0],
        "{report}"
    );
    assert_eq!(
        (count("silent"), count("bytes_min"), count("timed_out")),
        (8, 0, 0),
        "{report}"
    );
    assert!(report["first_error"].is_string());
}

#[test]
fn strict_turns_a_failed_listener_into_exit_1() {
    let (code, _, stderr) = crowd(&[Manner::Good, Manner::Refuses], &["--count", "4", "--strict"]);
    assert!(code == 1 && stderr.contains("not everybody"), "{code} {stderr}");
}

#[test]
fn lost_groups_are_counted_as_missing() {
    let (code, report, _) = crowd(&[Manner::Lossy], &["--count", "2", "--latency-sample", "2"]);
    assert_eq!(code, 0);
    let seen = &report["seen"];
    assert!(seen["missing"].as_u64().unwrap() > 10, "{seen}");
    assert_eq!(
        (&seen["breaks"], &seen["repeated"], &seen["corrupt"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn those_who_never_read_are_not_in_the_bytes() {
    let (code, report, stderr) = crowd(&[Manner::Good], &["--count", "6", "--stall", "4", "--strict"]);
    assert_eq!(code, 0, "{stderr} {report}");
    assert_eq!(
        (&report["stalled"], &report["stalled_closed"]),
        (&4.into(), &0.into())
    );
    assert!(report["bytes_min"].as_u64().unwrap() > 0);
}

#[test]
fn stalled_listeners_whom_the_server_lets_go_are_seen() {
    let (_, report, _) = crowd(
        &[Manner::Good, Manner::Refuses],
        &["--count", "2", "--stall", "1"],
    );
    assert_eq!(report["stalled_closed"], 1, "{report}");
}

#[test]
fn nobody_home_is_exit_1() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{port}/x");
    let args = [
        "listeners",
        &url,
        "--count",
        "5",
        "--seconds",
        "1",
        "--warm-up",
        "0",
    ];
    let (code, report, stderr) = run_json(&args);
    assert!(
        code == 1 && stderr.contains("nobody got a byte"),
        "{code} {stderr}"
    );
    assert_eq!(report["refused"], 5, "{report}");
}
