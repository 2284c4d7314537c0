//! Short runs of the commands that load a server, against the floor, and against servers that do not behave.

use crate::world::{Manner, run, run_json, server};

const SHORT: [&str; 8] = [
    "--seconds",
    "2",
    "--warm-up",
    "0",
    "--ramp",
    "200",
    "--kbps",
    "800",
];

fn short(args: &[&str]) -> (i32, serde_json::Value, String) {
    run_json(&[args, &SHORT].concat())
}

fn named(manners: &'static [Manner]) -> String {
    format!("it=http://{}/bench.ts", server(manners))
}

#[test]
fn a_sweep_measures_every_point() {
    let points = [
        "fanout",
        "--skip-relay",
        "--listeners",
        "3,5",
        "--intervals",
        "10,20",
    ];
    let (code, report, stderr) = short(&points);
    assert_eq!(code, 0, "{stderr}");
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 4);
    for cell in cells {
        let floor = &cell["medians"][0];
        assert_eq!(
            (floor["server"].as_str(), floor["numbers"]["faults"].as_f64()),
            (Some("floor"), Some(0.0))
        );
        assert!(floor["numbers"]["gbit_per_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_running_server_is_a_row_with_its_name_and_its_process() {
    let (own, pid) = (named(&[Manner::Good]), std::process::id().to_string());
    let (code, report, stderr) = short(&[
        "fanout",
        "--against",
        "floor",
        "--skip-relay",
        "--listeners",
        "4",
        "--server",
        &own,
        "--pid",
        &pid,
    ]);
    assert_eq!(code, 0, "{stderr}");
    let row = &report["cells"][0]["medians"][1];
    assert_eq!(row["server"], "it");
    assert!(row["numbers"]["cpu_seconds"].as_f64().unwrap() > 0.0, "{row}");
    assert!(row["numbers"]["rss_kib"].as_f64().unwrap() > 0.0, "{row}");
}

/// Icecast beside a stand-in for the relay; without the package there is nobody to outlast, and nothing has failed.
#[test]
fn outlasting_ends_with_an_answer_or_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let relay = crate::compare::stand_in(folder.path());
    let args = [
        "outlast",
        "--from",
        "2",
        "--factor",
        "8",
        "--late-ms",
        "60000",
        "--relay",
        &relay,
    ];
    let (code, report, stderr) = short(&args);
    assert_eq!(code, 0, "{stderr}");
    if let Some(missing) = report["missing"].as_str() {
        assert!(
            missing.contains("apt install icecast2") && report["twice"].is_null(),
            "{report}"
        );
        return;
    }
    let last = report["steps"].as_array().unwrap().last().unwrap();
    let met = last["listeners"].as_u64().unwrap();
    assert_eq!(
        (
            report["twice"]["listeners"].as_u64(),
            report["twice"]["server"].as_str()
        ),
        (Some(2 * met), Some("relay"))
    );
    assert!(
        report["twice"]["numbers"]["gbit_per_s"].as_f64().unwrap() > 0.0,
        "{report}"
    );
}

/// The reason in the row of a server that cannot be measured.
fn reason(manners: &'static [Manner]) -> String {
    let own = named(manners);
    let (code, report, stderr) = short(&["fanout", "--skip-relay", "--listeners", "2", "--server", &own]);
    assert_eq!(code, 1, "{stderr}");
    let row = &report["cells"][0]["medians"][1];
    assert!(row["numbers"].is_null(), "{row}");
    row["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_that_closes_refuses_or_lies_is_a_clear_row() {
    assert!(reason(&[Manner::Refuses]).contains("expected 200, got 404"));
    assert!(reason(&[Manner::Lies]).contains("got \"220 smtp ready\""));
    assert!(reason(&[Manner::Stalls]).contains("silence"));
    assert!(reason(&[Manner::Short]).contains("before its Content-Length"));
    assert!(reason(&[Manner::Long]).contains("bytes more than its Content-Length"));
}

#[test]
fn a_process_that_is_not_there_is_a_clear_row_too() {
    let own = named(&[Manner::Good]);
    let (code, report, _) = short(&[
        "fanout",
        "--skip-relay",
        "--listeners",
        "2",
        "--server",
        &own,
        "--pid",
        "4194999",
    ]);
    let error = report["cells"][0]["medians"][1]["error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        code == 1 && error.contains("there is no process 4194999"),
        "{error}"
    );
}

/// A relay that ends at once: nothing is measured, and nothing is made up.
#[test]
fn workers_that_do_not_run_have_no_cost() {
    let (code, report, stderr) = short(&[
        "scale",
        "--counts",
        "1",
        "--listeners",
        "2",
        "--relay",
        "/bin/false",
    ]);
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(report["steps"].as_array().unwrap().len(), 0, "{report}");
    let row = &report["runs"][0][0]["runs"][0][0];
    assert!(
        row["error"].as_str().unwrap().contains("ended by itself"),
        "{row}"
    );
}

#[test]
fn those_who_come_and_go_are_counted() {
    let own = named(&[Manner::Good]);
    let (code, report, stderr) = short(&[
        "churn",
        "--listeners",
        "3",
        "--per-second",
        "40",
        "--gap-ms",
        "60000",
        "--server",
        &own,
    ]);
    assert_eq!(code, 0, "{stderr}");
    let churn = &report["runs"][0][0]["churn"];
    assert_eq!(
        (churn["came"].as_u64(), churn["heard"].as_u64()),
        (Some(80), Some(80)),
        "{churn}"
    );
    assert!(churn["first_byte_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn newcomers_that_are_refused_are_told_apart() {
    let own = named(&[Manner::Good, Manner::Refuses]);
    let (_, report, stderr) = short(&[
        "churn",
        "--listeners",
        "1",
        "--per-second",
        "40",
        "--gap-ms",
        "60000",
        "--server",
        &own,
    ]);
    let churn = &report["runs"][0][0]["churn"];
    assert_eq!(
        (churn["heard"].as_u64(), churn["rejected"].as_u64()),
        (Some(40), Some(40)),
        "{churn} {stderr}"
    );
    assert_eq!(churn["first_error"], "expected 200, got 404");
}

#[test]
fn a_soak_draws_its_lines() {
    let (own, pid) = (named(&[Manner::Good]), std::process::id().to_string());
    let (code, report, stderr) = short(&["soak", "--listeners", "2", "--server", &own, "--pid", &pid]);
    assert_eq!(code, 0, "{stderr}");
    let growth = &report["growth"][0];
    assert_eq!(growth["server"], "it");
    assert!(
        growth["files_last"].as_u64().unwrap() > 0 && growth["rss_kib_last"].as_u64().unwrap() > 0,
        "{growth}"
    );
}

#[test]
fn capacity_names_what_stops_it_first() {
    let url = format!("http://{}/bench.ts", server(&[Manner::Good]));
    let pid = std::process::id().to_string();
    let (code, report, stderr) = short(&["capacity", &url, "--pid", &pid, "--steps", "2,6"]);
    assert_eq!(code, 0, "{stderr}");
    let limits = report["limits"].as_array().unwrap();
    assert!(
        limits.iter().any(|limit| limit["what"] == "open files"),
        "{report}"
    );
    let viewers: Vec<u64> = limits
        .iter()
        .map(|limit| limit["viewers"].as_u64().unwrap())
        .collect();
    assert!(viewers.is_sorted());
}

#[test]
fn latency_is_told_for_each_hop_and_a_silent_one_says_so() {
    let (near, far) = (server(&[Manner::Good]), server(&[Manner::Stalls]));
    let (near, far) = (
        format!("near=http://{near}/a.ts"),
        format!("far=http://{far}/a.ts"),
    );
    let (code, report, _) = short(&["latency", "--hop", &near, "--hop", &far, "--listeners", "2"]);
    assert_eq!(code, 1);
    let rows = &report["rows"];
    assert!(
        rows[0]["error"].is_null() && rows[0]["latency_ms"]["samples"].as_u64().unwrap() > 0,
        "{rows}"
    );
    assert_eq!(
        (rows[1]["hop"].as_str(), rows[1]["error"].is_string()),
        (Some("far"), true)
    );
}

#[test]
fn tcp_sends_have_a_price() {
    let (code, report, stderr) = run_json(&["sink", "tcp", "--peers", "2", "--round-ms", "2"]);
    if code == 1 {
        assert!(stderr.contains("namespace"), "{stderr}");
        return;
    }
    let rows = report["rows"].as_array().unwrap();
    assert!(
        rows.len() >= 4
            && rows
                .iter()
                .all(|row| row["ns_per_send_min"].as_f64().unwrap() > 100.0),
        "{report}"
    );
}

#[test]
fn the_sink_is_root_s_and_leaves_nothing_behind() {
    let (code, report, stderr) = run_json(&["sink", "udp", "--peers", "4", "--round-ms", "1"]);
    if code == 1 {
        assert!(stderr.contains("namespace"), "{stderr}");
        return;
    }
    let rows = report["rows"].as_array().unwrap();
    let is_driver = |row: &&serde_json::Value| row["way"].as_str().unwrap().starts_with("driver");
    let drivers: Vec<_> = rows.iter().filter(is_driver).collect();
    assert_eq!(rows.len() - drivers.len(), 12, "{report}");
    assert!(
        drivers.len() >= 4 && rows.iter().all(|row| row["failed"] == 0),
        "{report}"
    );
    // Nothing receives what goes into the sink, so what is to go without a copy does.
    let copied = rows.iter().filter_map(|row| row["copied"].as_f64());
    assert!(copied.sum::<f64>() == 0.0, "{report}");
    let routes = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    assert!(
        !routes.contains("10.99.255.1"),
        "the sink's address is in our own namespace"
    );
}

#[test]
fn a_report_is_one_page_with_plots_and_the_commands_that_make_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let (code, stdout, stderr) = run(&["report", "--smoke", "--only", "tcp", "--out", out]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("report.html"), "{stdout}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("bench-harness sink tcp --peers 64 --round-ms 1"));
    let root = nix::unistd::Uid::effective().is_root();
    assert_eq!(
        (
            page.contains("<svg"),
            page.contains("Not measured here: it needs root")
        ),
        (root, !root)
    );
    assert!(
        !page.contains("src=") && !page.contains("http"),
        "the page asks for something elsewhere"
    );
    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (
            json["parts"][0]["key"].as_str(),
            json["parts"][0]["status"].as_i64()
        ),
        (Some("tcp"), root.then_some(0))
    );
    let readme = std::fs::read_to_string(folder.path().join("report.md")).unwrap();
    assert!(readme.contains("| what | target | found |"), "{readme}");
    assert_eq!(run(&["report", "--only", "nothing"]).0, 2);
}

#[test]
fn wrong_words_are_wrong_usage() {
    for args in [
        vec!["fanout", "--server", "nameless"],
        vec!["fanout", "--pid", "1"],
        vec!["sink", "sctp"],
        vec!["capacity", "--publish"],
        vec!["latency", "--relay", "/nonexistent/relay"],
    ] {
        assert_eq!(run(&args).0, 2, "{args:?}");
    }
}
