//! What `apply`, `revert` and `explain` print: text of at most [`COLUMNS`] columns for people, JSON for programs.

use crate::apply::{Outcome, State};
use crate::checks::{ALL, Check, Consent, Demand};
use crate::machine::Machine;
use crate::plan::{Change, Left, Plan, preview};
use crate::report::{COLUMNS, Row, Status, wrap};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Version of the JSON format; a field may be added without a new number, none is renamed or removed.
const FORMAT: u32 = 1;
/// Columns before the text that belongs to a line.
const INDENT: usize = 12;

fn word(state: State) -> &'static str {
    match state {
        State::Would => "would set",
        State::Done => "set",
        State::Declined => "declined",
        State::Blocked => "cannot",
        State::Untouched => "untouched",
        State::Failed => "FAILED",
        State::TakenBack => "taken back",
        State::Changed => "CHANGED",
        State::Already => "as before",
        State::Gone => "gone",
    }
}

/// Of a revert.
fn back(state: State) -> &'static str {
    match state {
        State::Would => "would go",
        State::Done => "restored",
        state => word(state),
    }
}

/// The plan and how each of its changes stands. `wrote`: it was not a dry run.
pub fn apply(plan: &Plan, outcomes: &[Outcome], wrote: bool, journal: &Path) -> String {
    let mut out = String::new();
    for (change, outcome) in plan.changes.iter().zip(outcomes) {
        changed(change, outcome, &mut out);
    }
    for one in &plan.left {
        left(one, &mut out);
    }
    let count = |state: State| outcomes.iter().filter(|outcome| outcome.state == state).count();
    let last = match (outcomes.iter().any(Outcome::bad), wrote) {
        _ if outcomes.is_empty() => "Nothing to set.".into(),
        (true, false) => format!(
            "{} of {} cannot be set: `apply --yes` would set nothing (`--partial`: the rest).",
            count(State::Blocked),
            outcomes.len()
        ),
        (false, false) => format!("A dry run: nothing was changed. `--yes` sets {}.", outcomes.len()),
        (true, true) if count(State::Done) == 0 => "Nothing was changed: not all of it could be set.".into(),
        (_, true) => format!(
            "{} set; old values in {}. `tuning revert` restores them.",
            count(State::Done),
            journal.display()
        ),
    };
    close(&last, &mut out);
    out
}

fn close(last: &str, out: &mut String) {
    let gap = if out.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{gap}{}", wrap(last, COLUMNS).join("\n"));
}

fn changed(change: &Change, outcome: &Outcome, out: &mut String) {
    let own = matches!(change.place, crate::place::Place::OwnFile(_));
    let values = if own {
        if change.old.is_some() {
            "rewritten".into()
        } else {
            "a new file".into()
        }
    } else {
        arrow(outcome.old.as_deref(), Some(&outcome.new))
    };
    line(
        word(outcome.state),
        &format!("{}: {values}  ({})", outcome.target, outcome.key),
        out,
    );
    if own {
        preview(change).iter().skip(1).for_each(|text| raw(text, out));
    }
    detail(&outcome.note, out);
    detail(&format!("costs to leave: {}", change.leave), out);
    detail(&format!("costs to set: {}", change.price), out);
}

fn arrow(from: Option<&str>, to: Option<&str>) -> String {
    let tidy = |value: Option<&str>| {
        value.map_or("absent".into(), |value| {
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        })
    };
    format!("{} -> {}", tidy(from), tidy(to))
}

fn line(word: &str, text: &str, out: &mut String) {
    let lines = wrap(text, COLUMNS - INDENT);
    for (i, text) in lines.iter().enumerate() {
        let first = if i == 0 { word } else { "" };
        let _ = writeln!(out, "{first:<INDENT$}{text}");
    }
}

fn detail(text: &str, out: &mut String) {
    if !text.is_empty() {
        wrap(text, COLUMNS - INDENT - 2)
            .iter()
            .for_each(|text| raw(&format!("  {text}"), out));
    }
}

/// A line that is not wrapped: it may be a command, or part of a file.
fn raw(text: &str, out: &mut String) {
    let _ = writeln!(out, "{:INDENT$}{text}", "");
}

fn left(one: &Left, out: &mut String) {
    let _ = writeln!(out, "{:<INDENT$}{}: {}", "left", one.key, one.why);
    one.hint.iter().for_each(|text| raw(&format!("  {text}"), out));
}

