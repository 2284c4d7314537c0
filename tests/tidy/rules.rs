//! Rules about the rule crates, which must not act: no clock, no socket, no thread, no file, and short functions.

use crate::floors::Room;
use crate::lex::{blank, functions, has_word, without_tests};
use crate::{Finding, TextFile};

/// Lines a function of a rule crate may have; the usual one has about seven.
const MAX_FUNCTION_LINES: usize = 150;
/// What a rule would have to name in order to act. `clippy.toml` bans the same by meaning; this bans it by name.
const ACTS: [&str; 10] = [
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::thread",
    "std::process",
    "std::fs",
];
/// Rule crates by name that stand on another floor than the rules proper (floors 1 and 2).
const ALSO_RULES: [&str; 2] = ["relay-station", "relay-clip"];

/// The folders of the rule crates, each with a closing slash.
pub fn folders(rooms: &[Room]) -> Vec<String> {
    let rules = rooms
        .iter()
        .filter(|room| matches!(room.floor, Some(1 | 2)) || ALSO_RULES.contains(&room.name.as_str()));
    rules
        .map(|room| room.manifest.trim_end_matches("Cargo.toml").to_owned())
        .collect()
}

/// Whether the file is library code of a rule crate: not its tests, benches, examples or program.
fn is_rule(path: &str, folders: &[String]) -> bool {
    let Some(inside) = folders
        .iter()
        .find_map(|folder| path.strip_prefix(folder.as_str()))
    else {
        return false;
    };
    inside.starts_with("src/")
        && !inside.starts_with("src/bin/")
        && inside != "src/main.rs"
        && !inside.contains("/tests/")
        && !inside.ends_with("/tests.rs")
}

/// All rules of this file over one tracked Rust file; `long` is the ratchet list of functions that may stay long.
pub fn check(file: &TextFile, folders: &[String], long: &Ratchet) -> Vec<Finding> {
    if !is_rule(&file.path, folders) {
        return Vec::new();
    }
    let code = without_tests(&blank(&file.text));
    let acts = |line: &str| ACTS.iter().any(|name| has_prefix_word(line, name));
    let remedy = "a rule is told what happened and what time it is: take it as an argument";
    let mut found = file.code_lines_where(&code, acts, "a rule that acts by itself", remedy);
    found.extend(long_functions(file, &code, long));
    found
}

/// A whole word, or the beginning of one for the names that stand for a family (`std::net::Tcp…`).
fn has_prefix_word(line: &str, name: &str) -> bool {
    has_word(line, name) || (name.starts_with("std::net") && line.contains(name))
}

/// Functions that were long when the rule came. The list may only shrink.
#[derive(Debug, Default)]
pub struct Ratchet {
    /// Path and function name, with the line of the list.
    entries: Vec<(usize, String)>,
}

impl Ratchet {
    /// Where the list is kept.
    pub const FILE: &str = "tests/tidy/long-functions.txt";

    /// One `path function` a line; `#` begins a comment.
    pub fn read(list: &str) -> Self {
        let lines = list
            .lines()
            .enumerate()
            .map(|(n, line)| (n + 1, line.trim().to_owned()));
        Self {
            entries: lines
                .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
                .collect(),
        }
    }

    fn allows(&self, file: &TextFile, function: &str) -> bool {
        self.entries
            .iter()
            .any(|(_, entry)| *entry == format!("{} {function}", file.path))
    }

    /// Entries that no longer name a long function: the ratchet has moved, so the entry goes.
    pub fn stale(&self, files: &[TextFile]) -> Vec<Finding> {
        let still_long = |entry: &str| {
            files
                .iter()
                .filter(|file| entry.starts_with(file.path.as_str()))
                .any(|file| {
                    let code = without_tests(&blank(&file.text));
                    let too_long = functions(&code)
                        .into_iter()
                        .filter(|f| f.lines > MAX_FUNCTION_LINES);
                    too_long
                        .into_iter()
                        .any(|f| entry == format!("{} {}", file.path, f.name))
                })
        };
        let gone = self.entries.iter().filter(|(_, entry)| !still_long(entry));
        gone.map(|(n, entry)| {
            Finding::new(
                Self::FILE,
                *n,
                format!("`{entry}` is not long any more"),
                "remove the line",
            )
        })
        .collect()
    }
}

