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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use relay_ring::Bell;
    use relay_seam::{Input, Now, Output, Span};

    use super::*;
    use crate::bind;

    /// Panics at whatever it is told, if it is to; else waits for its end.
    struct Fragile {
        bell: Bell,
        panics: bool,
        done: Arc<AtomicBool>,
    }

    impl Machine for Fragile {
        fn handle(&mut self, _: Now, _: Input<'_>) {
            assert!(!self.panics, "as it was told to");
        }

        fn poll(&mut self, _: Now) -> Option<Output> {
            None
        }

        fn bytes(&self, _: Span) -> &[u8] {
            &[]
        }

        fn deadline(&self) -> Option<Now> {
            None
        }

        fn park(&mut self, parked: bool) -> bool {
            if parked {
                self.bell.park();
            } else {
                self.bell.unpark();
            }
            !(parked && self.done.load(Ordering::SeqCst))
        }

        fn finished(&self) -> bool {
            self.done.load(Ordering::SeqCst)
        }
    }

    /// Where panics unwind (in a release build they abort the process), a worker that is gone is seen at once, does not
    /// take the others with it, and is an error in the end.
    #[test]
    fn a_worker_that_panics_is_told_of() {
        let (done, mut bells, mut addrs) = (Arc::new(AtomicBool::new(false)), Vec::new(), Vec::new());
        let mut worker = |panics| {
            let bell = Bell::new().unwrap();
            let listener = bind("127.0.0.1:0".parse().unwrap(), false, 1).unwrap();
            bells.push(bell.clone());
            addrs.push(listener.local_addr().unwrap());
            let refuse = Box::new(|_, _: Vec<u8>| panic!("nothing was to be handed over"));
            let setup = Setup::new(vec![listener], bell.clone(), refuse);
            let done = done.clone();
            (setup, Fragile { bell, panics, done })
        };
        let crew = Crew::start(Backend::Mio, [worker(true), worker(false)]).unwrap();
        assert!(!crew.is_broken());
        std::net::TcpStream::connect(addrs[0]).unwrap();
        while !crew.is_broken() {
            thread::yield_now();
        }
        assert!(!crew.threads[1].is_finished());
        done.store(true, Ordering::SeqCst);
        bells.iter().for_each(Bell::ring);
        assert!(crew.join().unwrap_err().to_string().contains("panicked"));
    }
}
