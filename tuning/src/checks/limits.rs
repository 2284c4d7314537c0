//! What one process may hold: descriptors, locked memory, memory.

use super::files::{self, Limit};
use super::{Check, Consent, Demand, size};
use crate::host::Host;
use crate::machine::capable;
use crate::report::{Row, Status};

/// Descriptors of a node besides its listeners: workers, rings, links, sources, logs, the control plane.
const OTHER_FILES: u64 = 512;
/// Locked memory that holds the registered rings of some channels, in bytes.
const LOCKED_BYTES: u64 = 64 << 20;
/// Bit of `CAP_IPC_LOCK` in the effective capabilities.
const CAP_IPC_LOCK: u32 = 14;
/// User memory of one listener, in bytes: reckoned generously, 0.66 KiB were measured.
const LISTENER_BYTES: u64 = 4 << 10;
/// Kernel memory of one listener that has stopped reading, in bytes: measured at 54 KiB
/// with the relay's own bounds, both ends counted; more where a batch of the stream is large.
pub(super) const STALLED_BYTES: u64 = 80 << 10;
/// One listener in this many is stalled on an ordinary evening.
pub(super) const STALLED_SHARE: u64 = 10;

pub(super) const OPEN_FILES: Check = Check {
    key: "open-files",
    run: open_files,
    price: "a limit is no reservation: about 1 KiB of kernel memory per descriptor once it is open; a program that \
         leaks descriptors leaks longer",
    measured: "a limit, not a speed: accept fails with EMFILE beyond it",
    consent: Consent::Asked,
    why: "Every listener is a descriptor. At the soft limit (RLIMIT_NOFILE) accept fails with EMFILE: who is in \
          stays in, who comes later is refused. A process may raise its soft limit up to the hard limit by itself; \
          the hard limit only root can raise, up to the sysctl fs.nr_open.\n\n\
          Login shells on Debian start with 1024 (soft) and 1048576 (hard); systemd gives services 1024 and 524288, \
          which LimitNOFILE= in the unit changes. 512 descriptors are counted for everything that is no listener.",
};

pub(super) const FILE_MAX: Check = Check {
    key: "file-max",
    run: file_max,
    price: "nothing until files are open: about 1 KiB of kernel memory each",
    measured: "a limit, not a speed: not measured here",
    consent: Consent::Given,
    why: "fs.file-max is the limit of open files of the whole machine, over all processes. It is set from the amount \
          of memory at start and is rarely too small; in small virtual machines it can be. At the limit accept \
          fails with ENFILE, for every program on the machine and not only for the relay.",
};

pub(super) const LOCKED_MEMORY: Check = Check {
    key: "locked-memory",
    run: locked_memory,
    price: "what is locked cannot be swapped out, in every login and in the relay's unit",
    measured: "64 KiB by copy 6.5 µs, by registered zero copy 2.6 µs; equal at 4 KiB (transmit path alone)",
    consent: Consent::Asked,
    why: "Zero-copy sends from registered buffers need the channel's ring locked in memory, counted against \
          RLIMIT_MEMLOCK unless the process has CAP_IPC_LOCK. A ring is 4 MiB or more and mapped twice in a row.\n\n\
          Where registration is refused, sends copy. Measured on the transmit path: 64 KiB by copy 6.5 µs, \
          by registered zero copy 2.6 µs; at 4 KiB both cost the same, and on loopback copying is always cheaper.",
};

pub(super) const MEMORY: Check = Check {
    key: "memory",
    run: memory,
    price: "memory",
    measured: "54 KiB of kernel memory per stalled listener with the relay's bounds, 2.8 MiB without any",
    consent: Consent::Given,
    why: "A listener takes less than 1 KiB of user memory; 4 KiB are reckoned with. The kernel's \
          share is larger: a listener that \
          has stopped reading was measured at 54 KiB with the relay's bounds (2.8 MiB without any); 80 KiB are \
          reckoned with. On an ordinary evening one in ten is stalled; when an uplink fails, all of them are.",
};

/// A limit of this process as (soft, hard); `u64::MAX` stands for unlimited.
fn limit(host: &dyn Host, name: &str) -> Option<(u64, u64)> {
    limit_in(&host.read("/proc/self/limits")?, name)
}

/// A limit in the text of `/proc/PID/limits`.
pub(super) fn limit_in(text: &str, name: &str) -> Option<(u64, u64)> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let value = |word: &str| {
        if word == "unlimited" {
            Some(u64::MAX)
        } else {
            word.parse().ok()
        }
    };
    let mut words = rest.split_whitespace();
    Some((value(words.next()?)?, value(words.next()?)?))
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX {
        "unlimited".into()
    } else {
        limit.to_string()
    }
}

