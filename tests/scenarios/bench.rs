//! The bench as an operator uses it: against servers that run already, by URL and process.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use totality_tests::{
    Backend, Host, Opts, Process, Relay, SOURCE_PASSWORD, World, bin, eventually, lacks, tool,
};

use crate::common::MOUNT;

on_both_backends! {
    a_running_relay_is_measured_by_url_and_process
}

const PATIENCE: Duration = Duration::from_secs(60);

/// The bench with these words, on a host; what it wrote as JSON, after it came to its end with this status.
fn measure(host: &Host, words: &[&str], wanted: i32) -> Value {
    let json = host.file(&format!("{}.json", words[0]));
    let mut command = Command::new(bin("bench-harness"));
    command.args(words).arg("--json").arg(&json);
    let mut bench = Process::start(host, words[0], command);
    let status = bench
        .wait(PATIENCE)
        .unwrap_or_else(|| panic!("{words:?} did not end: {}", bench.said()));
    assert_eq!(status.code(), Some(wanted), "{words:?}: {}", bench.said());
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

/// The bench's own source, which puts the time into the stream.
fn publish(host: &Host, url: &str) -> Process {
    let mut command = Command::new(bin("bench-harness"));
    command
        .args(["source", url, "--kbps", "800", "--seconds", "120"])
        .env("RELAY_AUTH_SOURCE_PASSWORD", SOURCE_PASSWORD);
    Process::start(host, "source", command)
}

fn a_running_relay_is_measured_by_url_and_process(backend: Backend) {
    let world = World::new("bench");
    let root = world.host("root");
    let relay = Relay::start(&root, Opts::on(backend));
    let (url, pid) = (relay.url(MOUNT), relay.pid().to_string());
    let _source = publish(&root, &url);
    assert!(
        eventually(PATIENCE, || relay.get("/status-json.xsl").text().contains(MOUNT)),
        "the source is not on the air"
    );
    let load = ["--seconds", "1", "--warm-up", "1", "--kbps", "800"];

    let crowd = measure(
        &root,
        &["listeners", &url, "--count", "20", "--seconds", "1", "--strict"],
        0,
    );
    assert_eq!(
        (&crowd["served"], &crowd["seen"]["missing"]),
        (&20.into(), &0.into()),
        "{crowd}"
    );
    let join = measure(&root, &["join", &url, "--count", "3"], 0);
    assert_eq!(join["joined"], 3, "{join}");

    let hop = format!("root={url}");
    let chain = measure(
        &root,
        &[&["latency", "--hop", &hop, "--listeners", "4"][..], &load].concat(),
        0,
    );
    assert!(
        !chain["rows"][0]["latency_ms"]["curve"]
            .as_array()
            .unwrap()
            .is_empty(),
        "{chain}"
    );

    let steps = ["capacity", &url, "--pid", &pid, "--steps", "5,20"];
    let capacity = measure(&root, &[&steps[..], &load].concat(), 0);
    let limits = capacity["limits"].as_array().unwrap();
    assert!(
        limits
            .iter()
            .any(|limit| limit["what"] == "CPU" && !limit["remedy"].as_str().unwrap().is_empty()),
        "{capacity}"
    );
}

/// What our source sends over RTMP is a stream that a real server takes and a real player shows.
#[test]
fn a_stream_over_rtmp_is_taken_by_nginx_and_shown_by_ffmpeg() {
    let module = PathBuf::from("/usr/lib/nginx/modules/ngx_rtmp_module.so");
    if lacks("a stream over RTMP", false, &["nginx", "ffprobe"]) || !module.exists() {
        return;
    }
    let world = World::new("rtmp");
    let root = world.host("root");
    let (at, home) = (root.ip(), root.file("nginx"));
    let port = root.free_port();
    std::fs::create_dir_all(&home).unwrap();
    let config = format!(
        "load_module {};\ndaemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{ }}\n\
         rtmp {{ server {{ listen {at}:{port}; access_log off; application live {{ live on; }} }} }}\n",
        module.display()
    );
    std::fs::write(home.join("nginx.conf"), config).unwrap();
    let mut nginx = Command::new(tool("nginx").unwrap());
    nginx
        .arg("-p")
        .arg(&home)
        .arg("-c")
        .arg(home.join("nginx.conf"))
        .args(["-e", "stderr"]);
    let nginx = Process::start(&root, "nginx", nginx);
    let to = std::net::SocketAddr::new(at, port);
    assert!(
        eventually(PATIENCE, || root.connect(to).is_ok()),
        "{}",
        nginx.said()
    );

    let url = format!("rtmp://{at}:{port}/live/bench");
    let source = publish(&root, &url);
    let joined = || {
        let mut join = Command::new(bin("bench-harness"));
        join.args(["join", &url, "--count", "1", "--patience-ms", "3000"]);
        root.run(|| join.output().unwrap().status.success())
    };
    assert!(eventually(PATIENCE, joined), "{} {}", source.said(), nginx.said());

    let crowd = measure(
        &root,
        &[
            "listeners",
            &url,
            "--count",
            "5",
            "--seconds",
            "1",
            "--warm-up",
            "3",
        ],
        0,
    );
    let seen = &crowd["seen"];
    assert_eq!(
        (&seen["missing"], &seen["corrupt"], &seen["breaks"]),
        (&0.into(), &0.into(), &0.into()),
        "{crowd}"
    );
    assert!(crowd["latency_ms"]["samples"].as_u64().unwrap() > 0, "{crowd}");

    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-select_streams", "v", "-read_intervals", "%+2"]);
    probe.args(["-show_entries", "frame=pict_type", "-of", "csv=p=0", &url]);
    let shown = root.run(|| probe.output().unwrap());
    let (pictures, complaints) = (
        String::from_utf8(shown.stdout).unwrap(),
        String::from_utf8(shown.stderr).unwrap(),
    );
    assert!(
        pictures.lines().filter(|line| line.starts_with('P')).count() > 10,
        "{pictures} {complaints}"
    );
    assert_eq!(complaints, "");
}