/// How each journalled change stands. `dry`: nothing was written.
pub fn revert(outcomes: &[Outcome], dry: bool, journal: &Path) -> String {
    let mut out = String::new();
    for outcome in outcomes {
        let values = if outcome.new.contains('\n') || outcome.old.is_none() {
            if outcome.old.is_some() {
                "the earlier text".into()
            } else {
                "removed".into()
            }
        } else {
            arrow(Some(&outcome.new), outcome.old.as_deref())
        };
        line(
            back(outcome.state),
            &format!("{}: {values}  ({})", outcome.target, outcome.key),
            &mut out,
        );
        detail(&outcome.note, &mut out);
    }
    let done = outcomes
        .iter()
        .filter(|outcome| outcome.state == State::Done)
        .count();
    let last = match outcomes.iter().any(Outcome::bad) {
        _ if outcomes.is_empty() => format!("Nothing to restore: no such entry in {}.", journal.display()),
        true if done == 0 => {
            "Nothing was changed. `--force` restores also what somebody else has changed.".into()
        }
        true => format!(
            "{done} restored; what could not be is still in {}.",
            journal.display()
        ),
        false if dry => "A dry run: nothing was changed.".into(),
        false => format!("{done} restored."),
    };
    close(&last, &mut out);
    out
}

/// [`apply`] for programs.
pub fn apply_json(plan: &Plan, outcomes: &[Outcome], wrote: bool) -> String {
    let changes = plan.changes.iter().zip(outcomes).map(|(change, outcome)| {
        let mut value = json!(outcome);
        value["cost_to_leave"] = json!(change.leave);
        value["cost_to_set"] = json!(change.price);
        value
    });
    let left: Vec<Value> = plan
        .left
        .iter()
        .map(|one| json!({"key": one.key, "why": one.why, "hint": one.hint}))
        .collect();
    document(changes.collect(), left, outcomes, !wrote)
}

/// [`revert`] for programs.
pub fn revert_json(outcomes: &[Outcome], dry: bool) -> String {
    document(
        outcomes.iter().map(|outcome| json!(outcome)).collect(),
        Vec::new(),
        outcomes,
        dry,
    )
}

fn document(changes: Vec<Value>, left: Vec<Value>, outcomes: &[Outcome], dry: bool) -> String {
    let ok = !outcomes.iter().any(Outcome::bad);
    let value = json!({"format": FORMAT, "dry_run": dry, "ok": ok, "changes": changes, "left": left});
    format!("{value:#}\n")
}

/// The keys of all checks.
pub fn keys(as_json: bool) -> String {
    let keys: Vec<&str> = ALL.iter().map(|check| check.key).collect();
    if as_json {
        format!("{:#}\n", json!(keys))
    } else {
        keys.iter().map(|key| format!("{key}\n")).collect()
    }
}

/// Everything about one check, and how this host stands.
pub fn explain(check: &Check, machine: &dyn Machine, demand: &Demand, as_json: bool) -> String {
    let row = Row {
        key: check.key,
        ..(check.run)(machine, demand)
    };
    if as_json {
        let value = json!({
            "format": FORMAT, "key": check.key, "why": check.why, "cost_to_leave": row.cost,
            "cost_to_set": check.price, "measured": check.measured, "asked": check.consent == Consent::Asked,
            "row": row,
        });
        return format!("{value:#}\n");
    }
    let mut out = format!("{}\n\n", check.key);
    for part in check.why.split("\n\n") {
        let _ = write!(out, "{}\n\n", wrap(part, 80).join("\n"));
    }
    let consent = match check.consent {
        Consent::Asked => "only when asked for (`--with KEY`)",
        Consent::Given => "what can be set, it sets",
    };
    let facts = [
        ("found", row.found.as_str()),
        ("wanted", &row.wanted),
        ("costs to leave", &row.cost),
        ("costs to set", check.price),
        ("measured", check.measured),
        ("tuning apply", consent),
    ];
    for (label, text) in facts {
        fact(label, text, &mut out);
    }
    if row.status != Status::Ok {
        for command in &row.change {
            let _ = writeln!(out, "{:<16}{command}", "change");
        }
        files(&row, &mut out);
    }
    out
}

fn fact(label: &str, text: &str, out: &mut String) {
    for (i, text) in wrap(text, 64).iter().enumerate() {
        let label = if i == 0 { label } else { "" };
        let _ = writeln!(out, "{label:<16}{text}");
    }
}

/// The text of the files that would be written.
fn files(row: &Row, out: &mut String) {
    for set in &row.sets {
        if let crate::place::Place::OwnFile(path) = &set.place {
            let _ = write!(
                out,
                "\n{path}:\n{}",
                set.value
                    .lines()
                    .map(|line| format!("  {line}\n"))
                    .collect::<String>()
            );
        }
    }
}
