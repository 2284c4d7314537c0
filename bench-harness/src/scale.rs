//! `scale`: one worker, two, four, … up to the processors of this machine, each with as many listeners: what a byte
//! costs a worker as others work beside it, and what the crowd leaves them.
//!
//! A worker's cost is its own thread's CPU time over the bytes it has told. Workers that share nothing cost what one
//! alone costs; what they write in common shows as a cost that grows with their number. The crowd is kept off the
//! workers' processors where there are more of them. Where there are not, it takes their time, but is not in their
//! cost.

use indicatif::ProgressBar;
use serde::Serialize;

use crate::compare::{self, Comparison};
use crate::crowd_report::at;
use crate::error::Error;
use crate::launch;
use crate::measure::Load;
use crate::procfs::Machine;
use crate::stop::Stop;
use crate::table::aligned;
use crate::workers::Worker;

/// Below this share of a processor, workers seldom work in the same moment, and hardly get into each other's way.
const IDLE: f64 = 0.25;
/// How far a mean time between arrivals may be from that of one worker alone for their costs to be compared: who sends
/// more at once sends cheaper.
const ALIKE: f64 = 0.15;

/// What to measure; `base.load` has the listeners of one worker.
pub(crate) struct Plan {
    pub(crate) base: compare::Plan,
    /// Numbers of workers, one first; none: 1, 2, 4, … and all processors.
    pub(crate) counts: Vec<usize>,
}

/// One number of workers in one run, or the medians over runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Step {
    pub(crate) workers: usize,
    pub(crate) listeners: usize,
    /// CPU time of the workers' threads over the bytes they told; nothing of crowd or source is in it.
    pub(crate) cpu_s_per_gb: f64,
    /// Of the cheapest worker and of the dearest.
    pub(crate) cpu_s_per_gb_least: f64,
    pub(crate) cpu_s_per_gb_most: f64,
    /// Cost of one worker alone, in the same run, over the cost here: 1 is sharing nothing.
    pub(crate) efficiency: f64,
    /// Number times efficiency: how many times what one worker carries these would, with processors of their own.
    pub(crate) times_one: f64,
    pub(crate) gbit_per_s: f64,
    pub(crate) gbit_per_s_per_worker: f64,
    /// What a worker would carry with all of a processor, at this cost.
    pub(crate) gbit_per_s_per_processor: f64,
    /// Mean of the workers' shares of a processor.
    pub(crate) busy: f64,
    /// Bytes of the worker that told least over those of the one that told most.
    pub(crate) least_to_most: f64,
    pub(crate) crowd_busy: f64,
    pub(crate) softirq_seconds: f64,
    pub(crate) arrival_ms: f64,
    pub(crate) delivered_ratio: f64,
    pub(crate) faults: f64,
    /// The crowd had processors of its own.
    pub(crate) apart: bool,
    /// Bytes came as often as from one worker alone: only then does the efficiency say something.
    pub(crate) alike: bool,
}

/// Everything measured; the JSON that is written.
#[derive(Debug, Serialize)]
pub(crate) struct Scaling {
    pub(crate) machine: Machine,
    pub(crate) steps: Vec<Step>,
    pub(crate) runs: Vec<Vec<Comparison>>,
    pub(crate) caveats: Vec<String>,
}

