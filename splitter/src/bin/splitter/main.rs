//! `splitter --source URL`: pulls a live stream by HTTP and leads a P2PSP team with it.
//!
//! Two threads: [`source`] pulls and slices, [`team`] speaks to the peers. The rules are the library's.

// The library's rules never act; this program does.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod backoff;
mod door;
mod log;
mod post;
mod pull;
mod recent;
mod slicer;
mod source;
mod status;
mod team;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use mio::Waker;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use args::Args;

/// Why the program ends without having been told to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Exit code 2: what was asked for is impossible, here or anywhere.
    #[error("{0}")]
    Usage(String),
    /// Exit code 1: it did not work.
    #[error("{0}")]
    Runtime(String),
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("splitter: {failure}"));
            ExitCode::from(if matches!(failure, Failure::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let plan = args.plan().map_err(Failure::Usage)?;
    let runtime = |what: &'static str| move |error: io::Error| Failure::Runtime(format!("{what}: {error}"));
    let stop = Arc::new(AtomicBool::new(false));
    let mut team = team::Team::open(&plan, args, Arc::clone(&stop))?;
    let waker = team.waker();
    stop_on_signals(stop, Arc::clone(&waker)).map_err(runtime("cannot listen to signals"))?;
    source::start(&plan, team.news(), waker).map_err(runtime("cannot start the source's thread"))?;
    team.lead().map_err(runtime("cannot wait for the network"))
}

/// The first Ctrl-C ends in good order, the second at once.
fn stop_on_signals(stop: Arc<AtomicBool>, waker: Arc<Waker>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        for _ in signals.forever() {
            if stop.swap(true, Ordering::SeqCst) || waker.wake().is_err() {
                std::process::exit(1);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watch)
        .map(drop)
}

/// To the terminal; one that is gone is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