fn long_functions(file: &TextFile, code: &str, long: &Ratchet) -> Vec<Finding> {
    let too_long = functions(code)
        .into_iter()
        .filter(|f| f.lines > MAX_FUNCTION_LINES);
    let too_long = too_long.filter(|f| !long.allows(file, &f.name));
    too_long
        .map(|f| {
            let what = format!(
                "`{}` has {} lines (at most {MAX_FUNCTION_LINES})",
                f.name, f.lines
            );
            file.at(f.line - 1, &what, "give its parts names")
        })
        .collect()
}

/// Every rule crate carries the `clippy.toml` that bans clocks, sockets, threads and files by meaning.
pub fn check_clippy(folders: &[String], files: &[TextFile]) -> Vec<Finding> {
    let lacks = folders.iter().filter(|folder| {
        !files
            .iter()
            .any(|file| file.path == format!("{folder}clippy.toml") && file.text.contains("disallowed-"))
    });
    let what = "a rule crate without a `clippy.toml` that disallows anything";
    lacks
        .map(|folder| {
            Finding::new(
                &format!("{folder}Cargo.toml"),
                1,
                what,
                "copy relay/seam/clippy.toml",
            )
        })
        .collect()
}

#[cfg(test)]
fn file(path: &str, text: &str) -> TextFile {
    TextFile {
        path: path.into(),
        text: text.into(),
    }
}

#[test]
fn rules_that_act_are_found() {
    let folders = ["relay/link/".to_owned()];
    let acts = [
        "let t = std::time::Instant::now();",
        "use std::net::TcpStream;",
        "use std::{thread};\nstd::thread::spawn(f);",
        "std::fs::read(p)",
        "let s: UdpSocket = x;",
    ];
    let none = Ratchet::default();
    for act in acts {
        let found = |path: &str| check(&file(path, &format!("//! H.\n{act}\n")), &folders, &none).len();
        assert_eq!(found("relay/link/src/x.rs"), 1, "{act}");
        for free in [
            "relay/driver/src/x.rs",
            "relay/link/tests/x.rs",
            "relay/link/src/main.rs",
        ] {
            assert_eq!(found(free), 0, "{free}: {act}");
        }
    }
    let tests = concat!(
        "//! H.\n#[cfg(test)]\nmod tests { fn a() { std::thread::spawn(f); } }\n",
        "// std::fs\nuse std::net::IpAddr;\n",
    );
    assert!(check(&file("relay/link/src/x.rs", tests), &folders, &Ratchet::default()).is_empty());
}

#[test]
fn long_functions_are_found_and_the_ratchet_only_tightens() {
    let folders = ["relay/link/".to_owned()];
    let long = file(
        "relay/link/src/x.rs",
        &format!("//! H.\nfn long() {{\n{}}}\n", "    x();\n".repeat(149)),
    );
    let found = check(&long, &folders, &Ratchet::default());
    assert_eq!((found.len(), found[0].line), (1, 2));
    let ratchet = Ratchet::read("# why\nrelay/link/src/x.rs long\nrelay/link/src/x.rs gone\n");
    assert!(check(&long, &folders, &ratchet).is_empty());
    let stale = ratchet.stale(&[long]);
    assert_eq!((stale.len(), stale[0].line), (1, 3));
}

#[test]
fn a_rule_crate_without_clippy_toml_is_found() {
    let folders = ["relay/link/".to_owned(), "relay/source/".to_owned()];
    let files = [
        file("relay/link/clippy.toml", "disallowed-methods = []"),
        file("relay/source/clippy.toml", ""),
    ];
    let found = check_clippy(&folders, &files);
    assert_eq!(
        (found.len(), found[0].file.as_str()),
        (1, "relay/source/Cargo.toml")
    );
}
