//! The calls of UDP: message headers for letters, `sendmmsg`, and `recvmmsg` into buffers of our own.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::sys::socket::{MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, send};

use super::letter::{Letter, Mail};

/// Datagrams taken from a socket in one call.
pub(crate) const RECEIVED_MAX: usize = 32;

/// An address in the kernel's form.
enum Name {
    V4(SockaddrIn),
    V6(SockaddrIn6),
}

impl Name {
    fn of(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(addr.into()),
            SocketAddr::V6(addr) => Self::V6(addr.into()),
        }
    }

    fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(addr) => (addr.as_ptr(), addr.len()),
            Self::V6(addr) => (addr.as_ptr(), addr.len()),
        }
    }
}

/// A control message that says `UDP_SEGMENT`, with the padding that `CMSG_SPACE` asks for.
#[repr(C, align(8))]
struct Segment {
    header: libc::cmsghdr,
    size: u16,
    _padding: [u8; 6],
}

/// Bytes of the header and the size, as `CMSG_LEN(2)` has them.
const SEGMENT_LEN: usize = size_of::<libc::cmsghdr>() + size_of::<u16>();
/// As `CMSG_SPACE(2)`.
const SEGMENT_SPACE: usize = size_of::<Segment>();

impl Segment {
    fn new(size: u16) -> Self {
        Self {
            header: libc::cmsghdr {
                cmsg_len: SEGMENT_LEN as _,
                cmsg_level: libc::SOL_UDP,
                cmsg_type: libc::UDP_SEGMENT,
            },
            size,
            _padding: [0; 6],
        }
    }
}

/// The memory of message headers: kept from batch to batch, so that sending allocates nothing.
#[derive(Default)]
pub(crate) struct Outbox {
    headers: Vec<libc::mmsghdr>,
    names: Vec<Name>,
    controls: Vec<Segment>,
}

/// Letters with their message headers. The headers point into the mail and the outbox, which are borrowed for as long.
pub(crate) struct Laid<'m> {
    pub(crate) letters: &'m [Letter<'m>],
    headers: &'m mut [libc::mmsghdr],
    slices: &'m [IoSlice<'m>],
}

impl Outbox {
    /// Writes the headers of all letters.
    pub(crate) fn lay_out<'m>(&'m mut self, mail: &'m Mail<'_>) -> Laid<'m> {
        self.names.clear();
        self.controls.clear();
        self.headers.clear();
        // First what is pointed to, then the pointers: nothing moves any more.
        for letter in &mail.letters {
            let unconnected = Some(letter).filter(|letter| !letter.route.connected);
            self.names
                .extend(unconnected.map(|letter| Name::of(letter.route.to)));
            self.controls.extend(letter.control().map(Segment::new));
        }
        let (mut names, mut controls) = (self.names.iter(), self.controls.iter());
        for letter in &mail.letters {
            let name = if letter.route.connected {
                None
            } else {
                names.next()
            };
            let control = letter.control().and_then(|_| controls.next());
            let slices = &mail.slices[letter.slices.clone()];
            self.headers.push(header(slices, name, control));
        }
        Laid {
            letters: &mail.letters,
            headers: &mut self.headers,
            slices: &mail.slices,
        }
    }
}

/// The kernel only reads what a message to send points to, for all that the pointers are not `const`.
fn header(slices: &[IoSlice<'_>], name: Option<&Name>, control: Option<&Segment>) -> libc::mmsghdr {
    let (name, name_len) = name.map_or((ptr::null(), 0), Name::raw);
    let control_len = control.map_or(0, |_| SEGMENT_SPACE);
    let mut header = empty();
    header.msg_hdr.msg_name = name.cast_mut().cast();
    header.msg_hdr.msg_namelen = name_len;
    // `IoSlice` has the layout of `iovec` (its documentation).
    header.msg_hdr.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_hdr.msg_iovlen = slices.len() as _;
    header.msg_hdr.msg_control = control.map_or(ptr::null(), ptr::from_ref).cast_mut().cast();
    header.msg_hdr.msg_controllen = control_len as _;
    header
}

fn empty() -> libc::mmsghdr {
    // SAFETY: all zeroes are a message header: null pointers with zero lengths.
    unsafe { std::mem::zeroed() }
}

impl Laid<'_> {
    /// The header of letter `i`: stays where it is while this is borrowed, and so does all it points to.
    pub(crate) fn header(&self, i: usize) -> &libc::msghdr {
        &self.headers[i].msg_hdr
    }

    /// The bytes of letter `i`, where it is no more than bytes to a connected socket.
    pub(crate) fn plain(&self, i: usize) -> Option<&[u8]> {
        if self.letters[i].route.connected {
            self.bare(i)
        } else {
            None
        }
    }

    /// The bytes of letter `i`, where they are one stretch and there is nothing more to say than whom they go to.
    pub(crate) fn bare(&self, i: usize) -> Option<&[u8]> {
        let letter = &self.letters[i];
        if letter.control().is_some() {
            return None;
        }
        match &self.slices[letter.slices.clone()] {
            [] => Some(&[]),
            [one] => Some(one),
            _ => None,
        }
    }

    /// Sends all letters without waiting, those of one socket that stand together in one call. `results[i]`: bytes
    /// taken, or
    /// `-errno`.
    pub(crate) fn send(&mut self, results: &mut [i32]) {
        let mut from = 0;
        for same in self.letters.chunk_by(|a, b| a.route.fd == b.route.fd) {
            let to = from + same.len();
            if let (1, Some(bytes)) = (same.len(), self.plain(from)) {
                // Cheaper than a message for one.
                results[from] = send_plain(same[0].route.fd, bytes);
                from = to;
                continue;
            }
            let (headers, results) = (&mut self.headers[from..to], &mut results[from..to]);
            send_all(same[0].route.fd, headers, results);
            from = to;
        }
    }
}

