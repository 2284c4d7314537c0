//! What is wrong with a configuration: where, which key, what was expected, what came.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In a file, at a line from 1 on.
    File(PathBuf, usize),
    /// In the environment, in this variable.
    Env(String),
    /// On the command line, by this flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Why a configuration cannot be used. Its text is for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {why}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// The file is not TOML.
    #[error("{origin}: {why}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser said.
        why: String,
    },
    /// There is no such key.
    #[error("{origin}: unknown key `{key}`{}", hint(.nearest.as_deref()))]
    Unknown {
        /// Where.
        origin: Origin,
        /// What was written.
        key: String,
        /// What was perhaps meant.
        nearest: Option<String>,
    },
    /// A value is not what the key takes.
    #[error("{origin}: {key}: expected {expected}, got {got}")]
    Value {
        /// Where.
        origin: Origin,
        /// Which key.
        key: String,
        /// What it takes.
        expected: String,
        /// What was written; `***` for a secret.
        got: String,
    },
}

impl Error {
    pub(super) fn syntax(path: &Path, line: usize, why: &str) -> Self {
        Error::Syntax {
            origin: Origin::File(path.to_owned(), line),
            why: why.to_owned(),
        }
    }
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| {
        format!("; the nearest known key is `{nearest}`")
    })
}

/// The known name that is most like this one, if one is.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .filter(|(score, _)| *score > 0.7);
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, k)| k)
}
