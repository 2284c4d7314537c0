//! `apply` and `revert` over a host of files: what is written, what is not, and that it all comes back.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use tuning::journal::{Entry, Journal};
use tuning::machine::SetError;
use tuning::{Choice, Demand, Host, Machine, Outcome, Place, Probe, RootedHost, State, apply, plan, revert};

/// All keys that are only set when they are asked for and that a host of files can have.
const ASKED: &str = "open-files,locked-memory,local-ports,huge-pages,reserved-pages,io_uring";

fn put(root: &Path, path: &str, contents: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// A host in want of everything.
fn poor() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let limits = "Max open files            1024                 4096                 files     \n\
                  Max locked memory         65536                65536                bytes     \n";
    let files = [
        ("/proc/sys/kernel/osrelease", "6.15.2\n"),
        ("/proc/sys/kernel/io_uring_disabled", "2\n"),
        ("/proc/self/limits", limits),
        ("/proc/1/limits", limits),
        (
            "/proc/meminfo",
            "MemTotal:  32000000 kB\nMemAvailable:   24320152 kB\n",
        ),
        ("/proc/sys/fs/file-max", "10000\n"),
        ("/proc/sys/fs/nr_open", "1048576\n"),
        ("/proc/sys/net/core/somaxconn", "128\n"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "256\n"),
        ("/proc/sys/net/ipv4/tcp_migrate_req", "0\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_max", "8192\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "60000\t60999\n"),
        ("/proc/sys/net/core/rmem_max", "212992\n"),
        ("/proc/sys/net/core/wmem_max", "65536\n"),
        ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t262144\n"),
        ("/proc/sys/net/ipv4/tcp_wmem", "8192\t16384\t65536\n"),
        ("/proc/sys/net/ipv4/tcp_mem", "10000\t20000\t900000\n"),
        ("/proc/sys/net/ipv4/tcp_notsent_lowat", "4096\n"),
        ("/proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
        ("/proc/sys/net/core/default_qdisc", "pfifo_fast\n"),
        ("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n"),
        (
            "/lib/modules/6.15.2/modules.dep",
            "kernel/net/sched/sch_fq.ko.xz:\n",
        ),
        ("/proc/sys/vm/nr_hugepages", "3\n"),
        ("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "never\n"),
        ("/sys/devices/system/cpu/online", "0-1\n"),
        (
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "performance\n",
        ),
        (
            "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            "powersave\n",
        ),
        ("/proc/sys/net/core/netdev_max_backlog", "1000\n"),
        ("/proc/net/softnet_stat", "0a 10 0\n"),
        ("/sys/class/net/eth0/operstate", "up\n"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "3\n"),
        ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n"),
        ("/sys/class/net/eth0/queues/tx-1/xps_cpus", "0\n"),
        ("/sys/devices/virtio2/vendor", "0x1af4\n"),
        ("/sys/devices/msi_irqs/24", "msix\n"),
        ("/sys/devices/msi_irqs/25", "msix\n"),
        ("/sys/devices/msi_irqs/26", "msix\n"),
        ("/proc/irq/24/effective_affinity_list", "0\n"),
        ("/proc/irq/25/effective_affinity_list", "0\n"),
        ("/proc/irq/26/effective_affinity_list", "0\n"),
        ("/proc/irq/24/smp_affinity_list", "0-1\n"),
        ("/proc/irq/25/smp_affinity_list", "0-1\n"),
        ("/proc/irq/26/smp_affinity_list", "0-1\n"),
        (
            "/proc/interrupts",
            "24: 0 virtio2-config\n25: 0 virtio2-input.0\n26: 0 virtio2-input.1\n",
        ),
        ("/etc/security/limits.d/10-other.conf", "@audio - memlock 5\n"),
    ];
    for (path, contents) in files {
        put(root.path(), path, contents);
    }
    fs::create_dir_all(root.path().join("etc/systemd/system")).unwrap();
    symlink(
        "../../../devices/virtio2",
        root.path().join("sys/class/net/eth0/device"),
    )
    .unwrap();
    root
}

/// Every file and folder with what it holds.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                all.insert(path.clone(), "folder".into());
                folders.push(path);
            } else if entry.file_type().unwrap().is_file() {
                all.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    all
}

/// Fails with what differs, and only that.
#[track_caller]
fn same(root: &TempDir, before: &BTreeMap<PathBuf, String>) {
    let now = snapshot(root.path());
    let lost: Vec<_> = before
        .iter()
        .filter(|(path, text)| now.get(*path) != Some(text))
        .collect();
    let new: Vec<_> = now
        .iter()
        .filter(|(path, text)| before.get(*path) != Some(text))
        .collect();
    assert!(lost.is_empty() && new.is_empty(), "was {lost:?}, is {new:?}");
}

fn tuning(root: &TempDir, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuning"));
    said(command.args(arguments).arg("--root").arg(root.path()))
}

fn said(command: &mut Command) -> (i32, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code().unwrap(), text)
}

fn read(root: &TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path.trim_start_matches('/')))
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn everything_is_set_and_comes_back_to_the_byte() {
    let root = poor();
    let before = snapshot(root.path());
    let (code, text) = tuning(&root, &["apply", "--yes", "--with", ASKED]);
    assert_eq!(code, 0, "{text}");
    let expected = [
        ("/proc/sys/fs/file-max", "41024"),
        ("/proc/sys/kernel/io_uring_disabled", "0"),
        ("/proc/sys/net/core/somaxconn", "4096"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "2048"),
        ("/proc/sys/net/ipv4/tcp_migrate_req", "1"),
        ("/proc/sys/net/netfilter/nf_conntrack_max", "40000"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "10240 65535"),
        ("/proc/sys/net/core/rmem_max", "4194304"),
        ("/proc/sys/net/core/wmem_max", "212992"),
        ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 4194304"),
        ("/proc/sys/net/ipv4/tcp_wmem", "8192 16384 4194304"),
        // The third number was larger already, and stays.
        ("/proc/sys/net/ipv4/tcp_mem", "400004 500005 900000"),
        ("/proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
        ("/proc/sys/net/core/default_qdisc", "fq"),
        ("/proc/sys/net/core/netdev_max_backlog", "4096"),
        ("/proc/sys/vm/nr_hugepages", "64"),
        ("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "within_size"),
        (
            "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            "performance",
        ),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
        ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "00000001"),
        ("/sys/class/net/eth0/queues/tx-1/xps_cpus", "00000002"),
        ("/proc/irq/24/smp_affinity_list", "0-1"),
        ("/proc/irq/25/smp_affinity_list", "0"),
        ("/proc/irq/26/smp_affinity_list", "1"),
    ];
    for (path, value) in expected {
        assert_eq!(read(&root, path), value, "{path}\n{text}");
    }
    let unit = read(
        &root,
        "/etc/systemd/system/relay.service.d/90-totality-nofile.conf",
    );
    assert!(unit.ends_with("[Service]\nLimitNOFILE=32768:524288"), "{unit}");
    assert!(read(&root, "/etc/security/limits.d/90-totality-memlock.conf").contains("* hard memlock 65536"));

    let (code, text) = tuning(&root, &["apply", "--with", ASKED]);
    assert_eq!((code, text.contains("-> ")), (0, false), "set twice: {text}");
    let (code, text) = tuning(&root, &["revert"]);
    assert_eq!(code, 0, "{text}");
    same(&root, &before);
    assert!(tuning(&root, &["revert"]).1.contains("Nothing to restore"));
}

#[test]
fn a_dry_run_says_all_and_writes_nothing() {
    let root = poor();
    let before = snapshot(root.path());
    let (code, text) = tuning(&root, &["apply"]);
    assert_eq!(code, 0, "{text}");
    for words in [
        "would set   net.core.somaxconn: 128 -> 4096",
        "costs to set: ",
        "left        open-files: only when asked for: --with open-files",
        "LimitNOFILE=32768:524288",
        "A dry run: nothing was changed.",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    same(&root, &before);
    tuning(&root, &["apply", "--yes", "--only", "somaxconn"]);
    let set = snapshot(root.path());
    assert!(
        tuning(&root, &["revert", "--dry-run"])
            .1
            .contains("net.core.somaxconn: 4096 -> 128")
    );
    same(&root, &set);
}

#[test]
fn keys_choose() {
    let root = poor();
    let before = snapshot(root.path());
    assert_eq!(
        tuning(
            &root,
            &[
                "apply",
                "--yes",
                "--only",
                "somaxconn",
                "rmem-max",
                "--except",
                "rmem-max"
            ]
        )
        .0,
        0
    );
    assert_eq!(read(&root, "/proc/sys/net/core/somaxconn"), "4096");
    assert_eq!(read(&root, "/proc/sys/net/core/rmem_max"), "212992");
    assert_eq!(tuning(&root, &["apply", "--yes", "--only", "syn-backlog"]).0, 0);
    assert_eq!(tuning(&root, &["revert", "--only", "somaxconn"]).0, 0);
    assert_eq!(read(&root, "/proc/sys/net/core/somaxconn"), "128");
    assert_eq!(read(&root, "/proc/sys/net/ipv4/tcp_max_syn_backlog"), "2048");
    assert_eq!(tuning(&root, &["revert"]).0, 0);
    same(&root, &before);
    let (code, text) = tuning(&root, &["apply", "--only", "somaxcon"]);
    assert!(code == 2 && text.contains("nearest: `somaxconn`"), "{text}");
}

#[test]
fn what_somebody_else_changed_is_theirs() {
    let root = poor();
    let before = snapshot(root.path());
    tuning(&root, &["apply", "--yes", "--with", "open-files"]);
    put(root.path(), "/proc/sys/net/core/somaxconn", "9000\n");
    let unit = "/etc/systemd/system/relay.service.d/90-totality-nofile.conf";
    put(root.path(), unit, "[Service]\nLimitNOFILE=7\n");
    let set = snapshot(root.path());
    let (code, text) = tuning(&root, &["revert"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("changed by somebody else since: is 9000") && text.contains("the file was edited"),
        "{text}"
    );
    same(&root, &set);
    assert_eq!(tuning(&root, &["revert", "--force"]).0, 0);
    same(&root, &before);
}

#[test]
fn a_file_of_somebody_else_is_never_written() {
    let root = poor();
    let path = "/etc/security/limits.d/90-totality-nofile.conf";
    put(root.path(), path, "* - nofile 5\n");
    let before = snapshot(root.path());
    let (code, text) = tuning(&root, &["apply", "--yes", "--with", "open-files"]);
    assert!(code == 1 && text.contains("not ours"), "{text}");
    same(&root, &before);
}

#[test]
fn larger_limits_in_other_files_need_no_file() {
    let root = poor();
    put(
        root.path(),
        "/etc/security/limits.d/20-more.conf",
        "*  -  nofile  unlimited\n",
    );
    put(
        root.path(),
        "/usr/lib/systemd/system/relay.service",
        "[Service]\nLimitNOFILE=262144\n",
    );
    let (code, text) = tuning(&root, &["apply", "--only", "open-files"]);
    assert!(code == 0 && !text.contains("90-totality"), "{text}");
}

#[test]
fn applies_stack_and_come_off_in_one_go() {
    let root = poor();
    let before = snapshot(root.path());
    let keys = ["--with", "open-files"];
    assert_eq!(tuning(&root, &[&["apply", "--yes"], &keys[..]].concat()).0, 0);
    let (code, text) = tuning(
        &root,
        &[&["apply", "--yes", "--listeners", "100000"], &keys[..]].concat(),
    );
    assert_eq!(code, 0, "{text}");
    assert_eq!(read(&root, "/proc/sys/net/core/somaxconn"), "10000");
    assert!(read(&root, "/etc/security/limits.d/90-totality-nofile.conf").contains("soft nofile 131072"));
    let (code, text) = tuning(&root, &["revert"]);
    assert_eq!(code, 0, "{text}");
    same(&root, &before);
}

#[test]
fn sysctls_are_kept_for_the_next_start_when_asked() {
    let root = poor();
    let before = snapshot(root.path());
    let path = "/etc/sysctl.d/90-totality.conf";
    assert_eq!(tuning(&root, &["apply", "--yes", "--only", "somaxconn"]).0, 0);
    assert!(!root.path().join(path.trim_start_matches('/')).exists());
    let (code, text) = tuning(&root, &["apply", "--yes", "--keep", "--only", "tcp-wmem", "xps"]);
    assert_eq!(code, 0, "{text}");
    let file = read(&root, path);
    let lines = "\nnet.core.somaxconn = 4096\nnet.ipv4.tcp_wmem = 8192 16384 4194304";
    assert!(file.ends_with(lines) && file.lines().count() == 3, "{file}");
    assert!(
        tuning(&root, &["apply", "--yes", "--keep", "--only", "tcp-wmem"])
            .1
            .contains("Nothing to set.")
    );
    // The machine starts again: xps is as it was, the sysctls are as the file says, and all of it goes back.
    put(root.path(), "/sys/class/net/eth0/queues/tx-0/xps_cpus", "0\n");
    put(root.path(), "/sys/class/net/eth0/queues/tx-1/xps_cpus", "0\n");
    let (code, text) = tuning(&root, &["revert"]);
    assert_eq!(code, 0, "{text}");
    same(&root, &before);
}

#[test]
fn the_json_is_for_programs() {
    let root = poor();
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&tuning(&root, arguments).1).unwrap()
    };
    let dry = json(&["apply", "--json"]);
    assert_eq!(
        (dry["dry_run"].as_bool(), dry["ok"].as_bool()),
        (Some(true), Some(true))
    );
    let changes = dry["changes"].as_array().unwrap();
    let one = changes
        .iter()
        .find(|change| change["key"] == "somaxconn")
        .unwrap();
    for (field, value) in [
        ("old", "128"),
        ("new", "4096"),
        ("state", "would"),
        ("target", "net.core.somaxconn"),
    ] {
        assert_eq!(one[field], value);
    }
    assert!(
        changes
            .iter()
            .all(|change| !change["cost_to_set"].as_str().unwrap().is_empty())
    );
    assert!(
        dry["left"]
            .as_array()
            .unwrap()
            .iter()
            .any(|left| left["key"] == "open-files")
    );
    assert_eq!(json(&["apply", "--json", "--yes"])["changes"][0]["state"], "done");
    let back = json(&["revert", "--json"]);
    assert_eq!(
        (back["changes"][0]["state"].as_str(), back["ok"].as_bool()),
        (Some("done"), Some(true))
    );
    assert_eq!(json(&["explain", "open-files", "--json"])["asked"], true);
}

#[test]
fn a_journal_that_is_not_ours_moves_nothing() {
    let root = poor();
    put(root.path(), "/proc/sys/kernel/core_pattern", "core\n");
    let journal = root.path().join("journal.json");
    let place = r#"{"file":"/proc/sys/kernel/core_pattern"}"#;
    let forged =
        format!(r#"{{"format":1,"entries":[{{"key":"x","place":{place},"old":"|/x","new":"core"}}]}}"#);
    for text in ["", "nonsense", &forged] {
        fs::write(&journal, text).unwrap();
        let before = snapshot(root.path());
        for command in [&["apply", "--yes"][..], &["revert", "--force"]] {
            let (code, said) = tuning(
                &root,
                &[command, &["--journal", journal.to_str().unwrap()]].concat(),
            );
            assert!(code == 1 && said.contains("expected a tuning journal"), "{said}");
        }
        same(&root, &before);
    }
}

/// Another user, on the live machine: nothing is writable, and everything is said.
#[test]
fn without_rights_nothing_moves_and_each_knob_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("tuning");
    fs::copy(env!("CARGO_BIN_EXE_tuning"), &program).unwrap();
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args([
            "apply",
            "--only",
            "somaxconn",
            "--listeners",
            "10000000",
            "--journal",
            "/nowhere/j.json",
        ]);
        // Only root can become another user; anybody else is one already.
        if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            command.uid(65_534).gid(65_534);
        }
        said(command.args(arguments))
    };
    for arguments in [&["--yes"][..], &[], &["--yes", "--partial"]] {
        let (code, text) = run(arguments);
        assert!(
            code == 1 && text.contains("cannot      net.core.somaxconn"),
            "{text}"
        );
    }
    assert_eq!(
        fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap(),
        somaxconn
    );
}

