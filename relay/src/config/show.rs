//! A configuration written out: what is in force, and the example file.

use std::fmt::Write as _;

use super::error::Origin;
use super::keys::{KEYS, Key, MOUNT_KEYS, SECTIONS, Shape};
use super::values::{Given, Values};

/// Comments are wrapped at this column.
const WIDTH: usize = 100;

/// Every key with the value in force, and where it came from.
pub(super) fn effective(values: &Values) -> String {
    let mut out = String::new();
    for (section, _) in SECTIONS {
        let _ = writeln!(out, "[{section}]");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let given = values.get(key);
            let line = format!("{} = {}", key.name, written(key.shape, &given));
            let _ = match given.origin {
                Origin::Default => writeln!(out, "{line}"),
                origin => writeln!(out, "{line:<40} # {origin}"),
            };
        }
        out.push('\n');
    }
    for (mount, keys) in &values.mounts {
        let _ = writeln!(out, "[mounts.{mount:?}]");
        for (name, given) in keys {
            let shape = if *name == "password" {
                Shape::Secret
            } else {
                Shape::Text
            };
            let _ = writeln!(
                out,
                "{:<40} # {}",
                format!("{name} = {}", written(shape, given)),
                given.origin
            );
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn written(shape: Shape, given: &Given) -> String {
    let last = given.texts.last().map(String::as_str).unwrap_or_default();
    match shape {
        Shape::Secret if last.is_empty() => "\"\"".into(),
        Shape::Secret => "\"***\"".into(),
        Shape::List => {
            let shown: Vec<String> = given
                .texts
                .iter()
                .map(|text| quoted(&without_login(text)))
                .collect();
            format!("[{}]", shown.join(", "))
        }
        Shape::Number | Shape::Switch if is_bare(last) => last.to_owned(),
        _ => quoted(last),
    }
}

/// Whether TOML writes it without quotes.
fn is_bare(text: &str) -> bool {
    text == "true" || text == "false" || text.parse::<u64>().is_ok()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A URL's user information is a secret as well.
fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

/// The example file: every key, explained, at its default, as a comment.
pub fn example() -> String {
    let mut out = String::from(
        "# Totality relay: every key with its default. Take the `#` before a key away\n\
         # to change it. `relay check -c FILE` says whether a file is right.\n\
         # Every key is also a flag (`relay run --help`) and a variable RELAY_SECTION_KEY;\n\
         # flags go before variables, variables before this file.\n",
    );
    for (section, about) in SECTIONS {
        out.push('\n');
        comment(&mut out, about);
        let _ = writeln!(out, "[{section}]");
        KEYS.iter()
            .filter(|key| key.section == *section)
            .for_each(|key| example_key(&mut out, key));
    }
    mounts(&mut out);
    out
}

fn example_key(out: &mut String, key: &Key) {
    out.push('\n');
    let flag = key.flag.map_or_else(String::new, |flag| format!(" --{flag},"));
    comment(out, &format!("{} [{}]{flag} {}", key.help, key.value, key.env()));
    let value = match key.shape {
        Shape::Number | Shape::Switch if is_bare(key.default) => key.default.to_owned(),
        Shape::List => key.default.to_owned(),
        _ => format!("{:?}", key.default),
    };
    let _ = writeln!(out, "#{} = {value}", key.name);
}

fn mounts(out: &mut String) {
    out.push('\n');
    comment(
        out,
        &format!(
            "What is different at one mount: {}. One table per mount; no flags.",
            MOUNT_KEYS.join(", ")
        ),
    );
    out.push_str(
        "#[mounts.\"/eclipse.ts\"]\n\
         #password = \"@/run/secrets/eclipse\"\n\
         #fallback = \"/waiting.ts\"\n\
         #hold = \"30s\"\n",
    );
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
