//! Events for people, so many a second: what strangers do must not fill a disk.

use crate::say;

/// Lines a second; what is more is counted and told as one line.
const LINES_MAX: u32 = 32;

#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: u32,
}

impl Log {
    pub(crate) fn say(&mut self, line: &str) {
        self.lines += 1;
        if self.lines <= LINES_MAX {
            say(line);
        }
    }

    /// A second is over.
    pub(crate) fn next_second(&mut self) {
        if self.lines > LINES_MAX {
            say(&format!("… and {} more events", self.lines - LINES_MAX));
        }
        self.lines = 0;
    }
}
