//! Rules about the text of tracked files: heads, widths, leftovers, machine paths, and where `unsafe` may live.

use crate::lex::{blank, has_word, is_word};
use crate::{Finding, TextFile};

/// Columns a line of Rust may have.
const MAX_COLUMNS: usize = 120;
/// Folders in which `unsafe` has an address; each crate there says why in its manifest.
const UNSAFE_ADDRESSES: [&str; 3] = ["relay/ring/", "relay/driver/", "relay/merkle/"];
/// Macros that only a half-written program calls. Written in halves, so that this list does not find itself.
const LEFTOVER_MACROS: [&str; 3] = [
    concat!("to", "do!"),
    concat!("db", "g!"),
    concat!("unimple", "mented!"),
];
/// Notes that only a half-written program carries, in comments as well.
const LEFTOVER_NOTES: [&str; 4] = [
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("TO", "DO"),
];
/// Homes and work folders that exist only on the machine where a line was written.
const MACHINE_PATHS: [&str; 2] = [concat!("/ro", "ot/"), concat!("/wo", "rk/")];
/// Package registries and their mirrors: where packages come from is the reader's cargo's business.
const REGISTRIES: [&str; 5] = [
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("pypi.", "org"),
    concat!("registry.", "npmjs"),
    concat!("arti", "factory"),
];

/// All rules of this file over one tracked text file.
pub fn check(file: &TextFile) -> Vec<Finding> {
    let mut found = Vec::new();
    if file.is_lock() {
        return found;
    }
    found.extend(machine_paths(file));
    found.extend(registries(file));
    if file.is_fixture() {
        return found;
    }
    found.extend(notes(file));
    if file.is_rust() || file.path.ends_with(".toml") {
        found.extend(tabs(file));
    }
    if file.is_rust() {
        let code = blank(&file.text);
        found.extend(head(file));
        found.extend(wide_lines(file));
        found.extend(leftover_macros(file, &code));
        found.extend(unsafe_elsewhere(file, &code));
    }
    found
}

fn head(file: &TextFile) -> Option<Finding> {
    let first = file
        .text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("#!["))
        .unwrap_or_default();
    let what = "the file does not begin with `//!`";
    (!first.starts_with("//!")).then(|| file.at(0, what, "say in a sentence what is here and why"))
}

fn wide_lines(file: &TextFile) -> Vec<Finding> {
    file.lines_where(
        |line| line.chars().count() > MAX_COLUMNS,
        "more than 120 columns",
        "break the line",
    )
}

fn tabs(file: &TextFile) -> Vec<Finding> {
    file.lines_where(
        |line| line.contains('\t'),
        "a tab",
        "use spaces (in a literal: \\t)",
    )
}

fn notes(file: &TextFile) -> Vec<Finding> {
    let note = |line: &str| LEFTOVER_NOTES.iter().any(|note| has_word(line, note));
    file.lines_where(
        note,
        "a leftover note",
        "do it, or write down in a comment why it is not done",
    )
}

fn leftover_macros(file: &TextFile, code: &str) -> Vec<Finding> {
    let leftover = |line: &str| LEFTOVER_MACROS.iter().any(|name| has_word(line, name));
    file.code_lines_where(
        code,
        leftover,
        "a leftover macro",
        "finish the code, or remove it",
    )
}

fn unsafe_elsewhere(file: &TextFile, code: &str) -> Vec<Finding> {
    if UNSAFE_ADDRESSES
        .iter()
        .any(|address| file.path.starts_with(address))
    {
        return Vec::new();
    }
    let remedy = "move it to relay/ring or relay/driver, or use a safe call";
    file.code_lines_where(
        code,
        |line| has_word(line, "unsafe"),
        "`unsafe` outside its addresses",
        remedy,
    )
}

/// Absolute paths only: `target/work/` or `http://host/root/` is somebody else's business.
fn machine_paths(file: &TextFile) -> Vec<Finding> {
    let absolute = |line: &str| {
        let hits = MACHINE_PATHS.iter().flat_map(|path| line.match_indices(path));
        hits.into_iter()
            .any(|(at, _)| !line[..at].ends_with(|c: char| is_word(c) || ".-}$~*".contains(c)))
    };
    file.lines_where(
        absolute,
        "a path of one machine",
        "make it relative to the repository",
    )
}

fn registries(file: &TextFile) -> Vec<Finding> {
    let named = |line: &str| REGISTRIES.iter().any(|host| line.contains(host));
    file.lines_where(
        named,
        "a package registry's host",
        "name the package; cargo knows where it lives",
    )
}

#[cfg(test)]
fn said(path: &str, text: &str) -> Vec<String> {
    let file = TextFile {
        path: path.into(),
        text: text.into(),
    };
    check(&file).iter().map(ToString::to_string).collect()
}

#[test]
fn a_clean_file_passes() {
    assert!(
        said(
            "relay/wire/src/lib.rs",
            "//! Views.\nconst X: &str = \"unsafe\"; // unsafe is a word\n"
        )
        .is_empty()
    );
    assert!(
        said(
            "relay/ring/src/lib.rs",
            "#![no_std]\n\n//! Memory.\nunsafe { x() }\n"
        )
        .is_empty()
    );
}

#[test]
fn each_rule_names_its_line() {
    let wide = format!("//! H.\n{}\n", "x".repeat(121));
    let cases: [(&str, &str, &str, usize); 8] = [
        ("a/src/x.rs", "fn a() {}\n", "does not begin", 1),
        ("a/src/x.rs", &wide, "120 columns", 2),
        ("a/src/x.rs", "//! H.\n\tx();\n", "a tab", 2),
        (
            "a/src/x.rs",
            "//! H.\n\nlet x = unsafe { y() };\n",
            "outside its addresses",
            3,
        ),
        (
            "a/src/x.rs",
            &format!("//! H.\nfn a() {{ {}() }}\n", LEFTOVER_MACROS[0]),
            "leftover macro",
            2,
        ),
        (
            "run.sh",
            &format!("ok\n# {}: later\n", LEFTOVER_NOTES[0]),
            "leftover note",
            2,
        ),
        (
            "README.md",
            &format!("see {}x\n", MACHINE_PATHS[0]),
            "one machine",
            1,
        ),
        (
            ".cargo/config.toml",
            &format!("[a]\nb = \"{}\"\n", REGISTRIES[0]),
            "registry's host",
            2,
        ),
    ];
    for (path, text, what, line) in cases {
        let said = said(path, text);
        assert_eq!(said.len(), 1, "{path}: {said:#?}");
        assert!(
            said[0].starts_with(&format!("{path}:{line}: ")) && said[0].contains(what),
            "{said:#?}"
        );
    }
}

#[test]
fn only_absolute_paths_are_machine_paths() {
    let path = MACHINE_PATHS[1];
    for fine in [
        format!("target{path}x"),
        format!("..{path}"),
        format!("http://127.0.0.1{path}x"),
    ] {
        assert!(said("README.md", &fine).is_empty(), "{fine}");
    }
    for bad in [format!("\"{path}x\""), path.to_owned(), format!("file://{path}x")] {
        assert_eq!(said("README.md", &bad).len(), 1, "{bad}");
    }
}

#[test]
fn fixtures_are_free_in_form_but_not_in_paths() {
    let path = "tests/fixtures/odd.rs";
    assert!(said(path, "\tfn x() {}\n").is_empty());
    assert_eq!(said(path, MACHINE_PATHS[0]).len(), 1);
}
