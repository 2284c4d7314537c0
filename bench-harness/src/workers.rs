//! What each worker of a relay did in a window: the CPU time of its thread, and the bytes that it says it has told.
//!
//! Only the workers' threads are counted: neither the crowd, nor the source, nor the rest of the process is in their
//! cost, wherever they ran.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_to_string};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::Serialize;

use crate::servers::Server;

/// The relay's threads are called so, and then by number.
const THREAD: &str = "worker-";
/// The metric, by worker.
const TOLD: &str = "totality_bytes_told{worker=\"";
/// How long a page of metrics may take, and how long it may be.
const PATIENCE: Duration = Duration::from_secs(5);
const PAGE_MAX: u64 = 4 << 20;

/// One worker in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Worker {
    pub(crate) cpu_seconds: f64,
    pub(crate) gb: f64,
}

/// All workers at one moment: CPU time in seconds and bytes told, by number.
#[derive(Debug, Default)]
pub(crate) struct Look {
    cpu: BTreeMap<usize, f64>,
    told: BTreeMap<usize, u64>,
}

impl Look {
    /// Empty where the server is no relay, or not of this machine.
    pub(crate) fn at(server: &Server) -> Look {
        let cpu = server.pid.map(threads).unwrap_or_default();
        if cpu.is_empty() {
            return Look::default();
        }
        let told = page(server).map(|page| told(&page)).unwrap_or_default();
        Look { cpu, told }
    }

    /// What each did between two looks.
    pub(crate) fn until(&self, later: &Look) -> Vec<Worker> {
        let one = |(worker, cpu): (&usize, &f64)| {
            let bytes = later.told.get(worker)?.checked_sub(*self.told.get(worker)?)?;
            Some(Worker {
                cpu_seconds: later.cpu.get(worker)? - cpu,
                gb: bytes as f64 * 1e-9,
            })
        };
        self.cpu.iter().filter_map(one).collect()
    }
}

/// CPU seconds of the workers' threads, as the scheduler counts them.
fn threads(pid: u32) -> BTreeMap<usize, f64> {
    let all = read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let one = |path: std::path::PathBuf| {
        let name = read_to_string(path.join("comm")).ok()?;
        let worker = name.trim().strip_prefix(THREAD)?.parse().ok()?;
        let times = read_to_string(path.join("schedstat")).ok()?;
        let ns: u64 = times.split_whitespace().next()?.parse().ok()?;
        Some((worker, ns as f64 * 1e-9))
    };
    all.filter_map(|task| one(task.path())).collect()
}

fn page(server: &Server) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&server.url.address().ok()?, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut page = String::new();
    stream.take(PAGE_MAX).read_to_string(&mut page).ok()?;
    Some(page)
}

fn told(page: &str) -> BTreeMap<usize, u64> {
    let one = |line: &str| {
        let (worker, bytes) = line.strip_prefix(TOLD)?.split_once("\"} ")?;
        Some((worker.parse().ok()?, bytes.parse().ok()?))
    };
    page.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_apart() {
        let page = "# HELP totality_bytes_told Bytes.\ntotality_bytes_told{worker=\"0\"} 5\n\
                    totality_bytes_told{worker=\"1\"} 7000000000\ntotality_sends{worker=\"1\"} 9\n";
        assert_eq!(told(page), BTreeMap::from([(0, 5), (1, 7_000_000_000)]));
    }

    #[test]
    fn who_was_there_at_both_looks_is_counted() {
        let look = |cpu: &[(usize, f64)], told: &[(usize, u64)]| Look {
            cpu: cpu.iter().copied().collect(),
            told: told.iter().copied().collect(),
        };
        let before = look(&[(0, 1.0), (1, 2.0), (2, 3.0)], &[(0, 10), (1, 20)]);
        let after = look(
            &[(0, 1.5), (1, 2.25), (2, 9.0)],
            &[(0, 1_000_000_010), (1, 20), (2, 5)],
        );
        let workers = before.until(&after);
        let worker = |cpu_seconds, gb| Worker { cpu_seconds, gb };
        assert_eq!(workers, [worker(0.5, 1.0), worker(0.25, 0.0)]);
    }

    #[test]
    fn a_thread_that_works_is_found_by_its_name() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("worker-41".into());
        let thread = thread.spawn(move || wait.recv()).unwrap();
        // The name is the thread's own first act.
        while !threads(std::process::id()).contains_key(&41) {
            std::thread::yield_now();
        }
        drop(done);
        let _ = thread.join().unwrap();
    }
}
