//! `outlast`: where another server stops serving in time, and whether the relay keeps on at twice that load, in one
//! run.
//!
//! The rival meets growing crowds until one is not served in time; the relay then meets twice that crowd, on the same
//! processor, with the same stream. "In time" is one rule for both: everybody let in, nobody closed, nearly all that
//! was due delivered, and its age bounded.

use std::fmt;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::compare;
use crate::error::Error;
use crate::measure::{Load, Numbers, Row};
use crate::procfs::Machine;
use crate::servers::{Kind, Target};
use crate::stop::Stop;

/// A crowd that is not served in time is tried again: what else this machine does must not be taken for a limit.
const ATTEMPTS: u32 = 2;
/// Who is late with less of a processor than this was held up by something else.
const BUSY: f64 = 0.7;
/// Largest crowd that the rival meets, over the first.
const GROWTH_MAX: f64 = 16.0;

/// What to ask.
pub(crate) struct Plan {
    /// `load.listeners` is the first crowd.
    pub(crate) base: compare::Plan,
    pub(crate) rival: Kind,
    /// Each crowd is so many times the one before.
    pub(crate) factor: f64,
    /// What is older than this at the 99th percentile is not in time.
    pub(crate) late_ms: f64,
}

/// One crowd.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) server: &'static str,
    pub(crate) listeners: usize,
    /// Why it was not served in time; none: it was.
    pub(crate) late: Option<String>,
    pub(crate) numbers: Option<Numbers>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) load: Load,
    pub(crate) rival: &'static str,
    /// Why the rival could not be asked at all: it is not installed here.
    pub(crate) missing: Option<String>,
    pub(crate) late_ms: f64,
    pub(crate) steps: Vec<Step>,
    /// The first crowd that the rival did not serve in time; none: it served all that it met.
    pub(crate) stops_at: Option<usize>,
    /// The relay with twice that crowd, or twice the largest that the rival met.
    pub(crate) twice: Option<Step>,
    pub(crate) caveats: Vec<String>,
}

/// Asks the rival, then the relay.
pub(crate) fn run(plan: &Plan, bar: &ProgressBar, stop: &Stop) -> Result<Report, Error> {
    let mut report = Report {
        machine: Machine::look(),
        load: plan.base.load,
        rival: plan.rival.name(),
        missing: None,
        late_ms: plan.late_ms,
        steps: Vec::new(),
        stops_at: None,
        twice: None,
        caveats: Vec::new(),
    };
    let mut met = 0;
    for listeners in crowds(plan.base.load.listeners, plan.factor) {
        let step = plan.tried(plan.rival, listeners, &mut report, bar, stop)?;
        if report.missing.is_some() {
            return Ok(report);
        }
        met = listeners;
        let late = step.late.is_some();
        report.steps.push(step);
        if late {
            report.stops_at = Some(listeners);
            break;
        }
    }
    let twice = plan.tried(Kind::Relay, 2 * met, &mut report, bar, stop)?;
    report
        .caveats
        .extend(report.steps.iter().chain([&twice]).filter_map(held_up));
    report.twice = Some(twice);
    Ok(report)
}

/// Growing crowds; the last is `GROWTH_MAX` times the first.
fn crowds(first: usize, factor: f64) -> impl Iterator<Item = usize> {
    let most = first as f64 * GROWTH_MAX;
    std::iter::successors(Some(first), move |last| {
        Some(((*last as f64 * factor) as usize).max(last + 1))
    })
    .take_while(move |crowd| *crowd as f64 <= most)
}

/// A word about a step that is late although its processor was not full.
fn held_up(step: &Step) -> Option<String> {
    let busy = step.numbers.as_ref().filter(|_| step.late.is_some())?.server_busy;
    (busy < BUSY).then(|| {
        format!(
            "{} was late with {:.0}% of a processor: something else than its CPU held it up",
            step.server,
            busy * 100.0
        )
    })
}

impl Plan {
    /// A step that is late has another chance.
    fn tried(
        &self,
        kind: Kind,
        listeners: usize,
        report: &mut Report,
        bar: &ProgressBar,
        stop: &Stop,
    ) -> Result<Step, Error> {
        let mut step = self.step(kind, listeners, report, bar, stop)?;
        for _ in 1..ATTEMPTS {
            if step.late.is_some() && report.missing.is_none() {
                step = self.step(kind, listeners, report, bar, stop)?;
            }
        }
        Ok(step)
    }

    fn step(
        &self,
        kind: Kind,
        listeners: usize,
        report: &mut Report,
        bar: &ProgressBar,
        stop: &Stop,
    ) -> Result<Step, Error> {
        let cell = compare::Plan {
            load: Load {
                listeners,
                ..self.base.load
            },
            targets: vec![Target::Ours(kind)],
            relay: self.base.relay.clone(),
            ..self.base
        };
        let result = compare::run(&cell, bar, stop)?;
        report.caveats = result.caveats;
        let row = result.medians.into_iter().next();
        let row = row.ok_or_else(|| Error::Failed("nothing was measured".into()))?;
        if row.missing {
            report.missing.clone_from(&row.error);
        }
        Ok(Step {
            server: kind.name(),
            listeners,
            late: late(&row, &cell.load, self.late_ms),
            numbers: row.numbers,
        })
    }
}

