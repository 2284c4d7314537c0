//! A watchdog over the workers: one that has stopped turning takes its listeners with it, in silence. Better that the
//! process ends, loudly, and that whoever supervises it starts it again.
//!
//! Time is counted in looks of the watchdog's own thread. While the whole process, or the machine, is held up
//! (SIGSTOP, a suspended VM, a frozen container), nobody looks either; so nobody is blamed for it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use relay_driver::SharedStats;
use relay_ring::Bell;

/// How many looks in a row a worker may be found where it was.
const LOOKS: u32 = 5;
/// The shortest limit that may be set: below it, a busy machine would look like a stuck worker.
pub const LIMIT_MIN: Duration = Duration::from_secs(1);
/// How long the last words may take: what a worker is stuck in may be the log itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A worker, as the watchdog sees it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What its driver counts.
    pub stats: Arc<SharedStats>,
    /// Wakes it, if it sleeps: who is well then turns at least once.
    pub bell: Bell,
}

/// A watchdog at work; it goes when this goes.
#[derive(Debug)]
pub struct Watchdog {
    _leash: Sender<()>,
}

/// Whether workers turn: told how often they have, it says who has not for too long.
#[derive(Debug, Default)]
struct Watch(Vec<Seen>);

#[derive(Clone, Debug, Default)]
struct Seen {
    turns: u64,
    /// Looks in a row that found it there.
    still: u32,
}

impl Watch {
    /// Looks at the workers' turns. The first that is stuck, if one is.
    fn look(&mut self, turns: impl Iterator<Item = u64>) -> Option<usize> {
        for (worker, turns) in turns.enumerate() {
            if worker == self.0.len() {
                self.0.push(Seen { turns, still: 0 });
                continue;
            }
            let seen = &mut self.0[worker];
            seen.still = if seen.turns == turns { seen.still + 1 } else { 0 };
            seen.turns = turns;
        }
        self.0.iter().position(|seen| seen.still >= LOOKS)
    }
}

impl Watchdog {
    /// Watches workers; one that has not turned for `limit` ends the process.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(limit: Duration, workers: Vec<Watched>) -> io::Result<Self> {
        Self::start_with(limit, workers, move |worker| end(worker, limit))
    }

    fn start_with(
        limit: Duration,
        workers: Vec<Watched>,
        stuck: impl FnOnce(usize) + Send + 'static,
    ) -> io::Result<Self> {
        let (leash, held) = channel();
        let watch = move || {
            if let Some(worker) = watch(limit, &workers, &held) {
                stuck(worker);
            }
        };
        thread::Builder::new().name("watchdog".into()).spawn(watch)?;
        Ok(Self { _leash: leash })
    }
}

/// Watches until somebody is stuck, or until nobody holds the leash any more.
fn watch(limit: Duration, workers: &[Watched], held: &Receiver<()>) -> Option<usize> {
    let mut watch = Watch::default();
    while held.recv_timeout(limit / LOOKS) == Err(RecvTimeoutError::Timeout) {
        let stuck = watch.look(workers.iter().map(|worker| worker.stats.read().turns));
        if stuck.is_some() {
            return stuck;
        }
        workers.iter().for_each(|worker| worker.bell.ring());
    }
    None
}

/// Says who is stuck, and ends the process at once: nothing can be closed in good order any more.
fn end(worker: usize, limit: Duration) {
    let (tell, told) = channel();
    thread::spawn(move || {
        tracing::error!(
            "worker {worker} is stuck: expected a turn at least every {limit:?} (server.watchdog), got none; \
             the process ends itself, so that it can be started again"
        );
        let _ = tell.send(());
    });
    let _ = told.recv_timeout(LAST_WORDS);
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use relay_driver::{Backend, Crew, Setup, bind};
    use relay_seam::{Input, Machine, Now, Output, Span};

    use super::*;

    #[test]
    fn who_does_not_turn_for_so_many_looks_is_stuck() {
        let mut watch = Watch::default();
        let mut look = |a, b| watch.look([a, b].into_iter());
        assert_eq!(look(1, 1), None);
        for turn in 2..6 {
            assert_eq!(look(1, turn), None);
        }
        // A single turn is a sign of life.
        assert_eq!(look(2, 6), None);
        for turn in 7..11 {
            assert_eq!(look(2, turn), None);
        }
        assert_eq!(look(2, 11), Some(0));
    }

    /// Sleeps for ever, as an idle station does; once told to, it is stuck in the next thing it hears.
    struct Sleeper {
        bell: Bell,
        stick: Arc<AtomicBool>,
        done: Arc<AtomicBool>,
    }

    impl Machine for Sleeper {
        fn handle(&mut self, _: Now, _: Input<'_>) {
            while self.stick.load(Ordering::SeqCst) && !self.done.load(Ordering::SeqCst) {
                thread::park_timeout(Duration::from_millis(1));
            }
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

    #[test]
    fn an_idle_worker_is_left_alone_and_a_stuck_one_is_named() {
        let (stick, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut watched = Vec::new();
        let mut one = |stick: &Arc<AtomicBool>| {
            let bell = Bell::new().unwrap();
            let listener = bind("127.0.0.1:0".parse().unwrap(), false, 1).unwrap();
            let refuse = Box::new(|_, _: Vec<u8>| panic!("nothing was to be handed over"));
            let setup = Setup::new(vec![listener], bell.clone(), refuse);
            watched.push(Watched {
                stats: setup.stats.clone(),
                bell: bell.clone(),
            });
            (
                setup,
                Sleeper {
                    bell,
                    stick: stick.clone(),
                    done: done.clone(),
                },
            )
        };
        let workers = [one(&Arc::default()), one(&stick)];
        let crew = Crew::start(Backend::Mio, workers).unwrap();
        let (tell, told) = channel();
        let limit = Duration::from_millis(250);
        let dog =
            Watchdog::start_with(limit, watched.clone(), move |worker| tell.send(worker).unwrap()).unwrap();
        // Idle, both live through several limits: the bell lets them turn.
        assert_eq!(told.recv_timeout(4 * limit), Err(RecvTimeoutError::Timeout));
        stick.store(true, Ordering::SeqCst);
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(1));
        done.store(true, Ordering::SeqCst);
        watched.iter().for_each(|worker| worker.bell.ring());
        crew.join().unwrap();
        drop(dog);
    }

    #[test]
    fn it_goes_when_it_is_let_go() {
        let (tell, told) = channel::<()>();
        let dog = Watchdog::start_with(Duration::from_secs(3600), Vec::new(), move |_| drop(tell)).unwrap();
        drop(dog);
        assert_eq!(
            told.recv_timeout(Duration::from_secs(60)),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
