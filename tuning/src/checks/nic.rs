//! Network cards: who serves their interrupts and queues, and what `ethtool` can set.

use super::{Check, Consent, Demand, cards, cpus, list_count, list_numbers};
use crate::host::Host;
use crate::machine::{most, nic_in, ring_most};
use crate::place::Place;
use crate::report::{Row, Status};

/// Descriptors that hold a burst of a millisecond at 10 Gb/s (0.8 packets of 1,500 bytes per µs).
const RING_WANTED: u64 = 1024;
/// Microseconds for which a card may gather packets before it interrupts; far below any delay that a viewer notices.
const COALESCE_WANTED: u64 = 32;
/// Below this every few packets are an interrupt, in microseconds.
const COALESCE_LEAST: u64 = 8;
/// CPUs that are looked at; a mask has a bit for each.
const CPUS_MOST: usize = 4096;

pub(super) const IRQ_AFFINITY: Check = Check {
    key: "irq-affinity",
    run: irq_affinity,
    price: "the interrupts stay where they are put, also when load moves; irqbalance, if it starts later, moves them",
    measured: "not measured here",
    consent: Consent::Given,
    why: "Each queue of a card has an interrupt. When all of them are served by one CPU, that CPU does the packet \
          work of all while the others wait. `apply` puts the interrupt of queue i on CPU i (modulo their number), \
          by the number at the end of the interrupt's name in /proc/interrupts; interrupts without one are left \
          alone. Where irqbalance runs it does this work, and nothing is set.",
};

pub(super) const XPS: Check = Check {
    key: "xps",
    run: xps,
    price: "nothing: a CPU that is taken offline falls back to hashing",
    measured: "not measured here",
    consent: Consent::Given,
    why: "Transmit packet steering (xps_cpus of each transmit queue) says which CPU sends by which queue. With CPU \
          i on queue i, workers never wait for each other's queue lock, and the completion interrupt returns to \
          the CPU that sent. Without it the kernel picks a queue by hash. Most drivers of large cards set it \
          themselves.",
};

pub(super) const RPS: Check = Check {
    key: "rps",
    run: rps,
    price: "where one CPU was full with interrupts, its packets are no longer shared out",
    measured: "not measured here; steering by CPU was seen to be exact without it (20 of 20 connections)",
    consent: Consent::Given,
    why: "Receive packet steering hands packets to other CPUs by hash after the interrupt. The relay's listening \
          sockets are chosen by the CPU on which a connection arrives; on a card that has a queue per CPU, RPS \
          only moves packets away from it: an extra wake-up and a cold cache for each. On a card with fewer queues \
          than CPUs it can help, and is left as it is.",
};

pub(super) const RINGS: Check = Check {
    key: "nic-rings",
    run: rings,
    price: "about 2 to 4 KiB of memory per descriptor, and on most cards the link restarts: gone for up to some \
         seconds",
    measured: "not measured here",
    consent: Consent::Asked,
    why: "A card puts packets into a ring of descriptors until a CPU comes for them. A ring of 256 is full after \
          0.3 ms at 10 Gb/s; what comes then is lost (`ethtool -S CARD`, rx_missed or similar). Rings are raised \
          to 1024 or to the card's maximum, never lowered. Much larger ones push each other out of the cache.",
};

pub(super) const COALESCING: Check = Check {
    key: "nic-coalescing",
    run: coalescing,
    price: "up to 32 µs of delay for received packets, which makes benchmarks of single round trips look worse",
    measured: "not measured here",
    consent: Consent::Asked,
    why: "A sender to many listeners receives an acknowledgement for every few packets. Without coalescing each is \
          an interrupt. Adaptive coalescing (`ethtool -C CARD adaptive-rx on`) waits only under load; where the \
          card has none, 32 µs are set. A card that offers neither declines, and stays as it is.",
};

