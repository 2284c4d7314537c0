//! `apply` and `revert` on a real kernel, in a network namespace of the test's own: sysctls, cards, queue disciplines.
//!
//! Needs root and `ip`, `ethtool`, `tc`, `sysctl`. Without them the tests say so and end; in CI that is a failure.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Every sysctl that a network namespace has for itself and `apply` may set, with a value that is poor.
const POOR: [(&str, &str); 8] = [
    ("net.core.somaxconn", "128"),
    ("net.ipv4.tcp_max_syn_backlog", "128"),
    ("net.ipv4.tcp_migrate_req", "0"),
    ("net.ipv4.ip_local_port_range", "60000 60999"),
    ("net.ipv4.tcp_rmem", "4096 16384 65536"),
    ("net.ipv4.tcp_wmem", "4096 16384 65536"),
    ("net.ipv4.tcp_notsent_lowat", "4096"),
    ("net.ipv4.tcp_slow_start_after_idle", "1"),
];
/// The keys behind them, and those of cards.
const KEYS: &str = "somaxconn,syn-backlog,migrate-req,local-ports,tcp-rmem,tcp-wmem,notsent-lowat,slow-start-idle,\
                    xps,rps,nic-offloads,nic-rings,nic-coalescing,qdisc";

/// A network namespace, gone when dropped.
struct Namespace {
    name: String,
    folder: TempDir,
}

