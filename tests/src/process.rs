//! A program that runs on a host, with what it says kept in a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::world::Host;

/// A running program. It does not outlive this value; what it said is printed when the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a program on a host.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(host: &Host, name: &str, mut command: Command) -> Self {
        let log = host.file(&format!("{name}.log"));
        let out = File::create(&log).unwrap();
        command
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .stdin(Stdio::null());
        let child = host
            .run(|| command.spawn())
            .unwrap_or_else(|e| panic!("{name}: {command:?}: {e}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            status: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process id as the kernel's calls want it.
    fn kernel_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.kernel_pid(), signal);
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where it says it.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        while self.ended().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.status
    }

    /// Ends it at once, as a power cut would.
    pub fn kill9(&mut self) {
        self.signal(Signal::SIGCONT);
        let _ = self.child.kill();
        self.status = self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill9();
        }
        if std::thread::panicking() {
            let said = self.said();
            let skip = said.len().saturating_sub(6000);
            let from = said.ceil_char_boundary(skip);
            eprintln!(
                "--- {} ({:?}) said:\n{}\n---",
                self.name,
                self.status,
                &said[from..]
            );
        }
    }
}