pub(super) const OFFLOADS: Check = Check {
    key: "nic-offloads",
    run: offloads,
    price: "who switched one off may have met a broken card or driver: garbled or missing packets would return",
    measured: "UDP of 48 segments: 33 to 75 ns of CPU per datagram with segmentation in the card, 312 to 334 without; \
               without transmit checksums every zero-copy send is copied (390 instead of 48 ns)",
    consent: Consent::Asked,
    why: "Scatter-gather and transmit checksums in the card are what makes zero copy possible: without them the \
          kernel copies each packet after all. Segmentation in the card (tso, gso) lets a 64 KiB send travel the \
          stack once instead of 45 times. Nearly all cards have them on; what is found off was usually switched \
          off by hand, so this is only changed when asked for. An offload that the card does not have ([fixed]) is \
          not counted.",
};

/// A network card's queues and interrupts.
pub(super) struct Card {
    pub(super) name: String,
    /// Receive queues.
    pub(super) queues: usize,
    interrupts: Vec<String>,
    /// The CPUs that serve the interrupts, as the kernel lists them; without repetitions.
    on: Vec<String>,
}

impl Card {
    pub(super) fn read(host: &dyn Host, name: String) -> Self {
        let folder = format!("/sys/class/net/{name}");
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
        let queues = queues(host, &name, "rx-").len();
        Self {
            name,
            queues,
            interrupts,
            on,
        }
    }

    /// How many receive queues the card can have, if `ethtool` tells.
    pub(super) fn queues_most(&self, host: &dyn Host) -> Option<usize> {
        let said = host.tool("ethtool", &["-l", &self.name])?;
        let combined = most(&said.out, "Combined").or_else(|| most(&said.out, "RX"));
        combined.and_then(|most| usize::try_from(most).ok())
    }

    /// Several interrupts, several CPUs, and all of the ones on one of the others.
    fn crowded(&self, cpus: usize) -> bool {
        cpus > 1 && self.interrupts.len() > 2 && self.on.len() == 1 && list_count(&self.on[0]) == 1
    }

    pub(super) fn describe(&self) -> String {
        let queues = format!(
            "{}: {} receive queue{}",
            self.name,
            self.queues,
            if self.queues == 1 { "" } else { "s" }
        );
        match self.on.as_slice() {
            [] => queues,
            on => format!(
                "{queues}, {} interrupts on CPU {}",
                self.interrupts.len(),
                on.join(",")
            ),
        }
    }
}

/// A card's queues of one direction, by number.
fn queues(host: &dyn Host, card: &str, direction: &str) -> Vec<usize> {
    let names = host.list(&format!("/sys/class/net/{card}/queues"));
    let mut numbers: Vec<usize> = names
        .iter()
        .filter_map(|name| name.strip_prefix(direction)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn online(host: &dyn Host) -> Vec<usize> {
    list_numbers(
        &host.read("/sys/devices/system/cpu/online").unwrap_or_default(),
        CPUS_MOST,
    )
    .into_iter()
    .filter(|&cpu| cpu < CPUS_MOST)
    .collect()
}

fn irq_affinity(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "the interrupts of a card's queues on more than one CPU";
    let cards: Vec<Card> = cards(host)
        .into_iter()
        .map(|name| Card::read(host, name))
        .collect();
    let cards: Vec<Card> = cards.into_iter().filter(|card| !card.on.is_empty()).collect();
    if cards.is_empty() {
        return Row::not_here(wanted);
    }
    let cpus = online(host);
    let crowded: Vec<&Card> = cards.iter().filter(|card| card.crowded(cpus.len())).collect();
    let found: Vec<String> = cards.iter().map(Card::describe).collect();
    let status = if crowded.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let row = Row::new(status, found.join("; "), wanted)
        .cost("one CPU handles the packets of all queues, and is full before the others");
    if irqbalance(host) {
        return row.change("irqbalance runs and decides: see its own settings");
    }
    let irqs = crowded.iter().flat_map(|card| &card.interrupts);
    irqs.fold(row, |row, irq| place_irq(host, row, irq, &cpus))
}

/// Queue i's interrupt to CPU i; an interrupt that belongs to no queue stays.
fn place_irq(host: &dyn Host, row: Row, irq: &str, cpus: &[usize]) -> Row {
    let (Some(queue), false) = (queue_of(host, irq), cpus.is_empty()) else {
        return row;
    };
    let (path, cpu) = (
        format!("/proc/irq/{irq}/smp_affinity_list"),
        cpus[queue % cpus.len()],
    );
    row.change(format!("echo {cpu} > {path}"))
        .set(Place::File(path), cpu, false)
}

/// The number at the end of the interrupt's name: `eth0-TxRx-3`, `virtio1-input.0`, `mlx5_comp3@pci:…`.
fn queue_of(host: &dyn Host, irq: &str) -> Option<usize> {
    let text = host.read("/proc/interrupts")?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(irq)?.strip_prefix(':'))?;
    let name = line.split_whitespace().last()?.split('@').next()?;
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}

fn irqbalance(host: &dyn Host) -> bool {
    let mut processes = host
        .list("/proc")
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok());
    processes.any(|pid| host.read(&format!("/proc/{pid}/comm")).as_deref() == Some("irqbalance"))
}

