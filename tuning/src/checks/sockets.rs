//! Memory of sockets: what one may ask for, what TCP gives by itself, and what all of them together may take.

use super::limits::{STALLED_BYTES, STALLED_SHARE, meminfo};
use super::{Check, Consent, Demand, size};
use crate::host::Host;
use crate::report::{Row, Status};

/// Receive buffer that carries a team's or swarm's bursts, in bytes.
const UDP_RECEIVE: u64 = 4 << 20;
/// The kernel's own default of `wmem_max`, in bytes; covers the send buffer that the relay asks for (128 KiB).
const SEND_MAX: u64 = 212_992;
/// Window of a link between nodes that are 100 ms apart, at 80 Mb/s, in bytes.
const LINK_WINDOW: u64 = 1 << 20;
/// Bytes of a page where the host does not say.
const PAGE: u64 = 4096;

pub(super) const RMEM_MAX: Check = Check {
    key: "rmem-max",
    run: rmem_max,
    price: "any program may ask for as much: up to 8 MiB of kernel memory per socket that does",
    measured: "datagrams of 1,316 bytes that a socket holds unread, loopback: 184 with 208 KiB, 3640 with 4 MiB",
    consent: Consent::Given,
    why: "net.core.rmem_max caps what a program may ask for with SO_RCVBUF. TCP does not need it (see tcp-rmem); UDP \
          does: teams and swarms receive whole bursts while a worker is busy with something else. A datagram of \
          1,316 bytes occupies about 2.3 KiB of buffer, so the default of 208 KiB, which the kernel \
          doubles, holds less than two hundred of them. \
          What does not fit is lost and has to be asked for again; `nstat -az UdpRcvbufErrors` counts it.",
};

pub(super) const WMEM_MAX: Check = Check {
    key: "wmem-max",
    run: wmem_max,
    price: "any program may ask for as much, per socket",
    measured: "a stalled listener holds 54 KiB with the relay's bounds, 2.8 MiB without any",
    consent: Consent::Given,
    why: "net.core.wmem_max caps what a program may ask for with SO_SNDBUF, silently. The relay asks for 128 KiB per \
          listener, to bound what a stalled one costs the kernel: 54 KiB measured (what is unsent is bounded too), \
          2.8 MiB without. The bound is also the most that can be on its way to one listener: 128 KiB over 100 ms is \
          10 Mb/s, so for high rates over long distances the relay's own setting is the one to raise, and this \
          must not be below it.",
};

pub(super) const TCP_RMEM: Check = Check {
    key: "tcp-rmem",
    run: tcp_rmem,
    price: "up to 4 MiB of kernel memory for a receiver that is slower than its sender; tcp_mem bounds the sum",
    measured: "not measured here",
    consent: Consent::Given,
    why: "net.ipv4.tcp_rmem (smallest, first, largest) is how far TCP grows a receive window by itself. A link between \
          nodes carries at most window / round-trip time: 1 MiB over 100 ms is 80 Mb/s. Sources and links receive, \
          listeners hardly do, so a large third number costs a relay nothing.",
};

pub(super) const TCP_WMEM: Check = Check {
    key: "tcp-wmem",
    run: tcp_wmem,
    price: "up to 4 MiB of kernel memory per stalled reader of servers that set no bound; the relay sets one",
    measured: "2.8 MiB per stalled reader without a bound, 80 KiB with one of 64 KiB",
    consent: Consent::Given,
    why: "net.ipv4.tcp_wmem (smallest, first, largest) is how far TCP grows a send buffer by itself where the program \
          has not set one. The relay bounds its listeners and leaves links to TCP, so the third number decides what a \
          link over a long distance carries: 1 MiB over 100 ms is 80 Mb/s. A server that does not bound its listeners \
          pays up to this number for each one that stops reading.",
};

pub(super) const TCP_MEM: Check = Check {
    key: "tcp-mem",
    run: tcp_mem,
    price: "memory: TCP may hold more of it before the kernel says no; never set beyond half of the machine's",
    measured: "80 KiB of kernel memory per stalled listener",
    consent: Consent::Given,
    why: "net.ipv4.tcp_mem (low, pressure, most; in pages) bounds the memory of all TCP sockets together. Above \
          `pressure` the kernel takes buffer space from every socket; above `most` it refuses memory and drops \
          segments: healthy listeners stutter because others have stopped reading. A listener that has stopped was \
          measured at 80 KiB; /proc/net/sockstat shows the sum (`TCP: … mem`, in pages).\n\n\
          The defaults are about 5, 6 and 9 % of the machine's memory. Raising them is safe as long as `most` stays \
          below half of it.",
};

