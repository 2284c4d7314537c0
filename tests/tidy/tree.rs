//! What lies in the repository: the list of its files, and which names may stand at its top.

use crate::Finding;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The names that stand at the top, besides dotfiles and `LICENSE-*`. All of them must be there.
const TOP: [&str; 13] = [
    "Cargo.toml",
    "Cargo.lock",
    "relay",
    "splitter",
    "peer-lite",
    "bench-harness",
    "tuning",
    "tests",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deny.toml",
    "rustfmt.toml",
];

/// Folders that a walk leaves out: history, build output, and what a running relay leaves behind.
const NOT_OURS: [&str; 3] = [".git", "target", "relay-state"];

/// Paths of all files that are, or would be, tracked; relative to `root`, sorted.
///
/// Git is asked; without git (a source archive, a bare container) the folders are walked, without build output.
pub fn files(root: &Path) -> Vec<String> {
    let mut paths = git_files(root).unwrap_or_else(|| walk(root));
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    paths.dedup();
    paths
}

fn git_files(root: &Path) -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root);
    let said = git.output().ok().filter(|said| said.status.success())?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Some(
        text.split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.extend((!NOT_OURS.iter().any(|other| name == *other)).then_some(path));
            } else if let Ok(inside) = path.strip_prefix(root) {
                found.push(inside.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// The top of the repository holds what it should, and nothing else.
pub fn check_top(paths: &[String]) -> Vec<Finding> {
    let top: BTreeSet<&str> = paths
        .iter()
        .map(|path| path.split('/').next().unwrap_or(path))
        .collect();
    let strange = top
        .iter()
        .filter(|name| !TOP.contains(name) && !name.starts_with('.') && !name.starts_with("LICENSE-"));
    let strange = strange.map(|name| {
        Finding::new(
            name,
            1,
            "does not belong at the top",
            "put it into the room it is about",
        )
    });
    let missing = TOP.iter().filter(|name| !top.contains(*name));
    let missing = missing.map(|name| Finding::new(name, 1, "is missing at the top", "write it"));
    strange.chain(missing).collect()
}

#[test]
fn strangers_and_gaps_at_the_top_are_found() {
    let mut paths: Vec<String> = TOP.iter().map(|&name| name.to_owned()).collect();
    paths.extend([
        "relay/src/main.rs".into(),
        ".gitignore".into(),
        "LICENSE-MIT".into(),
    ]);
    assert!(check_top(&paths).is_empty());
    paths.push("notes/x.md".into());
    paths.retain(|path| path != "README.md");
    let found: Vec<_> = check_top(&paths)
        .into_iter()
        .map(|finding| finding.file)
        .collect();
    assert_eq!(found, ["notes", "README.md"]);
}

#[test]
fn the_walk_finds_what_git_would_and_not_the_build_output() {
    let root = tempfile::tempdir().unwrap();
    for path in ["a/b.rs", "target/x.rs", ".git/config", "c.md"] {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let mut found = walk(root.path());
    found.sort();
    assert_eq!(found, ["a/b.rs", "c.md"]);
}
