//! The only room that talks to a kernel: two drivers, io_uring and mio, behind one contract.
//!
//! [`run`] turns a [`relay_seam::Machine`] on the calling thread until it has finished. The loop and everything
//! that is not a system call (`wheel`) is written once; a `Shore` is the part that differs: how to wait,
//! receive and send. Both shores pass the same contract tests (`contract.rs`).
//!
//! Start to read in `wheel.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

mod act;
mod calls;
mod clock;
#[cfg(test)]
mod contract;
mod crew;
mod door;
mod hear;
mod lan;
mod leave;
mod listen;
mod mio;
mod place;
mod probe;
mod resolve;
mod seat;
mod setup;
mod share;
mod shore;
mod sockopt;
mod stats;
mod steer;
mod table;
mod udp;
mod uring;
mod void;
mod wheel;

use std::io;
use std::sync::Arc;

use relay_seam::Machine;

use calls::Calls;
use resolve::Resolver;
use wheel::Wheel;

pub use crew::Crew;
pub use lan::{Lan, NoLan, lan};
pub use listen::bind;
pub use probe::{Probe, Tier, probe};
pub use setup::{HandoverFn, Setup, ZeroCopy};
pub use share::Share;
pub use stats::{SharedStats, Stats};
pub use steer::{STEERED_MAX, steer_by_cpu};
pub use uring::depot::Depot;
pub use void::connect_to_nobody;

/// Which kernel interface a driver uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring: completions, batched system calls. Linux 6.1 and newer.
    Uring,
    /// epoll by way of mio: readiness. Everywhere.
    Mio,
}

/// Turns `machine` on the calling thread until it has finished, then lets go of everything and returns the counts.
///
/// Give it a thread of its own: after io_uring a thread may see one blocking call interrupted (`EINTR`).
///
/// # Errors
///
/// When the kernel refuses the ring or the epoll instance, a listener cannot be watched, or the interface itself
/// breaks while running. What happens to a single connection is told to the machine and is never an error here.
pub fn run<M: Machine + ?Sized>(backend: Backend, mut setup: Setup, machine: &mut M) -> io::Result<Stats> {
    if let Some(cpu) = setup.pin_to_cpu {
        place::pin(cpu)?;
    }
    // Accepted sockets inherit it; `bind` has set it already on ours.
    setup.listeners.iter().try_for_each(sockopt::no_delay)?;
    let stats = Arc::clone(&setup.stats);
    let resolver = Resolver::new()?;
    let listeners = setup.listeners.len();
    match backend {
        Backend::Uring => {
            let shore = uring::Uring::new(&mut setup, resolver.ready())?;
            Wheel::new(shore, setup, machine, Calls::new(resolver)).run(listeners)?;
        }
        Backend::Mio => {
            let shore = mio::Epoll::new(&mut setup, resolver.ready())?;
            Wheel::new(shore, setup, machine, Calls::new(resolver)).run(listeners)?;
        }
    }
    Ok(stats.read())
}