/// Why a crowd was not served in time.
fn late(row: &Row, load: &Load, late_ms: f64) -> Option<String> {
    let Some(n) = &row.numbers else {
        return Some(row.error.clone().unwrap_or_else(|| "no numbers".into()));
    };
    let harmed = n.closed + n.not_served;
    if harmed > 0.0 {
        return Some(format!("{harmed} were closed or not let in"));
    }
    if !load.is_carried(n.delivered_ratio) {
        return Some(format!("{:.0}% of what was due came", n.delivered_ratio * 100.0));
    }
    (n.latency_p99_ms > late_ms).then(|| format!("1% was older than {:.0} ms", n.latency_p99_ms))
}

impl Report {
    /// True when the question was answered, or could not be asked here.
    pub(crate) fn is_complete(&self) -> bool {
        let measured = |step: &Step| step.numbers.is_some();
        self.missing.is_some() || self.twice.as_ref().is_some_and(measured)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step {
            server, listeners, ..
        } = self;
        write!(out, "{server:<10} {listeners:>6} listeners: ")?;
        if let Some(n) = &self.numbers {
            write!(
                out,
                "{:.2} Gb/s, CPU {:.0}%, {:.0}% of due, p50 {:.0} p99 {:.0} ms; ",
                n.gbit_per_s,
                n.server_busy * 100.0,
                n.delivered_ratio * 100.0,
                n.latency_p50_ms,
                n.latency_p99_ms
            )?;
        }
        match &self.late {
            None => write!(out, "in time"),
            Some(why) => write!(out, "NOT in time: {why}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.steps.iter().chain(&self.twice) {
            writeln!(out, "{step}")?;
        }
        let Report { rival, .. } = self;
        match (&self.missing, self.stops_at, &self.twice) {
            (Some(why), ..) => write!(out, "answer  none: {why}"),
            (_, _, None) => write!(out, "answer  none: nothing could be measured"),
            (_, stops_at, Some(twice)) => {
                match stops_at {
                    Some(stops) => write!(
                        out,
                        "answer  {rival} stops serving in time at {stops} listeners; "
                    )?,
                    None => write!(out, "answer  {rival} served every crowd it met; ")?,
                }
                let kept = if twice.late.is_none() {
                    "serves"
                } else {
                    "does NOT serve"
                };
                write!(out, "the relay {kept} {} in time", twice.listeners)
            }
        }?;
        let notes: Vec<String> = self.caveats.iter().map(|note| format!("\n- {note}")).collect();
        write!(
            out,
            "\n\n- in time: all let in, none closed, nearly all that was due, 99% of it younger than {:.0} ms{}",
            self.late_ms,
            notes.concat()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(change: impl FnOnce(&mut Numbers)) -> Row {
        let mut numbers = Numbers {
            delivered_ratio: 1.0,
            latency_p99_ms: 200.0,
            ..Numbers::default()
        };
        change(&mut numbers);
        Row {
            server: "x".into(),
            error: None,
            missing: false,
            numbers: Some(numbers),
            crowd: None,
            churn: None,
            samples: Vec::new(),
            workers: Vec::new(),
        }
    }

    fn load() -> Load {
        Load {
            seconds: 3,
            interval_ms: 100,
            ..Load::default()
        }
    }

    #[test]
    fn a_batch_on_its_way_is_no_loss() {
        assert!(load().is_carried(0.95) && !load().is_carried(0.94));
        let long = Load {
            seconds: 60,
            ..load()
        };
        assert!(long.is_carried(0.98) && !long.is_carried(0.975));
        let held_back = Load {
            interval_ms: 5000,
            ..load()
        };
        assert!(
            !held_back.is_carried(0.9),
            "not even the longest batch excuses that"
        );
    }

    #[test]
    fn crowds_grow_and_end() {
        assert_eq!(crowds(100, 2.0).collect::<Vec<_>>(), [100, 200, 400, 800, 1600]);
        assert_eq!(crowds(1, 1.1).take(3).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(crowds(1, 1.01).count() < 20);
    }

    #[test]
    fn each_way_to_be_late_has_its_words() {
        assert_eq!(late(&row(|_| ()), &load(), 1000.0), None);
        let why = |change: fn(&mut Numbers)| late(&row(change), &load(), 1000.0).unwrap();
        assert!(why(|n| n.closed = 1.0).contains("closed"));
        assert!(why(|n| n.delivered_ratio = 0.94).contains("94%"));
        assert!(why(|n| n.latency_p99_ms = 1001.0).contains("1001 ms"));
        assert_eq!(
            late(
                &Row {
                    numbers: None,
                    error: Some("no".into()),
                    ..row(|_| ())
                },
                &load(),
                1.0
            ),
            Some("no".into())
        );
    }
}
