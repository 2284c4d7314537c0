//! Where rules meet I/O.
//!
//! A [`Machine`] is told what happened ([`Input`]) and asked what it wants ([`Output`]). It reads no clock, opens
//! no socket and spawns nothing: `now` is an argument, and only a driver acts. There are three drivers: io_uring
//! and mio in `relay-driver`, and the simulator in `tests/sim`.
//!
//! # The contract between a driver and a machine
//!
//! One round:
//!
//! 1. The driver hands over what happened: `handle(now, input)`, any number of times.
//! 2. The driver asks `poll(now)` until it answers `None` (or until its batch is full), **keeping** the outputs.
//! 3. The driver carries the batch out. For every [`Output::Send`] it fetches the bytes by
//!    [`Machine::bytes`] and offers them to the kernel without waiting (`MSG_DONTWAIT`).
//! 4. For every `Send` of the batch it hands back exactly one [`Input::Sent`], before it polls again. Between 3
//!    and 4 it calls no `&mut` method of the machine: that is what keeps ring memory pinned while the kernel reads it.
//! 5. When `poll` answers `None` straight away, the driver sleeps until [`Machine::deadline`], an event, or the
//!    machine's bell ([`relay_ring::Bell`]), then starts again at 1.
//!
//! # Datagrams
//!
//! [`Output::Datagram`]s are carried out in step 3 like sends, after them and in their order, but nothing waits: what
//! the kernel does not take at once is dropped and counted. One [`Input::Posted`] for all datagrams of a batch takes
//! the place of the many [`Input::Sent`] in step 4: until then their spans stay pinned. Datagrams to the same address
//! that stand next to each other in a batch and are equally long (the last may be shorter) go to the kernel as one
//! (GSO).
//!
//! A [`Conn`] belongs to the driver, carries a generation, and is never reused: an input or output that names a
//! connection the other side has already let go is ignored by both, silently and safely.

mod conn;
mod input;
mod now;
mod output;
mod udp;

pub use conn::Conn;
pub use input::{CloseReason, Input, Sent};
pub use now::Now;
pub use output::{Closing, Handover, Output, Payload, Span};
pub use udp::{Datagram, Head, Interface, Membership, Udp, UdpOptions};

/// A set of rules that a driver turns.
pub trait Machine {
    /// Something happened.
    fn handle(&mut self, now: Now, input: Input<'_>);

    /// What is wanted next; the driver asks until `None`.
    fn poll(&mut self, now: Now) -> Option<Output>;

    /// The bytes behind a [`Span`] of an output that this machine gave out and whose [`Input::Sent`] (or
    /// [`Input::Posted`]) it has not had yet.
    ///
    /// # Panics
    ///
    /// When the span is not pinned: a driver that asks late has broken the contract.
    fn bytes(&self, span: Span) -> &[u8];

    /// The reader behind a [`Span`], under the same conditions as [`Machine::bytes`]: a driver that can send from
    /// registered memory takes a hold of it ([`relay_ring::Reader::holder`]) and tells nobody. `None` where the memory
    /// is not a ring's.
    fn reader(&self, span: Span) -> Option<&relay_ring::Reader> {
        let _ = span;
        None
    }
    /// When the machine wants to be woken although nothing happened.
    fn deadline(&self) -> Option<Now>;

    /// The driver is about to sleep, or has woken: a machine that is fed by other threads raises and lowers its
    /// "parked" flag here. Returns `false` when something has arrived in the meantime: the driver does not sleep then,
    /// but says `park(false)` and [`Input::Woken`]. A machine looks at its mailbox inside `park`, or loses wake-ups.
    fn park(&mut self, parked: bool) -> bool {
        let _ = parked;
        true
    }

    /// `true` once the machine has nothing left to do and wants its driver to return.
    fn finished(&self) -> bool {
        false
    }
}
