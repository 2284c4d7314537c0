//! Opening the house: workers on their sockets.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use relay_driver::{Backend, Crew, Depot, Setup, Share, SharedStats};
use relay_station::{Config, Event, House, Order, Station};

use crate::steer::Plan;

/// Connections that may wait in a worker's accept queue.
const BACKLOG: u32 = 4096;

/// How long a port in use is waited for, and how often it is tried.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_RETRY: Duration = Duration::from_millis(50);

/// Takes connections that the data plane does not serve, with what was read from them. Called on worker threads.
pub type Handover = Arc<dyn Fn(TcpStream, Vec<u8>) + Send + Sync>;

/// A relay whose workers run.
#[derive(Debug)]
pub struct Open {
    /// What its workers share.
    pub house: Arc<House>,
    /// What its workers tell.
    pub events: Receiver<Event>,
    /// Where it listens (the port is known even if 0 was asked for).
    pub listen: SocketAddr,
    /// What its drivers count, one block per worker.
    pub drivers: Vec<Arc<SharedStats>>,
    crew: Crew,
}

/// Starts the workers of a relay.
///
/// # Errors
///
/// When the address cannot be listened on, a thread or descriptor cannot be had, or the node id cannot be one.
pub fn open(
    mut config: Config,
    listen: SocketAddr,
    backend: Backend,
    plan: &Plan,
    handover: Handover,
) -> io::Result<Open> {
    let workers = config.workers;
    let max_conns = u32::try_from(config.connections_max).unwrap_or(u32::MAX);
    let (listeners, at) = listeners(listen, workers, plan)?;
    if let Some(team) = config.team.as_mut().filter(|team| team.http.port() == 0) {
        team.http.set_port(at.port());
    }
    let (house, events) = House::new(config)?;
    let shares = Share::among((0..workers).map(|worker| house.bell(worker).clone()));
    let depot = Arc::new(Depot::default());
    let mut crew = Vec::with_capacity(workers);
    let mut drivers = Vec::with_capacity(workers);
    for (worker, (listener, share)) in listeners.into_iter().zip(shares).enumerate() {
        let handover = handover.clone();
        let give = Box::new(move |stream, read| handover(stream, read));
        let mut setup = Setup::new(vec![listener], house.bell(worker).clone(), give);
        setup.max_conns = max_conns.saturating_add(64);
        setup.pin_to_cpu = plan.cpus.get(worker).copied();
        setup.share = Some(share);
        setup.zero_copy = plan.zero_copy;
        setup.depot = depot.clone();
        drivers.push(setup.stats.clone());
        let seed = getrandom::u64().map_err(|e| io::Error::other(e.to_string()))?;
        let station = Station::new(house.clone(), worker, seed).map_err(io::Error::other)?;
        crew.push((setup, station));
    }
    let crew = Crew::start(backend, crew)?;
    Ok(Open {
        house,
        events,
        listen: at,
        drivers,
        crew,
    })
}

/// A listening socket for each worker, in their order, and the address that they share.
fn listeners(listen: SocketAddr, workers: usize, plan: &Plan) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let at = free_address(listen)?;
    let bind = |_| relay_driver::bind(at, workers > 1, BACKLOG);
    let listeners = (0..workers).map(bind).collect::<io::Result<Vec<_>>>()?;
    let steered = listeners.first().filter(|_| plan.by_cpu);
    match steered.map_or(Ok(()), |first| relay_driver::steer_by_cpu(first, &plan.cpus)) {
        Ok(()) if workers > 1 => tracing::info!("{}", plan.why),
        Ok(()) => {}
        Err(error) => {
            tracing::warn!("connections: spread by hash, as the kernel does not steer them: {error}")
        }
    }
    Ok((listeners, at))
}

/// Sees to it that nobody else listens there, and returns the address with its port.
///
/// Workers share a port, and another relay of the same user could join them unnoticed: a socket that does not
/// share says who is there. A relay that was killed may hold its port for some milliseconds after its end, while
/// the kernel takes down its ring: that is waited for.
fn free_address(listen: SocketAddr) -> io::Result<SocketAddr> {
    let since = Instant::now();
    loop {
        match relay_driver::bind(listen, false, 1) {
            Ok(socket) => return socket.local_addr(),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && since.elapsed() < PORT_PATIENCE => {
                std::thread::sleep(PORT_RETRY);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Open {
    /// Whether a worker has stopped by itself.
    pub fn is_broken(&self) -> bool {
        self.crew.is_broken()
    }

    /// Lets everybody go and waits for the workers.
    ///
    /// # Errors
    ///
    /// When a worker broke.
    pub fn close(self) -> io::Result<()> {
        self.house.drain();
        for worker in 0..self.house.config.workers {
            // A full mailbox empties itself: the worker is awake then.
            while self.house.mailbox(worker).post(Order::Stop).is_err() {
                std::thread::yield_now();
            }
        }
        self.crew.join().map(drop)
    }
}
