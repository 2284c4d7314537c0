//! The scribe: what workers tell becomes the access log and the program's log.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, never, select};
use relay_station::{Access, Event, Level};
use relay_wire::text::{AccessLine, escape_log};

use super::AccessLog;

/// Lines of the control plane's own that may wait.
pub(super) const LINES_MAX: usize = 1024;
/// How often it is looked whether the log has been moved away, and how long a line may stay in memory.
const CHECK: Duration = Duration::from_secs(1);
/// How long lines gather before they are written: nobody is woken for each of a thousand that come and go.
const GATHER: Duration = Duration::from_millis(20);

/// Where lines go.
#[derive(Debug)]
pub(super) enum Book {
    Off,
    Stdout,
    File {
        path: PathBuf,
        file: BufWriter<File>,
        checked: Instant,
    },
}

impl Book {
    /// # Errors
    ///
    /// When the file cannot be opened; the error names it.
    pub(super) fn open(log: &AccessLog) -> io::Result<Book> {
        Ok(match log {
            AccessLog::Off => Book::Off,
            AccessLog::Stdout => Book::Stdout,
            AccessLog::File(path) => Book::File {
                path: path.clone(),
                file: append_to(path)?,
                checked: Instant::now(),
            },
        })
    }

    fn line(&mut self, access: &Access) -> io::Result<()> {
        match self {
            Book::Off => Ok(()),
            Book::Stdout => writeln!(io::stdout().lock(), "{}", combined(access)),
            Book::File { file, .. } => writeln!(file, "{}", combined(access)),
        }
    }

    /// Everything so far is written; a log that was moved away is begun anew.
    fn settle(&mut self) -> io::Result<()> {
        let Book::File { path, file, checked } = self else {
            return Ok(());
        };
        file.flush()?;
        if checked.elapsed() >= CHECK {
            *checked = Instant::now();
            let here = file.get_ref().metadata()?;
            let same =
                std::fs::metadata(&*path).is_ok_and(|m| (m.dev(), m.ino()) == (here.dev(), here.ino()));
            if !same {
                *file = append_to(path)?;
            }
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<BufWriter<File>> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let file =
        opened.map_err(|e| io::Error::new(e.kind(), format!("the access log {}: {e}", path.display())))?;
    Ok(BufWriter::new(file))
}

/// Writes until told to stop, then what is left. A log that cannot be written is said once, and tried again.
pub(super) fn write(
    mut book: Book,
    attach: &Receiver<Receiver<Event>>,
    own: &Receiver<Access>,
    stop: &Receiver<()>,
) {
    let mut events = never();
    let mut attach = attach.clone();
    let mut complained = false;
    loop {
        let mut heard = true;
        select! {
            recv(attach) -> relay => {
                events = relay.unwrap_or_else(|_| never());
                attach = never();
            }
            recv(events) -> event => match event {
                Ok(event) => note(&mut book, event, &mut complained),
                Err(_) => events = never(),
            },
            recv(own) -> access => match access {
                Ok(access) => note(&mut book, Event::Access(access), &mut complained),
                Err(_) => break,
            },
            recv(stop) -> _ => break,
            default(CHECK) => heard = false,
        }
        if events.is_empty() && own.is_empty() {
            complain(book.settle(), &mut complained);
            if heard {
                // A worker that tells something rouses whoever waits for it. While nobody waits that costs nothing.
                std::thread::sleep(GATHER);
            }
        }
    }
    for event in events.try_iter().chain(own.try_iter().map(Event::Access)) {
        note(&mut book, event, &mut complained);
    }
    complain(book.settle(), &mut complained);
}

fn note(book: &mut Book, event: Event, complained: &mut bool) {
    match event {
        Event::Access(access) => complain(book.line(&access), complained),
        Event::Note {
            level: Level::Info,
            text,
        } => tracing::info!("{}", escape_log(&text)),
        Event::Note {
            level: Level::Warn,
            text,
        } => tracing::warn!("{}", escape_log(&text)),
    }
}

fn complain(result: io::Result<()>, complained: &mut bool) {
    match result {
        Ok(()) => {}
        Err(error) if !*complained => {
            tracing::warn!("the access log cannot be written, lines are lost: {error}");
            *complained = true;
        }
        Err(_) => {}
    }
}

/// The line of a request, in Icecast's combined format.
fn combined(access: &Access) -> String {
    let given = |text| Some(text).filter(|t: &&str| !t.is_empty());
    AccessLine {
        host: &access.peer.ip().to_canonical().to_string(),
        user: access.user.as_deref(),
        unix_seconds: access.at_s + access.seconds,
        method: access.method,
        target: &access.target,
        version: access.version,
        status: access.status,
        bytes: access.bytes,
        referer: given(access.referer.as_str()),
        agent: given(access.agent.as_str()),
        seconds: access.seconds,
    }
    .combined()
}
