//! How late this machine itself is: a gap is a fault only beyond what a mere sleeper was held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);

/// A thread that does nothing but sleep and look at the clock.
#[derive(Debug)]
pub struct Witness {
    worst_us: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Begins to watch.
    pub fn watch() -> Self {
        let (worst_us, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (worst, stop) = (worst_us.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(STEP);
                let late = began.elapsed().saturating_sub(STEP);
                worst.fetch_max(late.as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self {
            worst_us,
            done,
            thread: Some(thread),
        }
    }

    /// The longest that the machine held up a sleeper.
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.load(Ordering::Relaxed))
    }

    /// Forgets what was.
    pub fn reset(&self) {
        self.worst_us.store(0, Ordering::Relaxed);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
