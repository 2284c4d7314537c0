//! Making a ring: the best that this kernel and its limits allow.

use std::io;

use io_uring::{Builder, IoUring, cqueue, squeue};

/// Below this many submission entries a ring is not worth having.
const SQ_MIN: u32 = 8;

/// What a ring is asked for, best first. The numbers are the kernel versions that know all of it.
const TIERS: [fn(&mut Builder<squeue::Entry, cqueue::Entry>); 3] = [
    // 6.6
    |b| {
        b.setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_no_sqarray();
    },
    // 6.1
    |b| {
        b.setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all();
    },
    // 5.19
    |b| {
        b.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    },
];

/// A ring for the calling thread.
///
/// # Errors
///
/// The kernel's: not there (`ENOSYS`), forbidden (`EPERM`), no memory even for the smallest (`ENOMEM`).
pub(crate) fn make(sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    shrinking(sq_entries, cq_entries, best_of)
}

/// Locked memory (`RLIMIT_MEMLOCK`) or memory itself may be short: then half of it will do, and half of that.
fn shrinking<T>(sq: u32, cq: u32, build: impl Fn(u32, u32) -> io::Result<T>) -> io::Result<T> {
    let mut sq = sq.max(SQ_MIN).next_power_of_two();
    let mut cq = cq.max(sq * 2).next_power_of_two();
    loop {
        match build(sq, cq) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && sq > SQ_MIN => {
                sq /= 2;
                cq = (cq / 2).max(sq * 2);
            }
            other => return other,
        }
    }
}

fn best_of(sq: u32, cq: u32) -> io::Result<IoUring> {
    let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
    for tier in TIERS {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(cq).setup_clamp();
        tier(&mut builder);
        match builder.build(sq) {
            // Flags that this kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            other => return other,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_shrinks_until_it_fits() {
        let fits = |sq, cq| {
            if sq + cq <= 600 {
                Ok((sq, cq))
            } else {
                Err(io::Error::from_raw_os_error(libc::ENOMEM))
            }
        };
        assert_eq!(shrinking(500, 8192, fits).ok(), Some((32, 512)));
        assert_eq!(shrinking(16, 17, fits).ok(), Some((16, 32)));
    }

    #[test]
    fn other_refusals_and_no_room_at_all_are_told() {
        let refuse = |errno| move |_, _| Err::<(), _>(io::Error::from_raw_os_error(errno));
        for errno in [libc::EPERM, libc::ENOMEM] {
            assert_eq!(
                shrinking(512, 8192, refuse(errno)).unwrap_err().raw_os_error(),
                Some(errno)
            );
        }
    }
}