/// Measures each number of workers in each run.
pub(crate) fn run(plan: Plan, bar: &ProgressBar, stop: &Stop) -> Result<Scaling, Error> {
    let machine = Machine::look();
    let counts = if plan.counts.is_empty() {
        counts(machine.cores)
    } else {
        plan.counts
    };
    bar.set_length(u64::from(plan.base.runs) * counts.len() as u64);
    let (mut runs, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..plan.base.runs {
        let mut cells = Vec::new();
        for workers in &counts {
            launch::unpin()?;
            let cell = compare::Plan {
                runs: 1,
                load: load(&plan.base.load, *workers, machine.cores),
                targets: plan.base.targets.clone(),
                relay: plan.base.relay.clone(),
            };
            cells.push(compare::run(&cell, bar, stop)?);
        }
        steps.push(relate(cells.iter().filter_map(step).collect()));
        runs.push(cells);
    }
    let steps = medians(&counts, &steps);
    let caveats = caveats(&steps, &runs);
    Ok(Scaling {
        machine,
        steps,
        runs,
        caveats,
    })
}

/// 1, 2, 4, … and all.
pub(crate) fn counts(cores: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (0..).map(|power| 1 << power).take_while(|n| *n < cores).collect();
    counts.push(cores.max(1));
    counts
}

/// Workers pin themselves to the first processors, one alone is pinned; the crowd has the others, if there are any.
fn load(one: &Load, workers: usize, cores: usize) -> Load {
    let free = cores.saturating_sub(workers);
    Load {
        listeners: one.listeners * workers,
        workers,
        cpu_server: (workers == 1 && cores > 1).then_some(0),
        cpu_crowd: (free > 0).then_some(workers),
        crowd_cpus: (free > 0).then_some((workers, free)),
        ..*one
    }
}

fn step(cell: &Comparison) -> Option<Step> {
    let row = cell.runs.first()?.first()?;
    let numbers = row.numbers.as_ref()?;
    let load = &cell.load;
    if row.workers.len() != load.workers {
        return None;
    }
    let cost = |worker: &Worker| worker.cpu_seconds / worker.gb.max(1e-9);
    let costs = || row.workers.iter().map(cost);
    let told = || row.workers.iter().map(|worker| worker.gb);
    let cpu: f64 = row.workers.iter().map(|worker| worker.cpu_seconds).sum();
    let gb: f64 = told().sum();
    let cpu_s_per_gb = cpu / gb.max(1e-9);
    let workers = load.workers as f64;
    Some(Step {
        workers: load.workers,
        listeners: load.listeners,
        cpu_s_per_gb,
        cpu_s_per_gb_least: costs().fold(f64::INFINITY, f64::min),
        cpu_s_per_gb_most: costs().fold(0.0, f64::max),
        efficiency: 0.0,
        times_one: 0.0,
        gbit_per_s: numbers.gbit_per_s,
        gbit_per_s_per_worker: numbers.gbit_per_s / workers,
        gbit_per_s_per_processor: 8.0 / cpu_s_per_gb,
        busy: cpu / workers / row.crowd.as_ref().map_or(f64::NAN, |crowd| crowd.seconds),
        least_to_most: told().fold(f64::INFINITY, f64::min) / told().fold(1e-9, f64::max),
        crowd_busy: numbers.crowd_busy,
        softirq_seconds: numbers.softirq_seconds,
        arrival_ms: numbers.arrival_ms,
        delivered_ratio: numbers.delivered_ratio,
        faults: numbers.faults,
        apart: load.crowd_cpus.is_some(),
        alike: false,
    })
}

/// Fills in what depends on one worker alone, in the same run.
fn relate(mut steps: Vec<Step>) -> Vec<Step> {
    let alone = steps.iter().find(|step| step.workers == 1);
    let (cost, arrival) = alone.map_or((f64::NAN, f64::NAN), |one| (one.cpu_s_per_gb, one.arrival_ms));
    for step in &mut steps {
        step.efficiency = cost / step.cpu_s_per_gb;
        step.times_one = step.workers as f64 * step.efficiency;
        step.alike = (step.arrival_ms / arrival - 1.0).abs() <= ALIKE;
    }
    steps
}

fn medians(counts: &[usize], runs: &[Vec<Step>]) -> Vec<Step> {
    let of = |workers: usize| -> Option<Step> {
        let all: Vec<&Step> = runs
            .iter()
            .flatten()
            .filter(|step| step.workers == workers)
            .collect();
        let median = |field: fn(&Step) -> f64| {
            let mut values: Vec<f64> = all.iter().map(|step| field(step)).collect();
            values.sort_by(f64::total_cmp);
            at(&values, 0.5)
        };
        let first = all.first()?;
        Some(Step {
            workers,
            listeners: first.listeners,
            apart: first.apart,
            alike: all.iter().all(|step| step.alike),
            cpu_s_per_gb: median(|s| s.cpu_s_per_gb),
            cpu_s_per_gb_least: median(|s| s.cpu_s_per_gb_least),
            cpu_s_per_gb_most: median(|s| s.cpu_s_per_gb_most),
            efficiency: median(|s| s.efficiency),
            times_one: median(|s| s.times_one),
            gbit_per_s: median(|s| s.gbit_per_s),
            gbit_per_s_per_worker: median(|s| s.gbit_per_s_per_worker),
            gbit_per_s_per_processor: median(|s| s.gbit_per_s_per_processor),
            busy: median(|s| s.busy),
            least_to_most: median(|s| s.least_to_most),
            crowd_busy: median(|s| s.crowd_busy),
            softirq_seconds: median(|s| s.softirq_seconds),
            arrival_ms: median(|s| s.arrival_ms),
            delivered_ratio: median(|s| s.delivered_ratio),
            faults: median(|s| s.faults),
        })
    };
    counts.iter().filter_map(|workers| of(*workers)).collect()
}

fn caveats(steps: &[Step], runs: &[Vec<Comparison>]) -> Vec<String> {
    let mut notes = vec![
        "CPU-s/GB: CPU time of the workers' threads over the bytes they told; crowd, source and the rest of the relay \
         are not in it"
            .to_owned(),
        "over loopback the receiver's path runs within the send: a worker pays for it, alone as among others".into(),
        "x one: workers times (cost of one alone / cost here): what they would carry against one, given processors of \
         their own; Gb/s is what the crowd asked for and took, not the most there is"
            .into(),
    ];
    for step in steps.iter().filter(|step| !step.apart) {
        notes.push(format!(
            "{} workers: no processor is left for crowd and source ({:.2} of one); they take the workers' time, which \
             bounds Gb/s, and wash their caches",
            step.workers, step.crowd_busy
        ));
    }
    for step in steps.iter().filter(|step| !step.alike) {
        notes.push(format!(
            "{} workers: bytes did not come as often as from one alone (real T), in one run at least: do not quote \
             their efficiency; who is held up sends more at once, and cheaper",
            step.workers
        ));
    }
    for step in steps.iter().filter(|step| step.workers > 1 && step.busy < IDLE) {
        notes.push(format!(
            "{} workers: each worked {:.0}% of the time, seldom in the same moment: what they write in common would \
             hardly show; ask for more listeners, or for a shorter interval",
            step.workers,
            step.busy * 100.0
        ));
    }
    for note in runs.iter().flatten().flat_map(|cell| &cell.caveats) {
        let ours = !note.starts_with("server on ") && !note.starts_with("server and crowd share");
        if ours && !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes
}

impl Scaling {
    /// One line per number of workers, and the caveats.
    pub(crate) fn text(&self) -> String {
        let heads = [
            "workers",
            "lst",
            "CPU-s/GB",
            "least",
            "most",
            "efficiency",
            "x one",
            "Gb/s",
            "/worker",
            "/processor",
            "busy",
            "min/max",
            "crowd",
            "ksoft s",
            "real T",
            "of due",
            "faults",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(self.steps.iter().map(line));
        let notes: Vec<String> = self.caveats.iter().map(|note| format!("- {note}")).collect();
        format!("{}\n\n{}", aligned(&rows), notes.join("\n"))
    }

    /// True when each number of workers was measured in each run.
    pub(crate) fn is_complete(&self) -> bool {
        self.runs.iter().flatten().all(|cell| step(cell).is_some())
    }
}

fn line(step: &Step) -> Vec<String> {
    let percent = |ratio: f64| format!("{:.0}%", ratio * 100.0);
    vec![
        step.workers.to_string(),
        step.listeners.to_string(),
        format!("{:.3}", step.cpu_s_per_gb),
        format!("{:.3}", step.cpu_s_per_gb_least),
        format!("{:.3}", step.cpu_s_per_gb_most),
        format!("{:.2}", step.efficiency),
        format!("{:.2}", step.times_one),
        format!("{:.3}", step.gbit_per_s),
        format!("{:.3}", step.gbit_per_s_per_worker),
        format!("{:.1}", step.gbit_per_s_per_processor),
        percent(step.busy),
        format!("{:.2}", step.least_to_most),
        percent(step.crowd_busy),
        format!("{:.2}", step.softirq_seconds),
        format!("{:.1}", step.arrival_ms),
        percent(step.delivered_ratio),
        step.faults.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_double_up_to_all() {
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(2), [1, 2]);
        assert_eq!(counts(6), [1, 2, 4, 6]);
        assert_eq!(counts(16), [1, 2, 4, 8, 16]);
    }

    fn with(workers: usize, cpu_s_per_gb: f64) -> Step {
        Step {
            workers,
            cpu_s_per_gb,
            arrival_ms: 40.0,
            ..Step::default()
        }
    }

    #[test]
    fn the_ratio_is_taken_within_a_run_and_then_the_median() {
        let runs: Vec<_> = [(1.0, 1.0), (2.0, 2.5), (4.0, 8.0)]
            .into_iter()
            .map(|(one, two)| relate(vec![with(1, one), with(2, two)]))
            .collect();
        let medians = medians(&[1, 2], &runs);
        assert_eq!((medians[0].efficiency, medians[0].times_one), (1.0, 1.0));
        assert_eq!((medians[1].efficiency, medians[1].times_one), (0.8, 1.6));
        assert!(medians[1].alike);
        assert!(
            relate(vec![with(2, 1.0)])[0].efficiency.is_nan(),
            "nothing to compare with"
        );
    }

    #[test]
    fn one_run_with_another_interval_spoils_the_comparison() {
        let late = Step {
            arrival_ms: 52.0,
            ..with(2, 0.5)
        };
        let runs = [
            relate(vec![with(1, 1.0), with(2, 1.0)]),
            relate(vec![with(1, 1.0), late]),
        ];
        let medians = medians(&[1, 2], &runs);
        assert!(medians[0].alike && !medians[1].alike);
        assert!(
            caveats(&medians, &[])
                .iter()
                .any(|note| note.contains("do not quote"))
        );
    }
}
