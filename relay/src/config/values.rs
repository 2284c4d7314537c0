//! Values as they were given, each with where; flag over environment over file over default.

use std::collections::BTreeMap;

use super::error::{Error, Origin};
use super::keys::{self, KEYS, Key, Shape};

/// A value as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// One, or for a list any number.
    pub(super) texts: Vec<String>,
    /// Where.
    pub(super) origin: Origin,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    given: BTreeMap<String, Given>,
    /// Of single mounts.
    pub(super) mounts: BTreeMap<String, BTreeMap<&'static str, Given>>,
}

impl Values {
    /// Sets a key; what was set before is overridden.
    pub(super) fn set(&mut self, key: &Key, given: Given) {
        self.given.insert(key.id(), given);
    }

    /// From flags: values by key id.
    pub(super) fn set_flags(&mut self, flags: &BTreeMap<String, Vec<String>>) {
        for key in KEYS {
            if let (Some(flag), Some(texts)) = (key.flag, flags.get(&key.id())) {
                self.set(
                    key,
                    Given {
                        texts: texts.clone(),
                        origin: Origin::Flag(flag.to_owned()),
                    },
                );
            }
        }
    }

    /// From the environment.
    pub(super) fn set_env(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        for key in KEYS {
            let name = key.env();
            if let Some(text) = env(&name) {
                let texts = match key.shape {
                    Shape::List => text.split_whitespace().map(str::to_owned).collect(),
                    _ => vec![text],
                };
                self.set(
                    key,
                    Given {
                        texts,
                        origin: Origin::Env(name),
                    },
                );
            }
        }
    }

    /// The value of a key: given, or its default.
    pub(super) fn get(&self, key: &Key) -> Given {
        self.given.get(&key.id()).cloned().unwrap_or_else(|| Given {
            texts: match key.default {
                "" | "[]" => Vec::new(),
                text => vec![text.to_owned()],
            },
            origin: Origin::Default,
        })
    }

    /// What was given for `section.name`, which is in the table of keys; `None` where it is unset or empty.
    pub(super) fn text(&self, section: &str, name: &str) -> Option<Field> {
        let key = keys::find(section, name)?;
        Field::of(&key.id(), self.get(key), key.shape == Shape::Secret)
    }

    /// The same, of a list.
    pub(super) fn list(&self, section: &str, name: &str) -> Vec<Field> {
        let Some(key) = keys::find(section, name) else {
            return Vec::new();
        };
        let given = self.get(key);
        let field = |text: &String| Field {
            key: key.id(),
            text: text.clone(),
            origin: given.origin.clone(),
            secret: false,
        };
        given.texts.iter().map(field).collect()
    }
}

/// One value, ready to be read.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) text: String,
    pub(super) origin: Origin,
    pub(super) secret: bool,
}

impl Field {
    pub(super) fn of(key: &str, given: Given, secret: bool) -> Option<Self> {
        let text = given
            .texts
            .into_iter()
            .next_back()
            .filter(|text| !text.is_empty())?;
        Some(Self {
            key: key.to_owned(),
            text,
            origin: given.origin,
            secret,
        })
    }

    /// Reads it, or says what was expected.
    pub(super) fn read<T>(&self, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
        read(&self.text).ok_or_else(|| self.wrong(expected))
    }

    pub(super) fn wrong(&self, expected: &str) -> Error {
        let got = if self.secret {
            "***".to_owned()
        } else {
            format!("{:?}", self.text)
        };
        Error::Value {
            origin: self.origin.clone(),
            key: self.key.clone(),
            expected: expected.to_owned(),
            got,
        }
    }
}
