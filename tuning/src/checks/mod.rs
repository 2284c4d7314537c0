//! The checks, in the order in which they are printed: each a key, a reading of the host, and the longer reason.

mod accept;
mod files;
mod kernel;
mod limits;
mod machine;
mod nic;
mod sockets;
mod tcp;

use crate::host::Host;
use crate::place::known_card;
use crate::report::Row;

/// What the host shall carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Listeners at once.
    pub listeners: u64,
}

/// One check.
pub struct Check {
    /// Its name in tables, JSON and `tuning explain`.
    pub key: &'static str,
    /// Reads the host and judges what it finds.
    pub run: fn(&dyn Host, &Demand) -> Row,
    /// What it costs to set it.
    pub price: &'static str,
    /// What was measured of its effect, or that nothing was.
    pub measured: &'static str,
    /// Whether `tuning apply` sets it without being asked.
    pub consent: Consent,
    /// The longer reason; paragraphs are separated by an empty line.
    pub why: &'static str,
}

/// Whether a key is set by `tuning apply` as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It costs others next to nothing.
    Given,
    /// It writes files, takes memory, restarts a link or weakens a rule: only when it is named.
    Asked,
}

/// How each file that we write begins; one that begins otherwise belongs to somebody else.
pub const SIGNED: &str = "# Written by `tuning apply`";

/// Every check.
pub const ALL: [&Check; 31] = [
    &kernel::KERNEL,
    &kernel::IO_URING,
    &limits::OPEN_FILES,
    &limits::FILE_MAX,
    &limits::LOCKED_MEMORY,
    &limits::MEMORY,
    &accept::SOMAXCONN,
    &accept::SYN_BACKLOG,
    &accept::MIGRATE_REQ,
    &accept::CONNTRACK,
    &accept::LOCAL_PORTS,
    &sockets::RMEM_MAX,
    &sockets::WMEM_MAX,
    &sockets::TCP_RMEM,
    &sockets::TCP_WMEM,
    &sockets::TCP_MEM,
    &tcp::NOTSENT_LOWAT,
    &tcp::CONGESTION,
    &tcp::SLOW_START_IDLE,
    &machine::HUGE_PAGES,
    &machine::CPU_GOVERNOR,
    &machine::NIC_QUEUES,
    &machine::NETDEV_BACKLOG,
    &tcp::QDISC,
    &machine::RESERVED_PAGES,
    &nic::IRQ_AFFINITY,
    &nic::XPS,
    &nic::RPS,
    &nic::RINGS,
    &nic::COALESCING,
    &nic::OFFLOADS,
];

/// One row per check, in the order of [`ALL`].
pub fn check(host: &dyn Host, demand: &Demand) -> Vec<Row> {
    ALL.iter()
        .map(|check| Row {
            key: check.key,
            ..(check.run)(host, demand)
        })
        .collect()
}

/// The check with this key.
pub fn find(key: &str) -> Option<&'static Check> {
    ALL.iter().copied().find(|check| check.key == key)
}

/// The key that is most like `wrong`.
pub fn nearest(wrong: &str) -> &'static str {
    let keys = ALL.iter().map(|check| check.key);
    keys.max_by_key(|key| likeness(key, wrong)).unwrap_or_default()
}

/// Letter pairs that two words share: enough to tell `somaxcon` from `syn-backlog`.
fn likeness(a: &str, b: &str) -> usize {
    let wanted: Vec<&[u8]> = b.as_bytes().windows(2).collect();
    a.as_bytes()
        .windows(2)
        .filter(|pair| wanted.contains(pair))
        .count()
}

/// Bytes for people: binary units, one digit after the point where it says something.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

/// How many CPUs (or other numbered things) a list such as `0-3,8` names.
fn list_count(list: &str) -> usize {
    let counts = list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (
            first.trim().parse::<usize>().ok()?,
            last.trim().parse::<usize>().ok()?,
        );
        Some(last.checked_sub(first)?.saturating_add(1))
    });
    counts.fold(0, usize::saturating_add)
}

/// The numbers that a list such as `0-3,8` names, up to `most` of them.
fn list_numbers(list: &str, most: usize) -> Vec<usize> {
    let ranges = list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    });
    ranges.flatten().take(most).collect()
}

/// How many CPUs are online; one if the host does not say.
fn cpus(host: &dyn Host) -> usize {
    list_count(&host.read("/sys/devices/system/cpu/online").unwrap_or_default()).max(1)
}

/// The interfaces that are up and have a device behind them: cards, not loopback, bridges or tunnels.
fn cards(host: &dyn Host) -> Vec<String> {
    let mut names = host.list("/sys/class/net");
    names.retain(|name| known_card(name));
    if !host.named_cards().is_empty() {
        names.retain(|name| host.named_cards().contains(name));
        return names;
    }
    names.retain(|name| {
        let device = !host.list(&format!("/sys/class/net/{name}/device")).is_empty();
        device && host.read(&format!("/sys/class/net/{name}/operstate")).as_deref() == Some("up")
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_explained() {
        for check in ALL {
            assert_eq!(
                ALL.iter().filter(|other| other.key == check.key).count(),
                1,
                "{}",
                check.key
            );
            assert!(check.why.split_whitespace().count() > 25, "{}", check.key);
            assert!(
                !check.price.is_empty() && !check.measured.is_empty(),
                "{}",
                check.key
            );
            assert!(
                check.key.len() <= 19
                    && check
                        .key
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || "-_".contains(c))
            );
        }
    }

    #[test]
    fn a_slip_finds_its_neighbour() {
        assert_eq!(nearest("somaxcon"), "somaxconn");
        assert_eq!(nearest("iouring"), "io_uring");
        assert_eq!(nearest("openfiles"), "open-files");
    }

    #[test]
    fn sizes_and_lists_are_read() {
        assert_eq!(
            [size(12), size(65536), size(1_600_000_000)],
            ["12 B", "64 KiB", "1.5 GiB"]
        );
        assert_eq!(
            [
                list_count("0-3,8"),
                list_count("0"),
                list_count(""),
                list_count("7-3")
            ],
            [5, 1, 0, 0]
        );
        assert_eq!(list_count("0-18446744073709551615"), usize::MAX);
        assert_eq!(list_numbers("0-2,8,x", 9), [0, 1, 2, 8]);
        assert_eq!(list_numbers("5-18446744073709551615", 2), [5, 6]);
    }
}
