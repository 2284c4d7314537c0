//! The file: TOML, read with the line of every key, so that mistakes can be pointed at.

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin, nearest};
use super::keys::{self, KEYS, MOUNT_KEYS, SECTIONS, Shape};
use super::values::{Given, Values};

/// Reads a file into `values`.
pub(super) fn read(path: &Path, values: &mut Values) -> Result<(), Error> {
    let unreadable = |e: std::io::Error| Error::Unreadable {
        path: path.to_owned(),
        why: e.to_string(),
    };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    File { path, text: &text }.read(values)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn read(&self, values: &mut Values) -> Result<(), Error> {
        let table = DeTable::parse(self.text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            Error::syntax(self.path, self.line(at), e.message())
        })?;
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            match value.get_ref() {
                DeValue::Table(mounts) if name == "mounts" => self.mounts(mounts, values)?,
                DeValue::Table(section) if is_section(name) => self.section(name, section, values)?,
                _ if is_section(name) || name == "mounts" => {
                    return Err(self.wrong(key, name, "a table", value.get_ref()));
                }
                _ => return Err(self.unknown(key, name, nearest_section(name))),
            }
        }
        Ok(())
    }

    fn section(&self, section: &str, table: &DeTable<'_>, values: &mut Values) -> Result<(), Error> {
        for (name, value) in table {
            let written: &str = name.get_ref();
            let Some(key) = keys::find(section, written) else {
                let id = format!("{section}.{written}");
                return Err(self.unknown(name, &id, nearest_key(section, written)));
            };
            let given = self.given(key.shape, name, &key.id(), value)?;
            values.set(key, given);
        }
        Ok(())
    }

    fn mounts(&self, table: &DeTable<'_>, values: &mut Values) -> Result<(), Error> {
        for (mount, value) in table {
            let path: &str = mount.get_ref();
            let DeValue::Table(keys) = value.get_ref() else {
                return Err(self.wrong(mount, &format!("mounts.{path:?}"), "a table", value.get_ref()));
            };
            if !path.starts_with('/') || path.len() < 2 {
                return Err(self.wrong(
                    mount,
                    "mounts",
                    "a mount that begins with /",
                    &DeValue::String(path.into()),
                ));
            }
            let entry = values.mounts.entry(path.to_owned()).or_default();
            for (name, value) in keys {
                let written: &str = name.get_ref();
                let id = format!("mounts.{path:?}.{written}");
                let Some(known) = MOUNT_KEYS.iter().find(|k| **k == written) else {
                    let near = nearest(written, MOUNT_KEYS.iter().copied());
                    return Err(self.unknown(name, &id, near.map(|k| format!("mounts.{path:?}.{k}"))));
                };
                let shape = if *known == "password" {
                    Shape::Secret
                } else {
                    Shape::Text
                };
                entry.insert(known, self.given(shape, name, &id, value)?);
            }
        }
        Ok(())
    }

    fn given(
        &self,
        shape: Shape,
        at: &Spanned<impl Sized>,
        id: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Given, Error> {
        let texts = match (shape, value.get_ref()) {
            (Shape::List, DeValue::Array(array)) => array.iter().map(|item| scalar(item.get_ref())).collect(),
            (Shape::List, one) => scalar(one).map(|text| vec![text]),
            (_, one) => scalar(one).map(|text| vec![text]),
        };
        let texts = texts.ok_or_else(|| {
            let expected = if shape == Shape::List {
                "a list of strings"
            } else {
                "one value"
            };
            self.wrong(at, id, expected, value.get_ref())
        })?;
        Ok(Given {
            texts,
            origin: self.origin(at),
        })
    }

    fn origin(&self, at: &Spanned<impl Sized>) -> Origin {
        Origin::File(self.path.to_owned(), self.line(at.span().start))
    }

    fn line(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        self.text.as_bytes()[..end]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1
    }

    fn unknown(&self, at: &Spanned<impl Sized>, key: &str, nearest: Option<String>) -> Error {
        Error::Unknown {
            origin: self.origin(at),
            key: key.to_owned(),
            nearest,
        }
    }

    fn wrong(&self, at: &Spanned<impl Sized>, key: &str, expected: &str, got: &DeValue<'_>) -> Error {
        let got = scalar(got).map_or_else(
            || format!("one of type {}", got.type_str()),
            |text| format!("{text:?}"),
        );
        Error::Value {
            origin: self.origin(at),
            key: key.to_owned(),
            expected: expected.to_owned(),
            got,
        }
    }
}

/// A value as it would be written on the command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(n) => Some(n.as_str().to_owned()),
        DeValue::Float(x) => Some(x.as_str().to_owned()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn is_section(name: &str) -> bool {
    SECTIONS.iter().any(|(section, _)| *section == name)
}

/// What somebody meant who wrote a key before the first table, or misspelt a table.
fn nearest_section(name: &str) -> Option<String> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Some(key.id());
    }
    let known = SECTIONS.iter().map(|(section, _)| *section).chain(["mounts"]);
    nearest(name, known).map(|section| format!("[{section}]"))
}

/// In the same section if anything is like it there, else anywhere.
fn nearest_key(section: &str, name: &str) -> Option<String> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return Some(key.id());
    }
    let here = KEYS
        .iter()
        .filter(|key| key.section == section)
        .map(|key| key.name);
    let near = nearest(name, here).map(|name| format!("{section}.{name}"));
    near.or_else(|| {
        let name = nearest(name, KEYS.iter().map(|key| key.name))?;
        KEYS.iter().find(|key| key.name == name).map(keys::Key::id)
    })
}