/// A host of files in which some places misbehave.
struct Moody<'a> {
    inner: RootedHost,
    /// Places that cannot be opened.
    closed: &'a [&'a str],
    /// What setting a place answers instead.
    answers: Vec<(&'a str, SetError)>,
    /// Places that take half of the number.
    halves: &'a [&'a str],
    /// The journal that must know a place before it is set.
    journal: PathBuf,
    unknown: RefCell<Vec<String>>,
}

impl<'a> Moody<'a> {
    fn new(root: &TempDir) -> Self {
        Self {
            inner: RootedHost::new(root.path()),
            closed: &[],
            answers: Vec::new(),
            halves: &[],
            journal: root.path().join("journal/journal.json"),
            unknown: RefCell::default(),
        }
    }

    fn apply(&self, partial: bool) -> Vec<Outcome> {
        let choice = Choice {
            with: vec!["open-files".into()],
            ..Choice::default()
        };
        let plan = plan(self, &Demand { listeners: 20_000 }, &choice);
        apply(self, &plan, &self.journal, partial).unwrap()
    }

    fn revert(&self, force: bool) -> Vec<Outcome> {
        revert(self, &self.journal, &Choice::default(), force, false).unwrap()
    }
}

impl Host for Moody<'_> {
    fn read(&self, path: &str) -> Option<String> {
        self.inner.read(path)
    }
    fn list(&self, path: &str) -> Vec<String> {
        self.inner.list(path)
    }
    fn link_name(&self, path: &str) -> Option<String> {
        self.inner.link_name(path)
    }
    fn io_uring(&self) -> Probe {
        Probe::NotAsked
    }
}

