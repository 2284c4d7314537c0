//! What `apply` would change on this host: each row's settings, less what is set, not chosen, or would lower a value.

use crate::checks::{ALL, Check, Consent, Demand, SIGNED};
use crate::journal::Entry;
use crate::machine::Machine;
use crate::place::{Place, SYSCTL_FILE};
use crate::report::{Row, Set, Status};
use std::collections::BTreeMap;

/// The key of the file that keeps the sysctls; it belongs to no check.
pub const KEEP: &str = "keep";

/// Which keys are wanted.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Only these, if there are any; naming a key asks for it.
    pub only: Vec<String>,
    /// None of these.
    pub except: Vec<String>,
    /// These too, although they are only set when asked for.
    pub with: Vec<String>,
}

impl Choice {
    /// Whether the key is among the chosen ones.
    pub fn takes(&self, key: &str) -> bool {
        (self.only.is_empty() || has(&self.only, key)) && !has(&self.except, key)
    }

    fn asks(&self, key: &str) -> bool {
        has(&self.only, key) || has(&self.with, key)
    }

    /// Every key that is named, for checking.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        [&self.only, &self.except, &self.with]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

fn has(keys: &[String], key: &str) -> bool {
    keys.iter().any(|one| one == key)
}

/// One setting that would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The check's key.
    pub key: &'static str,
    /// Where.
    pub place: Place,
    /// What is there; none where a file of ours would be made.
    pub old: Option<String>,
    /// What would be there.
    pub new: String,
    /// What it costs to leave it.
    pub leave: String,
    /// What it costs to set it.
    pub price: &'static str,
}

/// A key that is not as it should be, and that `apply` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The check's key.
    pub key: &'static str,
    /// Why it is left.
    pub why: String,
    /// What to do by hand, or what would be written if it were asked for.
    pub hint: Vec<String>,
}

/// All that would change, in the order in which it is done, and all that is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes.
    pub changes: Vec<Change>,
    /// What stays as it is.
    pub left: Vec<Left>,
}

/// The plan for this host.
pub fn plan(machine: &dyn Machine, demand: &Demand, choice: &Choice) -> Plan {
    let mut plan = Plan::default();
    for check in ALL.iter().filter(|check| choice.takes(check.key)) {
        let row = Row {
            key: check.key,
            ..(check.run)(machine, demand)
        };
        if row.status != Status::Ok || choice.asks(check.key) {
            add(machine, check, row, choice, &mut plan);
        }
    }
    plan
}

fn add(machine: &dyn Machine, check: &'static Check, row: Row, choice: &Choice, plan: &mut Plan) {
    let left = |why: &str, hint: Vec<String>| Left {
        key: check.key,
        why: why.into(),
        hint,
    };
    let changes: Vec<Change> = row
        .sets
        .iter()
        .filter_map(|set| change(machine, check, &row, set))
        .collect();
    if changes.is_empty() && row.status == Status::Ok {
        return;
    }
    if changes.is_empty() {
        return plan.left.push(left("by hand", row.change));
    }
    if check.consent == Consent::Asked && !choice.asks(check.key) {
        let why = format!("only when asked for: --with {}", check.key);
        return plan
            .left
            .push(left(&why, changes.iter().flat_map(preview).collect()));
    }
    plan.changes.extend(changes);
}

/// Adds the file that sets at the next start what is set now: the sysctls of this plan, and those that `earlier`
/// applies have set (as journalled), newest last.
pub fn keep(machine: &dyn Machine, plan: &mut Plan, earlier: &[Entry]) {
    let journalled = earlier.iter().map(|entry| (&entry.place, &entry.new));
    // What cannot be set now is not promised for later.
    let open = plan
        .changes
        .iter()
        .filter(|change| machine.refusal(&change.place).is_none());
    let planned = open.map(|change| (&change.place, &change.new));
    let all = journalled
        .chain(planned)
        .filter_map(|(place, new)| Some((place.sysctl_name()?, new)));
    let values: BTreeMap<String, &String> = all.collect();
    let place = Place::OwnFile(SYSCTL_FILE.into());
    let old = machine.value(&place);
    let lines: String = values
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    let new = format!("{SIGNED} --keep; `tuning revert` removes it.\n{lines}");
    if values.is_empty() || old.as_ref() == Some(&new) {
        return;
    }
    let leave = "at the next start the sysctls are as they were".into();
    let price = "values that a later kernel or distribution would choose better stay as they are";
    plan.changes.push(Change {
        key: KEEP,
        place,
        old,
        new,
        leave,
        price,
    });
}

/// What a change would write, as lines.
pub(crate) fn preview(change: &Change) -> Vec<String> {
    match &change.place {
        Place::OwnFile(path) => {
            let lines = change.new.lines().map(|line| format!("  {line}"));
            std::iter::once(format!("{path}:")).chain(lines).collect()
        }
        place => vec![format!("{place} = {}", change.new)],
    }
}

fn change(machine: &dyn Machine, check: &'static Check, row: &Row, set: &Set) -> Option<Change> {
    assert!(set.place.known(), "{} is in no list of places", set.place);
    let old = machine.value(&set.place);
    // A kernel without the sysctl, a card without the setting: nothing to set. A file of ours may be missing.
    let own = matches!(set.place, Place::OwnFile(_));
    if old.is_none() && !own {
        return None;
    }
    let new = if set.raise {
        raised(old.as_deref()?, &set.value)
    } else {
        set.value.clone()
    };
    let change = Change {
        key: check.key,
        place: set.place.clone(),
        old,
        new,
        leave: row.cost.clone(),
        price: check.price,
    };
    (!change
        .old
        .as_deref()
        .is_some_and(|old| same(&change.place, old, &change.new)))
    .then_some(change)
}

/// The wanted numbers, each at least what is there.
fn raised(old: &str, wanted: &str) -> String {
    let mut old = old.split_whitespace();
    let larger =
        wanted
            .split_whitespace()
            .map(|word| match (word.parse::<u64>(), old.next().map(str::parse)) {
                (Ok(wanted), Some(Ok(old))) => wanted.max(old).to_string(),
                _ => word.to_owned(),
            });
    larger.collect::<Vec<_>>().join(" ")
}

/// Whether two values of a place are the same; the kernel's own white space does not count.
pub(crate) fn same(place: &Place, a: &str, b: &str) -> bool {
    match place {
        Place::OwnFile(_) => a == b,
        _ => a.split_whitespace().eq(b.split_whitespace()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lowered() {
        assert_eq!(
            raised("4096 131072 1", "4096 16384 4194304"),
            "4096 131072 4194304"
        );
        assert_eq!(raised("9", "1"), "9");
        assert_eq!(raised("18446744073709551615", "7"), "18446744073709551615");
    }

    #[test]
    fn choices_combine() {
        let keys = |list: &[&str]| list.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        let choice = Choice {
            only: keys(&["a", "b"]),
            except: keys(&["b"]),
            with: keys(&["c"]),
        };
        assert!(choice.takes("a") && !choice.takes("b") && !choice.takes("c"));
        assert!(choice.asks("a") && choice.asks("c") && !choice.asks("d"));
        assert_eq!(choice.named().count(), 4);
    }

    #[test]
    fn white_space_counts_only_in_files_of_ours() {
        let sysctl = Place::sysctl("net.ipv4.tcp_wmem");
        assert!(same(&sysctl, "1\t2\t3", "1 2 3") && !same(&sysctl, "1 2", "1 2 3"));
        assert!(!same(&Place::OwnFile(String::new()), "a\n", "a"));
    }
}
