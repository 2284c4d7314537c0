//! `soak`: one load for a long time, and whether the server grows: straight lines through its memory and its files.

use std::fmt;

use serde::Serialize;

use crate::compare::Comparison;
use crate::measure::{Row, Sample};

/// The first part of a window is not in the lines: buffers still find their size.
const SETTLED_FROM: f64 = 0.25;

/// Below this a slope is the noise of a start.
const LINE_MIN_SECONDS: f64 = 300.0;

/// How a server grew.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Growth {
    pub(crate) server: String,
    pub(crate) hours: f64,
    pub(crate) samples: usize,
    pub(crate) rss_kib_first: u64,
    pub(crate) rss_kib_last: u64,
    pub(crate) rss_kib_per_hour: f64,
    pub(crate) files_first: u64,
    pub(crate) files_last: u64,
    pub(crate) files_per_hour: f64,
    pub(crate) cpu_share: f64,
    pub(crate) closed: f64,
    pub(crate) faults: f64,
    pub(crate) gap_max_ms: f64,
}

/// What a soak leaves behind: JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) growth: Vec<Growth>,
    pub(crate) comparison: Comparison,
}

impl Report {
    pub(crate) fn of(comparison: Comparison) -> Report {
        let rows = comparison.runs.iter().flatten();
        Report {
            growth: rows.filter_map(growth).collect(),
            comparison,
        }
    }
}

fn growth(row: &Row) -> Option<Growth> {
    let numbers = row.numbers.as_ref()?;
    let (first, last) = (row.samples.first()?, row.samples.last()?);
    let from = last.seconds * SETTLED_FROM;
    let settled: Vec<&Sample> = row
        .samples
        .iter()
        .filter(|sample| sample.seconds >= from)
        .collect();
    let line = |value: fn(&Sample) -> f64| {
        3600.0 * slope(settled.iter().map(|sample| (sample.seconds, value(sample))))
    };
    Some(Growth {
        server: row.server.clone(),
        hours: last.seconds / 3600.0,
        samples: settled.len(),
        rss_kib_first: first.rss_kib,
        rss_kib_last: last.rss_kib,
        rss_kib_per_hour: line(|sample| sample.rss_kib as f64),
        files_first: first.files,
        files_last: last.files,
        files_per_hour: line(|sample| sample.files as f64),
        cpu_share: numbers.server_busy,
        closed: numbers.closed,
        faults: numbers.faults,
        gap_max_ms: numbers.gap_max_ms,
    })
}

/// Least squares; 0 where there is no line.
pub(crate) fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count() as f64;
    let (x, y) = points
        .clone()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (x / count.max(1.0), y / count.max(1.0));
    let (over, under) = points.fold((0.0, 0.0), |(over, under), (x, y)| {
        (over + (x - mean_x) * (y - mean_y), under + (x - mean_x).powi(2))
    });
    if under > 0.0 { over / under } else { 0.0 }
}

impl fmt::Display for Growth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Growth {
            server,
            rss_kib_first,
            rss_kib_last,
            rss_kib_per_hour,
            files_first,
            files_last,
            ..
        } = self;
        if self.hours * 3600.0 < LINE_MIN_SECONDS {
            writeln!(out, "{server}: too short for a line to mean anything")?;
        }
        writeln!(
            out,
            "{server}: memory {rss_kib_first} -> {rss_kib_last} KiB, line {rss_kib_per_hour:+.0} KiB/h over {} samples",
            self.samples
        )?;
        writeln!(
            out,
            "{server}: files {files_first} -> {files_last}, line {:+.1} /h",
            self.files_per_hour
        )?;
        write!(
            out,
            "{server}: CPU {:.1}%, {} closed, {} faults, longest gap {:.0} ms",
            self.cpu_share * 100.0,
            self.closed,
            self.faults,
            self.gap_max_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_through_points() {
        assert_eq!(slope([(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)].into_iter()), 2.0);
        assert_eq!(slope([(1.0, 1.0)].into_iter()), 0.0);
        assert_eq!(slope(std::iter::empty()), 0.0);
    }
}
