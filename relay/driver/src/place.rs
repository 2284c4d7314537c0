//! Where a driver's thread runs.

use std::io;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread on one CPU.
///
/// # Errors
///
/// When there is no such CPU, or this process may not use it.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| {
            io::Error::new(
                io::Error::from(errno).kind(),
                format!("cannot run on CPU {cpu} only: {}", errno.desc()),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_cpu_is_named() {
        let error = pin(1_000_000).unwrap_err();
        assert!(error.to_string().contains("CPU 1000000"), "{error}");
    }
}