impl Machine for Moody<'_> {
    fn value(&self, place: &Place) -> Option<String> {
        self.inner.value(place)
    }
    fn refusal(&self, place: &Place) -> Option<String> {
        let closed = self.closed.contains(&place.to_string().as_str());
        closed
            .then(|| "read-only".into())
            .or_else(|| self.inner.refusal(place))
    }
    fn set(&self, place: &Place, value: Option<&str>) -> Result<(), SetError> {
        let name = place.to_string();
        let quoted = serde_json::to_string(place).unwrap().replace(['{', '}'], "");
        let journal = fs::read_to_string(&self.journal).unwrap_or_default();
        if !journal.contains(quoted.rsplit(':').next().unwrap()) {
            self.unknown.borrow_mut().push(name.clone());
        }
        if let Some((_, error)) = self.answers.iter().find(|(one, _)| *one == name) {
            return Err(error.clone());
        }
        let half = value
            .and_then(|value| value.parse::<u64>().ok())
            .map(|value| (value / 2).to_string());
        let value = half
            .as_deref()
            .filter(|_| self.halves.contains(&name.as_str()))
            .or(value);
        self.inner.set(place, value)
    }
    fn missing_folders(&self, place: &Place) -> Vec<String> {
        self.inner.missing_folders(place)
    }
    fn remove_folders(&self, folders: &[String]) {
        self.inner.remove_folders(folders);
    }
}

