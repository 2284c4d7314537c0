//! `compare` and `floor`: all servers one after another, as often as asked, into one table and one file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::error::{Doing, Error};
use crate::launch::pin;
use crate::measure::{self, Load, Row};
use crate::procfs::Machine;
use crate::servers::{Setup, Target};
use crate::stop::Stop;
use crate::table;

/// What to compare.
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    pub(crate) runs: u32,
    pub(crate) relay: Option<PathBuf>,
    pub(crate) load: Load,
}

/// Everything measured; the JSON that is written.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) machine: Machine,
    pub(crate) load: Load,
    pub(crate) runs: Vec<Vec<Row>>,
    pub(crate) medians: Vec<Row>,
    pub(crate) caveats: Vec<String>,
}

/// Measures each server in each run.
pub(crate) fn run(plan: &Plan, bar: &ProgressBar, stop: &Stop) -> Result<Comparison, Error> {
    let machine = Machine::look();
    let load = plan.load;
    if let Some(cpu) = load.cpu_crowd {
        pin(cpu)?; // we read /proc while the server works: not on its processor
    }
    let directory = tempfile::Builder::new().prefix("bench-").tempdir();
    let directory = directory.doing(|| "cannot make a temporary directory".into())?;
    let setup = Setup {
        directory: directory.path(),
        relay: plan.relay.clone(),
        // Those who come and go stay half a second each; a busy server lets go of them a little later.
        listeners: load.listeners + 2 * load.churn as usize,
        kbps: load.kbps,
        interval: Duration::from_millis(load.interval_ms),
        cpu: load.cpu_server,
        workers: load.workers,
    };
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        runs.push(one_run(plan, &setup, bar, stop)?);
    }
    let medians = table::medians(&runs);
    let caveats = table::caveats(&machine, &load, &medians);
    Ok(Comparison {
        machine,
        load,
        runs,
        medians,
        caveats,
    })
}

fn one_run(plan: &Plan, setup: &Setup<'_>, bar: &ProgressBar, stop: &Stop) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for target in &plan.targets {
        bar.set_message(target.name().to_owned());
        rows.push(measure::row(target, setup, &plan.load, stop)?);
        bar.inc(1);
    }
    table::relate(&mut rows);
    Ok(rows)
}

impl Comparison {
    /// The table and the caveats below it.
    pub(crate) fn text(&self) -> String {
        let notes: Vec<String> = self.caveats.iter().map(|note| format!("- {note}")).collect();
        let Load {
            listeners,
            kbps,
            seconds,
            interval_ms,
            ..
        } = self.load;
        let runs = self.runs.len();
        format!(
            "{listeners} listeners x {kbps} kb/s, {seconds} s, batching interval {interval_ms} ms, runs: \
             {runs}\n\n{}\n\n{}",
            table::comparison(&self.medians),
            notes.join("\n"),
        )
    }

    /// True when each server has numbers from each run, but for those that are not installed here.
    pub(crate) fn is_complete(&self) -> bool {
        let all = || self.runs.iter().flatten();
        all().all(|row| row.error.is_none() || row.missing) && all().any(|row| row.numbers.is_some())
    }
}

/// A program beside our own binary, as cargo puts it.
pub(crate) fn beside_us(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.parent()
        .map(|folder| folder.join(name))
        .filter(|path: &PathBuf| Path::exists(path))
}
