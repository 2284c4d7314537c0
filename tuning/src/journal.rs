//! The journal: what every setting was before, on disk before it is changed.

use crate::machine::{remove, replace};
use crate::place::Place;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where the journal lives unless told otherwise.
pub const DEFAULT: &str = "/var/lib/totality/tuning-journal.json";
/// Version of the format.
const FORMAT: u32 = 1;
/// Bytes that are read of a journal; thousands of applies fit.
const MAX_BYTES: u64 = 16 << 20;

/// One change: made, or about to be made when the machine stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The check's key.
    pub key: String,
    /// What was changed.
    pub place: Place,
    /// The value before; none for a file that was not there.
    pub old: Option<String>,
    /// The value written.
    pub new: String,
    /// What it read afterwards, where the kernel or the card rounded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<String>,
    /// Folders made for a file of ours, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Book {
    format: u32,
    /// Folders made for the journal, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    folders: Vec<PathBuf>,
    entries: Vec<Entry>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("journal {path}: {error}")]
    Io {
        /// The journal.
        path: String,
        /// What was said.
        error: io::Error,
    },
    /// Another `tuning` holds it.
    #[error("journal {0}: another tuning is at work")]
    Busy(String),
    /// It is not one of ours.
    #[error("journal {path}: expected a tuning journal of format {FORMAT}, found {found}")]
    Foreign {
        /// The journal.
        path: String,
        /// What is wrong.
        found: String,
    },
}

/// An open journal. Only one process has it at a time.
pub struct Journal {
    path: PathBuf,
    book: Book,
    /// Holds the lock on the folder, which leaves no file behind.
    folder: File,
}

impl Journal {
    /// Opens the journal, or an empty one, whose folder is made; its parent folders too.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let made: Vec<PathBuf> = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_owned)
            .collect();
        fs::create_dir_all(folder).map_err(|error| io_error(path, error))?;
        let mut journal = Self::locked(path, folder)?;
        journal.book.folders.extend(made);
        Ok(journal)
    }

    /// Opens a journal that exists; none if there is none.
    pub fn existing(path: &Path) -> Result<Option<Self>, JournalError> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if !path.exists() {
            return Ok(None);
        }
        Self::locked(path, folder).map(Some)
    }

    fn locked(path: &Path, folder: &Path) -> Result<Self, JournalError> {
        let lock = File::open(folder).map_err(|error| io_error(path, error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Busy(path.display().to_string()),
            TryLockError::Error(error) => io_error(path, error),
        })?;
        let book = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            book,
            folder: lock,
        })
    }

    /// Its entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.book.entries
    }

    /// Adds entries and puts them on disk: only then may they come true.
    pub fn record(&mut self, entries: impl IntoIterator<Item = Entry>) -> Result<(), JournalError> {
        self.book.entries.extend(entries);
        self.save()
    }

    /// Notes what an entry reads after it was set; on disk when it returns.
    pub fn took(&mut self, index: usize, value: String) -> Result<(), JournalError> {
        self.book.entries[index].took = Some(value);
        self.save()
    }

    /// Keeps the entries for which `keep` is true (by index), on disk when it returns.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) -> Result<(), JournalError> {
        let entries = std::mem::take(&mut self.book.entries).into_iter().enumerate();
        self.book.entries = entries
            .filter(|(index, _)| keep(*index))
            .map(|(_, entry)| entry)
            .collect();
        self.save()
    }

    /// Writes it; one without entries is removed, with the folders that were made for it.
    fn save(&mut self) -> Result<(), JournalError> {
        if self.book.entries.is_empty() {
            remove(&self.path).map_err(|error| io_error(&self.path, error))?;
            for folder in &self.book.folders {
                // Not empty: somebody uses it by now.
                let _ = fs::remove_dir(folder);
            }
            return Ok(());
        }
        self.book.format = FORMAT;
        let text =
            serde_json::to_string_pretty(&self.book).map_err(|error| io_error(&self.path, error.into()))?;
        replace(&self.path, (text + "\n").as_bytes()).map_err(|error| io_error(&self.path, error))
    }
}

impl Drop for Journal {
    /// Unlocks by name: a child that was forked a moment ago may still hold a copy of the descriptor.
    fn drop(&mut self) {
        let _ = self.folder.unlock();
    }
}

fn io_error(path: &Path, error: io::Error) -> JournalError {
    JournalError::Io {
        path: path.display().to_string(),
        error,
    }
}

fn load(path: &Path) -> Result<Book, JournalError> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
        Err(error) => return Err(io_error(path, error)),
        Ok(file) => file
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| io_error(path, error))?,
    };
    let foreign = |found: String| JournalError::Foreign {
        path: path.display().to_string(),
        found,
    };
    let book: Book = serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
    if book.format != FORMAT {
        return Err(foreign(format!("format {}", book.format)));
    }
    // A journal is an order to write as root: what this tool never writes, no journal can make it write.
    match book.entries.iter().find(|entry| !entry.place.known()) {
        Some(entry) => Err(foreign(format!(
            "the place {}, which tuning never sets",
            entry.place
        ))),
        None => Ok(book),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            key: "somaxconn".into(),
            place: Place::sysctl(name),
            old: Some("128".into()),
            new: "4096".into(),
            took: None,
            folders: Vec::new(),
        }
    }

    #[test]
    fn entries_outlive_the_process_and_leave_nothing_at_the_end() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("totality/journal.json");
        let mut journal = Journal::open(&path).unwrap();
        journal
            .record([entry("net.core.somaxconn"), entry("net.core.rmem_max")])
            .unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Busy(_))));
        drop(journal);
        let mut journal = Journal::existing(&path).unwrap().unwrap();
        assert_eq!(journal.entries().len(), 2);
        journal.took(0, "4000".into()).unwrap();
        journal.retain(|index| index == 0).unwrap();
        assert_eq!(load(&path).unwrap().entries[0].took.as_deref(), Some("4000"));
        journal.retain(|_| false).unwrap();
        assert!(!path.parent().unwrap().exists());
        assert!(Journal::existing(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("journal.json");
        let entry = r#"{"key":"x","place":{"file":"/proc/sys/kernel/core_pattern"},"old":"a","new":"b"}"#;
        let cases = [
            "",
            "{",
            "[]",
            r#"{"format":2,"entries":[]}"#,
            &format!(r#"{{"format":1,"entries":[{entry}]}}"#),
            r#"{"format":1,"entries":[{"key":"x","place":{"own_file":"/etc/passwd"},"old":null,"new":"b"}]}"#,
        ];
        for text in cases {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(Journal::existing(&path), Err(JournalError::Foreign { .. })),
                "{text}"
            );
        }
    }
}