/// The bits of a mask such as `00000001,ffffffff`.
fn mask_bits(text: &str) -> Option<Vec<usize>> {
    let mut bits = Vec::new();
    for (word, hex) in text.split(',').rev().enumerate().take(CPUS_MOST / 32) {
        let word_bits = u32::from_str_radix(hex.trim(), 16).ok()?;
        bits.extend(
            (0..32)
                .filter(|bit| word_bits >> bit & 1 == 1)
                .map(|bit| word * 32 + bit),
        );
    }
    Some(bits)
}

/// The mask with these bits, as the kernel takes it.
fn mask(bits: impl Iterator<Item = usize>) -> String {
    let mut words = vec![0u32];
    for bit in bits {
        words.resize(words.len().max(bit / 32 + 1), 0);
        words[bit / 32] |= 1 << (bit % 32);
    }
    words
        .iter()
        .rev()
        .map(|word| format!("{word:08x}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn xps(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "each CPU with a transmit queue of its own, as far as they go";
    let cpus = online(host);
    // A card with a single queue has nothing to steer; its file is there and does not answer.
    let cards: Vec<Steered> = cards(host)
        .into_iter()
        .filter_map(|card| Steered::read(host, card))
        .collect();
    if cards.is_empty() {
        return Row::not_here(wanted);
    }
    let poor: Vec<&Steered> = cards.iter().filter(|card| !card.spread(&cpus)).collect();
    let found: Vec<String> = cards.iter().map(|card| card.describe(&cpus)).collect();
    let status = if poor.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let row = Row::new(status, found.join("; "), wanted).cost(
        "workers on different CPUs contend for the same transmit queue; completions come back elsewhere",
    );
    poor.iter().fold(row, |row, card| card.steer(row, &cpus))
}

/// A card with several transmit queues, and the CPUs of each.
struct Steered {
    name: String,
    queues: Vec<(usize, Vec<usize>)>,
}

impl Steered {
    fn read(host: &dyn Host, name: String) -> Option<Self> {
        let numbers = queues(host, &name, "tx-").into_iter();
        let queues = numbers.filter_map(|n| Some((n, mask_bits(&host.read(&xps_path(&name, n))?)?)));
        let queues: Vec<(usize, Vec<usize>)> = queues.collect();
        (queues.len() > 1).then_some(Self { name, queues })
    }

    /// Every CPU has a queue, and no more CPUs share one than must.
    fn spread(&self, cpus: &[usize]) -> bool {
        let share = cpus.len().div_ceil(self.queues.len());
        let here = |set: &[usize]| set.iter().filter(|cpu| cpus.contains(cpu)).count();
        let served = |cpu: &usize| self.queues.iter().any(|(_, set)| set.contains(cpu));
        cpus.iter().all(served) && self.queues.iter().all(|(_, set)| here(set) <= share)
    }

    fn describe(&self, cpus: &[usize]) -> String {
        let how = if self.spread(cpus) {
            "spread"
        } else {
            "by hash or crowded"
        };
        format!("{}: {} transmit queues, {how}", self.name, self.queues.len())
    }

    fn steer(&self, row: Row, cpus: &[usize]) -> Row {
        let count = self.queues.len();
        self.queues
            .iter()
            .enumerate()
            .fold(row, |row, (nth, (queue, _))| {
                let own = cpus
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i % count == nth)
                    .map(|(_, &cpu)| cpu);
                let (mask, path) = (mask(own), xps_path(&self.name, *queue));
                row.change(format!("echo {mask} > {path}"))
                    .set(Place::File(path), mask, false)
            })
    }
}

fn xps_path(card: &str, queue: usize) -> String {
    format!("/sys/class/net/{card}/queues/tx-{queue}/xps_cpus")
}

fn rps(host: &dyn Host, _: &Demand) -> Row {
    let wanted = "off on cards with a receive queue per CPU";
    let cpus = cpus(host);
    let mut steered = Vec::new();
    let mut seen = false;
    for card in cards(host) {
        let numbers = queues(host, &card, "rx-");
        seen |= !numbers.is_empty();
        let paths = numbers
            .iter()
            .map(|n| format!("/sys/class/net/{card}/queues/rx-{n}/rps_cpus"));
        let on = |path: &String| {
            mask_bits(&host.read(path).unwrap_or_default()).is_some_and(|bits| !bits.is_empty())
        };
        steered.extend(paths.filter(|_| numbers.len() >= cpus).filter(on));
    }
    if !seen {
        return Row::not_here(wanted);
    }
    let status = if steered.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let found = format!("on for {} queues that need none", steered.len());
    let row = Row::new(
        status,
        if steered.is_empty() {
            "off, or needed".into()
        } else {
            found
        },
        wanted,
    )
    .cost("packets are moved to another CPU than the one that serves their connection");
    steered.into_iter().fold(row, |row, path| {
        row.change(format!("echo 0 > {path}"))
            .set(Place::File(path), 0, false)
    })
}

/// What `ethtool` prints for each card with this switch; a card that does not answer is left out.
fn asked(host: &dyn Host, switch: &str) -> Vec<(String, String)> {
    let answers = cards(host).into_iter().filter_map(|card| {
        let said = host.tool("ethtool", &[switch, &card])?;
        said.ok.then_some((card, said.out))
    });
    answers.collect()
}

/// A row over settings of cards: (card, setting, found, wanted value).
fn settings(found: Vec<String>, poor: Vec<(String, &'static str, String)>, wanted: &str, cost: &str) -> Row {
    if found.is_empty() {
        return Row::not_here(wanted);
    }
    let status = if poor.is_empty() {
        Status::Ok
    } else {
        Status::Advice
    };
    let row = Row::new(status, found.join("; "), wanted).cost(cost);
    poor.into_iter().fold(row, |row, (card, setting, value)| {
        let nic = crate::place::Nic::find(setting);
        let line = nic.map(|nic| format!("ethtool {} {card} {} {value}", nic.set, nic.word));
        let row = line.into_iter().fold(row, Row::change);
        row.set(
            Place::Nic {
                card,
                setting: setting.into(),
            },
            value,
            false,
        )
    })
}

fn rings(host: &dyn Host, _: &Demand) -> Row {
    let (mut found, mut poor) = (Vec::new(), Vec::new());
    for (card, text) in asked(host, "-g") {
        for ring in ["ring-rx", "ring-tx"] {
            let now = nic_in(&text, ring).and_then(|now| now.parse::<u64>().ok());
            let (Some(now), Some(most)) = (now, ring_most(&text, ring)) else {
                continue;
            };
            found.push(format!("{card} {ring}: {now} of {most}"));
            let wanted = most.min(RING_WANTED);
            poor.extend((now < wanted).then(|| (card.clone(), ring, wanted.to_string())));
        }
    }
    let wanted = format!("{RING_WANTED}, or the most that the card has");
    settings(
        found,
        poor,
        &wanted,
        "bursts of less than a millisecond lose packets in the card",
    )
}

fn coalescing(host: &dyn Host, _: &Demand) -> Row {
    let (mut found, mut poor) = (Vec::new(), Vec::new());
    for (card, text) in asked(host, "-c") {
        let adaptive = nic_in(&text, "adaptive-rx");
        let Some(wait) = nic_in(&text, "rx-usecs").and_then(|wait| wait.parse::<u64>().ok()) else {
            continue;
        };
        found.push(format!(
            "{card}: {wait} µs, adaptive {}",
            adaptive.as_deref().unwrap_or("not here")
        ));
        match adaptive.as_deref() {
            Some("on") => {}
            _ if wait >= COALESCE_LEAST => {}
            Some("off") => poor.push((card, "adaptive-rx", "on".into())),
            _ => poor.push((card, "rx-usecs", COALESCE_WANTED.to_string())),
        }
    }
    let wanted = format!("adaptive, or {COALESCE_LEAST} µs and more");
    settings(
        found,
        poor,
        &wanted,
        "an interrupt for nearly every acknowledgement",
    )
}

fn offloads(host: &dyn Host, _: &Demand) -> Row {
    let names = [
        "scatter-gather",
        "tx-checksumming",
        "tcp-segmentation-offload",
        "generic-segmentation-offload",
    ];
    let (mut found, mut poor) = (Vec::new(), Vec::new());
    for (card, text) in asked(host, "-k") {
        // `off [fixed]` cannot be had; `off [requested on]` comes with another that is off.
        let off = names
            .into_iter()
            .filter(|name| nic_in(&text, name).as_deref() == Some("off"));
        let off: Vec<&str> = off.collect();
        found.push(format!(
            "{card}: {}",
            if off.is_empty() {
                "all that it has".into()
            } else {
                format!("off: {}", off.join(", "))
            }
        ));
        poor.extend(
            names
                .into_iter()
                .filter(|name| off.contains(name))
                .map(|name| (card.clone(), name, "on".into())),
        );
    }
    settings(
        found,
        poor,
        "all that the card has",
        "sends are segmented, summed and copied by the CPU: up to ten times as dear",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_written_as_the_kernel_does() {
        assert_eq!(mask_bits("00000001,80000000"), Some(vec![31, 32]));
        assert_eq!(
            (mask_bits("0"), mask_bits(""), mask_bits("x")),
            (Some(vec![]), None, None)
        );
        assert_eq!(mask([31, 32].into_iter()), "00000001,80000000");
        assert_eq!(mask([].into_iter()), "00000000");
    }

    #[test]
    fn queues_share_cpus_evenly_or_are_steered() {
        let card = |sets: &[&[usize]]| Steered {
            name: "eth0".into(),
            queues: sets.iter().map(|set| set.to_vec()).enumerate().collect(),
        };
        let cpus = [0, 1, 2, 3];
        assert!(card(&[&[0, 2], &[1, 3]]).spread(&cpus));
        assert!(!card(&[&[], &[]]).spread(&cpus) && !card(&[&[0, 1, 2], &[3]]).spread(&cpus));
        let row = Row::new(Status::Advice, "", "");
        let values: Vec<String> = card(&[&[], &[]])
            .steer(row, &cpus)
            .sets
            .into_iter()
            .map(|set| set.value)
            .collect();
        assert_eq!(values, ["00000005", "0000000a"]);
    }
}
