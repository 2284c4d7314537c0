//! Ctrl-C and SIGTERM as a flag that every loop looks at, so that children are stopped and reports written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Doing, Error};

/// Set once by a signal; never cleared.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// First signal: the flag. Second signal: exit at once (children die with us, see `launch.rs`).
    pub(crate) fn install() -> Result<Stop, Error> {
        let stop = Stop::default();
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 1, stop.0.clone())
                .and_then(|_| flag::register(signal, stop.0.clone()))
                .doing(|| format!("cannot watch signal {signal}"))?;
        }
        Ok(stop)
    }

    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.asked() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}