fn send_plain(fd: RawFd, bytes: &[u8]) -> i32 {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(fd, bytes, flags) {
        Ok(n) => i32::try_from(n).unwrap_or(i32::MAX),
        Err(errno) => -(errno as i32),
    }
}

fn send_all(fd: RawFd, headers: &mut [libc::mmsghdr], results: &mut [i32]) {
    let mut done = 0;
    while done < headers.len() {
        let left = &mut headers[done..];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `left` are initialised headers whose pointers the borrow of `Laid` keeps alive; the kernel is done
        // with them when the call returns, and writes nothing but the counts in the headers.
        let n = unsafe { libc::sendmmsg(fd, left.as_mut_ptr(), left.len() as u32, flags) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => {
                for (header, result) in left[..n].iter().zip(&mut results[done..]) {
                    *result = i32::try_from(header.msg_len).unwrap_or(i32::MAX);
                }
                done += n;
            }
            // The first of them failed; those behind it have not been looked at.
            _ => {
                results[done] = -(nix::errno::Errno::last_raw());
                done += 1;
            }
        }
    }
}

/// Buffers for the datagrams of one call.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    slices: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    size: usize,
}

/// A datagram in the inbox.
pub(crate) struct Arrival<'a> {
    /// Who wrote it, so it says; none where the kernel gave no IP address.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) bytes: &'a [u8],
    /// It was longer than its buffer.
    pub(crate) cut: bool,
}

impl Inbox {
    /// Room for datagrams of at most `size` bytes.
    pub(crate) fn new(size: usize) -> Self {
        let nowhere = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: all zeroes are an address of no family.
        let no_name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Self {
            bytes: vec![0; size.max(1) * RECEIVED_MAX].into(),
            names: vec![no_name; RECEIVED_MAX].into(),
            slices: vec![nowhere; RECEIVED_MAX].into(),
            headers: vec![empty(); RECEIVED_MAX].into(),
            size: size.max(1),
        }
    }

    /// Takes at most `most` datagrams from a socket, without waiting; how many, or the `errno`.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, most: usize) -> Result<usize, i32> {
        let most = most.clamp(1, RECEIVED_MAX);
        let buffers = self.bytes.chunks_exact_mut(self.size);
        let rooms = buffers.zip(&mut self.names).zip(&mut self.slices);
        for (((buffer, name), slice), header) in rooms.zip(&mut self.headers).take(most) {
            *slice = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            *header = empty();
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `most` headers have just been written; each points to a buffer, a name and a slice of its own in this
        // inbox, which is borrowed mutably until the call returns.
        let n = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as u32,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(n).map_err(|_| nix::errno::Errno::last_raw())
    }

    /// The `i`-th datagram of the last call.
    pub(crate) fn arrival(&self, i: usize) -> Arrival<'_> {
        let header = &self.headers[i];
        let len = (header.msg_len as usize).min(self.size);
        Arrival {
            from: address(&self.names[i], header.msg_hdr.msg_namelen),
            bytes: &self.bytes[i * self.size..][..len],
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}

/// A peer's address; an IPv4 address as such, also where it came to an IPv6 socket.
fn address(name: &libc::sockaddr_storage, len: libc::socklen_t) -> Option<SocketAddr> {
    // SAFETY: the storage is initialised and large enough for every family; a length that does not fit the family is
    // refused.
    let name = unsafe { SockaddrStorage::from_raw(ptr::from_ref(name).cast(), Some(len)) }?;
    let v4 = name.as_sockaddr_in().map(|name| SocketAddr::V4((*name).into()));
    let addr = v4.or_else(|| name.as_sockaddr_in6().map(|name| SocketAddr::V6((*name).into())))?;
    match addr.ip().to_canonical() {
        ip if ip.is_ipv4() => Some(SocketAddr::new(ip, addr.port())),
        _ => Some(addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::letter::{Parts, Route};
    use relay_seam::Conn;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn the_control_message_has_the_kernels_shape() {
        // SAFETY: these only compute.
        assert_eq!(SEGMENT_LEN, unsafe { libc::CMSG_LEN(2) } as usize);
        // SAFETY: likewise.
        assert_eq!(SEGMENT_SPACE, unsafe { libc::CMSG_SPACE(2) } as usize);
    }

    #[test]
    fn a_refused_letter_does_not_hold_up_the_others() {
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = here.local_addr().unwrap();
        let route = |to| Route {
            fd: sender.as_raw_fd(),
            place: Conn::new(0, 0),
            to,
            connected: false,
            local: to.ip(),
            gso: false,
            set: 0,
        };
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let parts = Parts {
            head: b"head ",
            body: b"body",
            from: None,
        };
        let mut mail = Mail::default();
        for (i, to) in [to, nowhere, to, nowhere].into_iter().enumerate() {
            assert!(mail.add(route(to), i, parts, 0));
        }
        let mut outbox = Outbox::default();
        let mut results = [0; 4];
        outbox.lay_out(&mail).send(&mut results);
        assert_eq!(results, [9, -libc::EINVAL, 9, -libc::EINVAL]);
        let mut inbox = Inbox::new(7);
        assert_eq!(inbox.receive(here.as_fd(), 9), Ok(2));
        for i in 0..2 {
            let arrival = inbox.arrival(i);
            assert_eq!(arrival.from, sender.local_addr().ok());
            assert!(arrival.cut && arrival.bytes == b"head bo");
        }
        assert_eq!(inbox.receive(here.as_fd(), 9), Err(libc::EAGAIN));
    }
}
