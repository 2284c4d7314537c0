//! The status line: rewritten in place on a terminal, now and then a line elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use peer_lite::Status;

/// Away from a terminal a line is written so often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where the status line goes.
#[derive(Debug)]
pub(crate) struct Screen {
    quiet: bool,
    terminal: bool,
    last: Option<(Instant, String)>,
}

impl Screen {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            last: None,
        }
    }

    pub(crate) fn show(&mut self, status: &Status) {
        let due = match &self.last {
            None => true,
            Some((at, state)) => self.terminal || at.elapsed() >= LINE_EVERY || *state != status.state,
        };
        if self.quiet || !due {
            return;
        }
        let line = line(status);
        // Somebody may have closed stderr; that is no reason to stop playing.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(io::stderr(), "{line}"),
        };
        self.last = Some((Instant::now(), status.state.clone()));
    }

    /// Leaves the last line where it is.
    pub(crate) fn end(&self) {
        if self.terminal && !self.quiet {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(status: &Status) -> String {
    if status.via.is_empty() {
        return format!("{:<10} {}", status.state, status.url);
    }
    format!(
        "{:<10} buffer {:>4.1} s  {:>5} kb/s  from {} by {}  {} player{}  {} gap{}",
        status.state,
        status.buffer_seconds,
        status.rate_kbps,
        status.source,
        status.via,
        status.listeners,
        plural(status.listeners),
        status.gaps,
        plural(status.gaps),
    )
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_matters() {
        let status = Status {
            state: "on-air".into(),
            source: "root".into(),
            via: "link".into(),
            buffer_seconds: 7.25,
            rate_kbps: 500,
            listeners: 1,
            ..Status::default()
        };
        let line = line(&status);
        for part in [
            "on-air",
            "7.2 s",
            "500 kb/s",
            "from root by link",
            "1 player ",
            "0 gaps",
        ] {
            assert!(line.contains(part), "{part:?} in {line}");
        }
    }
}
