//! Socket options and questions, shared by both drivers.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use relay_seam::CloseReason;
use socket2::SockRef;

/// Bounds the kernel's share of a connection's memory ([`relay_seam::Output::Bound`]).
pub(crate) fn bound(
    fd: &impl AsFd,
    send_buffer: Option<u32>,
    unsent: Option<u32>,
    user_timeout: Option<Duration>,
) -> io::Result<()> {
    let socket = SockRef::from(fd);
    if let Some(bytes) = send_buffer {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = unsent {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    if user_timeout.is_some() {
        socket.set_tcp_user_timeout(user_timeout)?;
    }
    Ok(())
}

/// Sends at once, without Nagle's delay: we batch ourselves.
pub(crate) fn no_delay(fd: &impl AsFd) -> io::Result<()> {
    SockRef::from(fd).set_tcp_nodelay(true)
}

/// Closing the socket will reset the connection and free its kernel memory.
pub(crate) fn reset_on_close(fd: &impl AsFd) -> io::Result<()> {
    SockRef::from(fd).set_linger(Some(Duration::ZERO))
}

/// After what was sent, say FIN.
pub(crate) fn finish(fd: &impl AsFd) -> io::Result<()> {
    SockRef::from(fd).shutdown(Shutdown::Write)
}

/// Takes the pending error (`SO_ERROR`) off a socket.
pub(crate) fn take_error(fd: &impl AsFd) -> Option<io::Error> {
    SockRef::from(fd).take_error().unwrap_or_else(Some)
}

/// Who is at the other end; an IPv4 address as such, also where it came to an IPv6 socket.
pub(crate) fn peer(fd: &impl AsFd) -> io::Result<SocketAddr> {
    let addr = SockRef::from(fd).peer_addr()?.as_socket();
    let addr =
        addr.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the peer has no IP address"))?;
    match addr.ip().to_canonical() {
        ip if ip.is_ipv4() => Ok(SocketAddr::new(ip, addr.port())),
        _ => Ok(addr),
    }
}

/// The addresses of both ends; none where the connection is gone already, or has no IP addresses.
pub(crate) fn ends(fd: &impl AsFd) -> Option<(IpAddr, IpAddr)> {
    let socket = SockRef::from(fd);
    let local = socket.local_addr().ok()?.as_socket()?;
    let peer = socket.peer_addr().ok()?.as_socket()?;
    Some((local.ip(), peer.ip()))
}

/// What an `errno` on an established connection means to a machine.
pub(crate) fn reason(errno: i32) -> CloseReason {
    match errno {
        libc::ECONNRESET | libc::EPIPE => CloseReason::Reset,
        libc::ETIMEDOUT => CloseReason::TimedOut,
        other => CloseReason::Error(other),
    }
}
