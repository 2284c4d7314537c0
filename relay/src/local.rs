//! A channel from inside the process: a file, standard input, or the built-in picture, paced by its own clock.
//!
//! A thread reads, a [`Player`] says what may go when, and worker 0 gets the bytes as orders. When its mailbox is full
//! the thread waits: not a byte is dropped on this side.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_clip::{Config, Kind, Player, Poll};
use relay_media::SNIFF_BYTES;
use relay_seam::Now;
use relay_station::{House, Order};

/// Bytes read at a time, and given to the worker at most at a time.
const PIECE: usize = 64 * 1024;
/// The longest and shortest sleep: to notice a stop, and to gather what is due within a moment.
const NAP_MAX: Duration = Duration::from_millis(100);
const NAP_MIN: Duration = Duration::from_millis(5);

/// Why a channel cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("source {what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// It cannot be played as a stream.
    #[error(transparent)]
    Clip(#[from] relay_clip::Error),
}

/// Something that is played.
#[derive(Debug)]
enum Tape {
    File(File),
    Stdin(io::Stdin),
    Memory(&'static [u8], usize),
}

impl Tape {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Tape::File(file) => file.read(buffer),
            Tape::Stdin(stdin) => stdin.read(buffer),
            Tape::Memory(bytes, at) => {
                let n = bytes[*at..].len().min(buffer.len());
                buffer[..n].copy_from_slice(&bytes[*at..*at + n]);
                *at += n;
                Ok(n)
            }
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        match self {
            Tape::File(file) => file.seek(SeekFrom::Start(0)).map(drop),
            Tape::Memory(_, at) => {
                *at = 0;
                Ok(())
            }
            Tape::Stdin(_) => Err(io::ErrorKind::NotSeekable.into()),
        }
    }

    /// Whether the next read may wait for somebody.
    fn is_live(&self) -> bool {
        matches!(self, Tape::Stdin(_))
    }
}

/// A channel that is ready to be played.
#[derive(Debug)]
pub struct Local {
    /// What to call it in messages.
    what: String,
    tape: Tape,
    looped: bool,
    mount: Option<String>,
    kbps: Option<u32>,
    content_type: Option<String>,
    properties: Vec<(String, String)>,
}

impl Local {
    /// As configured.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it cannot be read again though it shall.
    pub fn open(config: &crate::config::Local) -> Result<Self, Error> {
        let what = config
            .file
            .as_deref()
            .map_or_else(|| "standard input".into(), |f| f.display().to_string());
        let tape = match &config.file {
            None => Ok(Tape::Stdin(io::stdin())),
            Some(path) => open_file(path, config.looped).map(Tape::File),
        };
        let tape = tape.map_err(|error| Error::Io {
            what: what.clone(),
            error,
        })?;
        let by_name = config.file.as_deref().and_then(mount_of);
        Ok(Self {
            what,
            tape,
            looped: config.looped,
            mount: config.mount.clone().or(by_name),
            kbps: config.kbps,
            content_type: config.content_type.clone(),
            properties: config
                .name
                .iter()
                .map(|name| ("name".to_owned(), name.clone()))
                .collect(),
        })
    }

    /// A clip in memory, played for ever.
    pub fn clip(mount: &str, bytes: &'static [u8], name: &str) -> Self {
        Self {
            what: "built-in picture".into(),
            tape: Tape::Memory(bytes, 0),
            looped: true,
            mount: Some(mount.to_owned()),
            kbps: None,
            content_type: None,
            properties: vec![("name".to_owned(), name.to_owned())],
        }
    }

    /// Its mount, as far as it is known before the first byte.
    pub fn mount(&self) -> Option<&str> {
        self.mount.as_deref()
    }

    /// Begins to play into a relay, until `stop` is set. Sets `failed` when it cannot be played (any further).
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn play(self, house: Arc<House>, stop: Arc<AtomicBool>, failed: Arc<AtomicBool>) -> io::Result<()> {
        let thread = thread::Builder::new().name("local".into());
        // Not joined: it may wait on standard input for as long as it likes.
        let play = move || {
            if !Play::new(self, house, stop).run() {
                failed.store(true, Ordering::Release);
            }
        };
        thread.spawn(play).map(drop)
    }
}

fn open_file(path: &Path, looped: bool) -> io::Result<File> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if looped && !metadata.is_file() {
        return Err(io::Error::other("expected a regular file, because of loop"));
    }
    Ok(file)
}

/// `/name.ts`, where the file's name can be a mount.
fn mount_of(path: &Path) -> Option<String> {
    let mount = format!("/{}", path.file_name()?.to_str()?);
    let usable = relay_link::FollowConfig::new(&mount, "here", None).is_ok()
        && !relay_station::is_control_path(&mount);
    usable.then_some(mount)
}

fn live_mount(kind: Kind) -> &'static str {
    match kind {
        Kind::MpegTs => "/live.ts",
        Kind::Flv => "/live.flv",
        Kind::Ogg => "/live.ogg",
        Kind::WebM => "/live.webm",
        Kind::Mp4 => "/live.mp4",
        Kind::Mp3 => "/live.mp3",
        Kind::Adts => "/live.aac",
        Kind::Other => "/live",
    }
}

