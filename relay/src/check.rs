//! `relay check`: is a configuration right, and what is in force?

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::{Failure, print};
use crate::config::{Settings, Sources};
use crate::start;

/// Checks and prints.
///
/// # Errors
///
/// The first mistake; a source that cannot be opened.
pub fn run(file: Option<&Path>, flags: &BTreeMap<String, Vec<String>>) -> Result<(), Failure> {
    let settings = Settings::load(&Sources {
        file,
        env: &start::env,
        flags,
    })?;
    if let Some(local) = &settings.local
        && local.file.is_some()
    {
        crate::local::Local::open(local).map_err(Failure::usage)?;
    }
    print(&settings.show())?;
    print(&format!("\n# {}\n", start::budget_line(&settings.station)))
}
