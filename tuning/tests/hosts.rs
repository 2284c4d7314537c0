//! The program and its checks over saved hosts: a stock server, a host in want of everything, and an empty folder.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use tuning::report::COLUMNS;
use tuning::{Demand, Host, Probe, RootedHost, Row, Status, check};

/// A host whose files are `files`, as (absolute path, contents).
fn host(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        put(root.path(), path, contents);
    }
    root
}

fn put(root: &Path, path: &str, contents: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// Limits of a process in the form of `/proc/self/limits`.
fn limits(files: &str, locked: &str) -> String {
    format!(
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max cpu time              unlimited            unlimited            seconds   \n\
         Max open files            {files}               files     \n\
         Max locked memory         {locked}              bytes     \n"
    )
}

/// Everything as it should be for 20,000 listeners.
fn rich() -> TempDir {
    let root = host(&[
        ("/proc/sys/kernel/osrelease", "6.15.2-amd64\n"),
        ("/proc/sys/kernel/io_uring_disabled", "0\n"),
        (
            "/proc/self/limits",
            &limits("1048576 1048576", "unlimited unlimited"),
        ),
        (
            "/proc/self/status",
            "Name:\ttuning\nCapEff:\t0000000000000000\nSeccomp:\t0\n",
        ),
        (
            "/proc/meminfo",
            "MemTotal:  32000000 kB\nMemAvailable:   24320152 kB\n",
        ),
        ("/proc/sys/fs/file-max", "9223372036854775807\n"),
        ("/proc/sys/fs/nr_open", "1048576\n"),
        ("/proc/sys/net/core/somaxconn", "4096\n"),
        ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
        ("/proc/sys/net/ipv4/tcp_syncookies", "1\n"),
        ("/proc/sys/net/ipv4/tcp_migrate_req", "1\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_count", "12\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "10240\t65535\n"),
        ("/proc/sys/net/core/rmem_max", "4194304\n"),
        ("/proc/sys/net/core/wmem_max", "212992\n"),
        ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ("/proc/sys/net/ipv4/tcp_mem", "587901\t783869\t1175802\n"),
        ("/proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295\n"),
        ("/proc/sys/net/ipv4/tcp_congestion_control", "bbr\n"),
        ("/proc/sys/net/core/default_qdisc", "fq\n"),
        ("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n"),
        ("/proc/sys/vm/nr_hugepages", "64\n"),
        (
            "/lib/modules/6.15.2-amd64/modules.builtin",
            "kernel/net/sched/sch_fq.ko\n",
        ),
        (
            "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
            "always [within_size] advise never deny force\n",
        ),
        ("/sys/devices/system/cpu/online", "0-1\n"),
        (
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
            "performance\n",
        ),
        ("/proc/sys/net/core/netdev_max_backlog", "1000\n"),
        (
            "/proc/net/softnet_stat",
            "0000a1 00000000 00000001\n0000b2 00000000 00000000\n",
        ),
    ]);
    card(
        root.path(),
        "eth0",
        &["rx-0", "rx-1", "tx-0"],
        &[("24", "0"), ("25", "1"), ("26", "0")],
    );
    root
}

/// A card that is up, with these queues and interrupts, each on its CPUs.
fn card(root: &Path, name: &str, queues: &[&str], interrupts: &[(&str, &str)]) {
    let folder = format!("/sys/class/net/{name}");
    put(root, &format!("{folder}/operstate"), "up\n");
    put(root, "/sys/devices/virtio2/vendor", "0x1af4\n");
    symlink(
        "../../../devices/virtio2",
        root.join(format!("sys/class/net/{name}/device")),
    )
    .unwrap();
    for queue in queues {
        put(root, &format!("{folder}/queues/{queue}/xps_cpus"), "1\n");
    }
    for (irq, cpus) in interrupts {
        put(root, &format!("/sys/devices/msi_irqs/{irq}"), "msix\n");
        put(root, &format!("/proc/irq/{irq}/effective_affinity_list"), cpus);
    }
}

fn rows(root: &TempDir, listeners: u64) -> Vec<Row> {
    check(&RootedHost::new(root.path()), &Demand { listeners })
}

fn row(root: &TempDir, listeners: u64, key: &str) -> Row {
    rows(root, listeners)
        .into_iter()
        .find(|row| row.key == key)
        .unwrap()
}

/// Changes one file of the rich host and returns the row with this key.
fn changed(path: &str, contents: &str, key: &str) -> Row {
    let root = rich();
    put(root.path(), path, contents);
    row(&root, 20_000, key)
}

fn tuning(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tuning"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_well_kept_host_is_all_ok() {
    let poor: Vec<Row> = rows(&rich(), 20_000)
        .into_iter()
        .filter(|row| row.status != Status::Ok)
        .collect();
    assert_eq!(poor, []);
}

#[test]
fn each_want_is_found_and_says_what_to_do() {
    let sysctl = "/proc/sys/net/ipv4";
    let cases: [(&str, &str, &str, Status, &str); 20] = [
        (
            "/proc/sys/kernel/osrelease",
            "6.1.0-28-amd64",
            "kernel",
            Status::Advice,
            "",
        ),
        (
            "/proc/sys/kernel/io_uring_disabled",
            "2",
            "io_uring",
            Status::Advice,
            "io_uring_disabled=0",
        ),
        (
            "/proc/self/limits",
            &limits("1024 524288", "1 1"),
            "open-files",
            Status::Advice,
            "ulimit -n 32768",
        ),
        (
            "/proc/self/limits",
            &limits("1024 4096", "1 1"),
            "open-files",
            Status::Problem,
            "--nofile=32768:32768",
        ),
        (
            "/proc/self/limits",
            &limits("9 9", "8388608 8388608"),
            "locked-memory",
            Status::Advice,
            "ulimit -l",
        ),
        (
            "/proc/sys/fs/file-max",
            "10000",
            "file-max",
            Status::Problem,
            "fs.file-max=41024",
        ),
        (
            "/proc/meminfo",
            "MemAvailable: 200000 kB",
            "memory",
            Status::Problem,
            "",
        ),
        (
            "/proc/meminfo",
            "MemAvailable: 1000000 kB",
            "memory",
            Status::Advice,
            "",
        ),
        (
            "/proc/sys/net/core/somaxconn",
            "128",
            "somaxconn",
            Status::Problem,
            "somaxconn=4096",
        ),
        (
            &format!("{sysctl}/tcp_max_syn_backlog"),
            "256",
            "syn-backlog",
            Status::Advice,
            "backlog=2048",
        ),
        (
            &format!("{sysctl}/tcp_migrate_req"),
            "0",
            "migrate-req",
            Status::Advice,
            "migrate_req=1",
        ),
        (
            "/proc/sys/net/netfilter/nf_conntrack_max",
            "8192",
            "conntrack",
            Status::Problem,
            "max=40000",
        ),
        (
            &format!("{sysctl}/ip_local_port_range"),
            "60000 60999",
            "local-ports",
            Status::Advice,
            "10240 65535",
        ),
        (
            "/proc/sys/net/core/rmem_max",
            "212992",
            "rmem-max",
            Status::Advice,
            "rmem_max=4194304",
        ),
        (
            &format!("{sysctl}/tcp_wmem"),
            "4096 16384 65536",
            "tcp-wmem",
            Status::Advice,
            "4096 16384 4194304",
        ),
        (
            &format!("{sysctl}/tcp_mem"),
            "10000 20000 30000",
            "tcp-mem",
            Status::Problem,
            "tcp_mem='400004",
        ),
        (
            "/proc/sys/net/core/default_qdisc",
            "pfifo_fast",
            "congestion",
            Status::Advice,
            "default_qdisc=fq",
        ),
        (
            "/proc/sys/net/core/netdev_max_backlog",
            "999",
            "netdev-backlog",
            Status::Ok,
            "",
        ),
        (
            "/proc/net/softnet_stat",
            "0a 10 0\n0b 01 0",
            "netdev-backlog",
            Status::Advice,
            "backlog=4096",
        ),
        (
            "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            "powersave",
            "cpu-governor",
            Status::Advice,
            "cpupower",
        ),
    ];
    for (path, contents, key, status, change) in cases {
        let row = changed(path, contents, key);
        assert_eq!(row.status, status, "{row:?}");
        assert!(row.change.join("\n").contains(change), "{change} in {row:?}");
        assert!(!row.cost.is_empty() && !row.wanted.is_empty(), "{row:?}");
    }
}

#[test]
fn kernels_fall_into_their_tiers() {
    let tiers = [
        ("5.10.0", "below"),
        ("5.19.1", "5.19"),
        ("6.1.0-9", "6.1"),
        ("6.12.3", "6.12"),
        ("7.0.0-rc1", "6.15"),
    ];
    for (release, tier) in tiers {
        let row = changed("/proc/sys/kernel/osrelease", release, "kernel");
        let shown = row.found.strip_prefix(release).unwrap();
        assert!(
            shown.starts_with(&format!(", tier {tier}:")) || shown.starts_with(&format!(", {tier}")),
            "{row:?}"
        );
        assert_eq!(row.status == Status::Ok, release >= "6.12", "{row:?}");
    }
    assert_eq!(
        changed("/proc/sys/kernel/osrelease", "odd", "kernel").status,
        Status::Advice
    );
}

#[test]
fn a_paced_socket_without_its_queue_names_the_card() {
    let row = changed("/proc/sys/net/core/default_qdisc", "fq_codel", "congestion");
    assert!(
        row.change
            .iter()
            .any(|command| command == "tc qdisc replace dev eth0 root fq"),
        "{row:?}"
    );
    assert_eq!(
        changed("/proc/sys/net/ipv4/tcp_congestion_control", "cubic", "congestion").status,
        Status::Ok
    );
}

#[test]
fn a_restart_of_slow_start_matters_only_where_it_is_heeded() {
    let root = rich();
    put(root.path(), "/proc/sys/net/ipv4/tcp_slow_start_after_idle", "1");
    assert_eq!(row(&root, 1, "slow-start-idle").status, Status::Ok);
    put(root.path(), "/proc/sys/net/ipv4/tcp_congestion_control", "cubic");
    assert_eq!(row(&root, 1, "slow-start-idle").status, Status::Advice);
}

#[test]
fn capability_to_lock_lifts_the_limit() {
    let root = rich();
    put(
        root.path(),
        "/proc/self/limits",
        &limits("1048576 1048576", "65536 65536"),
    );
    assert_eq!(row(&root, 1, "locked-memory").status, Status::Advice);
    put(root.path(), "/proc/self/status", "CapEff:\t0000000000004000\n");
    assert_eq!(row(&root, 1, "locked-memory").status, Status::Ok);
}

#[test]
fn narrow_and_crowded_cards_are_seen() {
    let root = rich();
    put(root.path(), "/sys/devices/system/cpu/online", "0-3\n");
    let narrow = row(&root, 1, "nic-queues");
    assert_eq!(narrow.status, Status::Advice);
    assert_eq!(narrow.found, "eth0: 2 receive queues, 3 interrupts on CPU 0,1");
    assert!(
        narrow.change[0].starts_with("ethtool -L eth0 combined 4"),
        "{narrow:?}"
    );

    let root = rich();
    put(root.path(), "/proc/irq/25/effective_affinity_list", "0");
    put(
        root.path(),
        "/proc/interrupts",
        "  CPU0 CPU1\n 24: 0 0 PCI-MSIX 0-edge virtio2-config\n 25: 0 0 PCI-MSIX 1-edge virtio2-input.0\n \
         26: 0 0 PCI-MSIX 2-edge virtio2-output.1\n",
    );
    let crowded = row(&root, 1, "irq-affinity");
    assert_eq!(crowded.status, Status::Advice, "{crowded:?}");
    let placed = [
        "echo 0 > /proc/irq/25/smp_affinity_list",
        "echo 1 > /proc/irq/26/smp_affinity_list",
    ];
    assert_eq!(crowded.change, placed);
    put(root.path(), "/proc/77/comm", "irqbalance\n");
    let balanced = row(&root, 1, "irq-affinity");
    assert!(
        balanced.sets.is_empty() && balanced.change[0].contains("irqbalance"),
        "{balanced:?}"
    );
}

#[test]
fn demand_moves_the_limits() {
    let root = rich();
    assert_eq!(row(&root, 1_000_000, "open-files").status, Status::Ok);
    assert_eq!(row(&root, 2_000_000, "open-files").status, Status::Problem);
    assert_eq!(row(&root, 100_000, "somaxconn").wanted, "10000 or more");
    assert_eq!(row(&root, 10_000_000, "memory").status, Status::Problem);
}

#[test]
fn garbage_in_files_is_no_panic() {
    let root = rich();
    let paths = [
        "/proc/self/limits",
        "/proc/meminfo",
        "/proc/sys/net/ipv4/tcp_mem",
        "/proc/sys/fs/file-max",
        "/proc/sys/net/ipv4/ip_local_port_range",
        "/sys/devices/system/cpu/online",
        "/proc/net/softnet_stat",
        "/proc/sys/net/ipv4/tcp_wmem",
        "/proc/self/smaps",
        "/proc/self/status",
    ];
    for junk in [
        "",
        "-1",
        "18446744073709551615",
        "18446744073709551615 18446744073709551615 18446744073709551615",
        "Max open files",
        "MemAvailable: 18446744073709551615 kB",
        "KernelPageSize: 0 kB",
        "0-18446744073709551615,5",
        "18446744073709551615 0",
        "CapEff: zz",
        "x ffffffffffffffff\nx ffffffffffffffff",
    ] {
        for path in paths {
            put(root.path(), path, junk);
        }
        assert_eq!(rows(&root, 10_000_000).len(), tuning::checks::ALL.len(), "{junk}");
    }
}

#[test]
fn an_empty_folder_is_not_here_and_no_panic() {
    let root = tempfile::tempdir().unwrap();
    let rows = rows(&root, 20_000);
    assert!(rows.iter().all(|row| row.status != Status::Problem), "{rows:?}");
    assert!(
        rows.iter().filter(|row| row.found == "not here").count() > 15,
        "{rows:?}"
    );
}

/// A host that answers the live question as told; everything else is absent.
struct Answers(Probe);

impl Host for Answers {
    fn read(&self, path: &str) -> Option<String> {
        (path == "/proc/self/status").then(|| "Seccomp:\t2\nCapEff:\t0\n".to_owned())
    }
    fn list(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn link_name(&self, _: &str) -> Option<String> {
        None
    }
    fn io_uring(&self) -> Probe {
        self.0.clone()
    }
}

#[test]
fn a_live_answer_outweighs_the_files() {
    let ask = |probe| {
        check(&Answers(probe), &Demand { listeners: 1 })
            .into_iter()
            .find(|row| row.key == "io_uring")
    };
    let works = |defer_taskrun| Probe::Works {
        defer_taskrun,
        send_zc: true,
        min_wait: true,
    };
    assert_eq!(ask(works(true)).unwrap().status, Status::Ok);
    assert_eq!(ask(works(false)).unwrap().status, Status::Advice);
    let refused = ask(Probe::Refused("Operation not permitted (os error 1)".into())).unwrap();
    assert!(
        refused.found.contains("seccomp filter") && refused.change[0].contains("seccomp="),
        "{refused:?}"
    );
}

#[test]
fn the_program_prints_a_table_that_fits() {
    let poor = host(&[
        ("/proc/self/limits", &limits("1024 4096", "65536 65536")),
        ("/proc/sys/net/core/somaxconn", "128"),
        ("/proc/sys/net/ipv4/tcp_mem", "10000 20000 30000"),
        ("/proc/sys/kernel/io_uring_disabled", "2"),
    ]);
    let said = tuning(&[
        "check",
        "--root",
        poor.path().to_str().unwrap(),
        "--listeners",
        "10000000",
    ]);
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.status.code(), Some(0), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    assert!(
        !text.contains('\x1b') && text.contains("problem  open-files"),
        "{text}"
    );
    assert!(text.contains("/etc/sysctl.d"), "{text}");
}

#[test]
fn exit_codes_are_as_promised() {
    let poor = host(&[("/proc/sys/net/core/somaxconn", "128")]);
    let rich = rich();
    let (poor, rich) = (poor.path().to_str().unwrap(), rich.path().to_str().unwrap());
    let code = |arguments: &[&str]| tuning(arguments).status.code().unwrap();
    assert_eq!(code(&["check", "--strict", "--root", poor]), 1);
    assert_eq!(code(&["check", "--root", poor]), 0);
    assert_eq!(code(&["check", "--strict", "--root", rich]), 0);
    assert_eq!(code(&["check", "--listeners", "0"]), 2);
    assert_eq!(code(&["explain", "nothing-of-the-kind"]), 2);
    assert_eq!(code(&["explain", "tcp-mem"]), 0);
    assert_eq!(code(&["bogus"]), 2);
}

#[test]
fn the_json_is_for_programs() {
    let poor = host(&[("/proc/sys/net/core/somaxconn", "128")]);
    let said = tuning(&["check", "--json", "--root", poor.path().to_str().unwrap()]);
    let value: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let rows = value["rows"].as_array().unwrap();
    assert_eq!(rows.len(), tuning::checks::ALL.len());
    let somaxconn = rows.iter().find(|row| row["key"] == "somaxconn").unwrap();
    assert_eq!(somaxconn["status"], "problem");
    assert_eq!(somaxconn["change"][0], "sysctl -w net.core.somaxconn=4096");
    assert_eq!(
        (value["problem"].as_u64(), value["listeners"].as_u64()),
        (Some(1), Some(20_000))
    );
}

#[test]
fn this_machine_can_be_read() {
    let said = tuning(&["check", "--listeners", "1"]);
    assert_eq!(said.status.code(), Some(0));
    let explained = tuning(&["explain"]);
    let keys = String::from_utf8(explained.stdout).unwrap();
    assert_eq!(keys.lines().count(), tuning::checks::ALL.len());
}
