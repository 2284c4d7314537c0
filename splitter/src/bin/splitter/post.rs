//! Datagrams out and in, through one UDP socket that never blocks.
//!
//! What the kernel does not take at once waits in a short queue. Reports that a port is closed are read from the
//! socket's error queue (`IP_RECVERR`): on this wire they are the only sign that a peer has died.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};

/// Datagrams that wait at most; 1 MiB of the usual chunk.
const QUEUE_MAX: usize = 1024;
/// Bytes asked of the kernel for what it holds in each direction; it may give less.
const KERNEL_BYTES: usize = 1 << 20;
/// Reports read at a time.
const REPORTS_MAX: usize = 64;

/// What went wrong or was dropped. All of them only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PostStats {
    /// Bytes of datagrams that the kernel took.
    pub(crate) bytes_out: u64,
    /// Datagrams dropped because too many waited.
    pub(crate) dropped: u64,
    /// Datagrams that the kernel refused.
    pub(crate) refused: u64,
    /// Reports from the network other than that of a closed port.
    pub(crate) reports_other: u64,
}

/// What a call to receive brought.
pub(crate) enum Received {
    /// So many bytes, from there.
    Datagram(usize, SocketAddrV4),
    /// An older datagram's error; there may be more behind it.
    Error,
    /// There is nothing now.
    Nothing,
}

pub(crate) struct Post {
    socket: UdpSocket,
    queue: VecDeque<(SocketAddrV4, Vec<u8>)>,
    closed: Vec<SocketAddrV4>,
    pub(crate) stats: PostStats,
}

impl Post {
    /// # Errors
    ///
    /// When the socket cannot have its error queue.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        // Only wishes: the sysctl maxima bound them.
        let _ = setsockopt(&socket, sockopt::SndBuf, &KERNEL_BYTES);
        let _ = setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BYTES);
        Ok(Self {
            socket,
            queue: VecDeque::new(),
            closed: Vec::new(),
            stats: PostStats::default(),
        })
    }

    pub(crate) fn socket(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    pub(crate) fn send(&mut self, to: SocketAddrV4, datagram: Vec<u8>) {
        if self.queue.len() == QUEUE_MAX {
            self.stats.dropped += 1;
            return;
        }
        self.queue.push_back((to, datagram));
        self.flush();
    }

    /// The kernel may take more.
    pub(crate) fn flush(&mut self) {
        while let Some((to, datagram)) = self.queue.pop_front() {
            match self.offer(to, &datagram) {
                Ok(n) => self.stats.bytes_out += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.queue.push_front((to, datagram));
                }
                Err(_) => self.stats.refused += 1,
            }
        }
    }

    /// An error may be an older datagram's, which this call only reports: then it is offered once more.
    fn offer(&mut self, to: SocketAddrV4, datagram: &[u8]) -> io::Result<usize> {
        let to = SocketAddr::V4(to);
        match self.socket.send_to(datagram, to) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.read_reports();
                self.socket.send_to(datagram, to)
            }
            result => result,
        }
    }

    /// The next datagram, cut to `buffer`. Each failed call reports one error of an older one.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match self.socket.recv_from(buffer) {
            Ok((n, SocketAddr::V4(from))) => Received::Datagram(n, from),
            Ok((_, SocketAddr::V6(_))) => Received::Error,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
            Err(_) => {
                self.read_reports();
                Received::Error
            }
        }
    }

    /// Reads what the network says about datagrams that were sent.
    pub(crate) fn read_reports(&mut self) {
        for _ in 0..REPORTS_MAX {
            match self.report() {
                Ok(Some(peer)) => self.closed.push(peer),
                Ok(None) => self.stats.reports_other += 1,
                Err(_) => return,
            }
        }
    }

    /// The peer whose port is closed, if that is what the next report says.
    fn report(&self) -> nix::Result<Option<SocketAddrV4>> {
        let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
        let mut payload = [0; 64];
        let mut slices = [IoSliceMut::new(&mut payload)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let closed = message.cmsgs()?.any(|control| {
            matches!(control, ControlMessageOwned::Ipv4RecvErr(error, _) if error.ee_errno == libc::ECONNREFUSED as u32)
        });
        let to = message.address.map(|to| SocketAddrV4::new(to.ip(), to.port()));
        Ok(to.filter(|_| closed))
    }

    /// One peer whose port was reported closed.
    pub(crate) fn closed(&mut self) -> Option<SocketAddrV4> {
        self.closed.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn post() -> Post {
        let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
        Post::new(UdpSocket::bind(any).unwrap()).unwrap()
    }

    fn endpoint(socket: &std::net::UdpSocket) -> SocketAddrV4 {
        match socket.local_addr().unwrap() {
            SocketAddr::V4(endpoint) => endpoint,
            SocketAddr::V6(_) => panic!("bound to IPv4"),
        }
    }

    #[test]
    fn a_closed_port_is_reported_and_costs_no_other_datagram() {
        let mut post = post();
        let open = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone = endpoint(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        // On loopback the report is there when the call returns.
        post.send(gone, b"x".to_vec());
        post.send(endpoint(&open), b"y".to_vec());
        let mut buffer = [0; 8];
        assert_eq!(open.recv(&mut buffer).unwrap(), 1);
        post.read_reports();
        assert_eq!((post.closed(), post.closed()), (Some(gone), None));
        assert_eq!(
            (post.stats.bytes_out, post.stats.refused, post.stats.dropped),
            (2, 0, 0)
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_counted() {
        let mut post = post();
        let open = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        post.send(endpoint(&open), vec![0; 70_000]);
        assert_eq!(post.stats.refused, 1);
    }
}
