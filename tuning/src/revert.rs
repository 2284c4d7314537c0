//! Reverting: every journalled setting back to what it was, unless somebody else has changed it since.

use crate::apply::{Outcome, State};
use crate::journal::{Entry, Journal, JournalError};
use crate::machine::Machine;
use crate::place::Place;
use crate::plan::{Choice, same};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Which entries are meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Entries from this index on.
    pub(crate) from: usize,
    /// Keys.
    pub(crate) choice: Choice,
}

/// Reverts what the journal holds; nothing where there is no journal. Without `force`, one value that somebody else
/// has changed, or that cannot be written, leaves everything as it is. With `dry`, nothing is written.
pub fn revert(
    machine: &dyn Machine,
    journal: &Path,
    choice: &Choice,
    force: bool,
    dry: bool,
) -> Result<Vec<Outcome>, JournalError> {
    let Some(mut journal) = Journal::existing(journal)? else {
        return Ok(Vec::new());
    };
    let filter = Filter {
        from: 0,
        choice: choice.clone(),
    };
    if dry {
        return Ok(judged(machine, journal.entries(), &filter, force)
            .into_iter()
            .map(|(_, one)| one)
            .collect());
    }
    restore(machine, &mut journal, &filter, force)
}

/// Restores the chosen entries, newest first, and takes what is restored out of the journal.
pub(crate) fn restore(
    machine: &dyn Machine,
    journal: &mut Journal,
    filter: &Filter,
    force: bool,
) -> Result<Vec<Outcome>, JournalError> {
    let mut judged = judged(machine, journal.entries(), filter, force);
    if !force && judged.iter().any(|(_, outcome)| outcome.bad()) {
        for (_, outcome) in judged
            .iter_mut()
            .filter(|(_, outcome)| outcome.state == State::Would)
        {
            outcome.state = State::Untouched;
        }
        return Ok(outcomes(judged));
    }
    for (index, outcome) in judged
        .iter_mut()
        .filter(|(_, outcome)| outcome.state == State::Would)
    {
        put_back(machine, &journal.entries()[*index], outcome);
    }
    let settled = |state: State| matches!(state, State::Done | State::Already | State::Gone);
    let gone: BTreeSet<usize> = judged
        .iter()
        .filter(|(_, outcome)| settled(outcome.state))
        .map(|(index, _)| *index)
        .collect();
    journal.retain(|index| !gone.contains(&index))?;
    Ok(outcomes(judged))
}

fn outcomes(judged: Vec<(usize, Outcome)>) -> Vec<Outcome> {
    judged.into_iter().map(|(_, outcome)| outcome).collect()
}

fn put_back(machine: &dyn Machine, entry: &Entry, outcome: &mut Outcome) {
    outcome.state = match machine.set(&entry.place, entry.old.as_deref()) {
        Ok(()) => State::Done,
        Err(error) => {
            outcome.note = error.to_string();
            State::Failed
        }
    };
    if outcome.state == State::Done {
        machine.remove_folders(&entry.folders);
    }
}

/// How each chosen entry stands, newest first; what newer entries will have restored is taken into account.
fn judged(machine: &dyn Machine, entries: &[Entry], filter: &Filter, force: bool) -> Vec<(usize, Outcome)> {
    let mut order: Vec<usize> = (filter.from..entries.len()).rev().collect();
    order.retain(|&index| filter.choice.takes(&entries[index].key));
    // The kernel chooses a queue discipline anew when ours goes, by a sysctl that must be restored by then.
    order.sort_by_key(|&index| matches!(entries[index].place, Place::Qdisc { .. }));
    let mut values: HashMap<Place, Option<String>> = HashMap::new();
    let mut judge = |index: usize| {
        let entry = &entries[index];
        let now = values
            .entry(entry.place.clone())
            .or_insert_with(|| machine.value(&entry.place));
        let (state, note) = state(machine, entry, now.as_deref(), force);
        if state == State::Would {
            *now = entry.old.clone();
        }
        (index, outcome(entry, state, note))
    };
    order.into_iter().map(&mut judge).collect()
}

fn state(machine: &dyn Machine, entry: &Entry, now: Option<&str>, force: bool) -> (State, String) {
    let is = |value: Option<&str>| match (now, value) {
        (Some(now), Some(value)) => same(&entry.place, now, value),
        (now, value) => now == value,
    };
    let ours = is(Some(&entry.new)) || (entry.took.is_some() && is(entry.took.as_deref()));
    let own = matches!(entry.place, Place::OwnFile(_));
    match now {
        _ if is(entry.old.as_deref()) => (State::Already, String::new()),
        None if !own => (State::Gone, "no longer on this machine".into()),
        now if !ours && !force => {
            let now = now.map_or("removed".into(), |now| {
                if own {
                    "the file was edited".into()
                } else {
                    format!("is {now}")
                }
            });
            (State::Changed, format!("changed by somebody else since: {now}"))
        }
        _ => match machine.refusal(&entry.place) {
            Some(why) => (State::Blocked, why),
            None => (State::Would, String::new()),
        },
    }
}

fn outcome(entry: &Entry, state: State, note: String) -> Outcome {
    Outcome {
        key: entry.key.clone(),
        target: entry.place.to_string(),
        old: entry.old.clone(),
        new: entry.took.clone().unwrap_or_else(|| entry.new.clone()),
        state,
        note,
    }
}
