//! A crew: one named thread per worker, each turning its own machine.

use std::io;
use std::thread::{self, JoinHandle};

use relay_seam::Machine;

use crate::{Backend, Setup, Stats, run};

/// Threads that turn machines.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<JoinHandle<io::Result<Stats>>>,
}

impl Crew {
    /// Starts a thread for every machine.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started; those that were go on.
    pub fn start<M: Machine + Send + 'static>(
        backend: Backend,
        workers: impl IntoIterator<Item = (Setup, M)>,
    ) -> io::Result<Self> {
        let threads = workers
            .into_iter()
            .enumerate()
            .map(|(i, (setup, mut machine))| {
                let thread = thread::Builder::new().name(format!("worker-{i}"));
                thread.spawn(move || run(backend, setup, &mut machine))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { threads })
    }

    /// Whether a thread has returned, which before the end means that its interface broke.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until every machine has finished.
    ///
    /// # Errors
    ///
    /// The first worker's that broke.
    pub fn join(self) -> io::Result<Vec<Stats>> {
        let returned = self.threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
        });
        returned.collect()
    }
}
