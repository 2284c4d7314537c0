//! Where a setting lives. A place that is not in this file's lists is never read for a change, nor written.

use serde::{Deserialize, Serialize};
use std::fmt;

const LIMITS: [&str; 2] = [NOFILE_LIMITS, MEMLOCK_LIMITS];
/// Descriptors of login shells.
pub const NOFILE_LIMITS: &str = "/etc/security/limits.d/90-totality-nofile.conf";
/// Locked memory of login shells.
pub const MEMLOCK_LIMITS: &str = "/etc/security/limits.d/90-totality-memlock.conf";
/// Descriptors of the relay's unit.
pub const NOFILE_UNIT: &str = "/etc/systemd/system/relay.service.d/90-totality-nofile.conf";
/// Locked memory of the relay's unit.
pub const MEMLOCK_UNIT: &str = "/etc/systemd/system/relay.service.d/90-totality-memlock.conf";
/// Sysctls, for the next start.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/90-totality.conf";
const UNITS: [&str; 2] = [NOFILE_UNIT, MEMLOCK_UNIT];
/// Where shared memory's transparent huge pages are switched.
pub const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Every sysctl that may be written.
const SYSCTLS: [&str; 19] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "net.nf_conntrack_max",
    "vm.nr_hugepages",
];

/// Other files of the kernel that may be written; `*` stands for one component.
const FILES: [&str; 5] = [
    SHMEM_ENABLED,
    "/proc/irq/*/smp_affinity_list",
    "/sys/class/net/*/queues/*/rps_cpus",
    "/sys/class/net/*/queues/*/xps_cpus",
    "/sys/devices/system/cpu/*/cpufreq/scaling_governor",
];

/// A card's settings: name as `ethtool` prints it, the switch that shows it, the one that sets it, and the word there.
pub(crate) const NIC: [Nic; 8] = [
    Nic::new("ring-rx", "-g", "-G", "rx"),
    Nic::new("ring-tx", "-g", "-G", "tx"),
    Nic::new("adaptive-rx", "-c", "-C", "adaptive-rx"),
    Nic::new("rx-usecs", "-c", "-C", "rx-usecs"),
    Nic::new("scatter-gather", "-k", "-K", "sg"),
    Nic::new("tx-checksumming", "-k", "-K", "tx"),
    Nic::new("tcp-segmentation-offload", "-k", "-K", "tso"),
    Nic::new("generic-segmentation-offload", "-k", "-K", "gso"),
];

/// How `ethtool` shows and sets one thing.
pub(crate) struct Nic {
    pub(crate) name: &'static str,
    pub(crate) show: &'static str,
    pub(crate) set: &'static str,
    pub(crate) word: &'static str,
}

impl Nic {
    const fn new(name: &'static str, show: &'static str, set: &'static str, word: &'static str) -> Self {
        Self {
            name,
            show,
            set,
            word,
        }
    }

    /// The setting with this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        NIC.iter().find(|setting| setting.name == name)
    }
}

/// A place that holds one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A file of the kernel, by absolute path: it is there or it is not, and is never created.
    File(String),
    /// A whole file of our own, by absolute path: absent before, and removed afterwards.
    OwnFile(String),
    /// A setting of a network card.
    Nic {
        /// The interface.
        card: String,
        /// The setting, as named in this module.
        setting: String,
    },
    /// The root queue discipline of an interface.
    Qdisc {
        /// The interface.
        card: String,
    },
}

impl Place {
    /// The sysctl with this dotted name.
    pub fn sysctl(name: &str) -> Self {
        Self::File(format!("/proc/sys/{}", name.replace('.', "/")))
    }

    /// The dotted name, if it is a sysctl.
    pub fn sysctl_name(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        Some(path.strip_prefix("/proc/sys/")?.replace('/', "."))
    }

    /// Whether this tool knows the place. A journal that names another is not ours.
    pub fn known(&self) -> bool {
        match self {
            Self::File(path) => known_file(path),
            Self::OwnFile(path) => LIMITS
                .iter()
                .chain(&UNITS)
                .chain(&[SYSCTL_FILE])
                .any(|own| own == path),
            Self::Nic { card, setting } => known_card(card) && Nic::find(setting).is_some(),
            Self::Qdisc { card } => known_card(card),
        }
    }
}

/// The name by which people know it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => match path.strip_prefix("/proc/sys/") {
                Some(name) => f.write_str(&name.replace('/', ".")),
                None => f.write_str(path),
            },
            Self::OwnFile(path) => f.write_str(path),
            Self::Nic { card, setting } => write!(f, "{card} {setting}"),
            Self::Qdisc { card } => write!(f, "{card} root qdisc"),
        }
    }
}

fn known_file(path: &str) -> bool {
    let sysctl = SYSCTLS
        .iter()
        .any(|name| Place::sysctl(name) == Place::File(path.to_owned()));
    sysctl || FILES.iter().any(|pattern| fits(path, pattern))
}

/// Whether each component of `path` is that of the pattern, or stands where it has a `*` and is an ordinary name.
fn fits(path: &str, pattern: &str) -> bool {
    let (parts, wanted): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), pattern.split('/').collect());
    let each = |(part, wanted): (&&str, &&str)| part == wanted || (*wanted == "*" && ordinary(part));
    parts.len() == wanted.len() && parts.iter().zip(&wanted).all(each)
}

fn ordinary(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('\0')
}

/// A name that a tool cannot take for one of its switches.
pub(crate) fn known_card(name: &str) -> bool {
    ordinary(name) && !name.starts_with('-') && !name.contains('/') && !name.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_known() {
        let file = |path: &str| Place::File(path.into()).known();
        assert!(file("/proc/sys/net/core/somaxconn") && file("/sys/class/net/eth0/queues/tx-0/xps_cpus"));
        for path in [
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/net/core/../../kernel/core_pattern",
            "/sys/class/net/../queues/tx-0/xps_cpus",
            "/sys/class/net//queues/tx-0/xps_cpus",
            "/etc/passwd",
            "",
        ] {
            assert!(!file(path), "{path}");
        }
        assert!(Place::OwnFile(NOFILE_LIMITS.into()).known());
        assert!(!Place::OwnFile("/etc/cron.d/x".into()).known());
        assert!(!Place::Qdisc { card: "-all".into() }.known());
        let nic = |setting: &str| {
            Place::Nic {
                card: "eth0".into(),
                setting: setting.into(),
            }
            .known()
        };
        assert!(nic("ring-rx") && !nic("speed"));
    }

    #[test]
    fn places_have_the_names_that_people_use() {
        assert_eq!(
            Place::sysctl("net.ipv4.tcp_wmem").to_string(),
            "net.ipv4.tcp_wmem"
        );
        assert_eq!(
            Place::Qdisc { card: "eth0".into() }.to_string(),
            "eth0 root qdisc"
        );
    }
}
