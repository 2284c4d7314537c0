//! Rows, and how they are printed: a table of at most [`COLUMNS`] columns for people, JSON for programs.

use crate::checks::Demand;
use crate::place::Place;
use serde::Serialize;
use std::fmt::Write;

/// Columns of the table.
pub const COLUMNS: usize = 100;
/// Columns before the text of a row.
const INDENT: usize = 29;
/// Version of the JSON format; a field may be added without a new number, none is renamed or removed.
const FORMAT: u32 = 1;

/// How a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be, or not on this machine.
    Ok,
    /// The relay works, but pays for it.
    Advice,
    /// The audience asked for will not be served as it stands.
    Problem,
}

impl Status {
    /// The word used in tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Problem => "problem",
        }
    }

    fn paint(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Advice => "\x1b[33m",
            Self::Problem => "\x1b[1;31m",
        }
    }
}

/// The answer of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The check's key, as `tuning explain KEY` takes it.
    pub key: &'static str,
    /// How it stands.
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What would be better, or is expected.
    pub wanted: String,
    /// What it costs to leave it as found.
    pub cost: String,
    /// Commands that change it, one each; none where the answer is not a command.
    pub change: Vec<String>,
    /// What `tuning apply` would set, in order.
    #[serde(skip)]
    pub sets: Vec<Set>,
}

/// A value that `tuning apply` would set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Where.
    pub place: Place,
    /// The value.
    pub value: String,
    /// The value is made of limits: none of its numbers is ever lowered.
    pub raise: bool,
}

impl Row {
    /// A row with this status and no commands.
    pub fn new(status: Status, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        let (found, wanted) = (found.into(), wanted.into());
        Self {
            key: "",
            status,
            found,
            wanted,
            cost: String::new(),
            change: Vec::new(),
            sets: Vec::new(),
        }
    }

    /// What this machine does not have needs no change.
    pub fn not_here(wanted: impl Into<String>) -> Self {
        Self::new(Status::Ok, "not here", wanted)
    }

    /// With what it costs to leave it.
    pub fn cost(mut self, cost: impl Into<String>) -> Self {
        self.cost = cost.into();
        self
    }

    /// With one more command that changes it; kept only where there is something to change.
    pub fn change(mut self, command: impl Into<String>) -> Self {
        if self.status != Status::Ok {
            self.change.push(command.into());
        }
        self
    }

    /// With a sysctl whose numbers are raised to these, never lowered.
    pub fn raise(self, name: &str, value: impl ToString) -> Self {
        self.sysctl(name, &value.to_string(), true)
    }

    /// With a sysctl that is set to just this.
    pub fn switch(self, name: &str, value: impl ToString) -> Self {
        self.sysctl(name, &value.to_string(), false)
    }

    fn sysctl(self, name: &str, value: &str, raise: bool) -> Self {
        let quote = if value.contains(' ') { "'" } else { "" };
        let row = self.change(format!("sysctl -w {name}={quote}{value}{quote}"));
        row.set(Place::sysctl(name), value, raise)
    }

    /// With a setting that `tuning apply` makes when it is asked for, although nothing is wrong without it.
    pub fn offer(mut self, place: Place, value: impl ToString, raise: bool) -> Self {
        let value = value.to_string();
        self.sets.push(Set { place, value, raise });
        self
    }

    /// With a setting that `tuning apply` makes; kept only where there is something to change.
    pub fn set(self, place: Place, value: impl ToString, raise: bool) -> Self {
        if self.status == Status::Ok {
            self
        } else {
            self.offer(place, value, raise)
        }
    }
}

/// How many rows have this status.
pub fn count(rows: &[Row], status: Status) -> usize {
    rows.iter().filter(|row| row.status == status).count()
}

/// The rows as JSON, with a final newline.
pub fn json(rows: &[Row], demand: &Demand) -> String {
    let value = serde_json::json!({
        "format": FORMAT,
        "listeners": demand.listeners,
        "ok": count(rows, Status::Ok),
        "advice": count(rows, Status::Advice),
        "problem": count(rows, Status::Problem),
        "rows": rows,
    });
    format!("{value:#}\n")
}

