//! Every command that listens, against every kind of bad server: a clear reason within a bounded time, and no hang.

use std::thread;

use serde_json::Value;

use crate::world::{Manner, run_json, server};

/// How a server behaves, and what is said about it: by a crowd, and by a newcomer.
const BAD: [(&[Manner], &[&str], &[&str]); 12] = [
    (&[Manner::ClosesAtOnce], CLOSED_AT_ONCE, CLOSED_AT_ONCE),
    (
        &[Manner::Stalls],
        &["silence behind the head", "no stamped group"],
        &["no join point within 600ms"],
    ),
    (
        &[Manner::TricklesHead],
        &["no answer within 400ms"],
        &["no join point within 600ms"],
    ),
    (&[Manner::Short], &["before its Content-Length"], &[]),
    (&[Manner::Long], &["bytes more than its Content-Length"], &[]),
    (
        &[Manner::Refuses],
        &["expected 200, got 404"],
        &["expected 200, got 404"],
    ),
    (&[Manner::Redirects], REDIRECTED, REDIRECTED),
    (
        &[Manner::Lies],
        &["got \"220 smtp ready\""],
        &["got \"220 smtp ready\""],
    ),
    (
        &[Manner::Babbles],
        &["no end of the response head"],
        &["no end of the response head"],
    ),
    (
        &[Manner::Silent],
        &["no answer within 400ms"],
        &["no join point within 600ms"],
    ),
    (
        &[Manner::Resets],
        &["closed by the server: Connection reset"],
        &[],
    ),
    (
        &[Manner::Empty],
        &["end of a body with a Content-Length"],
        &["closed by the server"],
    ),
];
const CLOSED_AT_ONCE: &[&str] = &["closed before a response", "reset", "Broken pipe"];
const REDIRECTED: &[&str] = &["got 302: redirects are not followed"];

/// Runs one command against each of them, all at once: each mostly waits.
fn each(work: impl Fn(&'static [Manner], &'static [&'static str], &'static [&'static str]) + Sync) {
    let work = &work;
    thread::scope(|scope| {
        for (manner, crowd, newcomer) in BAD {
            scope.spawn(move || work(manner, crowd, newcomer));
        }
    });
}

fn says(text: &Value, any: &[&str]) -> bool {
    let text = text.as_str().unwrap_or_default();
    any.iter().any(|words| text.contains(words))
}

#[test]
fn a_crowd_tells_what_it_met() {
    each(|manner, wanted, _| {
        let url = format!("http://{}/bench.ts", server(manner));
        let (code, report, stderr) = run_json(&[
            "listeners",
            &url,
            "--count",
            "2",
            "--seconds",
            "1",
            "--patience-ms",
            "400",
            "--strict",
        ]);
        assert_eq!(code, 1, "{wanted:?} {stderr} {report}");
        // Who is let in and then given nothing has no failure to tell: it is silent.
        let silent = report["silent"] == 2 && report["served"] == 2;
        assert!(
            says(&report["first_error"], wanted) || silent,
            "{wanted:?} {report}"
        );
    });
}

#[test]
fn a_newcomer_tells_what_it_met() {
    each(|manner, _, wanted| {
        let url = format!("http://{}/bench.ts", server(manner));
        let (code, report, stderr) = run_json(&[
            "join",
            &url,
            "--count",
            "2",
            "--pause-ms",
            "0",
            "--patience-ms",
            "600",
        ]);
        // A few groups are enough to join, whatever comes after them.
        let joins = wanted.is_empty();
        assert_eq!(code, i32::from(!joins), "{wanted:?} {stderr} {report}");
        assert!(
            joins || says(&report["first_error"], wanted),
            "{wanted:?} {report}"
        );
    });
}

/// As small a load as shows what a server does, and little patience.
const LOAD: [&str; 10] = [
    "--listeners",
    "2",
    "--seconds",
    "1",
    "--warm-up",
    "0",
    "--patience-ms",
    "400",
    "--kbps",
    "800",
];

#[test]
fn a_hop_that_is_bad_says_why() {
    each(|manner, wanted, _| {
        let hop = format!("bad=http://{}/bench.ts", server(manner));
        let (code, report, stderr) = run_json(&[&["latency", "--hop", &hop][..], &LOAD[..]].concat());
        assert_eq!(code, 1, "{wanted:?} {stderr} {report}");
        assert!(says(&report["rows"][0]["error"], wanted), "{wanted:?} {report}");
    });
}

#[test]
fn a_bad_server_is_a_row_with_its_reason() {
    each(|manner, wanted, _| {
        let bad = format!("bad=http://{}/bench.ts", server(manner));
        let who = ["compare", "--skip-relay", "--against", "floor", "--server", &bad];
        let (code, report, stderr) = run_json(&[&who[..], &LOAD[..]].concat());
        assert_eq!(code, 1, "{wanted:?} {stderr} {report}");
        assert!(
            report["medians"][0]["numbers"].is_object(),
            "the floor beside it is measured: {report}"
        );
        let row = &report["medians"][1];
        assert!(
            row["numbers"].is_null() && says(&row["error"], wanted),
            "{wanted:?} {row}"
        );
    });
}

/// A byte now and then is no failure, but it is no stream either, and every command says so.
#[test]
fn a_trickle_is_measured_as_what_it_is() {
    let url = format!("http://{}/bench.ts", server(&[Manner::TricklesBody]));
    let (code, report, _) = run_json(&["listeners", &url, "--count", "2", "--seconds", "1"]);
    assert!(
        code == 0 && report["bytes_max"].as_u64().unwrap() < 1000,
        "{report}"
    );
    assert_eq!(report["latency_ms"]["samples"], 0);
    let (code, report, _) = run_json(&["join", &url, "--count", "1", "--patience-ms", "300"]);
    assert!(
        code == 1 && says(&report["first_error"], &["no join point within 300ms"]),
        "{report}"
    );
    let named = format!("it={url}");
    let load = [
        "--listeners",
        "2",
        "--seconds",
        "1",
        "--warm-up",
        "0",
        "--kbps",
        "800",
    ];
    let (code, report, _) = run_json(&[&["latency", "--hop", &named][..], &load[..]].concat());
    assert!(
        code == 1 && says(&report["rows"][0]["error"], &["no stamped group"]),
        "{report}"
    );
    let who = [
        "compare",
        "--skip-relay",
        "--against",
        "floor",
        "--server",
        &named,
    ];
    let (_, report, _) = run_json(&[&who[..], &load[..]].concat());
    let note = "it: delivered only 0% of what was due";
    assert!(
        report["caveats"]
            .as_array()
            .unwrap()
            .iter()
            .any(|text| says(text, &[note])),
        "{report}"
    );
}
