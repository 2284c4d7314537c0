//! Signals: one to close in good order, another to close at once.

use std::io;
use std::thread;

use crossbeam::channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Listens for signals. The answer gives one `()` at the first SIGINT or SIGTERM; the second ends the process with
/// code 1. SIGHUP and SIGUSR1 end nothing: the access log looks by itself whether its file was moved away.
///
/// # Errors
///
/// When the handlers cannot be set.
pub fn listen() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
    let (tell, told) = bounded(1);
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut closing = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP | SIGUSR1 => {
                    tracing::info!(
                        "the access log follows its file by itself; a changed configuration needs a restart"
                    );
                }
                _ if closing => std::process::exit(1),
                _ => closing = tell.try_send(()).is_ok(),
            }
        }
    })?;
    Ok(told)
}
