//! Where the checks read: a machine's files below some root, and one live question (io_uring) that has no file.

use io_uring::{IoUring, opcode};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes read of any one file: `/proc/interrupts` of a large machine fits, a stray device file does no harm.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Entries of the smallest ring that answers the probe.
const PROBE_ENTRIES: u32 = 8;

/// Folders in which tools are looked for; the caller's `PATH` is not trusted by a program that root runs.
const TOOL_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// What a tool of the system answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// It ended with 0.
    pub ok: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A machine to be read. A file that is not there is `None` ("not here"), never an error.
pub trait Host {
    /// The text of the file at an absolute path, without surrounding white space.
    fn read(&self, path: &str) -> Option<String>;
    /// The names in a folder, sorted; none if there is no such folder.
    fn list(&self, path: &str) -> Vec<String>;
    /// The last component of what a symbolic link names.
    fn link_name(&self, path: &str) -> Option<String>;
    /// Sets up an io_uring and asks what it can do, if this machine is the one we run on.
    fn io_uring(&self) -> Probe;

    /// Asks a tool of the system (`ethtool`, `tc`); none if it is not there, or if this is a copy of a machine.
    fn tool(&self, _program: &str, _arguments: &[&str]) -> Option<Said> {
        None
    }

    /// Whether a file, however long, has this text in one of its lines.
    fn has(&self, _path: &str, _text: &str) -> bool {
        false
    }

    /// The cards that the caller named; none: those that are found.
    fn named_cards(&self) -> &[String] {
        &[]
    }

    /// The sysctl with this dotted name, as text.
    fn sysctl(&self, name: &str) -> Option<String> {
        self.read(&format!("/proc/sys/{}", name.replace('.', "/")))
    }

    /// The sysctl with this dotted name, as its numbers (`tcp_wmem` has three); empty if absent or not numbers.
    fn sysctl_numbers(&self, name: &str) -> Vec<u64> {
        let text = self.sysctl(name).unwrap_or_default();
        text.split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect()
    }
}

/// What a live io_uring answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The files of another machine: nobody to ask.
    NotAsked,
    /// `io_uring_setup` failed with this error.
    Refused(String),
    /// It works.
    Works {
        /// `SINGLE_ISSUER | DEFER_TASKRUN` (6.1): completions run when the worker asks.
        defer_taskrun: bool,
        /// `SEND_ZC` (6.0): zero-copy sends.
        send_zc: bool,
        /// `MIN_TIMEOUT` (6.12): wait for several completions, but not for long.
        min_wait: bool,
    },
}

/// The files below a root folder: `/` is this machine, anything else a saved or mounted copy of one.
#[derive(Debug)]
pub struct RootedHost {
    root: PathBuf,
    cards: Vec<String>,
}

impl RootedHost {
    /// Reads below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            cards: Vec::new(),
        }
    }

    /// Looks at these interfaces instead of those that have a device.
    pub fn with_cards(self, cards: Vec<String>) -> Self {
        Self { cards, ..self }
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Host for RootedHost {
    fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.at(path))
            .ok()?
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.at(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    fn io_uring(&self) -> Probe {
        if self.root == Path::new("/") {
            probe()
        } else {
            Probe::NotAsked
        }
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Option<Said> {
        let here = self.root == Path::new("/");
        here.then(|| ask(program, arguments)).flatten()
    }

    fn has(&self, path: &str, text: &str) -> bool {
        let file = File::open(self.at(path)).into_iter();
        let mut lines = file.flat_map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok));
        lines.any(|line| String::from_utf8_lossy(&line).contains(text))
    }

    fn named_cards(&self) -> &[String] {
        &self.cards
    }
}

fn ask(program: &str, arguments: &[&str]) -> Option<Said> {
    let places = TOOL_FOLDERS.iter().map(|folder| Path::new(folder).join(program));
    let program = places.into_iter().find(|path| path.is_file())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    let output = command.output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Said {
        ok: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

/// Asks the running kernel. The ring is dropped at once.
fn probe() -> Probe {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(PROBE_ENTRIES);
    let defer_taskrun = deferred.is_ok();
    let ring = match deferred.or_else(|_| IoUring::new(PROBE_ENTRIES)) {
        Ok(ring) => ring,
        Err(error) => return Probe::Refused(error.to_string()),
    };
    let mut known = io_uring::Probe::new();
    let answered = ring.submitter().register_probe(&mut known).is_ok();
    Probe::Works {
        defer_taskrun,
        send_zc: answered && known.is_supported(opcode::SendZc::CODE),
        min_wait: ring.params().is_feature_min_timeout(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_here() {
        let root = tempfile::tempdir().unwrap();
        let host = RootedHost::new(root.path());
        assert_eq!(host.read("/proc/version"), None);
        assert_eq!(host.list("/sys/class/net"), Vec::<String>::new());
        assert_eq!(host.link_name("/sys/class/net/eth0/device"), None);
        assert_eq!(host.io_uring(), Probe::NotAsked);
        assert_eq!(host.sysctl_numbers("net.ipv4.tcp_wmem"), Vec::<u64>::new());
    }

    #[test]
    fn files_are_read_trimmed_and_bounded() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/net/ipv4")).unwrap();
        fs::write(
            root.path().join("proc/sys/net/ipv4/tcp_wmem"),
            "4096\t16384\t4194304\n",
        )
        .unwrap();
        fs::write(root.path().join("big"), vec![b'x'; 2 << 20]).unwrap();
        fs::write(root.path().join("odd"), [0xff, 0xfe, b'1']).unwrap();
        let host = RootedHost::new(root.path());
        assert_eq!(host.sysctl_numbers("net.ipv4.tcp_wmem"), [4096, 16384, 4_194_304]);
        assert_eq!(host.read("/big").unwrap().len() as u64, MAX_FILE_BYTES);
        assert!(host.read("/odd").unwrap().ends_with('1'));
    }
}
