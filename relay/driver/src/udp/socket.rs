//! UDP sockets: opening them, and what is known of each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use hashbrown::HashMap;
use nix::sys::socket::{setsockopt, sockopt};
use relay_seam::{Conn, Interface, Membership, Udp, UdpOptions};
use socket2::{Domain, Protocol, Socket, Type};

/// A socket, or that of a connected peer.
pub(crate) struct Seat {
    pub(crate) fd: OwnedFd,
    /// The socket is of IPv6 and takes IPv4 addresses in their mapped form.
    pub(crate) v6: bool,
    /// Stands in the queue of sockets to read.
    pub(crate) queued: bool,
    /// Whose peer this is, and which.
    pub(crate) of: Option<(Udp, SocketAddr)>,
    /// The connected peers of a socket. Looked up for every datagram by a hash that is quick, and seeded: peers choose
    /// their own addresses.
    pub(crate) peers: HashMap<SocketAddr, Conn>,
    /// Its own address; that of a peer's socket is never a wildcard.
    pub(crate) local: SocketAddr,
    /// As it was opened, for its peers.
    pub(crate) options: UdpOptions,
    pub(crate) gso: Gso,
}

/// What a socket makes of trains: several datagrams in one send.
#[derive(Clone, Copy, Default)]
pub(crate) struct Gso {
    /// `UDP_SEGMENT` as set on the socket; zero: not.
    pub(crate) set: u16,
    /// Trains refused in a row.
    refusals: u8,
}

impl Gso {
    /// After so many refusals in a row no train is tried any more.
    const PATIENCE: u8 = 4;

    pub(crate) fn works(self) -> bool {
        self.refusals < Self::PATIENCE
    }

    pub(crate) fn taken(&mut self) {
        self.refusals = 0;
    }

    /// A train was refused with this `errno`; `EIO` is the device's last word.
    pub(crate) fn refused(&mut self, errno: i32) {
        let more = if errno == libc::EIO { Self::PATIENCE } else { 1 };
        self.refusals = self.refusals.saturating_add(more);
    }
}

impl Seat {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// The kernel's, with the address in front; `InvalidInput` for options that do not go together.
    pub(crate) fn open(bind: SocketAddr, options: UdpOptions) -> io::Result<Self> {
        let name = |e: io::Error| io::Error::new(e.kind(), format!("cannot open udp {bind}: {e}"));
        let socket = bound(bind, &options, options.reuse).map_err(name)?;
        options
            .groups
            .iter()
            .try_for_each(|group| join(&socket, group))
            .map_err(name)?;
        // From now on our own peers, and nobody else's, may bind the same address beside it.
        socket.set_reuse_port(true).map_err(name)?;
        let local = socket.local_addr().map_err(name)?.as_socket().unwrap_or(bind);
        Ok(Self::new(socket, local, options, None))
    }

    /// Opens a socket that is connected to a peer of this one.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn connect(&self, udp: Udp, peer: SocketAddr) -> io::Result<Self> {
        let socket = bound(self.local, &self.options, true)?;
        socket.connect(&name_for(self.v6, peer).into())?;
        Ok(Self::new(
            socket,
            self.local,
            self.options.clone(),
            Some((udp, peer)),
        ))
    }

    fn new(socket: Socket, local: SocketAddr, options: UdpOptions, of: Option<(Udp, SocketAddr)>) -> Self {
        Self {
            fd: socket.into(),
            v6: local.is_ipv6(),
            queued: false,
            of,
            peers: HashMap::new(),
            local,
            options,
            gso: Gso::default(),
        }
    }

    /// Sets `UDP_SEGMENT` on the socket: trains of this size need no control message from now on.
    pub(crate) fn set_segment(&mut self, size: u16) -> io::Result<()> {
        setsockopt(&self.fd, sockopt::UdpGsoSegment, &i32::from(size))?;
        self.gso.set = size;
        Ok(())
    }
}

/// A peer's address as a socket of this family takes it.
pub(crate) fn name_for(v6: bool, peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V4(ip) if v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), peer.port()),
        _ => peer,
    }
}

fn bound(bind: SocketAddr, options: &UdpOptions, reuse: bool) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(bind), kind, Some(Protocol::UDP))?;
    if bind.is_ipv6() {
        socket.set_only_v6(!bind.ip().is_unspecified())?;
    }
    if options.reuse {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(reuse)?;
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if bind.is_ipv6() {
        multicast_v6(&socket, options)?;
    } else {
        multicast_v4(&socket, options)?;
    }
    socket.bind(&bind.into())?;
    Ok(socket)
}