fn state(outcomes: &[Outcome], target: &str) -> State {
    outcomes
        .iter()
        .find(|outcome| outcome.target == target)
        .unwrap()
        .state
}

#[test]
fn one_that_cannot_be_written_keeps_all_from_it() {
    let root = poor();
    let before = snapshot(root.path());
    let host = Moody {
        closed: &["net.core.rmem_max"],
        ..Moody::new(&root)
    };
    let outcomes = host.apply(false);
    assert_eq!(state(&outcomes, "net.core.rmem_max"), State::Blocked);
    assert_eq!(state(&outcomes, "net.core.somaxconn"), State::Untouched);
    same(&root, &before);

    let outcomes = host.apply(true);
    assert_eq!(state(&outcomes, "net.core.rmem_max"), State::Blocked);
    assert_eq!(state(&outcomes, "net.core.somaxconn"), State::Done);
    assert!(
        host.revert(false)
            .iter()
            .all(|outcome| outcome.state == State::Done)
    );
    same(&root, &before);
}

#[test]
fn a_failure_in_the_middle_takes_all_back() {
    let root = poor();
    let before = snapshot(root.path());
    let failed = SetError::Failed("Input/output error".into());
    let host = Moody {
        answers: vec![("net.core.wmem_max", failed)],
        ..Moody::new(&root)
    };
    let outcomes = host.apply(false);
    assert_eq!(state(&outcomes, "net.core.wmem_max"), State::Failed);
    assert_eq!(state(&outcomes, "net.core.somaxconn"), State::TakenBack);
    assert_eq!(state(&outcomes, "net.core.netdev_max_backlog"), State::Untouched);
    same(&root, &before);
}

