//! What a person sees: a line that moves while a measurement runs (on a terminal only, and on stderr), and the results.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// A result, on stdout. Whoever reads no further (`| head`) is no reason to fail.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{what}");
}

/// A bar of `seconds`; draws nothing when stderr is no terminal.
pub(crate) fn seconds(seconds: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} s");
    let bar = ProgressBar::new(seconds);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar
}

/// A sign that something is going on, where nobody knows how far it is.
pub(crate) fn busy(what: &str) -> ProgressBar {
    let bar = steps(1);
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}, {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(what.to_owned());
    bar
}

/// A bar of `count` measurements.
pub(crate) fn steps(count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {pos}/{len} done, {elapsed}");
    let bar = ProgressBar::new(count);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}
