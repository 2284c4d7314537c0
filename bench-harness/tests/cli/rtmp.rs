//! RTMP from outside: beside a real server where one is installed, and against servers that are none.

use std::path::Path;

use crate::world::{Manner, run_json, server};

fn is_installed() -> bool {
    Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so").exists()
}

/// Source, server and players: everything arrives once and in order. Without the package, the row says what to install,
/// and nothing has failed.
#[test]
fn nginx_is_a_row_or_says_what_is_missing() {
    let load = [
        "--listeners",
        "4",
        "--kbps",
        "800",
        "--seconds",
        "1",
        "--ramp",
        "100",
    ];
    let who = ["compare", "--skip-relay", "--against", "floor,nginx-rtmp"];
    let (code, report, stderr) = run_json(&[&who[..], &load[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    let row = &report["runs"][0][1];
    assert_eq!(row["server"], "nginx-rtmp");
    if !is_installed() {
        let why = row["error"].as_str().unwrap();
        assert!(why.contains("apt install nginx libnginx-mod-rtmp"), "{why}");
        return;
    }
    let (numbers, crowd) = (&row["numbers"], &row["crowd"]);
    assert_eq!(
        (numbers["faults"].as_f64(), numbers["not_served"].as_f64()),
        (Some(0.0), Some(0.0)),
        "{row}"
    );
    assert!(crowd["latency_ms"]["samples"].as_u64().unwrap() > 0, "{row}");
    assert!(
        numbers["cpu_seconds"].as_f64().unwrap() > 0.0 && crowd["bytes_min"].as_u64().unwrap() > 0,
        "{row}"
    );
}

#[test]
fn what_is_no_rtmp_is_told_by_its_first_byte() {
    const MANNERS: &[Manner] = &[Manner::Greets];
    let url = format!("rtmp://{}/live/a", server(MANNERS));
    let (code, report, stderr) = run_json(&[
        "listeners",
        &url,
        "--count",
        "2",
        "--seconds",
        "1",
        "--warm-up",
        "0",
    ]);
    assert!(
        code == 1 && stderr.contains("nobody got a byte"),
        "{code} {stderr}"
    );
    let why = report["first_error"].as_str().unwrap();
    assert!(
        report["errors"] == 2 && why.contains("expected version 3 at first, got the byte 50"),
        "{report}"
    );
    let (code, report, _) = run_json(&["join", &url, "--count", "1", "--patience-ms", "500"]);
    assert!(
        code == 1 && report["first_error"].as_str().unwrap().contains("no RTMP"),
        "{report}"
    );
    let (code, _, stderr) = run_json(&["source", &url, "--seconds", "1"]);
    assert!(code == 1 && stderr.contains("no RTMP"), "{code} {stderr}");
}

#[test]
fn what_rtmp_cannot_do_is_wrong_usage() {
    for words in [
        &["listeners", "rtmp://127.0.0.1:1/live/a", "--stall", "1"][..],
        &["listeners", "rtmp://127.0.0.1:1/live"],
        &["churn", "--server", "a=rtmp://127.0.0.1:1/live/a"],
        &["soak", "--churn", "5", "--server", "a=rtmp://127.0.0.1:1/live/a"],
    ] {
        let (code, _, stderr) = run_json(words);
        assert_eq!(code, 2, "{words:?} {stderr}");
    }
}
