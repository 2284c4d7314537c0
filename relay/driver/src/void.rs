//! TCP connections to nobody, for measuring.
//!
//! What a send costs this host can be measured on one machine only if no receiver's work is mixed into it. Linux can
//! put a socket into any state without a packet (`TCP_REPAIR`, made for moving connections between hosts, tcp(7)). Such
//! a connection runs the whole transmit path; with a device that drops what it is given, that is all there is. Nothing
//! is ever acknowledged, so the window and the number of bytes must allow for it, and the time must be shorter than a
//! retransmission timeout (a second).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// linux/tcp.h: leave repair mode without a window probe, which nobody would answer.
const REPAIR_OFF_NO_PROBE: i32 = -1;
/// linux/tcp.h: what both ends would have agreed on: RFC 9293 (MSS), RFC 7323 (window scale).
const OPTION_MSS: u32 = 2;
const OPTION_WINDOW_SCALE: u32 = 3;
const MSS: u32 = 1460;
const SCALE: u32 = 14;
/// Nobody uses it; the kernel wants to see one.
const RECEIVE_WINDOW: u32 = 65_535;
/// Unacknowledged bytes that the socket may hold; the kernel doubles it.
const SEND_BUFFER: usize = 8 << 20;

#[repr(C)]
struct RepairOption {
    code: u32,
    value: u32,
}

#[repr(C)]
#[derive(Default)]
struct RepairWindow {
    snd_wl1: u32,
    snd_wnd: u32,
    max_window: u32,
    rcv_wnd: u32,
    rcv_wup: u32,
}

/// A connection to `to`, established without a packet, that may send `window` bytes without an answer. Reno as its
/// congestion control: others pace. How much it sends at once is its route's `initcwnd`.
///
/// # Errors
///
/// Without `CAP_NET_ADMIN`, without a route, or where the kernel has no `TCP_REPAIR`.
pub fn connect_to_nobody(to: SocketAddr, window: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, &1i32)?;
    set_bytes(&socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"reno")?;
    set(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        &(SEND_BUFFER as i32),
    )?;
    socket.set_tcp_nodelay(true)?;
    // Or the connection begins with the smallest that there is, before anything is agreed on.
    set(&socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, &(MSS as i32))?;
    socket.connect(&SockAddr::from(to))?;
    let agreed = [
        RepairOption {
            code: OPTION_MSS,
            value: MSS,
        },
        RepairOption {
            code: OPTION_WINDOW_SCALE,
            value: SCALE | SCALE << 16,
        },
    ];
    set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, &agreed)?;
    let open = RepairWindow {
        snd_wnd: window,
        max_window: window,
        rcv_wnd: RECEIVE_WINDOW,
        ..RepairWindow::default()
    };
    set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &open)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, &REPAIR_OFF_NO_PROBE)?;
    Ok(socket.into())
}

fn set<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is a plain integer or a `repr(C)` struct (or array) of integers, alive for the whole call; its
    // length is given; the kernel copies it and writes nothing.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_bytes(socket: &Socket, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are those of one slice, alive for the whole call; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
