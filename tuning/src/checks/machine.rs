//! The machine itself: pages, clock rates, and how the card's work is spread over CPUs.

use super::nic::Card;
use super::{Check, Consent, Demand, cards, cpus};
use crate::host::Host;
use crate::machine::chosen;
use crate::place::{Place, SHMEM_ENABLED};
use crate::report::{Row, Status};

/// 2 MiB pages that hold the rings of some channels.
const HUGE_PAGES_WANTED: u64 = 64;
/// Packets that may wait per CPU when packets have been dropped with fewer.
const NETDEV_BACKLOG_WANTED: u64 = 4096;

pub(super) const HUGE_PAGES: Check = Check {
    key: "huge-pages",
    run: huge_pages,
    price: "shared memory of every program is given out in steps of 2 MiB within its size: more memory in use at \
         once, and the kernel works to find it whole",
    measured: "for zero-copy UDP sends of 48 segments, memory on huge pages: 5 % less CPU registered, 22 % \
         unregistered; not measured with the relay's own ring",
    consent: Consent::Asked,
    why: "A channel's ring is shared memory, sixteen memfds of equal length. Those of at least 2 MiB (rings of 32 MiB) \
          get pages of 2 MiB if there are any reserved (see reserved-pages), else only if transparent huge \
          pages are allowed for shared memory: `within_size` and `always` do; `advise` only where a program asks \
          with madvise, which the relay does not. Fewer, larger pages cost zero-copy sends less to pin. Copying \
          sends gain little.",
};

pub(super) const RESERVED_PAGES: Check = Check {
    key: "reserved-pages",
    run: reserved_pages,
    price: "128 MiB that nothing else on the machine can use, from now on",
    measured: "as huge-pages; not measured with the relay's own ring",
    consent: Consent::Asked,
    why: "vm.nr_hugepages reserves pages of 2 MiB for programs that ask for them by name. The relay's rings do \
          from 16 MiB on, and make do with ordinary pages where there are none; smaller rings have no use for \
          them. The kernel reserves as many as it finds whole, which on a machine that \
          has run for long may be fewer; the journal notes how many it took.",
};

pub(super) const CPU_GOVERNOR: Check = Check {
    key: "cpu-governor",
    run: cpu_governor,
    price: "power and heat: the clock stays up while nothing happens",
    measured: "not measured here",
    consent: Consent::Given,
    why: "A worker sleeps between batches, so a governor that waits for load before it raises the clock sees a \
          lightly loaded CPU and keeps it slow: every batch takes longer, and the first seconds of a wave are the \
          worst. `performance` keeps the clock up. Virtual machines usually have no governor; their host has. With \
          a fixed clock measurements are comparable, too.",
};

pub(super) const NIC_QUEUES: Check = Check {
    key: "nic-queues",
    run: nic_queues,
    price: "changing the number of queues restarts most cards: the link is gone for up to some seconds",
    measured: "not measured here",
    consent: Consent::Given,
    why: "A card with one receive queue per CPU, and each queue's interrupt on its own CPU, lets a connection live \
          on one CPU from interrupt to worker. With fewer queues, or with all interrupts on one CPU, that CPU is \
          busy with packets while the others wait, and connections are handed over between workers.\n\n\
          `ethtool -l CARD` shows how many queues the card has, `ethtool -L CARD combined N` sets them; irqbalance \
          or /proc/irq/N/smp_affinity_list spreads interrupts. A relay on loopback or behind a virtual card with a \
          single queue works all the same. This check only reads.",
};

pub(super) const NETDEV_BACKLOG: Check = Check {
    key: "netdev-backlog",
    run: netdev_backlog,
    price: "memory in a burst: up to 4096 packets per CPU wait instead of being dropped, and wait longer",
    measured: "not measured here",
    consent: Consent::Given,
    why: "net.core.netdev_max_backlog bounds the packets that wait on each CPU between a virtual device (loopback, \
          veth, or a card with packet steering) and the protocol stack. A crowd or a repeater on the same machine \
          can fill it in one burst; what does not fit is dropped, TCP sends it again, and latency shows it. The \
          second column of /proc/net/softnet_stat counts the drops since start, which is what this check looks at: \
          the default of 1000 is fine until it is not.",
};

