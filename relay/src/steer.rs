//! Which worker a newcomer comes to, where workers share a port: `--steer`.
//!
//! Steered by core, a connection is served on the core that takes its packets: neither its socket nor its
//! acknowledgements travel between caches. That helps only where every worker has a core of its own and every such core
//! takes packets: a network card with a receive queue for each. Where one queue feeds many workers, where the kernel
//! moves packets on to other cores (RPS), or where packets are taken wherever their sender runs (loopback, virtual
//! pairs), the hash of the addresses spreads newcomers more evenly. `auto` looks, and says what it has found. It does
//! not look at where interrupts go: `tuning check` does.

use relay_driver::ZeroCopy;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// What the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steer {
    /// By core where that is of use.
    #[default]
    Auto,
    /// By core.
    Cpu,
    /// By the kernel's hash of the addresses.
    Hash,
}

impl Steer {
    /// As it is written.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Steer::Auto),
            "cpu" => Some(Steer::Cpu),
            "hash" => Some(Steer::Hash),
            _ => None,
        }
    }
}

/// Where workers run, and how newcomers find them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The CPU of each worker; empty where they are not kept on any.
    pub cpus: Vec<usize>,
    /// Whether a newcomer comes to the worker on whose CPU its packets are taken.
    pub by_cpu: bool,
    /// What is said of it at the start; one line.
    pub why: String,
    /// Whether they send without a copy.
    pub zero_copy: ZeroCopy,
}

/// By core was asked for and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "server.steer: expected a CPU for each of {workers} workers, as `cpu` needs, got {cpus}; \
     lower --workers, or use --steer auto"
)]
pub struct TooFewCpus {
    workers: usize,
    cpus: usize,
}

/// Decides, by what the configuration says and this machine is.
///
/// # Errors
///
/// When the configuration says `cpu` and there are fewer CPUs than workers.
pub fn plan(steer: Steer, workers: usize, listen: IpAddr) -> Result<Plan, TooFewCpus> {
    decide(steer, workers, &allowed_cpus(), || {
        queues_against(Path::new("/sys/class/net"), listen, workers)
    })
}

/// `against` names what speaks against steering by core on this machine, if anything does.
fn decide(
    steer: Steer,
    workers: usize,
    cpus: &[usize],
    against: impl FnOnce() -> Result<String, String>,
) -> Result<Plan, TooFewCpus> {
    let pinned = workers > 1 && workers <= cpus.len();
    let plan = |by_cpu: bool, why: String| Plan {
        cpus: cpus[..if pinned { workers } else { 0 }].to_vec(),
        by_cpu,
        why,
        zero_copy: ZeroCopy::default(),
    };
    let by_hash = |why: &str| {
        plan(
            false,
            format!("connections: spread by hash over {workers} workers, {why}"),
        )
    };
    let by_core = |why: &str| {
        plan(
            true,
            format!("connections: to the worker on whose core they arrive, {why}"),
        )
    };
    if workers == 1 {
        return Ok(plan(false, "connections: one worker has them all".into()));
    }
    let too_few = TooFewCpus {
        workers,
        cpus: cpus.len(),
    };
    match steer {
        Steer::Hash => Ok(by_hash("because server.steer says so")),
        Steer::Cpu if !pinned => Err(too_few),
        Steer::Cpu => Ok(by_core("because server.steer says so")),
        Steer::Auto if !pinned => Ok(by_hash(&format!("as they have {} CPUs between them", cpus.len()))),
        Steer::Auto => Ok(match against() {
            Ok(why) => by_core(&format!("as {why}")),
            Err(why) => by_hash(&format!("as {why}")),
        }),
    }
}

/// The CPUs that this process may use, lowest first: with a core for each, workers are pinned.
fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

/// Whether the cards that packets for `listen` come through have a queue for each worker: what was found, for or
/// against.
fn queues_against(net: &Path, listen: IpAddr, workers: usize) -> Result<String, String> {
    let names = match interface_of(listen) {
        Some(name) => vec![name],
        None => cards(net),
    };
    if names.is_empty() {
        return Err("there is no network card whose queues could be looked at".into());
    }
    for name in &names {
        card_against(&net.join(name), name, workers)?;
    }
    let (names, have) = (names.join(", "), if names.len() == 1 { "has" } else { "have" });
    Ok(format!("{names} {have} a queue for each of {workers} workers"))
}

