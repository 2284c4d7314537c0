//! What can go wrong, in words that say who, what was expected and what came.

use std::io;

/// A failure of the harness or of what it measures. The process exits 2 for [`Error::Usage`], 1 for the rest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// An operation of the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to whom.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A server or a child process did not do what the measurement needs.
    #[error("{0}")]
    Failed(String),
    /// Something is not installed here that only this one row or part needs.
    #[error("{0}")]
    Missing(String),
    /// Ctrl-C, or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The exit code a script sees: 2 for usage, 1 for everything at run time.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Usage(_)) { 2 } else { 1 }
    }
}

/// Adds the sentence that an `io::Error` lacks.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Io {
            what: what(),
            source: error.into(),
        })
    }
}
