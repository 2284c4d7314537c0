//! Whether the house is in order: floors, addresses of `unsafe`, rules that do not act, licences, and plain tidiness.
//!
//! Each finding says `file:line: what is there; what to do`. Each rule has a test that shows it can fail.
//! Run it alone with `cargo tidy`.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/lex.rs"]
mod lex;
#[path = "tidy/packages.rs"]
mod packages;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/text.rs"]
mod text;
#[path = "tidy/tree.rs"]
mod tree;

use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that is out of order.
#[derive(Debug)]
pub struct Finding {
    pub file: String,
    /// Line from 1.
    pub line: usize,
    what: String,
    remedy: String,
}

impl Finding {
    pub fn new(file: &str, line: usize, what: impl Into<String>, remedy: &str) -> Self {
        Self {
            file: file.to_owned(),
            line,
            what: what.into(),
            remedy: remedy.to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.file, self.line, self.what, self.remedy)
    }
}

/// A tracked file that is text.
pub struct TextFile {
    /// Relative to the repository.
    pub path: String,
    pub text: String,
}

impl TextFile {
    /// Reads it; `None` for what is not text.
    fn read(root: &Path, path: &str) -> Option<Self> {
        let bytes = std::fs::read(root.join(path)).ok()?;
        let text = String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.contains('\0'))?;
        Some(Self {
            path: path.to_owned(),
            text,
        })
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_lock(&self) -> bool {
        self.path == "Cargo.lock"
    }

    fn is_fixture(&self) -> bool {
        self.path.contains("/fixtures/")
    }

    /// A finding on line `index`, counted from 0.
    fn at(&self, index: usize, what: &str, remedy: &str) -> Finding {
        Finding::new(&self.path, index + 1, what, remedy)
    }

    /// A finding for each line of the file that is `bad`.
    fn lines_where(&self, bad: impl Fn(&str) -> bool, what: &str, remedy: &str) -> Vec<Finding> {
        self.code_lines_where(&self.text, bad, what, remedy)
    }

    /// A finding for each line of `code`, a blanked form of the file, that is `bad`.
    fn code_lines_where(
        &self,
        code: &str,
        bad: impl Fn(&str) -> bool,
        what: &str,
        remedy: &str,
    ) -> Vec<Finding> {
        let lines = code.lines().enumerate().filter(|(_, line)| bad(line));
        lines.map(|(index, _)| self.at(index, what, remedy)).collect()
    }
}

/// The repository: one above this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn text_files() -> Vec<TextFile> {
    let root = root();
    tree::files(&root)
        .iter()
        .filter_map(|path| TextFile::read(&root, path))
        .collect()
}

/// `cargo metadata`, without the network. `--no-deps` for the house alone.
fn metadata(arguments: &[&str]) -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(arguments)
        .current_dir(root());
    let said = cargo.output().unwrap();
    assert!(
        said.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The target this runs on, so that packages of other systems need not be at hand.
fn host_triple() -> String {
    let said = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap()
        .to_owned()
}

fn expect_none(found: Vec<Finding>) {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} out of order:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn arrows_point_down() {
    let rooms = floors::rooms(&metadata(&["--no-deps"]));
    assert!(!rooms.is_empty(), "cargo metadata names no package");
    expect_none(floors::check(&rooms));
}

#[test]
fn text_is_tidy() {
    let files = text_files();
    assert!(
        files.iter().any(|file| file.path == "tests/tidy.rs"),
        "the list of files lacks this file"
    );
    expect_none(files.iter().flat_map(text::check).collect());
}

#[test]
fn rules_do_not_act() {
    let files = text_files();
    let folders = rules::folders(&floors::rooms(&metadata(&["--no-deps"])));
    assert!(
        folders.iter().any(|folder| folder == "relay/seam/"),
        "{folders:?}"
    );
    let list = files
        .iter()
        .find(|file| file.path == rules::Ratchet::FILE)
        .map_or("", |file| &file.text);
    let ratchet = rules::Ratchet::read(list);
    let rust = files.iter().filter(|file| file.is_rust());
    let mut found: Vec<Finding> = rust
        .flat_map(|file| rules::check(file, &folders, &ratchet))
        .collect();
    found.extend(ratchet.stale(&files));
    expect_none(found);
}

#[test]
fn rule_crates_ban_acting_by_meaning() {
    let folders = rules::folders(&floors::rooms(&metadata(&["--no-deps"])));
    expect_none(rules::check_clippy(&folders, &text_files()));
}

#[test]
fn the_top_is_what_it_should_be() {
    expect_none(tree::check_top(&tree::files(&root())));
}

#[test]
fn packages_are_allowed() {
    let lists = packages::Lists::read(&std::fs::read_to_string(root().join("deny.toml")).unwrap());
    assert!(
        lists.licences.len() > 3 && lists.bans.len() > 3,
        "deny.toml was not understood: {lists:?}"
    );
    let triple = host_triple();
    let mut found = packages::check(&metadata(&["--filter-platform", &triple]), &lists);
    found.extend(packages::check_lock(
        &std::fs::read_to_string(root().join("Cargo.lock")).unwrap(),
    ));
    expect_none(found);
}
