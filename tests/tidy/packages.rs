//! Licences and banned versions of everything that is linked in, against the lists of `deny.toml`.
//!
//! `cargo deny` reads the same file and more (advisories); this check needs no extra program and no network.

use crate::Finding;
use serde_json::Value;

/// Where the lists are.
const LISTS: &str = "deny.toml";
/// The one place packages come from.
const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// What `deny.toml` allows and forbids.
#[derive(Debug, Default)]
pub struct Lists {
    pub licences: Vec<String>,
    /// Package name and the version below which it is banned; none = at every version.
    pub bans: Vec<(String, Option<String>)>,
}

impl Lists {
    /// Reads `licenses.allow` and the `crate = "name@<version"` entries of `bans.deny`.
    pub fn read(deny_toml: &str) -> Self {
        let mut lists = Self::default();
        let mut section = "";
        let mut in_allow = false;
        for line in deny_toml
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
        {
            if line.starts_with('[') {
                section = line;
            }
            in_allow |= section == "[licenses]" && line.starts_with("allow = [");
            if in_allow {
                lists.licences.extend(quoted(line));
            }
            in_allow &= !line.ends_with(']');
            if section == "[bans]" && line.starts_with("{ crate = ") {
                lists.bans.extend(quoted(line).first().map(|spec| ban(spec)));
            }
        }
        lists
    }
}

fn quoted(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn ban(spec: &str) -> (String, Option<String>) {
    match spec.split_once("@<") {
        Some((name, below)) => (name.to_owned(), Some(below.to_owned())),
        None => (spec.to_owned(), None),
    }
}

/// Every package of `cargo metadata` with a licence that is not allowed, or at a banned version.
pub fn check(metadata: &Value, lists: &Lists) -> Vec<Finding> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .flat_map(|package| check_package(package, lists))
        .collect()
}

fn check_package(package: &Value, lists: &Lists) -> Vec<Finding> {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let (name, version, licence) = (text("name"), text("version"), text("license"));
    let mut found = Vec::new();
    if !allowed(licence, &lists.licences) {
        let what = format!("`{name} {version}` is under `{licence}`, which is not on the list");
        found.push(Finding::new(
            LISTS,
            1,
            what,
            "use another crate, or argue for the licence in deny.toml",
        ));
    }
    let banned = lists.bans.iter().any(|(ban, below)| {
        ban == name
            && below
                .as_ref()
                .is_none_or(|below| numbers(version) < numbers(below))
    });
    if banned {
        let what = format!("`{name} {version}` is on the list of what we avoid");
        found.push(Finding::new(
            LISTS,
            1,
            what,
            "deny.toml says why; use what it names instead",
        ));
    }
    found
}

fn numbers(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    core.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `A/B` is an old way to write `A OR B`.
fn allowed(expression: &str, licences: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    !words.is_empty() && any_of(&words, &mut at, licences) && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, licences: &[String]) -> bool {
    let mut met = all_of(words, at, licences);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, licences);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, licences: &[String]) -> bool {
    let mut met = one(words, at, licences);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, licences);
    }
    met
}

fn one(words: &[&str], at: &mut usize, licences: &[String]) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let met = any_of(words, at, licences);
        *at += 1;
        return met;
    }
    if words.get(*at) != Some(&"WITH") {
        return licences.iter().any(|licence| licence == word);
    }
    let with = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
    *at += 2;
    licences.contains(&with)
}

/// Every line of `Cargo.lock` that takes a package from somewhere else than crates.io.
pub fn check_lock(lock: &str) -> Vec<Finding> {
    let strangers = lock
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("source = ") && *line != CRATES_IO);
    let remedy = "remove the source replacement from the cargo configuration, then regenerate Cargo.lock";
    strangers
        .map(|(n, line)| {
            Finding::new(
                "Cargo.lock",
                n + 1,
                format!("a package comes from {line}"),
                remedy,
            )
        })
        .collect()
}

#[cfg(test)]
fn sample_lists() -> Lists {
    Lists::read(
        "[licenses]\nallow = [ # why\n  \"MIT\",\n  \"Apache-2.0\", \"Unicode-3.0\",\n]\n\
         [bans]\ndeny = [\n  { crate = \"slab@<0.4.11\", reason = \"x\" },\n  { crate = \"glommio\" },\n]\n",
    )
}

#[test]
fn expressions_are_weighed() {
    let licences = sample_lists().licences;
    assert_eq!(licences, ["MIT", "Apache-2.0", "Unicode-3.0"]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
    ] {
        assert!(allowed(good, &licences), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(GPL-3.0 OR MIT) AND X",
        "MIT WITH Odd-exception",
        "MIT)",
    ] {
        assert!(!allowed(bad, &licences), "{bad}");
    }
}

#[cfg(test)]
fn package(name: &str, version: &str, licence: &str) -> Value {
    serde_json::json!({"name": name, "version": version, "license": licence})
}

#[test]
fn foreign_licences_and_banned_versions_are_found() {
    let metadata = serde_json::json!({"packages": [
        package("good", "1.0.0", "MIT"), package("bad", "1.0.0", "AGPL-3.0"),
        package("slab", "0.4.9", "MIT"), package("slab", "0.4.11", "MIT"), package("glommio", "9.0.0", "MIT"),
        {"name": "none", "version": "1.0.0", "license": null},
    ]});
    let said: Vec<String> = check(&metadata, &sample_lists())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(said[0].contains("AGPL") && said[1].contains("slab 0.4.9") && said[2].contains("glommio"));
    assert!(said[3].contains("none 1.0.0"));
}

#[test]
fn a_foreign_source_in_the_lock_is_found() {
    let lock = format!("{CRATES_IO}\nsource = \"git+https://example.org/x\"\n");
    let found = check_lock(&lock);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].line, 2);
}
