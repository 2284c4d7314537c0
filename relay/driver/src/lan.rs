//! The way to a multicast group: which interface, which address of ours, and whether there is a way at all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use relay_seam::Interface;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// The way to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lan {
    /// The interface, where one was asked for.
    pub interface: Option<Interface>,
    /// Our address there.
    pub from: IpAddr,
}

/// Why there is none.
#[derive(Debug)]
pub enum NoLan {
    /// It is no multicast address.
    NotAGroup(IpAddr),
    /// There is no such interface, nor one with that address.
    NoInterface {
        /// What was asked for.
        asked: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// It is down.
    Down(String),
    /// It has no address of the group's family.
    NoAddress(String),
    /// The kernel knows no route.
    NoRoute {
        /// To where.
        group: IpAddr,
        /// What it said.
        error: io::Error,
    },
}

impl std::fmt::Display for NoLan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoLan::NotAGroup(ip) => write!(
                f,
                "expected a multicast group (224.0.0.0 to 239.255.255.255, or ff00::/8), got {ip}; \
                 239.255.0.0/16 is for one's own site"
            ),
            NoLan::NoInterface { asked, known } => write!(
                f,
                "expected a network interface or an address of one, got {asked:?}; there are {}",
                known.join(", ")
            ),
            NoLan::Down(name) => write!(
                f,
                "interface {name} is down; `ip link set {name} up` brings it up"
            ),
            NoLan::NoAddress(name) => {
                write!(
                    f,
                    "interface {name} has no address of the group's family; give it one"
                )
            }
            NoLan::NoRoute { group, error } => write!(
                f,
                "no multicast route to {group} ({error}); name an interface, or add a route \
                 (ip route add 224.0.0.0/4 dev IFACE)"
            ),
        }
    }
}

impl std::error::Error for NoLan {}

/// Looks for the way to a group: by an interface of that name or address, or as the route leads.
///
/// # Errors
///
/// [`NoLan`], with what would help.
pub fn lan(group: IpAddr, asked: Option<&str>) -> Result<Lan, NoLan> {
    if !group.is_multicast() {
        return Err(NoLan::NotAGroup(group));
    }
    let interface = asked.map(|asked| find(group, asked)).transpose()?;
    let from = route(group, interface).map_err(|error| NoLan::NoRoute { group, error })?;
    Ok(Lan { interface, from })
}

/// What the kernel says of an interface's addresses.
struct Known {
    name: String,
    ip: Option<IpAddr>,
    up: bool,
}

fn known() -> Vec<Known> {
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    // A host that does not say has none that we could use.
    let all = getifaddrs().into_iter().flatten();
    all.map(|entry| Known {
        name: entry.interface_name,
        ip: entry.address.and_then(ip),
        up: entry.flags.contains(InterfaceFlags::IFF_UP),
    })
    .collect()
}

fn find(group: IpAddr, asked: &str) -> Result<Interface, NoLan> {
    let all = known();
    let address: Option<IpAddr> = asked.parse().ok();
    let found = all
        .iter()
        .find(|one| one.name == asked || (address.is_some() && one.ip == address));
    let Some(found) = found else {
        let mut known: Vec<String> = all.into_iter().map(|one| one.name).collect();
        known.dedup();
        return Err(NoLan::NoInterface {
            asked: asked.to_owned(),
            known,
        });
    };
    if !found.up {
        return Err(NoLan::Down(found.name.clone()));
    }
    let interface = match group {
        IpAddr::V4(_) => v4_of(&all, &found.name, address).map(Interface::Address),
        IpAddr::V6(_) => if_nametoindex(found.name.as_str()).ok().map(Interface::Index),
    };
    interface.ok_or_else(|| NoLan::NoAddress(found.name.clone()))
}

/// The address that was asked for, or the interface's first.
fn v4_of(all: &[Known], name: &str, asked: Option<IpAddr>) -> Option<Ipv4Addr> {
    let v4 = |one: &Known| match one.ip {
        Some(IpAddr::V4(ip)) if one.name == name => Some(ip),
        _ => None,
    };
    let mut ours = all.iter().filter_map(v4);
    match asked {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => ours.next(),
    }
}

/// Our address on the way to a group.
fn route(group: IpAddr, interface: Option<Interface>) -> io::Result<IpAddr> {
    let to = SocketAddr::new(group, 9);
    let socket = Socket::new(
        Domain::for_address(to),
        Type::DGRAM.cloexec(),
        Some(Protocol::UDP),
    )?;
    match interface {
        Some(Interface::Address(ip)) => SockRef::from(&socket).set_multicast_if_v4(&ip)?,
        Some(Interface::Index(index)) => SockRef::from(&socket).set_multicast_if_v6(index)?,
        None => {}
    }
    // Sends nothing: it only asks for the route.
    socket.connect(&to.into())?;
    let from = socket.local_addr()?.as_socket();
    from.map(|from| from.ip())
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 255, 42, 1));

    #[test]
    fn loopback_leads_to_a_group_by_name_and_by_address() {
        let ours = Lan {
            interface: Some(Interface::Address(Ipv4Addr::LOCALHOST)),
            from: Ipv4Addr::LOCALHOST.into(),
        };
        for asked in ["lo", "127.0.0.1"] {
            assert_eq!(lan(GROUP, Some(asked)).unwrap(), ours);
        }
    }

    #[test]
    fn what_cannot_be_is_said_with_a_remedy() {
        let say =
            |group: &str, asked: &str| lan(group.parse().unwrap(), Some(asked)).unwrap_err().to_string();
        let group = say("10.0.0.1", "lo");
        assert!(
            group.contains("10.0.0.1") && group.contains("239.255.255.255"),
            "{group}"
        );
        let interface = say("239.255.42.1", "nosuch0");
        assert!(
            interface.contains("nosuch0") && interface.contains("lo"),
            "{interface}"
        );
    }
}
