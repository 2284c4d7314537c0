//! The files that keep a limit: for logins (`limits.d`) and for the relay's unit (systemd). Text, until it is asked
//! for.

use super::SIGNED;
use super::limits::limit_in;
use crate::host::Host;
use crate::place::{MEMLOCK_LIMITS, MEMLOCK_UNIT, NOFILE_LIMITS, NOFILE_UNIT, Place};
use crate::report::Row;

/// Where units of services live, by precedence; a drop-in of ours comes after all of them.
const UNIT_FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A limit by the names that others have for it.
pub(super) struct Limit {
    /// In `limits.conf`.
    item: &'static str,
    /// Bytes per unit of `limits.conf`.
    unit: u64,
    /// In a unit.
    directive: &'static str,
    /// In `/proc/PID/limits`.
    process: &'static str,
    /// The hard limit that systemd gives a service unless told otherwise.
    usual: u64,
    limits: &'static str,
    drop_in: &'static str,
}

impl Limit {
    pub(super) const NOFILE: Self = Self {
        item: "nofile",
        unit: 1,
        directive: "LimitNOFILE",
        process: "Max open files",
        usual: 524_288,
        limits: NOFILE_LIMITS,
        drop_in: NOFILE_UNIT,
    };
    pub(super) const MEMLOCK: Self = Self {
        item: "memlock",
        unit: 1024,
        directive: "LimitMEMLOCK",
        process: "Max locked memory",
        usual: 8 << 20,
        limits: MEMLOCK_LIMITS,
        drop_in: MEMLOCK_UNIT,
    };

    /// At most what the kernel lets a login ask for: beyond `fs.nr_open` the login itself is refused.
    fn bounded(&self, host: &dyn Host, hard: u64) -> u64 {
        let most = host.sysctl_numbers("fs.nr_open").first().copied();
        most.filter(|_| self.item == "nofile")
            .map_or(hard, |most| hard.min(most))
    }
}

/// With files that set at least these limits. Where another file already sets more, none is written; and none of
/// ours lowers what logins and services would inherit without it.
pub(super) fn add(host: &dyn Host, row: Row, limit: &Limit, soft: u64, hard: u64) -> Row {
    let (first_soft, first_hard) = inherited(host, limit);
    let files = |found: &[u64]| (found.iter().min().copied(), found.iter().max().copied());
    let both = |most: Option<u64>, usual: u64| {
        let hard = hard.max(first_hard).max(usual).max(most.unwrap_or(0));
        let hard = limit.bounded(host, hard);
        (soft.max(first_soft).min(hard), hard)
    };
    let (least, most) = files(&login_limits(host, limit));
    let row = if least.is_some_and(|least| least >= soft) {
        row
    } else {
        let (soft, hard) = both(most, 0);
        row.set(
            Place::OwnFile(limit.limits.into()),
            login_text(limit, soft, hard),
            false,
        )
    };
    let (least, most) = files(&unit_limits(host, limit));
    if least.is_some_and(|least| least >= soft) {
        return row;
    }
    let (soft, hard) = both(most, limit.usual);
    row.set(
        Place::OwnFile(limit.drop_in.into()),
        unit_text(limit, soft, hard),
        false,
    )
}

/// What the first process has, and so what logins and services start from, as (soft, hard).
fn inherited(host: &dyn Host, limit: &Limit) -> (u64, u64) {
    limit_in(&host.read("/proc/1/limits").unwrap_or_default(), limit.process).unwrap_or((0, 0))
}

fn login_text(limit: &Limit, soft: u64, hard: u64) -> String {
    let item = limit.item;
    let [soft, hard] = [soft, hard].map(|most| match most {
        u64::MAX => "unlimited".into(),
        most => most.div_ceil(limit.unit).to_string(),
    });
    let lines = ["*", "root"].map(|who| format!("{who} soft {item} {soft}\n{who} hard {item} {hard}\n"));
    format!(
        "{SIGNED}; `tuning revert` removes it.\n# Counts from the next login on.\n{}",
        lines.concat()
    )
}

fn unit_text(limit: &Limit, soft: u64, hard: u64) -> String {
    let [soft, hard] = [soft, hard].map(|most| match most {
        u64::MAX => "infinity".into(),
        most => most.to_string(),
    });
    format!(
        "{SIGNED}; `tuning revert` removes it.\n\
         # Counts after `systemctl daemon-reload` and a restart of the relay.\n[Service]\n{}={soft}:{hard}\n",
        limit.directive
    )
}

/// The limits that any file for logins but ours sets for everybody.
fn login_limits(host: &dyn Host, limit: &Limit) -> Vec<u64> {
    let folder = "/etc/security/limits.d";
    let names = host
        .list(folder)
        .into_iter()
        .map(|name| format!("{folder}/{name}"));
    let paths = names.chain(["/etc/security/limits.conf".into()]);
    let lines = texts(host, paths.filter(|path| path != limit.limits));
    let values = lines.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["*", _, item, value] = words[..] else {
            return None;
        };
        let value = number(value).filter(|_| item == limit.item)?;
        Some(value.saturating_mul(limit.unit))
    });
    values.collect()
}

/// The limits that the relay's unit and its drop-ins but ours set.
fn unit_limits(host: &dyn Host, limit: &Limit) -> Vec<u64> {
    let drop_ins = UNIT_FOLDERS.iter().flat_map(|folder| {
        let folder = format!("{folder}/relay.service.d");
        host.list(&folder)
            .into_iter()
            .map(move |name| format!("{folder}/{name}"))
    });
    let paths = UNIT_FOLDERS
        .iter()
        .map(|folder| format!("{folder}/relay.service"))
        .chain(drop_ins);
    let lines = texts(host, paths.filter(|path| path != limit.drop_in));
    let values = lines.lines().filter_map(|line| {
        let value = line.trim().strip_prefix(limit.directive)?.trim_start();
        Some(
            value
                .strip_prefix('=')?
                .split(':')
                .filter_map(|value| number(value.trim())),
        )
    });
    values.flatten().collect()
}

fn texts(host: &dyn Host, paths: impl Iterator<Item = String>) -> String {
    paths
        .filter_map(|path| host.read(&path))
        .map(|text| text + "\n")
        .collect()
}

fn number(word: &str) -> Option<u64> {
    if ["unlimited", "infinity", "-1"].contains(&word) {
        return Some(u64::MAX);
    }
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &word[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_systemd_writes_them() {
        assert_eq!(
            ["infinity", "64M", "12", "x", "1T", "99999999999G"].map(number),
            [Some(u64::MAX), Some(64 << 20), Some(12), None, None, None]
        );
    }

    #[test]
    fn files_say_whose_they_are() {
        let text = login_text(&Limit::MEMLOCK, 64 << 20, u64::MAX);
        assert!(
            text.starts_with(SIGNED) && text.contains("\n* soft memlock 65536\n* hard memlock unlimited\n"),
            "{text}"
        );
        assert!(unit_text(&Limit::NOFILE, 7, 9).contains("\n[Service]\nLimitNOFILE=7:9\n"));
    }
}
