//! What a driver counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with one writer, the driver's thread; anybody may read it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// So many more. Load and store instead of an atomic add: there is only one writer.
    pub(crate) fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counts of one driver, as they grow; written by the driver's thread, readable from every other.
        /// On cache lines of its own: what one worker counts is no other's business.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct SharedStats {
            $($(#[doc = $doc])+ pub(crate) $name: Counter,)+
        }

        /// The counts of one driver at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl SharedStats {
            /// What has been counted so far.
            pub fn read(&self) -> Stats {
                Stats { $($name: self.$name.read(),)+ }
            }
        }

        impl Stats {
            /// Every count with its name and the sentence that explains it, for metrics pages.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Times the driver went to sleep.
    sleeps,
    /// Sleeps that were cut to a millisecond's nap because the machine named a deadline in the past and did nothing.
    stale_deadlines,
    /// Rings of the bell that woke the driver.
    rings,
    /// Connections accepted.
    accepts,
    /// Accepted connections closed at once because the table of connections was full.
    accepts_refused,
    /// Accepted connections passed, unread, to a worker that held clearly fewer.
    connections_passed,
    /// Connections taken over from a worker that held clearly more.
    connections_taken,
    /// Connections kept although another worker held clearly fewer, because too many waited there already.
    passes_full,
    /// Connections passed here and closed, because the machine had finished.
    passes_lost,
    /// Accepted connections that were gone before they could be asked who they are.
    accepts_lost,
    /// Times the kernel refused to accept for want of descriptors or memory.
    accept_stalls,
    /// Accepts given to the kernel anew because a multishot accept ended.
    accept_rearms,
    /// Connections opened to elsewhere.
    connects,
    /// Connections to elsewhere that failed on every address.
    connect_failures,
    /// Receives that brought bytes.
    receives,
    /// Bytes received.
    received_bytes,
    /// Receives given to the kernel anew because a multishot receive ended.
    recv_rearms,
    /// Multishot receives that ended because all receive buffers were in use.
    enobufs,
    /// Completion queue overflows seen; the kernel keeps what did not fit, so nothing is lost, only slowed.
    cq_overflows,
    /// Completions for connections that had been let go already.
    late_completions,
    /// Cancellations that had to be repeated.
    cancel_retries,
    /// Sends offered to the kernel.
    sends,
    /// Bytes that the kernel took.
    sent_bytes,
    /// Sends of which the kernel took only a part.
    short_sends,
    /// Sends of which the kernel took nothing because the socket was full.
    full_sends,
    /// Sends to connections that were broken or gone.
    gone_sends,
    /// Sends offered to the kernel without a copy, from registered memory.
    zero_copy_sends,
    /// Bytes of them that the kernel has let go of again.
    zero_copy_bytes,
    /// Sends without a copy of which the kernel reported that it had copied after all.
    zero_copy_copied,
    /// Sends that copied because too much was held already, of their connection or of all.
    zero_copy_capped,
    /// Rings that the kernel refused to register: their sends copy.
    zero_copy_refused,
    /// Connections that ended without the machine asking for it.
    closed_by_peer,
    /// Connections that the machine let go gracefully.
    graceful_closes,
    /// Connections that the machine reset.
    aborts,
    /// Lingering closes cut short: too many at once, too many bytes, or too long.
    lingers_cut,
    /// Bytes read and thrown away after a graceful close.
    discarded_bytes,
    /// Connections given to the control plane.
    handovers,
    /// Connections that broke while they were being given to the control plane.
    handovers_lost,
    /// UDP sockets opened.
    udp_opens,
    /// UDP sockets that could not be opened.
    udp_open_failures,
    /// UDP peers that were given a connected socket.
    udp_peers,
    /// UDP peers that were not: too many, or the kernel refused; they are sent to all the same.
    udp_peers_refused,
    /// Errors told by UDP sockets that were not about a port that nobody listens at.
    udp_errors,
    /// Datagrams that the kernel took.
    datagrams_sent,
    /// Bytes of them.
    datagram_bytes_sent,
    /// Datagrams dropped because the kernel had no room.
    datagrams_full,
    /// Datagrams dropped because the kernel refused them, or their socket was closed, or they were too long.
    datagrams_refused,
    /// Answers that nobody listens at a connected peer's port.
    datagrams_unreachable,
    /// Sends of several datagrams at once (GSO).
    trains,
    /// Such sends that kernel or device refused; their datagrams went one by one.
    trains_refused,
    /// Datagrams received.
    datagrams_received,
    /// Bytes of them.
    datagram_bytes_received,
    /// Datagrams received and dropped because they were longer than a buffer.
    datagrams_too_long,
    /// Socket options that the kernel refused.
    sockopt_failures,
    /// `io_uring_enter` answered EAGAIN: no memory for requests.
    enter_eagain,
    /// `io_uring_enter` answered EBUSY: completions had to be reaped first.
    enter_ebusy,
    /// `io_uring_enter` answered EINTR.
    enter_eintr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_drivers_count_on_lines_of_their_own() {
        use std::sync::Arc;
        let two: [Arc<SharedStats>; 2] = Default::default();
        let at = two.each_ref().map(|stats| Arc::as_ptr(stats).addr());
        assert!(at.iter().all(|at| at.is_multiple_of(128)) && size_of::<SharedStats>().is_multiple_of(128));
        assert!(
            at[0].abs_diff(at[1]) >= size_of::<SharedStats>() + 128,
            "the Arcs' own counts lie between"
        );
    }

    #[test]
    fn each_count_has_its_sentence() {
        let shared = SharedStats::default();
        shared.sends.add(3);
        shared.sends.one();
        let stats = shared.read();
        assert_eq!(stats.sends, 4);
        assert!(
            stats
                .each()
                .any(|(name, help, n)| name == "sends" && help == "Sends offered to the kernel." && n == 4)
        );
    }
}
