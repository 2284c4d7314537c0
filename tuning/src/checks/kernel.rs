//! The kernel's version, and whether io_uring may be used.

use super::{Check, Consent, Demand};
use crate::host::{Host, Probe};
use crate::report::{Row, Status};

/// What each kernel brought for the data plane, newest first.
const TIERS: [((u32, u32), &str); 4] = [
    ((6, 15), "tier 6.15: all that the relay can use"),
    (
        (6, 12),
        "tier 6.12: short waits, buffers cloned into each worker; no gathered registered sends",
    ),
    (
        (6, 1),
        "tier 6.1: deferred completions, zero-copy sends; no short waits, buffers registered per worker",
    ),
    (
        (5, 19),
        "tier 5.19: multishot accept, provided buffers; no deferred completions, no zero copy",
    ),
];
/// From here on nothing is asked to be changed.
const GOOD: (u32, u32) = (6, 12);
/// io_uring serves from here on; below, epoll does.
const URING_FLOOR: (u32, u32) = (6, 1);

pub(super) const KERNEL: Check = Check {
    key: "kernel",
    run: kernel,
    price: "a restart, and a kernel that your distribution tests less",
    measured: "16 KiB sends by zero copy 40 % less CPU, 64 KiB 60 % (6.18, transmit path alone)",
    consent: Consent::Given,
    why: "The relay runs on any Linux that Rust runs on; what it costs depends on what the kernel brings. \
          5.19 brought multishot accept and provided buffers. 6.1 completed what the io_uring driver is built on: \
          SINGLE_ISSUER with DEFER_TASKRUN, so that completions run when the worker asks and not in between, and \
          SEND_ZC. 6.12 brought a minimum wait (one wake-up for several completions) and buffers that are \
          registered once and cloned into each worker's ring. 6.15 brought vectored sends from registered buffers.\
          \n\n\
          Below 6.1 the relay serves over epoll (mio). That is a real path, within about 16 % of the CPU of io_uring \
          when sends are batched; what is lost is zero copy, which saves 40 % of a 16 KiB send and 60 % of a 64 KiB \
          send on a card that supports it, and nothing on loopback.\n\n\
          Debian 12 has 6.1; its backports have a newer one.",
};

pub(super) const IO_URING: Check = Check {
    key: "io_uring",
    run: io_uring,
    price: "seccomp filters and audits of system calls do not see what is asked through a ring, which is why hardened \
         hosts switch it off",
    measured: "at most 16 % of CPU against batched epoll, as others report; not measured here alone",
    consent: Consent::Asked,
    why: "Three things can keep a program from io_uring on a kernel that has it: the sysctl \
          kernel.io_uring_disabled (1: only CAP_SYS_ADMIN or the group kernel.io_uring_group, 2: nobody), a seccomp \
          filter (Docker's and Podman's default profiles forbid io_uring_setup), or a kernel built without it. \
          On the live host the check sets up a small ring and asks; for a saved copy it reads the sysctl.\n\n\
          Without io_uring the relay serves over epoll and says so in one line at start. `relay run --backend uring` \
          makes it an error instead.\n\n\
          In a container, allow io_uring_setup, io_uring_enter and io_uring_register in a seccomp profile of \
          your own; seccomp does not see what is asked through the ring, which is why the defaults forbid it.",
};

/// The kernel's release and its first two numbers.
fn release(host: &dyn Host) -> Option<(String, (u32, u32))> {
    let text = host.sysctl("kernel.osrelease")?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let version = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((text, version))
}

fn kernel(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "Linux 6.12 or newer";
    let Some((text, version)) = release(host) else {
        return Row::new(Status::Advice, "unknown: no /proc/sys/kernel/osrelease", wanted)
            .cost("what the kernel can do is found out when the relay starts");
    };
    let tier = TIERS.iter().find(|(from, _)| version >= *from);
    let found = format!(
        "{text}, {}",
        tier.map_or("below all io_uring tiers", |(_, what)| what)
    );
    let status = if version >= GOOD {
        Status::Ok
    } else {
        Status::Advice
    };
    let cost = if version >= URING_FLOOR {
        "a busy worker wakes once per completion instead of once per batch, and registered memory is counted \
         against the limit once per worker"
    } else {
        "served over epoll: up to 16 % more CPU, and no zero copy (up to 2.5 times the CPU per byte of large \
         sends on a card that supports it)"
    };
    Row::new(status, found, wanted).cost(cost)
}

fn io_uring(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "io_uring with deferred completions and zero-copy sends";
    let cost = "served over epoll: up to 16 % more CPU when batched, and no zero copy";
    match host.io_uring() {
        Probe::Works {
            defer_taskrun: true,
            send_zc: true,
            min_wait,
        } => {
            let extra = if min_wait { ", minimum wait" } else { "" };
            Row::new(
                Status::Ok,
                format!("works: deferred completions, zero copy{extra}"),
                wanted,
            )
            .cost(cost)
        }
        Probe::Works { .. } => Row::new(
            Status::Advice,
            "works, but without what the driver is built on",
            wanted,
        )
        .cost(cost),
        Probe::Refused(error) => {
            let row = Row::new(
                Status::Advice,
                format!("refused: {error}{}", reason(host)),
                wanted,
            );
            permit(host, row.cost(cost))
        }
        Probe::NotAsked => from_files(host, wanted).cost(cost),
    }
}

/// Without a live answer: what the files say.
fn from_files(host: &dyn Host, wanted: &str) -> Row {
    let version = release(host).map(|(_, version)| version);
    match (host.sysctl_numbers("kernel.io_uring_disabled").first(), version) {
        (Some(1..), _) => permit(
            host,
            Row::new(Status::Advice, format!("not allowed{}", reason(host)), wanted),
        ),
        (_, Some(version)) if version < URING_FLOOR => Row::new(Status::Advice, "kernel too old", wanted),
        (_, None) => Row::new(Status::Advice, "unknown: nobody to ask", wanted),
        _ => Row::new(
            Status::Ok,
            "not forbidden by sysctl (not tried: not this machine)",
            wanted,
        ),
    }
}

/// Why it was refused, as far as the files tell.
fn reason(host: &dyn Host) -> &'static str {
    let status = host.read("/proc/self/status").unwrap_or_default();
    let seccomp = status
        .lines()
        .any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    match host.sysctl_numbers("kernel.io_uring_disabled").first() {
        Some(1) => ", kernel.io_uring_disabled = 1 (only CAP_SYS_ADMIN and kernel.io_uring_group)",
        Some(2..) => ", kernel.io_uring_disabled = 2 (nobody)",
        _ if seccomp => ", a seccomp filter is on (a container's default profile forbids it)",
        _ => "",
    }
}

fn permit(host: &dyn Host, row: Row) -> Row {
    match host.sysctl_numbers("kernel.io_uring_disabled").first() {
        Some(1..) => row.switch("kernel.io_uring_disabled", 0),
        _ if reason(host).is_empty() => row,
        _ => row.change("docker run --security-opt seccomp=PROFILE.json …  # allowing io_uring_*"),
    }
}
