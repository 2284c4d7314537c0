//! The machine itself: pages, clock rates, and how the card's work is spread over CPUs.

use super::{Check, Demand, cards, cpus, list_count};
use crate::host::Host;
use crate::report::{Row, Status};

/// 2 MiB pages that hold the rings of some channels.
const HUGE_PAGES_WANTED: u64 = 64;
/// Packets that may wait per CPU when packets have been dropped with fewer.
const NETDEV_BACKLOG_WANTED: u64 = 4096;
/// Where shared memory's transparent huge pages are switched.
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

pub(super) const HUGE_PAGES: Check = Check {
    key: "huge-pages",
    run: huge_pages,
    why: "A channel's ring is shared memory, which uses huge pages only if some are reserved (vm.nr_hugepages) or if \
          transparent ones are allowed for shared memory (shmem_enabled = advise, within_size or always). Measured for \
          zero-copy UDP sends of 48 segments: 5 % less CPU with registered buffers, 22 % without. Copying sends gain \
          little. Reserved pages are taken from everything else on the machine; `advise` costs nothing.",
};

pub(super) const CPU_GOVERNOR: Check = Check {
    key: "cpu-governor",
    run: cpu_governor,
    why: "A worker sleeps between batches, so a governor that waits for load before it raises the clock sees a lightly \
          loaded CPU and keeps it slow: every batch takes longer, and the first seconds of a wave are the worst. \
          `performance` keeps the clock up. Virtual machines usually have no governor; their host has. With a fixed \
          clock measurements are comparable, too.",
};

pub(super) const NIC_QUEUES: Check = Check {
    key: "nic-queues",
    run: nic_queues,
    why: "A card with one receive queue per CPU, and each queue's interrupt on its own CPU, lets a connection live on \
          one CPU from interrupt to worker. With fewer queues, or with all interrupts on one CPU, that CPU is busy \
          with packets while the others wait, and connections are handed over between workers.\n\n\
          `ethtool -l CARD` shows how many queues the card has, `ethtool -L CARD combined N` sets them; irqbalance or \
          /proc/irq/N/smp_affinity_list spreads interrupts. A relay on loopback or behind a virtual card with a single \
          queue works all the same. This check only reads.",
};

pub(super) const NETDEV_BACKLOG: Check = Check {
    key: "netdev-backlog",
    run: netdev_backlog,
    why: "net.core.netdev_max_backlog bounds the packets that wait on each CPU between a virtual device (loopback, \
          veth, or a card with packet steering) and the protocol stack. A crowd or a repeater on the same machine can \
          fill it in one burst; what does not fit is dropped, TCP sends it again, and latency shows it. The second \
          column of /proc/net/softnet_stat counts the drops since start, which is what this check looks at: the \
          default of 1000 is fine until it is not.",
};

/// The value in brackets, as in `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(value, _)| value)
}

fn huge_pages(host: &dyn Host, _: &Demand) -> Row {
    let wanted = format!("{HUGE_PAGES_WANTED} reserved, or `advise` for shared memory");
    let reserved = host.sysctl_numbers("vm.nr_hugepages").first().copied();
    let shmem = host.read(SHMEM_ENABLED);
    let mode = shmem.as_deref().and_then(chosen);
    if reserved.is_none() && mode.is_none() {
        return Row::not_here(wanted);
    }
    let advised = mode.is_some_and(|mode| mode != "never" && mode != "deny");
    let status = if advised || reserved >= Some(HUGE_PAGES_WANTED) {
        Status::Ok
    } else {
        Status::Advice
    };
    let found = format!(
        "{} reserved, shared memory: {}",
        reserved.unwrap_or(0),
        mode.unwrap_or("not here")
    );
    let row =
        Row::new(status, found, wanted).cost("5 % (registered) to 22 % more CPU for large zero-copy sends");
    if mode.is_some() {
        return row.change(format!("echo advise > {SHMEM_ENABLED}"));
    }
    row.change(format!("sysctl -w vm.nr_hugepages={HUGE_PAGES_WANTED}"))
}