#[test]
fn what_is_declined_or_rounded_is_noted_and_comes_back() {
    let root = poor();
    let before = snapshot(root.path());
    let declined = SetError::Unsupported("no such thing".into());
    let host = Moody {
        answers: vec![("net.core.wmem_max", declined)],
        halves: &["net.core.somaxconn"],
        ..Moody::new(&root)
    };
    let outcomes = host.apply(false);
    assert_eq!(state(&outcomes, "net.core.wmem_max"), State::Declined);
    assert_eq!(state(&outcomes, "net.core.somaxconn"), State::Done);
    assert!(!outcomes.iter().any(Outcome::bad), "{outcomes:?}");
    assert_eq!(read(&root, "/proc/sys/net/core/somaxconn"), "2048");
    let host = Moody { halves: &[], ..host };
    assert!(
        host.revert(false)
            .iter()
            .all(|outcome| outcome.state == State::Done)
    );
    same(&root, &before);
}

#[test]
fn the_journal_knows_each_place_before_it_is_set() {
    let root = poor();
    let host = Moody::new(&root);
    assert!(host.apply(false).len() > 15);
    assert_eq!(*host.unknown.borrow(), Vec::<String>::new());
}

/// The machine stopped after the journal and a part of the changes.
#[test]
fn a_partial_apply_is_reverted() {
    let root = poor();
    let before = snapshot(root.path());
    let host = RootedHost::new(root.path());
    let choice = Choice {
        with: vec!["open-files".into()],
        ..Choice::default()
    };
    let plan = plan(&host, &Demand { listeners: 20_000 }, &choice);
    let path = root.path().join("var/lib/totality/tuning-journal.json");
    for written in 0..=plan.changes.len() {
        let entries = plan.changes.iter().map(|change| Entry {
            key: change.key.into(),
            place: change.place.clone(),
            old: change.old.clone(),
            new: change.new.clone(),
            took: None,
            folders: host.missing_folders(&change.place),
        });
        Journal::open(&path)
            .unwrap()
            .record(entries.collect::<Vec<_>>())
            .unwrap();
        for change in &plan.changes[..written] {
            host.set(&change.place, Some(&change.new)).unwrap();
        }
        let (code, text) = tuning(&root, &["revert"]);
        assert_eq!(code, 0, "{text}");
        same(&root, &before);
    }
}
