//! Applying a plan: all of it or none, each old value on disk before the new one is written.

use crate::journal::{Entry, Journal, JournalError};
use crate::machine::{Machine, SetError};
use crate::plan::{Change, Plan, same};
use crate::revert::{Filter, restore};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Would be done: a dry run.
    Would,
    /// Done.
    Done,
    /// The device or the kernel does not do this, or did not take it; it is as it was. No failure.
    Declined,
    /// It cannot be written by this process.
    Blocked,
    /// Left as it was because another could not be done.
    Untouched,
    /// It should have worked, and did not.
    Failed,
    /// Done, and taken back because another failed.
    TakenBack,
    /// Somebody has changed it since; only `--force` restores it.
    Changed,
    /// It is as it was before already.
    Already,
    /// It is no longer on this machine.
    Gone,
}

/// One change and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The check's key.
    pub key: String,
    /// What was changed, by the name that people use.
    pub target: String,
    /// The value before (of `revert`: the value restored); none for a file that was not there.
    pub old: Option<String>,
    /// The value written (of `revert`: the value taken away).
    pub new: String,
    /// How it ended.
    pub state: State,
    /// What there is to say about it.
    pub note: String,
}

impl Outcome {
    /// How one change stands.
    fn of(change: &Change, state: State, note: impl Into<String>) -> Self {
        Self {
            key: change.key.into(),
            target: change.place.to_string(),
            old: change.old.clone(),
            new: change.new.clone(),
            state,
            note: note.into(),
        }
    }

    /// Whether it is a reason to exit with 1.
    pub fn bad(&self) -> bool {
        matches!(
            self.state,
            State::Blocked | State::Failed | State::TakenBack | State::Changed
        )
    }
}

/// What a dry run says: which would be done, and which could not.
pub fn rehearse(machine: &dyn Machine, plan: &Plan) -> Vec<Outcome> {
    let each =
        plan.changes.iter().map(
            |change| match machine.refusal(&change.place).or_else(|| taken(change)) {
                Some(why) => Outcome::of(change, State::Blocked, why),
                None => Outcome::of(change, State::Would, ""),
            },
        );
    each.collect()
}

/// A file that is there and that no journal of ours explains belongs to somebody else.
fn taken(change: &Change) -> Option<String> {
    let own = matches!(change.place, crate::place::Place::OwnFile(_));
    let ours = change
        .old
        .as_deref()
        .is_none_or(|text| text.starts_with(crate::checks::SIGNED));
    (own && !ours).then(|| "the file is there and not ours".into())
}

/// Applies the plan. With `partial`, what can be set is set although others cannot.
pub fn apply(
    machine: &dyn Machine,
    plan: &Plan,
    journal: &Path,
    partial: bool,
) -> Result<Vec<Outcome>, JournalError> {
    let mut outcomes = rehearse(machine, plan);
    let blocked = outcomes.iter().any(Outcome::bad);
    if blocked && !partial {
        for outcome in outcomes
            .iter_mut()
            .filter(|outcome| outcome.state == State::Would)
        {
            outcome.state = State::Untouched;
        }
    }
    let todo: Vec<usize> = (0..outcomes.len())
        .filter(|&i| outcomes[i].state == State::Would)
        .collect();
    if todo.is_empty() {
        return Ok(outcomes);
    }
    let mut journal = Journal::open(journal)?;
    let first = journal.entries().len();
    journal.record(todo.iter().map(|&i| entry(machine, &plan.changes[i])))?;
    let mut run = Run {
        machine,
        journal,
        first,
        dropped: BTreeSet::new(),
    };
    for (nth, &i) in todo.iter().enumerate() {
        outcomes[i] = run.one(&plan.changes[i], nth)?;
        if outcomes[i].state == State::Failed && !partial {
            run.take_back(&mut outcomes, &todo)?;
            return Ok(outcomes);
        }
    }
    run.finish()?;
    Ok(outcomes)
}

fn entry(machine: &dyn Machine, change: &Change) -> Entry {
    Entry {
        key: change.key.into(),
        place: change.place.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
        took: None,
        folders: machine.missing_folders(&change.place),
    }
}

struct Run<'a> {
    machine: &'a dyn Machine,
    journal: Journal,
    /// Index of this run's first entry.
    first: usize,
    /// Indexes of entries that did not come true.
    dropped: BTreeSet<usize>,
}

impl Run<'_> {
    fn one(&mut self, change: &Change, nth: usize) -> Result<Outcome, JournalError> {
        let index = self.first + nth;
        let outcome = match self.machine.set(&change.place, Some(&change.new)) {
            Ok(()) => self.look(change, index)?,
            Err(SetError::Unsupported(why)) => Outcome::of(change, State::Declined, why),
            Err(SetError::Failed(why)) => Outcome::of(change, State::Failed, why),
        };
        let as_before = self.machine.value(&change.place) == change.old;
        if outcome.state == State::Declined || (outcome.state == State::Failed && as_before) {
            self.dropped.insert(index);
        }
        Ok(outcome)
    }

    /// Reads what was written: kernels and cards round, and some take nothing without saying so.
    fn look(&mut self, change: &Change, index: usize) -> Result<Outcome, JournalError> {
        let now = self.machine.value(&change.place);
        if now == change.old {
            return Ok(Outcome::of(
                change,
                State::Declined,
                "written, but it reads as before",
            ));
        }
        match now {
            Some(now) if !same(&change.place, &now, &change.new) => {
                let note = format!("reads {now}");
                self.journal.took(index, now)?;
                Ok(Outcome::of(change, State::Done, note))
            }
            _ => Ok(Outcome::of(change, State::Done, "")),
        }
    }

    /// Undoes this run, and leaves the journal as it was before it, but for what could not be undone.
    fn take_back(&mut self, outcomes: &mut [Outcome], todo: &[usize]) -> Result<(), JournalError> {
        self.finish()?;
        let own = Filter {
            from: self.first,
            ..Filter::default()
        };
        let undone = restore(self.machine, &mut self.journal, &own, true)?;
        let stuck = |outcome: &Outcome| {
            undone
                .iter()
                .any(|other| other.target == outcome.target && other.state == State::Failed)
        };
        for &i in todo {
            outcomes[i].state = match outcomes[i].state {
                State::Done if stuck(&outcomes[i]) => State::Failed,
                State::Done => State::TakenBack,
                State::Would => State::Untouched,
                state => state,
            };
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), JournalError> {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped.is_empty() {
            Ok(())
        } else {
            self.journal.retain(|index| !dropped.contains(&index))
        }
    }
}