fn cpu_governor(host: &dyn Host, _: &Demand) -> Row {
    let folder = "/sys/devices/system/cpu";
    let governors = host.list(folder).into_iter().filter_map(|cpu| {
        cpu.strip_prefix("cpu")?.parse::<u32>().ok()?;
        host.read(&format!("{folder}/{cpu}/cpufreq/scaling_governor"))
    });
    let governors: Vec<String> = governors.collect();
    let Some(first) = governors.first() else {
        return Row::not_here("performance");
    };
    let slow = governors.iter().find(|governor| *governor != "performance");
    let status = if slow.is_some() {
        Status::Advice
    } else {
        Status::Ok
    };
    Row::new(status, slow.unwrap_or(first).as_str(), "performance")
        .cost("the clock is low when a wave arrives and between batches; measurements vary with it")
        .change("cpupower frequency-set -g performance")
}

fn nic_queues(host: &dyn Host, _: &Demand) -> Row {
    let cpus = cpus(host);
    let wanted = format!("a receive queue per CPU ({cpus}), interrupts on more than one CPU");
    let cards: Vec<Card> = cards(host)
        .into_iter()
        .map(|name| Card::read(host, name))
        .collect();
    if cards.is_empty() {
        return Row::not_here(wanted);
    }
    let found: Vec<String> = cards.iter().map(Card::describe).collect();
    let narrow: Vec<&Card> = cards
        .iter()
        .filter(|card| card.queues < cpus || card.crowded(cpus))
        .collect();
    let status = if narrow.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let cost = "one CPU handles the packets of all, and is full before the others";
    let row = Row::new(status, found.join("; "), wanted).cost(cost);
    narrow.iter().fold(row, |row, card| {
        if card.queues < cpus {
            row.change(format!(
                "ethtool -L {} combined {cpus}  # if the card can",
                card.name
            ))
        } else {
            row.change(format!(
                "apt-get install irqbalance  # spreads the interrupts of {}",
                card.name
            ))
        }
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
        .change(format!("sysctl -w {name}={NETDEV_BACKLOG_WANTED}"))
}

/// A network card's queues and interrupts.
struct Card {
    name: String,
    queues: usize,
    interrupts: usize,
    /// The CPUs that serve the interrupts, as the kernel lists them; without repetitions.
    on: Vec<String>,
}

impl Card {
    fn read(host: &dyn Host, name: String) -> Self {
        let folder = format!("/sys/class/net/{name}");
        let queues = host.list(&format!("{folder}/queues"));
        let mut interrupts = host.list(&format!("{folder}/device/msi_irqs"));
        if interrupts.is_empty() {
            // A virtio device's interrupts belong to the PCI device above it.
            interrupts = host.list(&format!("{folder}/device/../msi_irqs"));
        }
        let on = interrupts
            .iter()
            .filter_map(|irq| host.read(&format!("/proc/irq/{irq}/effective_affinity_list")));
        let mut on: Vec<String> = on.filter(|list| !list.is_empty()).collect();
        on.sort();
        on.dedup();
        let queues = queues.iter().filter(|queue| queue.starts_with("rx-")).count();
        Self {
            name,
            queues,
            interrupts: interrupts.len(),
            on,
        }
    }

    /// Several interrupts, several CPUs, and all of the ones on one of the others.
    fn crowded(&self, cpus: usize) -> bool {
        cpus > 1 && self.interrupts > 2 && self.on.len() == 1 && list_count(&self.on[0]) == 1
    }

    fn describe(&self) -> String {
        let queues = format!(
            "{}: {} receive queue{}",
            self.name,
            self.queues,
            if self.queues == 1 { "" } else { "s" }
        );
        match self.on.as_slice() {
            [] => queues,
            on => format!("{queues}, {} interrupts on CPU {}", self.interrupts, on.join(",")),
        }
    }
}