fn huge_pages(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "`within_size` or `always` for shared memory";
    let shmem = host.read(SHMEM_ENABLED);
    let Some(mode) = shmem.as_deref().map(chosen) else {
        return Row::not_here(wanted);
    };
    let given = ["within_size", "always", "force"].contains(&mode);
    let status = if given { Status::Ok } else { Status::Advice };
    Row::new(status, mode, wanted)
        .cost("up to 5 % (registered) to 22 % more CPU for large zero-copy sends")
        .change(format!("echo within_size > {SHMEM_ENABLED}"))
        .set(Place::File(SHMEM_ENABLED.into()), "within_size", false)
}

fn reserved_pages(host: &dyn Host, _: &Demand) -> Row {
    let name = "vm.nr_hugepages";
    let wanted = format!("none; {HUGE_PAGES_WANTED} for rings of 16 MiB or more");
    let Some(&found) = host.sysctl_numbers(name).first() else {
        return Row::not_here(wanted);
    };
    // Only large rings ask, and they make do without, so none is no fault.
    Row::new(Status::Ok, format!("{found} reserved"), wanted)
        .cost("nothing for rings below 16 MiB; larger ones are put into ordinary pages")
        .offer(Place::sysctl(name), HUGE_PAGES_WANTED, true)
}

fn cpu_governor(host: &dyn Host, _: &Demand) -> Row {
    let folder = "/sys/devices/system/cpu";
    let governors = host.list(folder).into_iter().filter_map(|cpu| {
        cpu.strip_prefix("cpu")?.parse::<u32>().ok()?;
        let path = format!("{folder}/{cpu}/cpufreq/scaling_governor");
        Some((host.read(&path)?, path))
    });
    let governors: Vec<(String, String)> = governors.collect();
    let Some((first, _)) = governors.first() else {
        return Row::not_here("performance");
    };
    let slow: Vec<_> = governors
        .iter()
        .filter(|(governor, _)| governor != "performance")
        .collect();
    let status = if slow.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let row = Row::new(
        status,
        slow.first().map_or(first, |(governor, _)| governor),
        "performance",
    )
    .cost("the clock is low when a wave arrives and between batches; measurements vary with it")
    .change("cpupower frequency-set -g performance");
    slow.iter().fold(row, |row, (_, path)| {
        row.set(Place::File(path.clone()), "performance", false)
    })
}

fn nic_queues(host: &dyn Host, _: &Demand) -> Row {
    let cpus = cpus(host);
    let wanted = format!("a receive queue per CPU ({cpus}), as far as the card has them");
    let cards: Vec<Card> = cards(host)
        .into_iter()
        .map(|name| Card::read(host, name))
        .collect();
    if cards.is_empty() {
        return Row::not_here(wanted);
    }
    let found: Vec<String> = cards.iter().map(Card::describe).collect();
    let can = |card: &Card| card.queues_most(host).is_none_or(|most| card.queues < most);
    let narrow: Vec<&Card> = cards
        .iter()
        .filter(|card| card.queues < cpus && can(card))
        .collect();
    let status = if narrow.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let cost = "one CPU handles the packets of all, and is full before the others";
    let row = Row::new(status, found.join("; "), wanted).cost(cost);
    narrow.iter().fold(row, |row, card| {
        row.change(format!(
            "ethtool -L {} combined {cpus}  # if the card can",
            card.name
        ))
    })
}

fn netdev_backlog(host: &dyn Host, _: &Demand) -> Row {
    let name = "net.core.netdev_max_backlog";
    let wanted = format!("no drops, or {NETDEV_BACKLOG_WANTED} and more");
    let Some(&found) = host.sysctl_numbers(name).first() else {
        return Row::not_here(wanted);
    };
    let softnet = host.read("/proc/net/softnet_stat").unwrap_or_default();
    let drops = softnet
        .lines()
        .filter_map(|cpu| u64::from_str_radix(cpu.split_whitespace().nth(1)?, 16).ok());
    let drops = drops.fold(0, u64::saturating_add);
    let status = if drops == 0 || found >= NETDEV_BACKLOG_WANTED {
        Status::Ok
    } else {
        Status::Advice
    };
    Row::new(status, format!("{found}, {drops} dropped since start"), wanted)
        .cost("bursts between programs on this machine lose packets, which TCP sends again later")
        .raise(name, NETDEV_BACKLOG_WANTED)
}
