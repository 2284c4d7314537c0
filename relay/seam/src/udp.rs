//! Datagrams: what a machine asks for and is told of UDP.
//!
//! A datagram is offered once and forgotten: the kernel takes it or it is dropped and counted, and no datagram waits
//! for another. Whom to send to, how much to somebody who has not proven its address, and what to send again are the
//! rules' business.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{Conn, Payload};

/// One UDP socket, named by its driver. Never reused, like a [`Conn`], and from a table of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Udp(Conn);

impl Udp {
    /// The socket in a slot of the driver's table of sockets. Called by drivers.
    pub fn new(place: Conn) -> Self {
        Self(place)
    }

    /// Its place in the driver's table of sockets; not a connection of the machine's.
    pub fn place(self) -> Conn {
        self.0
    }
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp {}#{}", self.0.slot(), self.0.generation())
    }
}

/// How a UDP socket is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// How many routers a multicast datagram may pass (`IP_MULTICAST_TTL`); 1 stays in the LAN.
    pub multicast_ttl: u8,
    /// Where multicast datagrams leave; none: where the route to the group leads.
    pub multicast_interface: Option<Interface>,
    /// Members on this host hear what is sent from it. Off: the kernel would copy every datagram for them.
    pub multicast_loop: bool,
    /// Groups to receive; datagrams to any other group are not heard, whoever else on this host has joined it.
    pub groups: Vec<Membership>,
    /// `SO_RCVBUF` in bytes (the kernel doubles it, and has a maximum); none: the kernel's default.
    pub receive_buffer: Option<u32>,
    /// `SO_SNDBUF` in bytes, likewise.
    pub send_buffer: Option<u32>,
    /// Others may bind the same address: several programs hear one group, several workers share one port.
    pub reuse: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            multicast_ttl: 1,
            multicast_interface: None,
            multicast_loop: false,
            groups: Vec::new(),
            receive_buffer: None,
            send_buffer: None,
            reuse: false,
        }
    }
}

/// A network interface, named as the two families name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// By an IPv4 address of it.
    Address(Ipv4Addr),
    /// By its index, for IPv6.
    Index(u32),
}

/// A multicast group to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// Only from this sender (RFC 4607); IPv4 only.
    pub source: Option<Ipv4Addr>,
    /// On this interface; none: where the route to the group leads.
    pub interface: Option<Interface>,
}

/// The first bytes of a datagram, the machine's own, kept in place.
#[derive(Clone, Copy)]
pub struct Head {
    len: u8,
    bytes: [u8; Head::MAX],
}

impl Head {
    /// Most bytes of a head.
    pub const MAX: usize = 64;
    /// No head.
    pub const NONE: Head = Head {
        len: 0,
        bytes: [0; Head::MAX],
    };

    /// A head of these bytes; `None` when there are more than [`Head::MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut head = Self::NONE;
        head.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        head.len = bytes.len() as u8;
        Some(head)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "head {:02x?}", self.bytes())
    }
}

/// One datagram to send, or several of one size.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// From which socket.
    pub udp: Udp,
    /// To whom: a peer, or a group.
    pub to: SocketAddr,
    /// Comes first.
    pub head: Head,
    /// Comes behind the head.
    pub body: Option<Payload>,
    /// Zero: head and body are one datagram. Otherwise they are cut into datagrams of so many bytes each, of which the
    /// last may be shorter: a run of chunks in one output.
    pub segment: u16,
}

impl Datagram {
    /// Most bytes of one datagram over IPv4.
    pub const BYTES_MAX: usize = 65_507;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_holds_so_much_and_no_more() {
        let most = [7; Head::MAX];
        let kept = |bytes: &[u8]| Head::new(bytes).map(|head| head.bytes().to_vec());
        assert_eq!(kept(&most), Some(most.to_vec()));
        assert_eq!(kept(&[7; Head::MAX + 1]), None);
        assert_eq!(kept(b""), Some(Vec::new()));
        assert!(Head::NONE.bytes().is_empty());
    }
}
