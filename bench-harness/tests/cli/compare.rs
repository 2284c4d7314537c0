//! `floor` and `compare` with small loads: the rows are there, the reasons too, and nothing is left running.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{bench, run_json};

const SMALL: [&str; 6] = ["--seconds", "1", "--warm-up", "0", "--kbps", "800"];

fn numbers<'a>(report: &'a Value, server: &str) -> &'a Value {
    let rows = report["medians"].as_array().unwrap();
    &rows.iter().find(|row| row["server"] == server).unwrap()["numbers"]
}

#[test]
fn the_floor_serves_twenty() {
    let mut args = vec!["floor", "--count", "20", "--interval-ms", "20"];
    args.extend(SMALL);
    let (code, report, stderr) = run_json(&args);
    assert_eq!(code, 0, "{stderr}");
    let floor = numbers(&report, "floor");
    assert!(floor["cpu_s_per_gb"].as_f64().unwrap() > 0.0, "{floor}");
    assert_eq!(
        (floor["times_floor"].as_f64(), floor["not_served"].as_f64()),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(
        (floor["closed"].as_f64(), floor["faults"].as_f64()),
        (Some(0.0), Some(0.0)),
        "{floor}"
    );
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
}

/// A relay as far as `compare` can tell: it takes exactly the agreed flags, wants a password, and is our floor.
fn fake_relay(folder: &Path) -> String {
    let path = folder.join("relay");
    let own = env!("CARGO_BIN_EXE_bench-harness");
    let script = format!(
        "#!/bin/sh\naddress=$3\n[ \"$1 $2 $4 $5 $6 $7\" = 'run --listen --workers 1 --limits-listeners 110' ] \
         || exit 2\n\
         [ ${{#RELAY_AUTH_SOURCE_PASSWORD}} -ge 32 ] || exit 2\n\
         shift 7; case \"$*\" in '--limits-channels 4 --limits-reserved 20 --max-batch-delay 20ms --backend auto'|\
         '--limits-channels 4 --limits-reserved 20 --max-batch-delay 20ms --backend mio') ;; *) exit 2 ;; esac\n\
         exec '{own}' floor-server --listen \"$address\" --interval-ms 20\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The same, whatever the flags: its address is the third word.
pub(crate) fn stand_in(folder: &Path) -> String {
    let path = folder.join("any-relay");
    let own = env!("CARGO_BIN_EXE_bench-harness");
    fs::write(
        &path,
        format!("#!/bin/sh\nexec '{own}' floor-server --listen \"$3\" --interval-ms 20\n"),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_relay_is_started_by_its_flags_and_set_against_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let relay = fake_relay(folder.path());
    let mut args = vec![
        "compare",
        "--against",
        "floor,mio",
        "--listeners",
        "10",
        "--interval-ms",
        "20",
    ];
    args.extend(["--relay", &relay]);
    args.extend(SMALL);
    let (code, report, stderr) = run_json(&args);
    assert_eq!(code, 0, "{stderr} {report}");
    for server in ["floor", "relay", "relay-mio"] {
        assert!(
            numbers(&report, server)["times_floor"].as_f64().unwrap() > 0.0,
            "{report}"
        );
    }
}

#[test]
fn a_server_that_does_not_start_is_a_reason_not_a_hang() {
    let mut args = vec![
        "compare",
        "--against",
        "floor",
        "--listeners",
        "5",
        "--interval-ms",
        "20",
        "--relay",
        "/bin/false",
    ];
    args.extend(SMALL);
    let (code, report, stderr) = run_json(&args);
    assert!(
        code == 1 && stderr.contains("not every server"),
        "{code} {stderr}"
    );
    assert!(numbers(&report, "floor").is_object() && numbers(&report, "relay").is_null());
    assert!(
        report["medians"][1]["error"]
            .as_str()
            .unwrap()
            .contains("relay ended by itself"),
        "{report}"
    );
}

/// Pids of all processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let pids = stats.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a long floor, waits for server, source and crowd, sends `signal`, and checks that all of them go.
fn ends_with_all_its_children(signal: Signal) -> Option<i32> {
    // After SIGKILL nobody clears the temporary files: they go with this folder.
    let folder = tempfile::tempdir().unwrap();
    let mut floor = bench(&["floor", "--count", "5", "--seconds", "60"]);
    let mut harness = floor.env("TMPDIR", folder.path()).spawn().unwrap();
    let mut family = Vec::new();
    wait_for("three children", || {
        family = children(harness.id());
        family.len() == 3
    });
    kill(Pid::from_raw(harness.id() as i32), signal).unwrap();
    let status = harness.wait().unwrap();
    wait_for("the children's end", || {
        family
            .iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
    status.code()
}

#[test]
fn ctrl_c_ends_everything_with_exit_1() {
    assert_eq!(ends_with_all_its_children(Signal::SIGINT), Some(1));
}

#[test]
fn even_kill_9_leaves_no_child_behind() {
    assert_eq!(ends_with_all_its_children(Signal::SIGKILL), None);
}