/// The thread's own.
struct Play {
    local: Local,
    house: Arc<House>,
    stop: Arc<AtomicBool>,
    origin: Instant,
    mount: String,
    due: Vec<u8>,
}

/// The relay is being left.
struct Stopped;

impl Play {
    fn new(local: Local, house: Arc<House>, stop: Arc<AtomicBool>) -> Self {
        Self {
            local,
            house,
            stop,
            origin: Instant::now(),
            mount: String::new(),
            due: Vec::with_capacity(PIECE),
        }
    }

    /// Answers whether it went well.
    fn run(mut self) -> bool {
        let what = self.local.what.clone();
        let played = self.play();
        match &played {
            Ok(()) => tracing::info!("{}: {what} is over", self.mount),
            Err(error) => tracing::error!("{error}"),
        }
        if !self.mount.is_empty() {
            let mount = std::mem::take(&mut self.mount);
            let _ = self.post(Order::End { mount });
        }
        played.is_ok()
    }

    fn play(&mut self) -> Result<(), Error> {
        let first = self.first_bytes()?;
        let kind = self.kind(&first);
        let mut player = Player::new(Config {
            kind,
            looped: self.local.looped,
            kbps: self.local.kbps,
        })?;
        self.begin(kind);
        player.push(&first);
        loop {
            match player.poll(self.now())? {
                Poll::Piece(bytes) => {
                    self.due.extend_from_slice(&bytes);
                    if self.due.len() >= PIECE && self.send().is_err() {
                        return Ok(());
                    }
                }
                Poll::Wait(until) => {
                    if self.send().is_err() {
                        return Ok(());
                    }
                    thread::sleep(until.since(self.now()).clamp(NAP_MIN, NAP_MAX));
                }
                Poll::NeedInput => {
                    if self.local.tape.is_live() && self.send().is_err() {
                        return Ok(());
                    }
                    self.read(&mut player)?;
                }
                Poll::Rewind => self.local.tape.rewind().map_err(|error| self.failed(error))?,
                Poll::Finished => {
                    let _ = self.send();
                    return Ok(());
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// As many as decide what it is, or all there are.
    fn first_bytes(&mut self) -> Result<Vec<u8>, Error> {
        let mut first = vec![0; SNIFF_BYTES];
        let mut filled = 0;
        while filled < first.len() && Kind::sniff(&first[..filled]).is_none() {
            match self.local.tape.read(&mut first[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        first.truncate(filled);
        Ok(first)
    }

    /// What the bytes show, else what was said, else what the name says.
    fn kind(&self, first: &[u8]) -> Kind {
        let said = || {
            self.local
                .content_type
                .as_deref()
                .and_then(Kind::from_content_type)
        };
        let named = || Kind::from_extension(&self.local.what);
        Kind::sniff(first)
            .or_else(said)
            .or_else(named)
            .unwrap_or(Kind::Other)
    }

    fn begin(&mut self, kind: Kind) {
        self.mount = self
            .local
            .mount
            .clone()
            .unwrap_or_else(|| live_mount(kind).to_owned());
        tracing::info!("{}: playing {} ({})", self.mount, self.local.what, kind.name());
        let _ = self.post(Order::Begin {
            mount: self.mount.clone(),
            content_type: self
                .local
                .content_type
                .clone()
                .or_else(|| Some(kind.content_type().to_owned())),
            properties: self.local.properties.clone(),
            from: self.local.what.clone(),
        });
    }

    fn read(&mut self, player: &mut Player) -> Result<(), Error> {
        let mut buffer = [0; PIECE];
        match self.local.tape.read(&mut buffer) {
            Ok(0) => player.end_of_input(),
            Ok(n) => player.push(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(self.failed(error)),
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Stopped> {
        if self.due.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.due, Vec::with_capacity(PIECE));
        self.post(Order::Feed {
            mount: self.mount.clone(),
            bytes,
        })
    }

    /// Waits for room in the mailbox.
    fn post(&self, mut order: Order) -> Result<(), Stopped> {
        while let Err(back) = self.house.mailbox(0).post(order) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            order = back;
            thread::sleep(NAP_MIN);
        }
        Ok(())
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now::new(self.origin.elapsed().as_nanos() as u64, wall.as_micros() as u64)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Io {
            what: self.local.what.clone(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_mount() {
        assert_eq!(mount_of(Path::new("/tmp/sun.ts")).as_deref(), Some("/sun.ts"));
        for page in ["/tmp/metrics", "/tmp/list.m3u", "/"] {
            assert_eq!(mount_of(Path::new(page)), None, "{page}");
        }
    }

    #[test]
    fn memory_is_read_to_its_end_and_again() {
        let mut tape = Tape::Memory(b"abcde", 0);
        let mut buffer = [0; 3];
        assert_eq!(tape.read(&mut buffer).unwrap(), 3);
        assert_eq!(tape.read(&mut buffer).unwrap(), 2);
        assert_eq!(tape.read(&mut buffer).unwrap(), 0);
        tape.rewind().unwrap();
        assert_eq!(tape.read(&mut buffer).unwrap(), 3);
        assert_eq!(&buffer, b"abc");
    }
}
