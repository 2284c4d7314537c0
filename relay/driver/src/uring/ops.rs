//! Names and shapes of the operations in flight.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use relay_seam::Conn;

use super::direct::File;

/// The buffer group of the receive buffers.
pub(super) const GROUP: u16 = 0;

/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the kernel copied (Linux 6.2).
const REPORT_USAGE: u16 = 1 << 3;

/// What a completion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Multishot accept; the slot is the listener.
    Accept = 1,
    /// Multishot receive.
    Recv,
    /// One-shot poll for room.
    Room,
    /// Multishot poll of the half-closed connections' epoll; in there, one of them.
    Halves,
    /// Multishot poll of the bell.
    Bell,
    /// Multishot poll of the resolver.
    Answer,
    /// Multishot poll of the epoll of UDP sockets.
    Mail,
    /// One send of a batch; the slot is its index.
    Send,
    /// A send without a copy; the name is its parcel's.
    Zero,
    /// A cancellation of the receive of this connection.
    CancelRecv,
    /// Any other cancellation: its answer does not matter.
    Cancel,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Accept,
        Self::Recv,
        Self::Room,
        Self::Halves,
        Self::Bell,
        Self::Answer,
        Self::Mail,
        Self::Send,
        Self::Zero,
        Self::CancelRecv,
        Self::Cancel,
    ];
}

/// `user_data`: kind (8 bits), generation (32), slot (24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    pub(super) conn: Conn,
}

impl Tag {
    pub(super) fn new(kind: Kind, conn: Conn) -> Self {
        Self { kind, conn }
    }

    /// For operations that belong to no connection.
    pub(super) fn indexed(kind: Kind, index: usize) -> Self {
        Self::new(kind, Conn::new(index as u32, 0))
    }

    pub(super) fn pack(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.conn.generation()) << 24 | self.conn.slot() as u64
    }

    /// `None`: not one of ours.
    pub(super) fn unpack(user_data: u64) -> Option<Self> {
        let kind = *Kind::ALL.get(usize::try_from(user_data >> 56).ok()?.checked_sub(1)?)?;
        let conn = Conn::new((user_data & 0xff_ffff) as u32, (user_data >> 24) as u32);
        Some(Self { kind, conn })
    }
}

/// An operation that names no memory of ours, so that it may be in flight for as long as it likes.
///
/// Receives name the registered buffer ring, which outlives the ring of operations.
pub(super) struct Plain(Entry);

impl Plain {
    fn new(entry: Entry, tag: Tag) -> Self {
        Self(entry.user_data(tag.pack()))
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.0
    }

    pub(super) fn accept(fd: RawFd, listener: usize) -> Self {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        Self::new(
            opcode::AcceptMulti::new(types::Fd(fd)).flags(flags).build(),
            Tag::indexed(Kind::Accept, listener),
        )
    }

    pub(super) fn recv(file: File, conn: Conn) -> Self {
        let recv = opcode::RecvMulti::new(file.number(), GROUP);
        Self::new(file.mark(recv.build()), Tag::new(Kind::Recv, conn))
    }

    pub(super) fn room(file: File, conn: Conn) -> Self {
        let poll = opcode::PollAdd::new(file.number(), libc::POLLOUT as u32);
        Self::new(file.mark(poll.build()), Tag::new(Kind::Room, conn))
    }

    pub(super) fn watch(fd: RawFd, kind: Kind) -> Self {
        let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).multi(true);
        Self::new(poll.build(), Tag::indexed(kind, 0))
    }

    /// Cancels the operation with this tag; its own completion carries `answer`.
    pub(super) fn cancel(what: Tag, answer: Kind) -> Self {
        Self::new(
            opcode::AsyncCancel::new(what.pack()).build(),
            Tag::new(answer, what.conn),
        )
    }

    pub(super) fn cancel_everything() -> Self {
        let all = types::CancelBuilder::any();
        Self::new(
            opcode::AsyncCancel2::new(all).build(),
            Tag::indexed(Kind::Cancel, 0),
        )
    }
}

/// A send of `bytes`; unlike [`Plain`] it names memory, which must stay until its completion.
pub(super) fn send(file: File, bytes: &[u8], index: usize) -> Entry {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let send =
        opcode::Send::new(file.number(), bytes.as_ptr(), len).flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    file.mark(send.build())
        .user_data(Tag::indexed(Kind::Send, index).pack())
}

/// As [`send`], to the address that a message header names, which must stay as long.
pub(super) fn send_to(fd: RawFd, bytes: &[u8], to: &libc::msghdr, index: usize) -> Entry {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    opcode::Send::new(types::Fd(fd), bytes.as_ptr(), len)
        .dest_addr(to.msg_name.cast_const().cast())
        .dest_addr_len(to.msg_namelen)
        .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        .build()
        .user_data(Tag::indexed(Kind::Send, index).pack())
}

/// A message to send; it names its header and what that points to, which must stay until its completion.
pub(super) fn send_message(fd: RawFd, message: &libc::msghdr, index: usize) -> Entry {
    opcode::SendMsg::new(types::Fd(fd), message)
        .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
        .build()
        .user_data(Tag::indexed(Kind::Send, index).pack())
}

/// As [`send`], from registered memory and without a copy: completes twice, and reports whether it copied after all.
pub(super) fn send_zc(file: File, bytes: &[u8], buffer: u16, parcel: Conn) -> Entry {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let send = opcode::SendZc::new(file.number(), bytes.as_ptr(), len)
        .buf_index(Some(buffer))
        .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        .zc_flags(REPORT_USAGE);
    file.mark(send.build())
        .user_data(Tag::new(Kind::Zero, parcel).pack())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_kind_generation_and_slot() {
        for kind in Kind::ALL {
            for conn in [
                Conn::new(0, 0),
                Conn::new(Conn::SLOTS_MAX - 1, u32::MAX),
                Conn::new(3, 9),
            ] {
                assert_eq!(
                    Tag::unpack(Tag::new(kind, conn).pack()),
                    Some(Tag::new(kind, conn))
                );
            }
        }
    }

    #[test]
    fn foreign_user_data_is_nobodys() {
        assert_eq!(Tag::unpack(0), None);
        assert_eq!(Tag::unpack(u64::MAX), None);
    }
}
