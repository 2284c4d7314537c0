//! The sockets that hear a group: the stream's port, and that of parity.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use relay_cast::sdp::PARITY_PORT;
use relay_driver::lan;
use relay_seam::Interface;
use socket2::{Domain, Protocol, Socket, Type};

use super::Lan;

/// The kernel holds so much for us while we are busy, as far as its limit (`net.core.rmem_max`) allows.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Longest datagram that is read: Ethernet's jumbo frames.
const DATAGRAM_MAX: usize = 9216;
/// Datagrams that are read from a socket before somebody else has a turn.
const TURN_MAX: usize = 256;

/// Both sockets.
#[derive(Debug)]
pub(super) struct Ears {
    media: UdpSocket,
    /// None: there is no such port.
    parity: Option<UdpSocket>,
    buffer: Vec<u8>,
}

impl Ears {
    /// Joins a group.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`], with what would help.
    pub(super) fn join(wanted: &Lan) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let group = wanted.group;
        let way = lan(group.ip(), wanted.interface.as_deref());
        let way = way.map_err(|why| invalid(format!("--lan {wanted}: {why}")))?;
        // Without a name it is where the route leads, which is where that address of ours is.
        let on = way.interface.or(match way.from {
            IpAddr::V4(ip) => Some(Interface::Address(ip)),
            IpAddr::V6(_) => None,
        });
        let open = |port: u16| {
            let at = SocketAddr::new(group.ip(), port);
            join(at, wanted, on).map_err(|error| invalid(format!("--lan {wanted}: {}", explain(at, &error))))
        };
        Ok(Self {
            media: open(group.port())?,
            parity: group.port().checked_add(PARITY_PORT).map(open).transpose()?,
            buffer: vec![0; DATAGRAM_MAX],
        })
    }

    /// Tells what came, and whether it is parity. `false`: these ears hear nothing any more.
    pub(super) fn hear(&mut self, mut tell: impl FnMut(bool, &[u8])) -> bool {
        let mut alive = read(&self.media, &mut self.buffer, |bytes| tell(false, bytes));
        if let Some(parity) = &self.parity {
            alive &= read(parity, &mut self.buffer, |bytes| tell(true, bytes));
        }
        alive
    }
}

/// Waits until one of them, or the link, has something, but not for longer.
pub(super) fn wait(ears: Option<&Ears>, link: Option<(&TcpStream, bool)>, most: Duration) {
    let mut fds = Vec::with_capacity(3);
    let sockets = ears
        .into_iter()
        .flat_map(|ears| [Some(&ears.media), ears.parity.as_ref()]);
    fds.extend(
        sockets
            .flatten()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)),
    );
    fds.extend(link.map(|(stream, connecting)| {
        let events = if connecting {
            PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        PollFd::new(stream.as_fd(), events)
    }));
    // Rounded up: a deadline that is half a millisecond away must not be spun for.
    let ms = u16::try_from(most.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    // An interrupted wait is a short one.
    let _ = poll(&mut fds, PollTimeout::from(ms));
}

fn read(socket: &UdpSocket, buffer: &mut [u8], mut tell: impl FnMut(&[u8])) -> bool {
    for _ in 0..TURN_MAX {
        match socket.recv(buffer) {
            // A datagram that fills the buffer was perhaps cut.
            Ok(n) if n < buffer.len() => tell(&buffer[..n]),
            Ok(_) => {}
            Err(error) => {
                return matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
            }
        }
    }
    true
}

fn join(at: SocketAddr, wanted: &Lan, on: Option<Interface>) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(at), kind, Some(Protocol::UDP))?;
    // Players on this host may hear the same group.
    socket.set_reuse_address(true)?;
    // Beyond the limit if we may, up to it otherwise.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    // Bound to the group itself: nothing that is sent to us alone is heard.
    socket.bind(&at.into())?;
    match (at.ip(), on) {
        (IpAddr::V4(group), Some(Interface::Address(on))) => match wanted.sender {
            Some(sender) => socket.join_ssm_v4(&sender, &group, &on)?,
            None => socket.join_multicast_v4(&group, &on)?,
        },
        (IpAddr::V6(group), Some(Interface::Index(on))) => socket.join_multicast_v6(&group, on)?,
        (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, 0)?,
        (IpAddr::V4(group), _) => socket.join_multicast_v4(&group, &std::net::Ipv4Addr::UNSPECIFIED)?,
    }
    Ok(socket.into())
}

fn explain(at: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is in use by a program that does not share it; end that program, or cast to another port \
             (relay run --multicast GROUP:PORT)",
            at.port()
        ),
        _ => format!("cannot join {at}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_loopback(port: u16) -> Lan {
        Lan {
            group: SocketAddr::new([239, 255, 42, 99].into(), port),
            sender: None,
            interface: Some("lo".into()),
        }
    }

    #[test]
    fn a_port_that_somebody_has_for_himself_is_refused_with_a_remedy() {
        let holder = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = Ears::join(&on_loopback(port)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(
            error.to_string().contains("in use") && error.to_string().contains(&port.to_string()),
            "{error}"
        );
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let lan = Lan {
            interface: Some("nosuch0".into()),
            ..on_loopback(5004)
        };
        let error = Ears::join(&lan).unwrap_err().to_string();
        assert!(error.contains("nosuch0") && error.contains("lo"), "{error}");
    }
}
