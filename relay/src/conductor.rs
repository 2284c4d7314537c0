//! The control plane: everything of port 8000 that is not a mount, a source or a link.
//!
//! Workers parse a request's head; what is not theirs they hand over as an open connection, with the bytes
//! read so far ([`Conductor::handover`]). One ordinary thread answers those with tokio and axum; it asks
//! workers by mailbox only and can never hold one up. A second thread, the scribe, writes the access log, so
//! that a full pipe holds up no health check.
//!
//! The handover is made before the relay is opened, the relay is attached afterwards; what comes in between waits.

mod admin;
mod answer;
mod api;
mod ask;
mod desk;
mod guard;
mod icecast;
mod metrics;
mod page;
mod prefixed;
mod scribe;
mod serve;
#[cfg(test)]
mod tests;
mod views;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use crossbeam::channel::Sender;
use relay_source::Secret;
use tokio::sync::{mpsc, oneshot};

use crate::run::{Handover, Open};
use desk::{Desk, Stage};

/// Connections that are answered at once; those beyond are closed and counted.
pub const CONNECTIONS_MAX: usize = 256;

/// What an operator says about the control plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The password of the user `admin`. Without one, whatever needs it is refused: never open.
    pub admin_password: Option<Secret>,
    /// Whether there is a page at `/`.
    pub page: bool,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// When the relay was started.
    pub started: SystemTime,
    /// The program's version.
    pub version: &'static str,
    /// What moves the bytes: `io_uring` or `mio`.
    pub backend: String,
    /// The name by which the relay is reached: stands in `listenurl`, and calls that change something may name it in
    /// their `Host` field.
    pub hostname: String,
    /// Whom to write to, as Icecast's status shows it.
    pub contact: String,
    /// Where the relay stands, as Icecast's status shows it.
    pub location: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            admin_password: None,
            page: true,
            access_log: AccessLog::Off,
            started: SystemTime::now(),
            version: env!("CARGO_PKG_VERSION"),
            backend: "io_uring".to_owned(),
            hostname: "localhost".to_owned(),
            contact: "icemaster@localhost".to_owned(),
            location: "Earth".to_owned(),
        }
    }
}

/// Where the access log goes, in Icecast's combined format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file, which may be moved away (logrotate): it is opened anew within a second.
    File(PathBuf),
}

/// The control plane at work. Dropping it ends its threads without waiting for them.
#[derive(Debug)]
pub struct Conductor {
    desk: Arc<Desk>,
    given: mpsc::Sender<serve::Given>,
    attach_server: std::sync::Mutex<Option<oneshot::Sender<Arc<Stage>>>>,
    attach_scribe: Sender<crossbeam::channel::Receiver<relay_station::Event>>,
    stop_server: oneshot::Sender<()>,
    stop_scribe: Sender<()>,
    server: JoinHandle<()>,
    scribe: JoinHandle<()>,
}

impl Conductor {
    /// Starts its threads. They answer once a relay is attached.
    ///
    /// # Errors
    ///
    /// When there is no thread or descriptor to be had, or the access log cannot be opened.
    pub fn start(settings: Settings) -> io::Result<Conductor> {
        let book = scribe::Book::open(&settings.access_log)?;
        let (lines, own_lines) = crossbeam::channel::bounded(scribe::LINES_MAX);
        let (attach_scribe, events) = crossbeam::channel::bounded(1);
        let (stop_scribe, scribe_stopped) = crossbeam::channel::bounded(1);
        let (attach_server, stage) = oneshot::channel();
        let (stop_server, server_stopped) = oneshot::channel();
        let (given, gifts) = mpsc::channel(CONNECTIONS_MAX);
        let desk = Arc::new(Desk::new(settings, lines)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let scribe = std::thread::Builder::new()
            .name("scribe".into())
            .spawn(move || scribe::write(book, &events, &own_lines, &scribe_stopped))?;
        let of_server = desk.clone();
        let server = std::thread::Builder::new()
            .name("conductor".into())
            .spawn(move || {
                runtime.block_on(serve::serve(of_server, gifts, stage, server_stopped));
            })?;
        Ok(Conductor {
            desk,
            given,
            attach_server: std::sync::Mutex::new(Some(attach_server)),
            attach_scribe,
            stop_server,
            stop_scribe,
            server,
            scribe,
        })
    }

    /// What [`crate::run::open`] is given. It never blocks: when the control plane is busy, the connection is
    /// closed and counted.
    pub fn handover(&self) -> Handover {
        let (given, desk) = (self.given.clone(), self.desk.clone());
        Arc::new(move |stream, read| {
            if given.try_send(serve::Given { stream, read }).is_err() {
                desk.tallies.refused_full.up();
            }
        })
    }

    /// Tells it whom it serves. Only the first relay counts.
    pub fn attach(&self, open: &Open) {
        let mut attach = self
            .attach_server
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(attach) = attach.take() else { return };
        let stage = Stage {
            house: open.house.clone(),
            drivers: open.drivers.clone(),
            listen: open.listen,
        };
        // Either thread may have ended if it panicked: `stop` will say so.
        let _ = attach.send(Arc::new(stage));
        let _ = self.attach_scribe.try_send(open.events.clone());
    }

    /// Lets answers that are under way finish (a second at most), writes the last lines, and waits for its threads.
    ///
    /// # Errors
    ///
    /// When one of them had panicked.
    pub fn stop(self) -> io::Result<()> {
        let _ = self.stop_server.send(());
        let served = self.server.join();
        let _ = self.stop_scribe.try_send(());
        let wrote = self.scribe.join();
        served
            .and(wrote)
            .map_err(|_| io::Error::other("the control plane broke"))
    }
}