impl Namespace {
    /// None, with a word about it, where this user cannot make one.
    fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tuning-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.is_ok_and(|output| output.status.success());
        if !made {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must be able to make network namespaces"
            );
            eprintln!("left out: needs root and `ip netns`");
            return None;
        }
        Some(Self {
            name,
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// What a command said, and its exit code.
    fn run(&self, program: &str, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, program])
            .args(arguments);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn ok(&self, line: &str) -> String {
        let (code, text) = self.run("sh", &["-c", line]);
        assert_eq!(code, 0, "{line}: {text}");
        text
    }

    fn tuning(&self, arguments: &[&str]) -> (i32, String) {
        let journal = self.journal();
        let own = ["--journal", journal.to_str().unwrap()];
        self.run(env!("CARGO_BIN_EXE_tuning"), &[arguments, &own].concat())
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("totality/journal.json")
    }

    /// All that `sysctl -a` says of this namespace, and the card as each tool shows it.
    fn state(&self) -> Vec<(&'static str, String)> {
        let lines = [
            "sysctl -a --pattern '^net\\.'",
            "ethtool -k v0",
            "ethtool -l v0",
            "tc qdisc show",
            "grep . /sys/class/net/v0/queues/*/?ps_cpus",
        ];
        lines.into_iter().map(|line| (line, self.ok(line))).collect()
    }

    #[track_caller]
    fn same(&self, before: &[(&str, String)]) {
        for ((line, now), (_, before)) in self.state().iter().zip(before) {
            let odd = |a: &str, b: &str| {
                a.lines()
                    .filter(|one| !b.contains(one))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            assert!(
                now == before,
                "{line}: was {}, is {}",
                odd(before, now),
                odd(now, before)
            );
        }
    }

    /// A card with a queue per CPU, without segmentation, badly steered; and poor sysctls.
    fn poor(&self) {
        let cpus = std::thread::available_parallelism()
            .unwrap()
            .get()
            .max(online())
            .max(2);
        self.ok(&format!(
            "ip link add v0 numtxqueues {cpus} numrxqueues {cpus} type veth peer name v1 && ip link set v0 up && \
             ip link set v1 up && ethtool -K v0 tso off gso off && echo 1 > /sys/class/net/v0/queues/rx-0/rps_cpus && \
             sysctl -qw net.ipv4.tcp_congestion_control=reno"
        ));
        for (name, value) in POOR {
            self.ok(&format!("sysctl -qw {name}='{value}'"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// CPUs of the machine, whatever this process may use of them.
fn online() -> usize {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let last = text.trim().rsplit(['-', ',']).next().unwrap();
    last.parse::<usize>().unwrap() + 1
}

#[test]
fn a_namespace_is_set_and_is_as_before_again() {
    let Some(space) = Namespace::new() else { return };
    space.poor();
    let before = space.state();
    let (code, text) = space.tuning(&["apply", "--card", "v0", "--only", KEYS]);
    assert_eq!(code, 0, "{text}");
    space.same(&before);

    let (code, text) = space.tuning(&["apply", "--yes", "--card", "v0", "--only", KEYS]);
    assert_eq!(code, 0, "{text}");
    let value = |name: &str| {
        space
            .ok(&format!("sysctl -n {name}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let set = [
        ("net.core.somaxconn", "4096"),
        ("net.ipv4.tcp_max_syn_backlog", "2048"),
        ("net.ipv4.tcp_migrate_req", "1"),
        ("net.ipv4.ip_local_port_range", "10240 65535"),
        ("net.ipv4.tcp_rmem", "4096 16384 4194304"),
        ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
        ("net.ipv4.tcp_notsent_lowat", "4294967295"),
        ("net.ipv4.tcp_slow_start_after_idle", "0"),
    ];
    for (name, wanted) in set {
        assert_eq!(value(name), wanted, "{name}: {text}");
    }
    let features = space.ok("ethtool -k v0");
    assert!(features.contains("tcp-segmentation-offload: on"), "{features}");
    assert!(
        features.contains("generic-segmentation-offload: on"),
        "{features}"
    );
    let masks = space.ok("cat /sys/class/net/v0/queues/tx-0/xps_cpus /sys/class/net/v0/queues/rx-0/rps_cpus");
    let masks: Vec<u64> = masks
        .lines()
        .map(|mask| u64::from_str_radix(&mask.replace(',', ""), 16).unwrap())
        .collect();
    assert_eq!(masks, [1, 0]);

    let (code, text) = space.tuning(&["revert"]);
    assert_eq!(code, 0, "{text}");
    space.same(&before);
    assert!(!space.journal().parent().unwrap().exists());
}

#[test]
fn somebody_elses_value_stays_until_forced() {
    let Some(space) = Namespace::new() else { return };
    space.poor();
    let before = space.state();
    assert_eq!(
        space
            .tuning(&["apply", "--yes", "--card", "v0", "--only", KEYS])
            .0,
        0
    );
    space.ok("sysctl -qw net.core.somaxconn=5000");
    let changed = space.state();
    let (code, text) = space.tuning(&["revert"]);
    assert!(
        code == 1 && text.contains("changed by somebody else since: is 5000"),
        "{text}"
    );
    space.same(&changed);
    assert_eq!(space.tuning(&["revert", "--force"]).0, 0);
    space.same(&before);
}

/// In a namespace of its own `nf_conntrack_max` and the like can be read, but not be written, not even by root.
#[test]
fn what_the_kernel_keeps_shut_blocks_all() {
    let Some(space) = Namespace::new() else { return };
    space.poor();
    let before = space.state();
    let all = [
        "apply",
        "--yes",
        "--listeners",
        "10000000",
        "--only",
        "somaxconn",
        "conntrack",
        "rmem-max",
        "syn-backlog",
    ];
    let shut = ["net.netfilter.nf_conntrack_max", "net.core.rmem_max"];
    let planned = space.tuning(&[&all[..1], &all[2..]].concat()).1;
    let shut: Vec<&str> = shut.into_iter().filter(|name| planned.contains(name)).collect();
    if shut.is_empty() {
        // Neither connection tracking nor a small rmem_max here: nothing is shut, and nothing may be blocked.
        assert!(!planned.contains("cannot"), "{planned}");
        return;
    }
    let (code, text) = space.tuning(&all);
    assert!(
        code == 1
            && shut
                .iter()
                .all(|name| text.contains(&format!("cannot      {name}"))),
        "{text}"
    );
    assert!(text.contains("untouched   net.core.somaxconn"), "{text}");
    space.same(&before);
    let (code, text) = space.tuning(&[&all[..], &["--partial"]].concat());
    assert!(
        code == 1 && text.contains("set         net.core.somaxconn: 128 -> 65535"),
        "{text}"
    );
    assert_eq!(space.tuning(&["revert"]).0, 0);
    space.same(&before);
}

/// Queue disciplines are replaced only where the kernel has fq; taking ours away works with any other kind as well.
#[test]
fn a_queue_discipline_goes_back_to_the_kernels_choice() {
    let Some(space) = Namespace::new() else { return };
    space.ok("ip link add v0 type veth peer name v1 && ip link set v0 txqueuelen 1000 && ip link set v0 up");
    space.ok("ip link add i0 type ifb && ip link set i0 up");
    let show = || space.ok("tc qdisc show dev i0");
    let before = show();
    let kind = before.split_whitespace().nth(1).unwrap().to_owned();
    space.ok("tc qdisc replace dev i0 root pfifo");
    fs::create_dir(space.journal().parent().unwrap()).unwrap();
    let children = if before.lines().count() > 1 {
        format!(
            " of {}",
            before.lines().last().unwrap().split_whitespace().nth(1).unwrap()
        )
    } else {
        String::new()
    };
    let entry = format!(
        r#"{{"key":"qdisc","place":{{"qdisc":{{"card":"i0"}}}},"old":"{kind}{children} (default)","new":"pfifo"}}"#
    );
    fs::write(space.journal(), format!(r#"{{"format":1,"entries":[{entry}]}}"#)).unwrap();
    let (code, text) = space.tuning(&["revert"]);
    assert_eq!((code, show()), (0, before), "{text}");
}