fn multicast_v4(socket: &Socket, options: &UdpOptions) -> io::Result<()> {
    socket.set_multicast_ttl_v4(options.multicast_ttl.into())?;
    socket.set_multicast_loop_v4(options.multicast_loop)?;
    // Otherwise every group that anybody on this host has joined is heard.
    socket.set_multicast_all_v4(false)?;
    match options.multicast_interface {
        Some(Interface::Address(address)) => socket.set_multicast_if_v4(&address),
        Some(Interface::Index(_)) => Err(wrong(
            "an IPv4 socket takes an interface by address, not by index",
        )),
        None => Ok(()),
    }
}

fn multicast_v6(socket: &Socket, options: &UdpOptions) -> io::Result<()> {
    socket.set_multicast_hops_v6(options.multicast_ttl.into())?;
    socket.set_multicast_loop_v6(options.multicast_loop)?;
    socket.set_multicast_all_v6(false)?;
    match options.multicast_interface {
        Some(Interface::Index(index)) => socket.set_multicast_if_v6(index),
        Some(Interface::Address(_)) => Err(wrong(
            "an IPv6 socket takes an interface by index, not by address",
        )),
        None => Ok(()),
    }
}

fn join(socket: &Socket, group: &Membership) -> io::Result<()> {
    let joined = match (group.group, group.interface) {
        (IpAddr::V4(ip), None) => join_v4(socket, ip, group.source, Ipv4Addr::UNSPECIFIED),
        (IpAddr::V4(ip), Some(Interface::Address(on))) => join_v4(socket, ip, group.source, on),
        (IpAddr::V6(_), _) if group.source.is_some() => {
            Err(wrong("one sender of an IPv6 group is not supported"))
        }
        (IpAddr::V6(ip), None) => socket.join_multicast_v6(&ip, 0),
        (IpAddr::V6(ip), Some(Interface::Index(on))) => socket.join_multicast_v6(&ip, on),
        _ => Err(wrong("IPv4 names an interface by address, IPv6 by index")),
    };
    joined.map_err(|e| io::Error::new(e.kind(), format!("group {}: {e}", group.group)))
}

fn join_v4(socket: &Socket, group: Ipv4Addr, source: Option<Ipv4Addr>, on: Ipv4Addr) -> io::Result<()> {
    match source {
        Some(source) => socket.join_ssm_v4(&source, &group, &on),
        None => socket.join_multicast_v4(&group, &on),
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bind: SocketAddr) -> io::Result<Seat> {
        Seat::open(bind, UdpOptions::default())
    }

    #[test]
    fn an_address_is_ones_own_unless_shared_on_purpose() {
        let first = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = open(first.local).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&first.local.to_string()), "{error}");
        let shared = || UdpOptions {
            reuse: true,
            ..UdpOptions::default()
        };
        let one = Seat::open("127.0.0.1:0".parse().unwrap(), shared()).unwrap();
        assert!(Seat::open(one.local, shared()).is_ok());
    }

    #[test]
    fn peers_lie_at_the_same_address() {
        let socket = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let udp = Udp::new(Conn::new(0, 0));
        let peers = [9, 10].map(|port| socket.connect(udp, ([127, 0, 0, 1], port).into()).unwrap());
        for peer in peers {
            let local = socket2::SockRef::from(&peer.fd).local_addr().unwrap().as_socket();
            assert_eq!(local, Some(socket.local));
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        let options = UdpOptions {
            multicast_interface: Some(Interface::Index(1)),
            ..UdpOptions::default()
        };
        let error = Seat::open("127.0.0.1:0".parse().unwrap(), options).err().unwrap();
        assert!(error.to_string().contains("by address"), "{error}");
        let mut options = UdpOptions::default();
        options.groups.push(Membership {
            group: "ff02::1234".parse().unwrap(),
            source: Some(Ipv4Addr::LOCALHOST),
            interface: None,
        });
        let error = Seat::open("0.0.0.0:0".parse().unwrap(), options).err().unwrap();
        assert!(error.to_string().contains("ff02::1234"), "{error}");
    }

    #[test]
    fn refused_trains_are_given_up() {
        let mut gso = Gso::default();
        (0..3).for_each(|_| gso.refused(libc::EINVAL));
        assert!(gso.works());
        gso.taken();
        (0..3).for_each(|_| gso.refused(libc::EINVAL));
        assert!(gso.works());
        gso.refused(libc::EMSGSIZE);
        assert!(!gso.works());
        let mut gso = Gso::default();
        gso.refused(libc::EIO);
        assert!(!gso.works());
    }
}
