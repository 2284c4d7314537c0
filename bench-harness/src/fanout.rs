//! `fanout`: the comparison over a grid of listeners, rates and batching intervals: what a delivered byte costs as each
//! of them changes, always beside the floor at the same interval in the same run.

use indicatif::ProgressBar;
use serde::Serialize;

use crate::compare::{self, Comparison};
use crate::error::Error;
use crate::measure::{Load, Numbers, Row};
use crate::procfs::Machine;
use crate::stop::Stop;
use crate::table;

/// The grid; its other conditions come from `base`.
pub(crate) struct Plan {
    pub(crate) base: compare::Plan,
    pub(crate) listeners: Vec<u32>,
    pub(crate) kbps: Vec<u32>,
    pub(crate) intervals_ms: Vec<u64>,
}

/// Everything measured; the JSON that is written.
#[derive(Debug, Serialize)]
pub(crate) struct Sweep {
    pub(crate) machine: Machine,
    pub(crate) cells: Vec<Comparison>,
    pub(crate) caveats: Vec<String>,
}

/// Measures each point of the grid.
pub(crate) fn run(plan: Plan, bar: &ProgressBar, stop: &Stop) -> Result<Sweep, Error> {
    let machine = Machine::look();
    let mut cells = Vec::new();
    for load in loads(&plan) {
        let cell = compare::Plan {
            load,
            targets: plan.base.targets.clone(),
            relay: plan.base.relay.clone(),
            ..plan.base
        };
        cells.push(compare::run(&cell, bar, stop)?);
    }
    let mut caveats: Vec<String> = Vec::new();
    for note in cells
        .iter_mut()
        .flat_map(|cell| std::mem::take(&mut cell.caveats))
    {
        if !caveats.contains(&note) {
            caveats.push(note);
        }
    }
    Ok(Sweep {
        machine,
        cells,
        caveats,
    })
}

fn loads(plan: &Plan) -> Vec<Load> {
    let mut loads = Vec::new();
    for listeners in &plan.listeners {
        for kbps in &plan.kbps {
            loads.extend(plan.intervals_ms.iter().map(|interval_ms| Load {
                listeners: *listeners as usize,
                kbps: *kbps,
                interval_ms: *interval_ms,
                ..plan.base.load
            }));
        }
    }
    loads
}

impl Sweep {
    /// One line per point and server, and the caveats.
    pub(crate) fn text(&self) -> String {
        let heads = [
            "server", "lst", "kb/s", "T ms", "real T", "ksoft s", "CPU-s/GB", "x floor", "x whole", "busy",
            "Gb/s", "of due", "p50 ms", "p99 ms", "gap ms", "min/max", "unserved", "closed", "faults",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for cell in &self.cells {
            rows.extend(cell.medians.iter().map(|row| line(&cell.load, row)));
        }
        let notes: Vec<String> = self.caveats.iter().map(|note| format!("- {note}")).collect();
        let mut failed: Vec<String> = Vec::new();
        for cell in &self.cells {
            let why = table::without_numbers(&cell.medians);
            if !failed.contains(&why) {
                failed.push(why);
            }
        }
        format!(
            "{}{}\n\n{}",
            table::quiet(rows),
            failed.concat(),
            notes.join("\n")
        )
    }

    /// True when each server has numbers at each point.
    pub(crate) fn is_complete(&self) -> bool {
        self.cells.iter().all(Comparison::is_complete)
    }
}

fn line(load: &Load, row: &Row) -> Vec<String> {
    let mut cells = vec![
        row.server.clone(),
        load.listeners.to_string(),
        load.kbps.to_string(),
        load.interval_ms.to_string(),
    ];
    cells.extend(match &row.numbers {
        Some(numbers) => figures(numbers),
        None => vec!["-".into()],
    });
    cells
}

fn figures(n: &Numbers) -> Vec<String> {
    let percent = |ratio: f64| format!("{:.0}%", ratio * 100.0);
    vec![
        format!("{:.1}", n.arrival_ms),
        format!("{:.2}", n.softirq_seconds),
        format!("{:.3}", n.cpu_s_per_gb),
        n.times_floor.map_or("-".into(), |ratio| format!("{ratio:.2}")),
        n.times_floor_whole
            .map_or("-".into(), |ratio| format!("{ratio:.2}")),
        percent(n.server_busy),
        format!("{:.3}", n.gbit_per_s),
        percent(n.delivered_ratio),
        format!("{:.1}", n.latency_p50_ms),
        format!("{:.1}", n.latency_p99_ms),
        format!("{:.0}", n.gap_max_ms),
        format!("{:.3}", n.bytes_min_to_max),
        n.not_served.to_string(),
        n.closed.to_string(),
        n.faults.to_string(),
    ]
}