fn rmem_max(host: &dyn Host, _: &Demand) -> Row {
    let cost = "a UDP burst longer than the buffer is lost and asked for again; no effect on HTTP listeners";
    bytes_at_least(host, "net.core.rmem_max", UDP_RECEIVE, cost)
}

fn wmem_max(host: &dyn Host, _: &Demand) -> Row {
    let cost = "send buffers are cut below what the relay asks for: fewer bytes on the way, lower rates over distance";
    bytes_at_least(host, "net.core.wmem_max", SEND_MAX, cost)
}

fn bytes_at_least(host: &dyn Host, name: &str, wanted: u64, cost: &str) -> Row {
    let text = format!("{} or more", size(wanted));
    let Some(&found) = host.sysctl_numbers(name).first() else {
        return Row::not_here(text);
    };
    let status = if found >= wanted {
        Status::Ok
    } else {
        Status::Advice
    };
    Row::new(status, size(found), text).cost(cost).raise(name, wanted)
}

fn tcp_rmem(host: &dyn Host, _: &Demand) -> Row {
    grows_to(
        host,
        "net.ipv4.tcp_rmem",
        "a link or a source over 100 ms receives at most",
    )
}

fn tcp_wmem(host: &dyn Host, _: &Demand) -> Row {
    grows_to(host, "net.ipv4.tcp_wmem", "a link over 100 ms carries at most")
}

/// A triple whose third number is the largest window.
fn grows_to(host: &dyn Host, name: &str, cost: &str) -> Row {
    let wanted = format!("{} or more as the largest", size(LINK_WINDOW));
    let [least, first, most] = host.sysctl_numbers(name)[..] else {
        return Row::not_here(wanted);
    };
    let status = if most >= LINK_WINDOW {
        Status::Ok
    } else {
        Status::Advice
    };
    let megabits = most.saturating_mul(80) as f64 / 1e6;
    Row::new(
        status,
        format!("{}, {}, {}", size(least), size(first), size(most)),
        wanted,
    )
    .cost(format!("{cost} {megabits:.0} Mb/s"))
    .raise(name, format!("{least} {first} {}", 4 * LINK_WINDOW))
}

fn tcp_mem(host: &dyn Host, demand: &Demand) -> Row {
    let all = demand.listeners * STALLED_BYTES;
    let wanted = format!(
        "pressure above {}: {} listeners, all stalled",
        size(all),
        demand.listeners
    );
    let [_, pressure, most] = host.sysctl_numbers("net.ipv4.tcp_mem")[..] else {
        return Row::not_here(wanted);
    };
    let page = page_bytes(host);
    let [pressure, most] = [pressure, most].map(|pages| pages.saturating_mul(page));
    let (status, cost) = match () {
        () if all / STALLED_SHARE > most => (
            Status::Problem,
            "one stalled listener in ten is enough for the kernel to drop everybody's segments",
        ),
        () if all > most => (
            Status::Advice,
            "when the uplink fails and all stall, the kernel drops segments, links and sources too",
        ),
        () if all > pressure => (
            Status::Advice,
            "when the uplink fails and all stall, every socket's buffers shrink",
        ),
        () => (
            Status::Ok,
            "above pressure buffers shrink, above most segments are dropped",
        ),
    };
    let row = Row::new(
        status,
        format!("pressure {}, most {}", size(pressure), size(most)),
        wanted,
    )
    .cost(cost);
    // Steps of a quarter: low, pressure, most.
    let step = all / page / 4 + 1;
    let triple = format!("{} {} {}", 4 * step, 5 * step, 6 * step);
    let half = meminfo(host, "MemTotal:").map(|bytes| bytes / 2);
    if half.is_some_and(|half| 6 * step > half / page) {
        return row.change(format!(
            "more memory, or fewer listeners: tcp_mem='{triple}' is more than half of this machine's"
        ));
    }
    row.raise("net.ipv4.tcp_mem", triple)
}

fn page_bytes(host: &dyn Host) -> u64 {
    let maps = host.read("/proc/self/smaps").unwrap_or_default();
    let kib = maps
        .lines()
        .find_map(|line| line.strip_prefix("KernelPageSize:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .map_or(PAGE, |kib| kib.saturating_mul(1024).max(1))
}
