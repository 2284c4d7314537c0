//! Which driver this host allows, and why.

use std::fs;
use std::io;
use std::thread;

use io_uring::{IoUring, Probe as Opcodes, opcode};

use crate::Backend;
use crate::uring::setup;

/// What this host allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The best tier.
    pub tier: Tier,
    /// One line for the log: why it is this one.
    pub why: String,
}

/// How fast a driver can be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// io_uring works.
    Uring {
        /// The kernel knows `IORING_OP_SEND_ZC` (6.0). The drivers do not use it yet.
        send_zc: bool,
        /// The kernel knows minimum waits (6.12). The drivers do not use them yet.
        min_wait: bool,
        /// Completions run when we ask for them (`IORING_SETUP_DEFER_TASKRUN`, 6.1).
        deferred: bool,
    },
    /// io_uring is missing or forbidden.
    Mio,
}

impl Probe {
    /// The driver to use.
    pub fn backend(&self) -> Backend {
        match self.tier {
            Tier::Uring { .. } => Backend::Uring,
            Tier::Mio => Backend::Mio,
        }
    }
}

/// Tries io_uring, harmlessly, and says what it found. Needs a few descriptors and a thread for a moment: a thread
/// that has had a ring may see one blocking call interrupted (`EINTR`) while the kernel takes the ring down, and the
/// caller shall not.
pub fn probe() -> Probe {
    let tried = thread::Builder::new().name("probe".into()).spawn(try_uring);
    let tried = tried.map_err(|e| format!("io_uring could not be tried: {e}"));
    match tried.and_then(|thread| {
        thread
            .join()
            .unwrap_or_else(|_| Err("trying io_uring failed".into()))
    }) {
        Ok((tier, why)) => Probe { tier, why },
        Err(why) => Probe {
            tier: Tier::Mio,
            why: format!("mio (epoll), because {why}"),
        },
    }
}

fn try_uring() -> Result<(Tier, String), String> {
    let ring = setup::make(8, 16).map_err(|e| why_not(&e))?;
    let params = ring.params();
    let features = [
        ("EXT_ARG", params.is_feature_ext_arg()),
        ("NODROP", params.is_feature_nodrop()),
    ];
    if let Some((name, _)) = features.iter().find(|(_, there)| !there) {
        return Err(format!("this kernel's io_uring lacks the feature {name}"));
    }
    let mut opcodes = Opcodes::new();
    ring.submitter()
        .register_probe(&mut opcodes)
        .map_err(|e| format!("io_uring cannot be asked: {e}"))?;
    if let Some(name) = missing(&opcodes) {
        return Err(format!("this kernel's io_uring lacks the operation {name}"));
    }
    let send_zc = opcodes.is_supported(opcode::SendZc::CODE);
    let deferred = is_deferred(&ring);
    let min_wait = params.is_feature_min_timeout();
    let how = if deferred {
        "deferred completions"
    } else {
        "cooperative completions"
    };
    Ok((
        Tier::Uring {
            send_zc,
            min_wait,
            deferred,
        },
        format!("io_uring, {how}, multishot accept and receive"),
    ))
}

/// The first operation that the driver needs and the kernel does not know. Multishot receive has no number of its
/// own; it came with `SEND_ZC` in 6.0.
fn missing(opcodes: &Opcodes) -> Option<&'static str> {
    let needed = [
        ("ACCEPT", opcode::AcceptMulti::CODE),
        ("RECV", opcode::RecvMulti::CODE),
        ("SEND", opcode::Send::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("SEND_ZC (its sign of multishot receive)", opcode::SendZc::CODE),
    ];
    needed
        .into_iter()
        .find(|(_, code)| !opcodes.is_supported(*code))
        .map(|(name, _)| name)
}

/// A ring made without deferred completions does not know the single issuer either.
fn is_deferred(ring: &IoUring) -> bool {
    ring.params().is_setup_single_issuer()
}

/// What it means that `io_uring_setup` failed so.
pub(crate) fn why_not(error: &io::Error) -> String {
    explain(error, sysctl())
}

fn sysctl() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn explain(error: &io::Error, sysctl: Option<u8>) -> String {
    match (error.raw_os_error(), sysctl) {
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring, or a seccomp profile hides it".into(),
        (Some(libc::EPERM), Some(how @ 1..)) => {
            format!("io_uring is forbidden by sysctl kernel.io_uring_disabled = {how}")
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "io_uring is forbidden, probably by a seccomp profile (Docker's default does)".into()
        }
        (Some(libc::ENOMEM), _) => "there is no memory for even a small ring (see RLIMIT_MEMLOCK)".into(),
        (Some(libc::EMFILE | libc::ENFILE), _) => "there is no descriptor left for a ring".into(),
        (Some(libc::EINVAL), _) => "this kernel's io_uring is older than 5.19".into(),
        _ => format!("io_uring_setup failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, sysctl: Option<u8>) -> String {
        explain(&io::Error::from_raw_os_error(errno), sysctl)
    }

    #[test]
    fn every_refusal_has_its_reason() {
        assert!(explained(libc::ENOSYS, None).contains("no io_uring"));
        assert!(explained(libc::EPERM, Some(2)).contains("io_uring_disabled = 2"));
        assert!(explained(libc::EPERM, Some(0)).contains("seccomp"));
        assert!(explained(libc::ENOMEM, Some(0)).contains("RLIMIT_MEMLOCK"));
        assert!(explained(libc::EBADF, None).contains("io_uring_setup failed"));
    }

    #[test]
    fn the_probe_names_a_backend_and_a_reason() {
        let found = probe();
        let name = if found.backend() == Backend::Uring {
            "io_uring"
        } else {
            "mio"
        };
        assert!(found.why.starts_with(name), "{}", found.why);
    }
}
