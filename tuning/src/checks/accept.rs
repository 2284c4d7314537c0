//! The wave: everybody connects at once. Queues and tables on the way in, and ports on the crowd's side.

use super::{Check, Consent, Demand};
use crate::host::Host;
use crate::report::{Row, Status};

/// The kernel's own default backlog since 5.4.
const BACKLOG: u64 = 4096;
/// No queue needs to be longer: there is one per worker, and nobody waits in it for minutes.
const BACKLOG_MOST: u64 = 65_535;
/// Half-open connections that are remembered without cookies.
const SYN_BACKLOG_MIN: u64 = 2048;
/// Below this a wave of a few thousand loses connections for certain.
const BACKLOG_LEAST: u64 = 1024;
/// The part of the audience that arrives in one busy turn: all within a second, turns of 100 ms.
const WAVE_SHARE: u64 = 10;
/// The widest range of local ports that leaves the well-known service ports alone.
const WIDE_PORTS: (u64, u64) = (10240, 65535);

pub(super) const SOMAXCONN: Check = Check {
    key: "somaxconn",
    run: somaxconn,
    price: "kernel memory for connections that wait: about 2 KiB each, only in a wave; a slow server accepts later \
         instead of refusing",
    measured: "2000 connections at once to a program that does not accept, loopback: 129 are in with 128, all with \
         4096",
    consent: Consent::Given,
    why: "net.core.somaxconn caps the queue of connections that are complete and wait for accept. If the whole \
          audience arrives within a second and a worker's turn takes 100 ms, a tenth of it waits in this queue. \
          What does not fit is dropped without an answer; the client tries again a second or more later. It was \
          128 before kernel 5.4 and is 4096 since. `nstat -az TcpExtListenOverflows` counts what was lost.",
};

pub(super) const SYN_BACKLOG: Check = Check {
    key: "syn-backlog",
    run: syn_backlog,
    price: "about 300 bytes of kernel memory per half-open connection, only in a wave or under a SYN flood",
    measured: "not measured here",
    consent: Consent::Given,
    why: "net.ipv4.tcp_max_syn_backlog bounds half-open connections. Beyond it the kernel answers with SYN cookies \
          (net.ipv4.tcp_syncookies = 1): nobody is lost, but a connection made by cookie may lack window scaling and \
          SACK, and is slow over long distances for as long as it lives. Without cookies the SYN is dropped.",
};

pub(super) const MIGRATE_REQ: Check = Check {
    key: "migrate-req",
    run: migrate_req,
    price: "nothing measurable: a look-up when a listening socket closes",
    measured: "closing one of two listening sockets: 89 of 200 clients reset with 0, none with 1",
    consent: Consent::Given,
    why: "Each worker has its own listening socket on the same port (SO_REUSEPORT). When one of them closes, the \
          connections in its queue are reset unless net.ipv4.tcp_migrate_req is 1; then the kernel moves them to \
          another socket of the group (5.14 and newer). Measured while closing one of two sockets: 89 of 200 clients \
          reset with 0, none with 1. It matters when a node is restarted or replaced while people arrive.",
};

pub(super) const CONNTRACK: Check = Check {
    key: "conntrack",
    run: conntrack,
    price: "about 320 bytes of kernel memory per connection once it is there; look-ups grow longer where the hash \
         table stays as it is",
    measured: "not measured here",
    consent: Consent::Given,
    why: "Where a firewall or container network tracks connections, each listener is an entry in a table, and closed \
          ones stay for up to two minutes. When the table is full the kernel drops every new connection and logs \
          `nf_conntrack: table full, dropping packet`. An entry costs about 320 bytes. Not tracking the relay's port \
          at all is cheaper still: `nft add rule … tcp dport 8000 notrack` in a raw prerouting chain.",
};

