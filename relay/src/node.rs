//! One node at work: workers, control plane, and the channel from inside if there is one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use relay_driver::{Backend, SharedStats};
use relay_station::House;

use crate::conductor::{Conductor, Settings};
use crate::local::Local;
use crate::run::{self, Open};
use crate::steer::Plan;
use crate::team::{Door, Doorway};
use crate::watchdog::{Watchdog, Watched};

/// Closing in good order takes at most so long; then whoever is left is cut off.
pub const CLOSE_MAX: Duration = Duration::from_secs(3);

/// A node at work.
#[derive(Debug)]
pub struct Node {
    open: Open,
    conductor: Conductor,
    failed: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    watchdog: Option<Watchdog>,
    door: Option<Door>,
}

impl Node {
    /// Opens a node.
    ///
    /// # Errors
    ///
    /// When the address is taken, a thread or descriptor cannot be had, or the access log cannot be opened.
    pub fn open(
        config: relay_station::Config,
        listen: SocketAddr,
        backend: Backend,
        plan: &Plan,
        settings: Settings,
    ) -> io::Result<Self> {
        let conductor = Conductor::start(settings)?;
        let open = match run::open(config, listen, backend, plan, conductor.handover()) {
            Ok(open) => open,
            Err(error) => {
                let _ = conductor.stop();
                return Err(error);
            }
        };
        conductor.attach(&open);
        Ok(Self {
            open,
            conductor,
            stop: Arc::default(),
            failed: Arc::default(),
            watchdog: None,
            door: None,
        })
    }

    /// Plays a channel into it.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn play(&self, local: Local) -> io::Result<()> {
        local.play(self.open.house.clone(), self.stop.clone(), self.failed.clone())
    }

    /// Whether a channel that was to be played into it cannot be.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Has its workers watched until it is closed: one that has not turned for `limit` ends the process.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn watch(&mut self, limit: Duration) -> io::Result<()> {
        let watched = |(worker, stats): (usize, &Arc<SharedStats>)| Watched {
            stats: stats.clone(),
            bell: self.open.house.bell(worker).clone(),
        };
        let workers = self.open.drivers.iter().enumerate().map(watched).collect();
        self.watchdog = Some(Watchdog::start(limit, workers)?);
        Ok(())
    }

    /// Lets newcomers of its team in.
    ///
    /// # Errors
    ///
    /// When there is no thread or descriptor to be had, or it leads no team.
    pub fn lead(&mut self, doorway: Doorway) -> io::Result<()> {
        self.door = Some(doorway.open(self.open.house.clone())?);
        Ok(())
    }

    /// Where it listens.
    pub fn listen(&self) -> SocketAddr {
        self.open.listen
    }

    /// What its workers share.
    pub fn house(&self) -> &Arc<House> {
        &self.open.house
    }

    /// Whether a worker has stopped by itself.
    pub fn is_broken(&self) -> bool {
        self.open.is_broken()
    }

    /// Lets everybody go, in good order where that takes less than [`CLOSE_MAX`].
    ///
    /// # Errors
    ///
    /// When a worker or the control plane had broken.
    pub fn close(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let (tell, told) = crossbeam::channel::bounded(1);
        let Self {
            open,
            conductor,
            watchdog,
            door,
            ..
        } = self;
        // Workers that have finished turn no more.
        drop(watchdog);
        thread::Builder::new().name("closing".into()).spawn(move || {
            door.into_iter().for_each(Door::close);
            let result = open.close().and_then(|()| conductor.stop());
            let _ = tell.send(result);
        })?;
        // Whoever is left when time is up goes with the process.
        told.recv_timeout(CLOSE_MAX).unwrap_or(Ok(()))
    }
}
