//! How TCP paces and paints its backlog.

use super::{Check, Consent, Demand, cards, size};
use crate::host::Host;
use crate::machine::{BY_DEFAULT, qdisc};
use crate::place::Place;
use crate::report::{Row, Status};

/// Below this a system-wide `tcp_notsent_lowat` wakes programs for every few packets, in bytes.
const LOWAT_LEAST: u64 = 16 << 10;
/// What the sysctl holds when there is no limit.
const LOWAT_NONE: u64 = 0xffff_ffff;

pub(super) const NOTSENT_LOWAT: Check = Check {
    key: "notsent-lowat",
    run: notsent_lowat,
    price: "programs that relied on the small value hold more unsent bytes in the kernel, up to their send buffers",
    measured: "not measured here",
    consent: Consent::Given,
    why: "TCP_NOTSENT_LOWAT says from which amount of unsent bytes a socket counts as full. It keeps the backlog \
          in the relay's shared ring, where it costs nothing per listener and can still be skipped, instead of in \
          the kernel, where it is copied and can not. The relay sets it on each of its sockets; the system-wide \
          net.ipv4.tcp_notsent_lowat only matters for other programs, unless it is so small that every program is \
          woken for every few packets.",
};

pub(super) const CONGESTION: Check = Check {
    key: "congestion",
    run: congestion,
    price: "cards that appear later get fq: a little more CPU per packet than pfifo_fast where nobody paces",
    measured: "not measured here",
    consent: Consent::Given,
    why: "bbr paces every socket. With the fq queue discipline on the card one timer serves all of them; without \
          it each socket has a timer of its own in the kernel, which costs CPU per listener and shows in every \
          measurement: comparisons on such a host should set cubic or reno per socket. For listeners over lossy \
          networks bbr with fq is the best pair, for a hall on a LAN cubic is as good.\n\n\
          net.core.default_qdisc is used for cards that appear later; `tc qdisc replace` changes one that is up. \
          If fq is unknown, the kernel was built without sch_fq.",
};

pub(super) const QDISC: Check = Check {
    key: "qdisc",
    run: card_qdisc,
    price: "what waits in the card's queue at that moment is dropped, once; fq costs a little more CPU per packet",
    measured: "not measured here",
    consent: Consent::Given,
    why: "net.core.default_qdisc (see congestion) only counts for cards that appear later. A card that is up keeps \
          the queue that the kernel gave it, until it is replaced: by fq on a card with one queue, by a new mq \
          root on a card with many, whose children then are of the default kind. A queue that somebody has \
          configured is never touched, nor noqueue, which virtual devices have because they never hold a packet.",
};

pub(super) const SLOW_START_IDLE: Check = Check {
    key: "slow-start-idle",
    run: slow_start_idle,
    price: "after a pause the first burst goes out at the old rate; on a path that has become slower meanwhile it \
         loses packets",
    measured: "not measured here",
    consent: Consent::Given,
    why: "After a pause longer than a retransmission time-out (200 ms at least) TCP forgets how fast the path is \
          and begins again with about ten packets (net.ipv4.tcp_slow_start_after_idle = 1). A stream that is sent \
          in batches, pauses for a held source, or is just slow (audio) meets this again and again, and the next \
          key frame takes several round trips instead of one. 0 keeps the window. It has no effect with bbr, whose \
          model of the path outlives the pause.",
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
        .raise("net.ipv4.tcp_notsent_lowat", LOWAT_NONE)
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
        .cost("a kernel timer per listener instead of one per card: CPU that grows with the audience");
    if !knows_fq(host) {
        return row.change("modprobe sch_fq  # this kernel does not seem to have it; cubic needs no queue");
    }
    let row = row.switch("net.core.default_qdisc", "fq");
    cards(host).iter().fold(row, |row, card| {
        row.change(format!("tc qdisc replace dev {card} root fq"))
    })
}

/// Whether the kernel has fq: in use, built in, loaded, or to be had as a module.
fn knows_fq(host: &dyn Host) -> bool {
    let release = host.sysctl("kernel.osrelease").unwrap_or_default();
    let modules = |list: &str| host.has(&format!("/lib/modules/{release}/{list}"), "/sch_fq.ko");
    host.sysctl("net.core.default_qdisc").as_deref() == Some("fq")
        || modules("modules.builtin")
        || modules("modules.dep")
        || host.has("/proc/kallsyms", " fq_qdisc_ops")
}

fn card_qdisc(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "fq on each card, where bbr paces";
    let queues: Vec<(String, String)> = cards(host)
        .into_iter()
        .filter_map(|card| Some((qdisc(host, &card)?, card)))
        .collect();
    if queues.is_empty() {
        return Row::not_here(wanted);
    }
    let found: Vec<String> = queues
        .iter()
        .map(|(queue, card)| format!("{card}: {queue}"))
        .collect();
    let bbr = host
        .sysctl("net.ipv4.tcp_congestion_control")
        .is_some_and(|control| control.starts_with("bbr"));
    // What somebody has chosen stays; noqueue belongs to devices that never hold a packet.
    let plain: Vec<_> = queues
        .iter()
        .filter(|(queue, _)| queue.ends_with(BY_DEFAULT) && !queue.starts_with("noqueue") && !fair(queue))
        .collect();
    let status = if bbr && !plain.is_empty() && knows_fq(host) {
        Status::Advice
    } else {
        Status::Ok
    };
    let row = Row::new(status, found.join("; "), wanted)
        .cost("a kernel timer per listener instead of one per card: CPU that grows with the audience");
    plain.iter().fold(row, |row, (queue, card)| {
        let kind = if queue.starts_with("mq ") { "mq" } else { "fq" };
        row.change(format!("tc qdisc replace dev {card} root {kind}"))
            .set(Place::Qdisc { card: card.clone() }, kind, false)
    })
}

/// fq at the root, or under each queue of a card that has many.
fn fair(queue: &str) -> bool {
    let queue = queue.trim_end_matches(BY_DEFAULT);
    queue == "fq" || queue == "mq of fq"
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
        .switch(name, 0)
}