fn card_against(card: &Path, name: &str, workers: usize) -> Result<(), String> {
    if !card.join("device").exists() {
        return Err(format!(
            "{name} is no network card: a packet is taken wherever its sender runs"
        ));
    }
    let queues: Vec<_> = fs::read_dir(card.join("queues"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-"))
        .collect();
    if queues.len() < workers {
        return Err(format!(
            "{name} has {} receive queue{} for them",
            queues.len(),
            if queues.len() == 1 { "" } else { "s" }
        ));
    }
    let is_moved = |mask: String| mask.chars().any(|c| c.is_ascii_hexdigit() && c != '0');
    let masks = queues
        .iter()
        .filter_map(|queue| fs::read_to_string(queue.path().join("rps_cpus")).ok());
    match masks.into_iter().any(is_moved) {
        true => Err(format!("the kernel moves packets of {name} to other cores (RPS)")),
        false => Ok(()),
    }
}

/// Network cards that are up, by name.
fn cards(net: &Path) -> Vec<String> {
    let is_up =
        |card: &Path| fs::read_to_string(card.join("operstate")).is_ok_and(|state| state.trim() == "up");
    let mut names: Vec<String> = fs::read_dir(net)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|card| card.path().join("device").exists() && is_up(&card.path()))
        .filter_map(|card| card.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The interface that has an address; none for a wildcard.
fn interface_of(ip: IpAddr) -> Option<String> {
    let ip = ip.to_canonical();
    let found = getifaddrs().ok()?.find(|at| {
        let Some(address) = &at.address else { return false };
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        v4.or(v6) == Some(ip)
    });
    // All of 127.0.0.0/8 is loopback, whatever its interface lists.
    found
        .map(|at| at.interface_name)
        .or_else(|| ip.is_loopback().then(|| "lo".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card as `/sys/class/net` shows it.
    fn card(net: &Path, name: &str, is_real: bool, rps: &[&str]) {
        let card = net.join(name);
        for (n, mask) in rps.iter().enumerate() {
            let queue = card.join(format!("queues/rx-{n}"));
            fs::create_dir_all(&queue).unwrap();
            fs::write(queue.join("rps_cpus"), format!("{mask}\n")).unwrap();
        }
        fs::create_dir_all(card.join("queues/tx-0")).unwrap();
        fs::write(card.join("operstate"), "up\n").unwrap();
        if is_real {
            fs::create_dir(card.join("device")).unwrap();
        }
    }

    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    #[test]
    fn a_card_with_a_queue_for_each_is_steered_by() {
        let net = tempfile::tempdir().unwrap();
        card(net.path(), "eth0", true, &["00000000,00000000"; 2]);
        card(net.path(), "veth0", false, &["0"]);
        let why = queues_against(net.path(), ANY, 2).unwrap();
        assert_eq!(why, "eth0 has a queue for each of 2 workers");
        let why = queues_against(net.path(), ANY, 3).unwrap_err();
        assert_eq!(why, "eth0 has 2 receive queues for them");
    }

    #[test]
    fn one_bad_card_is_enough() {
        let net = tempfile::tempdir().unwrap();
        card(net.path(), "eth0", true, &["0", "0"]);
        card(net.path(), "eth1", true, &["0", "00000000,00000002"]);
        let why = queues_against(net.path(), ANY, 2).unwrap_err();
        assert_eq!(why, "the kernel moves packets of eth1 to other cores (RPS)");
        fs::write(net.path().join("eth1/operstate"), "down\n").unwrap();
        assert!(queues_against(net.path(), ANY, 2).is_ok());
    }

    #[test]
    fn what_is_no_card_is_not() {
        let net = tempfile::tempdir().unwrap();
        let why = queues_against(net.path(), ANY, 2).unwrap_err();
        assert_eq!(why, "there is no network card whose queues could be looked at");
        card(net.path(), "lo", false, &["0", "0"]);
        for listen in ["127.0.0.1", "127.7.7.7", "::1"] {
            let why = queues_against(net.path(), listen.parse().unwrap(), 2).unwrap_err();
            assert_eq!(
                why,
                "lo is no network card: a packet is taken wherever its sender runs"
            );
        }
    }

    #[test]
    fn workers_without_a_core_of_their_own_are_never_steered_to() {
        let good = || Ok("all is well".to_owned());
        let plan = decide(Steer::Auto, 3, &[0, 1], good).unwrap();
        assert_eq!((plan.by_cpu, plan.cpus.len()), (false, 0));
        assert_eq!(
            plan.why,
            "connections: spread by hash over 3 workers, as they have 2 CPUs between them"
        );
        let error = decide(Steer::Cpu, 3, &[0, 1], good).unwrap_err();
        assert!(error.to_string().contains("each of 3 workers") && error.to_string().contains("got 2"));
        let plan = decide(Steer::Cpu, 1, &[0], good).unwrap();
        assert_eq!(
            (plan.by_cpu, plan.cpus.len()),
            (false, 0),
            "one worker needs no steering"
        );
    }

    #[test]
    fn what_is_asked_for_is_had_and_auto_says_why() {
        let bad = || Err("it is bad".to_owned());
        let plan = decide(Steer::Cpu, 2, &[4, 7, 9], bad).unwrap();
        assert_eq!((plan.by_cpu, plan.cpus), (true, vec![4, 7]));
        let plan = decide(Steer::Hash, 2, &[4, 7], || unreachable!("nobody asked")).unwrap();
        assert_eq!((plan.by_cpu, plan.cpus), (false, vec![4, 7]));
        let plan = decide(Steer::Auto, 2, &[4, 7], bad).unwrap();
        assert_eq!((plan.by_cpu, plan.cpus), (false, vec![4, 7]));
        assert_eq!(
            plan.why,
            "connections: spread by hash over 2 workers, as it is bad"
        );
        let plan = decide(Steer::Auto, 2, &[4, 7], || Ok("it is good".into())).unwrap();
        assert!(plan.by_cpu && plan.why.ends_with("as it is good"), "{}", plan.why);
    }
}