fn open_files(host: &dyn Host, demand: &Demand) -> Row {
    let need = demand.listeners + OTHER_FILES;
    let wanted = format!("{need}: {} listeners and {OTHER_FILES} others", demand.listeners);
    let Some((soft, hard)) = limit(host, "Max open files") else {
        return Row::not_here(wanted);
    };
    let round = need.next_power_of_two();
    let found = format!("soft {}, hard {}", shown(soft), shown(hard));
    if soft >= need {
        return Row::new(Status::Ok, found, wanted).cost("accept fails with EMFILE at the limit");
    }
    if hard >= need {
        let row = Row::new(Status::Advice, found, wanted)
            .cost(format!(
                "unless the program raises its own soft limit, listener {} is refused",
                soft_room(soft)
            ))
            .change(format!("ulimit -n {}  # this shell, now", round.min(hard)));
        return kept(host, row, round, hard);
    }
    let row = Row::new(Status::Problem, found, wanted).cost(format!(
        "listener {} and all that come later are refused (EMFILE)",
        soft_room(hard)
    ));
    let row = row
        .change(format!(
            "prlimit --pid $$ --nofile={round}:{round}  # as root: this shell, now"
        ))
        .change(format!("systemctl edit relay  # [Service] LimitNOFILE={round}"));
    kept(host, row, round, hard)
}

/// With the files that keep a limit of descriptors for logins and for the relay's unit.
fn kept(host: &dyn Host, row: Row, round: u64, hard: u64) -> Row {
    let most = host.sysctl_numbers("fs.nr_open").first().copied();
    // A login that asks for more than fs.nr_open is refused as a whole; a sysctl is gone after a restart, a file is
    // not.
    if most.is_some_and(|most| most < round) {
        return row
            .raise("fs.nr_open", round)
            .change("keep fs.nr_open in /etc/sysctl.d before any limit above it goes into a file");
    }
    let hard = hard.min(most.unwrap_or(hard));
    files::add(host, row, &Limit::NOFILE, round, hard.max(round))
}

/// The first listener for whom a limit has no descriptor left.
fn soft_room(limit: u64) -> u64 {
    limit.saturating_sub(OTHER_FILES) + 1
}

fn file_max(host: &dyn Host, demand: &Demand) -> Row {
    let need = 2 * (demand.listeners + OTHER_FILES);
    let wanted = format!("{need} or more: twice what the relay opens");
    let Some(&most) = host.sysctl_numbers("fs.file-max").first() else {
        return Row::not_here(wanted);
    };
    let status = if most >= need { Status::Ok } else { Status::Problem };
    Row::new(status, most.to_string(), wanted)
        .cost("at the limit no program on this machine can open anything (ENFILE)")
        .raise("fs.file-max", need)
}

fn locked_memory(host: &dyn Host, _: &Demand) -> Row {
    let wanted = format!("{}, or CAP_IPC_LOCK", size(LOCKED_BYTES));
    let Some((soft, hard)) = limit(host, "Max locked memory") else {
        return Row::not_here(wanted);
    };
    let amount = if soft == u64::MAX { shown(soft) } else { size(soft) };
    let cost = "the rings of several channels cannot be registered, so large sends copy: up to 2.5 times the CPU per \
                byte on a card that supports zero copy";
    if capable(host, CAP_IPC_LOCK) {
        return Row::new(Status::Ok, format!("{amount}, and CAP_IPC_LOCK lifts it"), wanted).cost(cost);
    }
    let status = if soft >= LOCKED_BYTES {
        Status::Ok
    } else {
        Status::Advice
    };
    let kib = LOCKED_BYTES >> 10;
    let row = Row::new(status, amount, wanted).cost(cost).change(format!(
        "ulimit -l {kib}  # as root; in a unit: LimitMEMLOCK={}M",
        LOCKED_BYTES >> 20
    ));
    files::add(host, row, &Limit::MEMLOCK, LOCKED_BYTES, hard.max(LOCKED_BYTES))
}

/// An amount of `/proc/meminfo`, in bytes.
pub(super) fn meminfo(host: &dyn Host, name: &str) -> Option<u64> {
    let text = host.read("/proc/meminfo")?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())?;
    Some(kib.saturating_mul(1024))
}

fn memory(host: &dyn Host, demand: &Demand) -> Row {
    let user = demand.listeners * LISTENER_BYTES;
    let usual = user + demand.listeners / STALLED_SHARE * STALLED_BYTES;
    let worst = user + demand.listeners * STALLED_BYTES;
    let wanted = format!(
        "{} with one listener in ten stalled, {} with all stalled",
        size(usual),
        size(worst)
    );
    let Some(available) = meminfo(host, "MemAvailable:") else {
        return Row::not_here(wanted);
    };
    let (status, cost) = match available {
        _ if available < usual => (
            Status::Problem,
            "the machine swaps or kills before the hall is full",
        ),
        _ if available < worst => (
            Status::Advice,
            "when the uplink fails and all stall, memory runs out",
        ),
        _ => (Status::Ok, "the machine swaps or kills when memory runs out"),
    };
    Row::new(status, format!("{} available", size(available)), wanted).cost(cost)
}
