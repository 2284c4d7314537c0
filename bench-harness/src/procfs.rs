//! What the kernel says about processes and about this machine.

use std::fs::read_to_string;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde::Serialize;

/// `pid` and all its descendants, as they are now.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&one) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == one)
                .map(|(child, _)| child),
        );
        next += 1;
    }
    family
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything: count from its end. Then: state, parent.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// User and system time of a process tree since its start, all threads, also ended ones. The scheduler's own sum in
/// nanoseconds (the one that utime + stime in `/proc/PID/stat` are scaled from, which come in steps of 10 ms).
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    let one = |pid: &u32| {
        let clock = clock_getcpuclockid(Pid::from_raw(*pid as i32)).ok()?;
        clock.now().ok().map(Duration::from)
    };
    pids.iter().filter_map(one).sum()
}

/// CPU time of the kernel's own threads for packets. What they do of a server's work is charged to nobody.
pub(crate) fn softirq_cpu() -> Duration {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let name = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("ksoftirqd/")
    };
    cpu(&pids.filter(ours).collect::<Vec<u32>>())
}

/// Resident memory of a process tree in KiB.
pub(crate) fn rss_kib(pids: &[u32]) -> u64 {
    pids.iter()
        .filter_map(|pid| {
            field(&format!("/proc/{pid}/status"), "VmRSS:")?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

/// The same without memory that is shared with others or mapped from a memory file: a server may keep its stream there,
/// which fills whether or not anybody listens. (Each page counts as often as it is mapped.)
pub(crate) fn own_kib(pids: &[u32]) -> u64 {
    let shared = pids.iter().filter_map(|pid| {
        field(&format!("/proc/{pid}/status"), "RssShmem:")?
            .parse::<u64>()
            .ok()
    });
    rss_kib(pids).saturating_sub(shared.sum())
}

/// Open files of a process tree; 0 where we may not look.
pub(crate) fn files(pids: &[u32]) -> u64 {
    let count =
        |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |files| files.count() as u64);
    pids.iter().map(count).sum()
}

/// How many files a process may have open.
pub(crate) fn file_limit(pid: u32) -> Option<u64> {
    let text = read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Memory that can be had without swapping, in KiB.
pub(crate) fn memory_available_kib() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")?.parse().ok()
}

/// First word after `key` at the start of a line.
fn field(path: &str, key: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// Memory the kernel holds for all TCP sockets, in KiB (pages of 4 KiB).
pub(crate) fn tcp_memory_kib() -> u64 {
    let text = read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .unwrap_or_default();
    let words: Vec<&str> = tcp.split_whitespace().collect();
    let pages = words
        .windows(2)
        .find(|pair| pair[0] == "mem")
        .and_then(|pair| pair[1].parse::<u64>().ok());
    4 * pages.unwrap_or(0)
}

/// Raises the limit of open files as far as it goes; returns it.
pub(crate) fn raise_file_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// The machine, as far as it bears on the numbers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) congestion_control: String,
    /// Runnable tasks, mean of the last minute, before we began.
    pub(crate) load: f64,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let word = |path: &str| read_to_string(path).unwrap_or_default().trim().to_owned();
        let info = word("/proc/cpuinfo");
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: info
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count()
                .max(1),
            memory_mib: field("/proc/meminfo", "MemTotal:")
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            kernel: word("/proc/sys/kernel/osrelease"),
            congestion_control: word("/proc/sys/net/ipv4/tcp_congestion_control"),
            load: word("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_find_ourselves_and_our_child() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let family = tree(std::process::id());
        let (has_child, rss) = (family.contains(&child.id()), rss_kib(&family));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_child && family[0] == std::process::id());
        assert!(rss > 100);
        assert!(cpu(&family[..1]) > Duration::ZERO);
    }

    #[test]
    fn the_machine_has_a_name_and_cores() {
        let machine = Machine::look();
        assert!(machine.cores >= 1 && !machine.kernel.is_empty() && !machine.cpu.is_empty());
    }
}