/// The rows as a table. `colour` paints the status words for a terminal.
pub fn table(rows: &[Row], demand: &Demand, colour: bool) -> String {
    let mut out = format!("This host, for {} listeners:\n\n", demand.listeners);
    for row in rows {
        lines_of(row, colour, &mut out);
    }
    let [ok, advice, problem] =
        [Status::Ok, Status::Advice, Status::Problem].map(|status| count(rows, status));
    let _ = writeln!(
        out,
        "\n{ok} ok, {advice} advice, {problem} problem. `tuning explain KEY` says why,\n\
         `tuning apply` what it would set."
    );
    if rows
        .iter()
        .flat_map(|row| &row.change)
        .any(|command| command.starts_with("sysctl -w"))
    {
        out.push_str(
            "`sysctl -w` (as root) lasts until the next start; `tuning apply --yes --keep` also writes\n",
        );
        out.push_str("/etc/sysctl.d/90-totality.conf.\n");
    }
    out
}

fn lines_of(row: &Row, colour: bool, out: &mut String) {
    let word = format!("{:<9}", row.status.word());
    let word = if colour {
        format!("{}{word}\x1b[0m", row.status.paint())
    } else {
        word
    };
    let first = format!("{word}{:<20}", row.key);
    entry(&first, &row.found, out);
    if row.status == Status::Ok {
        return;
    }
    for (label, text) in [("wanted", &row.wanted), ("cost", &row.cost)] {
        entry(&format!("{:>w$}  ", label, w = INDENT - 2), text, out);
    }
    for (i, command) in row.change.iter().enumerate() {
        // A command is copied whole, so it is never broken.
        let label = if i == 0 { "change" } else { "" };
        let _ = writeln!(out, "{:>w$}  {command}", label, w = INDENT - 2);
    }
}

/// A label and a text wrapped beside it.
fn entry(label: &str, text: &str, out: &mut String) {
    let mut label = label.to_owned();
    for line in wrap(text, COLUMNS - INDENT) {
        let _ = writeln!(out, "{label}{line}");
        label = " ".repeat(INDENT);
    }
}

/// Words in lines of at most `width` characters; a longer word has a line of its own. At least one line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let used = lines[last].chars().count();
        if used > 0 && used + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            lines[last].push_str(if used > 0 { " " } else { "" });
            lines[last].push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: Status) -> Row {
        let row = Row::new(status, "16 ".repeat(60), "more of it");
        Row {
            key: "somaxconn",
            ..row
                .cost("slower ".repeat(30))
                .change("sysctl -w net.core.somaxconn=4096")
        }
    }

    #[test]
    fn the_table_fits_and_explains_only_what_is_not_ok() {
        let demand = Demand { listeners: 7 };
        let text = table(&[row(Status::Ok), row(Status::Problem)], &demand, false);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        assert_eq!(text.matches("wanted  more").count(), 1, "{text}");
        assert_eq!(text.matches("change  sysctl -w").count(), 1, "{text}");
        assert!(text.contains("1 ok, 0 advice, 1 problem."), "{text}");
        assert!(table(&[row(Status::Problem)], &demand, true).contains("\x1b[1;31mproblem"));
    }

    #[test]
    fn the_json_has_its_fields() {
        let text = json(&[row(Status::Advice)], &Demand { listeners: 7 });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["format"], 1);
        assert_eq!(value["listeners"], 7);
        assert_eq!(value["advice"], 1);
        let mut fields: Vec<&str> = value["rows"][0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        fields.sort_unstable();
        assert_eq!(fields, ["change", "cost", "found", "key", "status", "wanted"]);
        assert_eq!(value["rows"][0]["status"], "advice");
    }

    #[test]
    fn wrapping_keeps_every_word() {
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("aa bb  cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("toolong a", 5), ["toolong", "a"]);
    }
}