pub(super) const LOCAL_PORTS: Check = Check {
    key: "local-ports",
    run: local_ports,
    price: "outgoing connections may take a port from 10240 on that a service wants to listen on when it starts later",
    measured: "28232 connections per source address with the kernel's default",
    consent: Consent::Asked,
    why: "Not for the relay but for a crowd that `bench-harness listeners` makes on this machine: from one source \
          address to one port, every connection needs a local port of its own from \
          net.ipv4.ip_local_port_range (28232 of them by default). A loopback crowd can use further source addresses: \
          all of 127.0.0.0/8 is there.",
};

/// A single sysctl number that should be at least `wanted`; `least` is the edge between advice and problem.
fn at_least(host: &dyn Host, name: &str, wanted: u64, least: u64, cost: &str) -> Row {
    let text = format!("{wanted} or more");
    let Some(&found) = host.sysctl_numbers(name).first() else {
        return Row::not_here(text);
    };
    let status = match found {
        _ if found >= wanted => Status::Ok,
        _ if found >= least => Status::Advice,
        _ => Status::Problem,
    };
    Row::new(status, found.to_string(), text)
        .cost(cost)
        .raise(name, wanted)
}

fn somaxconn(host: &dyn Host, demand: &Demand) -> Row {
    let wanted = (demand.listeners / WAVE_SHARE).clamp(BACKLOG, BACKLOG_MOST);
    let cost =
        "in a wave, connections that do not fit the queue are dropped and come back a second or more later";
    at_least(host, "net.core.somaxconn", wanted, BACKLOG_LEAST, cost)
}

fn syn_backlog(host: &dyn Host, demand: &Demand) -> Row {
    let wanted = (demand.listeners / WAVE_SHARE).clamp(SYN_BACKLOG_MIN, BACKLOG_MOST);
    let cookies = host
        .sysctl_numbers("net.ipv4.tcp_syncookies")
        .first()
        .is_none_or(|&on| on > 0);
    let (least, cost) = if cookies {
        (
            0,
            "in a wave, some connections are made by SYN cookie and may stay slow over long distances",
        )
    } else {
        (
            BACKLOG_LEAST,
            "in a wave, connections are dropped before they begin, as SYN cookies are off",
        )
    };
    at_least(host, "net.ipv4.tcp_max_syn_backlog", wanted, least, cost)
}

fn migrate_req(host: &dyn Host, _: &Demand) -> Row {
    let cost = "when one of several listening sockets closes, what waits in its queue is reset: 89 of 200 clients \
                measured, none with 1";
    Row {
        wanted: "1".into(),
        ..at_least(host, "net.ipv4.tcp_migrate_req", 1, 0, cost)
    }
}

fn conntrack(host: &dyn Host, demand: &Demand) -> Row {
    let name = "net.netfilter.nf_conntrack_max";
    let wanted = demand.listeners * 2;
    let least = demand.listeners + demand.listeners / 10;
    let cost = "when the table is full, every new connection to this machine is dropped";
    let row = at_least(host, name, wanted, least, cost);
    let count = host
        .sysctl_numbers("net.netfilter.nf_conntrack_count")
        .first()
        .copied();
    match count {
        Some(count) if row.found != "not here" => Row {
            found: format!("{}, {count} in use", row.found),
            ..row
        },
        _ => row,
    }
}

fn local_ports(host: &dyn Host, demand: &Demand) -> Row {
    let wanted = format!("{} ports for a crowd from one address", demand.listeners);
    let [first, last] = host.sysctl_numbers("net.ipv4.ip_local_port_range")[..] else {
        return Row::not_here(wanted);
    };
    let ports = last.saturating_add(1).saturating_sub(first);
    let status = if ports >= demand.listeners {
        Status::Ok
    } else {
        Status::Advice
    };
    let row = Row::new(status, format!("{first} to {last}: {ports} ports"), wanted).cost(format!(
        "a crowd on this machine ends at {ports} connections per source address (EADDRNOTAVAIL)"
    ));
    let widest = WIDE_PORTS.1 - WIDE_PORTS.0 + 1;
    if ports >= widest {
        return row;
    }
    let widest = format!("{} {}", first.min(WIDE_PORTS.0), last.max(WIDE_PORTS.1));
    row.switch("net.ipv4.ip_local_port_range", widest)
}
