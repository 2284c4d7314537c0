//! Child processes that never outlive us.
//!
//! Every child is started through our own binary (`bench-harness launch …`), which pins itself to a processor, gives up
//! root where asked, arranges to be killed when its parent dies, and then *becomes* the program. So the pid is the
//! program's, and Ctrl-C, an error or even `kill -9` of the harness leaves nothing behind.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, getppid, setgid, setgroups, setuid};

use crate::error::{Doing, Error};

/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// The processors that we might use before we were first pinned: those of a child that is not.
static UNPINNED: OnceLock<Vec<usize>> = OnceLock::new();

/// A program to start, and under which conditions.
pub(crate) struct Launch {
    program: OsString,
    args: Vec<OsString>,
    cpu: Option<usize>,
    user: Option<String>,
    env: Vec<(String, String)>,
}

impl Launch {
    pub(crate) fn new(program: impl Into<OsString>) -> Launch {
        Launch {
            program: program.into(),
            args: Vec::new(),
            cpu: None,
            user: None,
            env: Vec::new(),
        }
    }

    /// Our own binary again, as another of its commands.
    pub(crate) fn own(command: &str) -> Result<Launch, Error> {
        Ok(Launch::new(own_path()?).arg(command))
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Launch {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn flag(self, name: &str, value: impl ToString) -> Launch {
        self.arg(name).arg(value.to_string())
    }

    pub(crate) fn cpu(mut self, cpu: Option<usize>) -> Launch {
        self.cpu = cpu;
        self
    }

    pub(crate) fn user(mut self, user: Option<String>) -> Launch {
        self.user = user;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Launch {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it. What it writes goes to `log`; its stdout comes to us where it is `heard`.
    pub(crate) fn start(&self, name: &str, log: &Path, heard: bool) -> Result<Guard, Error> {
        let mut command = Command::new(own_path()?);
        command
            .arg("launch")
            .arg("--parent")
            .arg(std::process::id().to_string());
        let unpinned = UNPINNED.get().cloned().unwrap_or_default();
        for cpu in self.cpu.map_or(unpinned, |cpu| vec![cpu]) {
            command.arg("--cpu").arg(cpu.to_string());
        }
        if let Some(user) = &self.user {
            command.arg("--user").arg(user);
        }
        command.arg("--").arg(&self.program).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let file = File::options().create(true).append(true).open(log);
        let file = file.doing(|| format!("cannot write {}", log.display()))?;
        let copy = file
            .try_clone()
            .doing(|| format!("cannot write {}", log.display()))?;
        let out = if heard { Stdio::piped() } else { Stdio::from(copy) };
        let child = command.stdin(Stdio::null()).stdout(out).stderr(file).spawn();
        let child = child.doing(|| format!("cannot start {name}"))?;
        Ok(Guard {
            child,
            name: name.into(),
        })
    }
}

fn own_path() -> Result<OsString, Error> {
    std::env::current_exe()
        .map(Into::into)
        .doing(|| "cannot find the own binary".into())
}

/// A running child. Dropping it ends it: SIGTERM, a moment, SIGKILL; always waited for.
pub(crate) struct Guard {
    child: Child,
    name: String,
}

impl Guard {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// An error when the child has ended, which none may before we end it.
    pub(crate) fn must_run(&mut self) -> Result<(), Error> {
        match self
            .child
            .try_wait()
            .doing(|| format!("cannot ask for {}", self.name))?
        {
            None => Ok(()),
            Some(status) => Err(Error::Failed(format!("{} ended by itself: {status}", self.name))),
        }
    }

    /// How it ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<std::process::ExitStatus>, Error> {
        self.child
            .try_wait()
            .doing(|| format!("cannot ask for {}", self.name))
    }

    fn ended_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
            if !self.ended_within(GRACE) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

/// What `launch` does in the child. Returns only on failure.
pub(crate) fn become_program(cpus: &[usize], user: Option<&str>, parent: i32, command: &[OsString]) -> Error {
    match prepare(cpus, user, parent) {
        Err(error) => error,
        Ok(()) => {
            let Some((program, args)) = command.split_first() else {
                return Error::Usage("launch: no program given".into());
            };
            let source = Command::new(program).args(args).exec();
            Error::Io {
                what: format!("cannot run {}", program.display()),
                source,
            }
        }
    }
}

fn prepare(cpus: &[usize], user: Option<&str>, parent: i32) -> Result<(), Error> {
    if !cpus.is_empty() {
        keep_to(cpus)?;
    }
    if let Some(name) = user {
        let user = User::from_name(name).doing(|| format!("cannot look up user {name}"))?;
        let user = user.ok_or_else(|| Error::Failed(format!("there is no user {name}")))?;
        setgroups(&[user.gid])
            .and_then(|()| setgid(user.gid))
            .and_then(|()| setuid(user.uid))
            .doing(|| format!("cannot become {name}"))?;
    }
    // After the change of user, which would clear it. The parent may have died before: then go too.
    set_pdeathsig(Signal::SIGKILL).doing(|| "cannot bind to the parent's life".into())?;
    match getppid().as_raw() == parent {
        true => Ok(()),
        false => Err(Error::Interrupted),
    }
}

/// Binds the calling thread to one processor; what it starts is bound only where that is asked for.
pub(crate) fn pin(cpu: usize) -> Result<(), Error> {
    UNPINNED.get_or_init(allowed);
    keep_to(&[cpu])
}

/// Undoes [`pin`].
pub(crate) fn unpin() -> Result<(), Error> {
    UNPINNED.get().map_or(Ok(()), |cpus| keep_to(cpus))
}

fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

fn keep_to(cpus: &[usize]) -> Result<(), Error> {
    let mut set = CpuSet::new();
    cpus.iter()
        .try_for_each(|cpu| set.set(*cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| Error::Failed(format!("cannot pin to processor {cpus:?}: {error}")))
}
