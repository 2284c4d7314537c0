//! Which worker a connection comes to: the one whose core took its packets.
//!
//! Sockets that share a port (`SO_REUSEPORT`) form a group in the kernel, numbered in the order in which they began to
//! listen. A classic BPF program (`SO_ATTACH_REUSEPORT_CBPF`, Linux 4.6, socket(7)) answers a number for each new
//! connection. Ours looks only at the CPU that the packet is being handled on; without one the kernel takes a hash of
//! the addresses. An answer that is no number of the group falls back to the hash.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use libc::{sock_filter, sock_fprog};

/// Most CPUs that a program names; the kernel takes 4096 instructions, and two go to each.
pub const STEERED_MAX: usize = 1024;

/// Steers the connections of `listener`'s whole group: those whose packets CPU `cpus[n]` takes come to the socket that
/// was the n-th to listen; those of other CPUs are spread by the CPU's number.
///
/// # Errors
///
/// When `cpus` is empty or has more than [`STEERED_MAX`], or the kernel refuses: the socket has no group, or the
/// kernel is older than 4.6.
pub fn steer_by_cpu(listener: &TcpListener, cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() || cpus.len() > STEERED_MAX {
        let why = format!("expected 1 to {STEERED_MAX} CPUs to steer by, got {}", cpus.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut code = program(cpus);
    let program = sock_fprog {
        len: code.len() as u16,
        filter: code.as_mut_ptr(),
    };
    // SAFETY: the option's value is a `sock_fprog` that lives on our stack; its `filter` points to `len` instructions
    // in `code`, which outlives the call. The kernel copies both before it returns and writes to neither.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A = CPU; if it is `cpus[n]`, n; else A modulo how many there are.
fn program(cpus: &[usize]) -> Vec<sock_filter> {
    let step = |code: u32, jf: u8, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut code = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, cpu)];
    for (n, cpu) in cpus.iter().enumerate() {
        code.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, *cpu as u32));
        code.push(step(libc::BPF_RET | libc::BPF_K, 0, n as u32));
    }
    code.push(step(
        libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
        0,
        cpus.len() as u32,
    ));
    code.push(step(libc::BPF_RET | BPF_A, 0, 0));
    code
}

/// linux/filter.h: return the accumulator.
const BPF_A: u32 = 0x10;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::thread;

    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    use super::*;
    use crate::bind;

    const CLIENTS: usize = 20;

    /// Two CPUs that this process may use; `None`, with the reason printed, where there are none.
    fn two_cpus() -> Option<[usize; 2]> {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let mut cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
        let two = cpus.next().zip(cpus.next());
        assert!(
            two.is_some() || std::env::var_os("CI").is_none(),
            "CI must have two CPUs"
        );
        if two.is_none() {
            println!("skipped: one CPU only");
        }
        two.map(|(a, b)| [a, b])
    }

    fn group(count: usize) -> Vec<TcpListener> {
        let first = bind("127.0.0.1:0".parse().unwrap(), true, 64).unwrap();
        let at = first.local_addr().unwrap();
        let others = (1..count).map(|_| bind(at, true, 64).unwrap());
        std::iter::once(first).chain(others).collect()
    }

    /// Connections made on one CPU: over loopback, the packets stay on it.
    fn connect_from(cpu: usize, at: SocketAddr) -> Vec<TcpStream> {
        let connect = move || {
            crate::place::pin(cpu).unwrap();
            (0..CLIENTS).map(|_| TcpStream::connect(at).unwrap()).collect()
        };
        thread::spawn(connect).join().unwrap()
    }

    /// How many wait at each.
    fn accepted(group: &[TcpListener]) -> Vec<usize> {
        let count = |one: &TcpListener| std::iter::from_fn(|| one.accept().ok()).count();
        group.iter().map(count).collect()
    }

    #[test]
    fn a_connection_comes_to_the_worker_of_its_core() {
        let Some([a, b]) = two_cpus() else { return };
        for (cpus, from, expected) in [
            ([a, b], a, [CLIENTS, 0]),
            ([a, b], b, [0, CLIENTS]),
            // Whatever the CPUs' numbers are: it is the table that says whose is whose.
            ([b, a], a, [0, CLIENTS]),
            ([b, a], b, [CLIENTS, 0]),
        ] {
            let group = group(2);
            steer_by_cpu(&group[0], &cpus).unwrap();
            let _clients = connect_from(from, group[0].local_addr().unwrap());
            assert_eq!(accepted(&group), expected, "{cpus:?} from {from}");
        }
    }

    #[test]
    fn a_core_without_a_worker_is_spread_by_its_number() {
        let Some([_, b]) = two_cpus() else { return };
        let group = group(2);
        let strangers = [1000, 1001];
        steer_by_cpu(&group[1], &strangers).unwrap();
        let _clients = connect_from(b, group[0].local_addr().unwrap());
        let mut expected = [0, 0];
        expected[b % 2] = CLIENTS;
        assert_eq!(accepted(&group), expected);
    }

    #[test]
    fn what_cannot_be_steered_is_refused() {
        let one = bind("127.0.0.1:0".parse().unwrap(), false, 1).unwrap();
        assert!(
            steer_by_cpu(&one, &[0]).is_err(),
            "it shares its port with nobody"
        );
        let group = group(2);
        assert!(steer_by_cpu(&group[0], &[]).is_err());
        assert!(steer_by_cpu(&group[0], &[0; STEERED_MAX + 1]).is_err());
        assert!(steer_by_cpu(&group[0], &[0; STEERED_MAX]).is_ok());
    }
}
