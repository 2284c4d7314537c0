//! How TCP paces and paints its backlog.

use super::{Check, Demand, cards, size};
use crate::host::Host;
use crate::report::{Row, Status};

/// Below this a system-wide `tcp_notsent_lowat` wakes programs for every few packets, in bytes.
const LOWAT_LEAST: u64 = 16 << 10;
/// What the sysctl holds when there is no limit.
const LOWAT_NONE: u64 = 0xffff_ffff;

pub(super) const NOTSENT_LOWAT: Check = Check {
    key: "notsent-lowat",
    run: notsent_lowat,
    why: "TCP_NOTSENT_LOWAT says from which amount of unsent bytes a socket counts as full. It keeps the \
          backlog in the relay's shared ring, where it costs nothing per listener and can still be skipped, \
          instead of in the kernel, where it is copied and can not. The relay sets it on each of its sockets; \
          the system-wide net.ipv4.tcp_notsent_lowat only matters for other programs, unless it is so small \
          that every program is woken for every few packets.",
};

pub(super) const CONGESTION: Check = Check {
    key: "congestion",
    run: congestion,
    why: "bbr paces every socket. With the fq queue discipline on the card one timer serves all of them; without it \
          each socket has a timer of its own in the kernel, which costs CPU per listener and shows in every \
          measurement: comparisons on such a host should set cubic or reno per socket. For listeners over lossy \
          networks bbr with fq is the best pair, for a hall on a LAN cubic is as good.\n\n\
          net.core.default_qdisc is used for cards that appear later; `tc qdisc replace` changes one that is up. If fq \
          is unknown, the kernel was built without sch_fq.",
};

pub(super) const SLOW_START_IDLE: Check = Check {
    key: "slow-start-idle",
    run: slow_start_idle,
    why: "After a pause longer than a retransmission time-out (200 ms at least) TCP forgets how fast the path is and \
          begins again with about ten packets (net.ipv4.tcp_slow_start_after_idle = 1). A stream that is sent in \
          batches, pauses for a held source, or is just slow (audio) meets this again and again, and the next key \
          frame takes several round trips instead of one. 0 keeps the window. It has no effect with bbr, whose model \
          of the path outlives the pause.",
};

fn notsent_lowat(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "no limit, or 16 KiB and more; the relay sets its own per socket";
    let Some(&found) = host.sysctl_numbers("net.ipv4.tcp_notsent_lowat").first() else {
        return Row::not_here(wanted);
    };
    let status = if found >= LOWAT_LEAST {
        Status::Ok
    } else {
        Status::Advice
    };
    let shown = if found >= LOWAT_NONE {
        "no limit".into()
    } else {
        size(found)
    };
    Row::new(status, shown, wanted)
        .cost("other programs wake for every few packets and compete for the relay's CPU")
        .change(format!("sysctl -w net.ipv4.tcp_notsent_lowat={LOWAT_NONE}"))
}

fn congestion(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "bbr with fq, or cubic with any queue";
    let Some(control) = host.sysctl("net.ipv4.tcp_congestion_control") else {
        return Row::not_here(wanted);
    };
    let queue = host
        .sysctl("net.core.default_qdisc")
        .unwrap_or_else(|| "an unknown queue".into());
    let unpaced = control.starts_with("bbr") && queue != "fq";
    let status = if unpaced { Status::Advice } else { Status::Ok };
    let row = Row::new(status, format!("{control} with {queue}"), wanted)
        .cost("a kernel timer per listener instead of one per card: CPU that grows with the audience")
        .change("sysctl -w net.core.default_qdisc=fq");
    cards(host).iter().fold(row, |row, card| {
        row.change(format!("tc qdisc replace dev {card} root fq"))
    })
}

fn slow_start_idle(host: &dyn Host, _: &Demand) -> Row {
    let name = "net.ipv4.tcp_slow_start_after_idle";
    let Some(&found) = host.sysctl_numbers(name).first() else {
        return Row::not_here("0");
    };
    let bbr = host
        .sysctl("net.ipv4.tcp_congestion_control")
        .is_some_and(|control| control.starts_with("bbr"));
    let shown = if bbr && found != 0 {
        format!("{found}, but bbr does not heed it")
    } else {
        found.to_string()
    };
    let status = if found == 0 || bbr {
        Status::Ok
    } else {
        Status::Advice
    };
    Row::new(status, shown, "0")
        .cost("after each pause over 200 ms the next key frame takes several round trips instead of one")
        .change(format!("sysctl -w {name}=0"))
}
