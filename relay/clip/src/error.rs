//! What can be wrong with a file that is to be played, and what to do about it.

use crate::Kind;

/// Why a file cannot be played (any further). Everything before the fault has been handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not of the kind they were said to be.
    #[error(
        "source file: expected {name}, but found none in {scanned} bytes at offset {at}; \
         name the right format, or play the bytes as they are at a constant rate with --kbps",
        name = .kind.name()
    )]
    NotThis {
        /// What was expected.
        kind: Kind,
        /// Offset in the file where the search began.
        at: u64,
        /// How far was searched, in bytes.
        scanned: u64,
    },
    /// There is no clock to pace by.
    #[error(
        "source file: expected time stamps of {name}, but none moved on in {bytes} bytes; \
         give the rate with --kbps",
        name = .kind.name()
    )]
    NoClock {
        /// What was expected.
        kind: Kind,
        /// Bytes read without the time moving on.
        bytes: u64,
    },
    /// No bytes at all.
    #[error(
        "source file: expected {name}, but it is empty",
        name = .kind.name()
    )]
    Empty {
        /// What was expected.
        kind: Kind,
    },
    /// One element is larger than is held in memory.
    #[error(
        "source file: the {name} element at offset {at} is longer than {limit} bytes; \
         remux it, for example with ffmpeg -i IN -c copy OUT",
        name = .kind.name()
    )]
    TooLong {
        /// The format.
        kind: Kind,
        /// Offset in the file.
        at: u64,
        /// [`crate::UNIT_MAX`].
        limit: usize,
    },
    /// The structure is broken and the format has no marks to find the way back by.
    #[error(
        "source file: {name} is damaged at offset {at}: expected {expected}, found {found}; \
         remux it, for example with ffmpeg -i IN -c copy OUT",
        name = .kind.name()
    )]
    Damaged {
        /// The format.
        kind: Kind,
        /// Offset in the file.
        at: u64,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// Well formed, but not a form that can be sent live.
    #[error("source file: {what}; {remedy}")]
    Unsupported {
        /// What it is.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
}

/// A fault inside a format: [`Error`] without what only the player knows (the kind and the place).
#[derive(Debug)]
pub(crate) enum Fault {
    /// See [`Error::NotThis`]; how many bytes were searched before this step.
    NotThis(u64),
    /// See [`Error::Damaged`].
    Damaged(&'static str, String),
    /// See [`Error::Unsupported`].
    Unsupported(&'static str, &'static str),
    /// See [`Error::NoClock`].
    NoClock,
}

impl Fault {
    /// The fault as told to the caller, for a step at offset `at` of a file.
    pub(crate) fn at(self, kind: Kind, at: u64) -> Error {
        match self {
            Fault::NotThis(scanned) => Error::NotThis {
                kind,
                at: at.saturating_sub(scanned),
                scanned,
            },
            Fault::Damaged(expected, found) => Error::Damaged {
                kind,
                at,
                expected,
                found,
            },
            Fault::Unsupported(what, remedy) => Error::Unsupported { what, remedy },
            Fault::NoClock => Error::NoClock { kind, bytes: at },
        }
    }
}
