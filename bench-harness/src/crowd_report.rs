//! What a crowd saw, as numbers for a table and for JSON.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::crowd::Plan;
use crate::stamp::Seen;

/// Counts of how listeners fared.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Got a 2xx response head.
    pub(crate) served: usize,
    /// No connection.
    pub(crate) refused: usize,
    /// A response other than 2xx.
    pub(crate) rejected: usize,
    /// Served, then closed or reset by the server.
    pub(crate) closed: usize,
    /// Served a body longer or shorter than its head promised.
    pub(crate) lied: usize,
    /// Not HTTP, or an error before the response was complete.
    pub(crate) errors: usize,
    /// Still without a response when the crowd had waited long enough.
    pub(crate) timed_out: usize,
    /// Not tried: interrupted, or time was over.
    pub(crate) not_opened: usize,
    /// Of those who never read: closed by the server (as far as a socket that is not read can tell).
    pub(crate) stalled_closed: usize,
    /// The first failure in words.
    pub(crate) first_error: Option<String>,
    /// What the checking listeners saw, added up.
    pub(crate) seen: Seen,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.served += other.served;
        self.refused += other.refused;
        self.rejected += other.rejected;
        self.closed += other.closed;
        self.lied += other.lied;
        self.errors += other.errors;
        self.timed_out += other.timed_out;
        self.not_opened += other.not_opened;
        self.stalled_closed += other.stalled_closed;
        self.first_error = self.first_error.take().or(other.first_error);
        self.seen.add(&other.seen);
    }
}

/// Delivery latency in milliseconds: group due at the source → read by a listener. Within the window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) samples: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Quantile and value, for a plot.
    pub(crate) curve: Vec<(f64, f64)>,
}

/// Where a curve of quantiles is looked at: as near to 1 as there are nines.
const CURVE: [f64; 16] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1.0,
];

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            samples: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
            curve: match histogram.is_empty() {
                true => Vec::new(),
                false => CURVE.map(|quantile| (quantile, at(quantile))).to_vec(),
            },
        }
    }
}

/// The result of `listeners`. Bytes and times are of the window; counts are of the whole life of the crowd.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) asked: usize,
    /// Of those asked, how many never read. They are not in the bytes and gaps.
    pub(crate) stalled: usize,
    pub(crate) sampled: usize,
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Readers without a single byte in the window.
    pub(crate) silent: usize,
    pub(crate) seconds: f64,
    pub(crate) ramp_seconds: f64,
    pub(crate) bytes: u64,
    /// Times that a listener's socket had bytes, of all listeners: late readers see fewer than there were.
    pub(crate) arrivals: u64,
    pub(crate) gbit_per_s: f64,
    pub(crate) bytes_min: u64,
    pub(crate) bytes_median: u64,
    pub(crate) bytes_max: u64,
    /// Per listener, the longest time without a byte; the worst of them, and all but 1 %.
    pub(crate) gap_ms_max: f64,
    pub(crate) gap_ms_p99: f64,
    pub(crate) gap_ms_median: f64,
    pub(crate) latency_ms: Latency,
    /// Of this process, in the window.
    pub(crate) cpu_seconds: f64,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        tally: Tally,
        mut bytes: Vec<u64>,
        mut gaps: Vec<Duration>,
        latency_ms: Latency,
        (window, ramped, cpu_seconds): (Duration, Duration, f64),
    ) -> Report {
        bytes.sort_unstable();
        gaps.sort_unstable();
        let gap = |quantile| at(&gaps, quantile).as_secs_f64() * 1e3;
        let (total, seconds) = (bytes.iter().sum::<u64>(), window.as_secs_f64());
        Report {
            asked: plan.count,
            stalled: plan.stall,
            sampled: plan.sample.min(plan.count - plan.stall),
            tally,
            silent: bytes.iter().filter(|bytes| **bytes == 0).count(),
            seconds,
            ramp_seconds: ramped.as_secs_f64(),
            bytes: total,
            arrivals: 0,
            gbit_per_s: total as f64 * 8e-9 / seconds.max(1e-9),
            bytes_min: at(&bytes, 0.0),
            bytes_median: at(&bytes, 0.5),
            bytes_max: at(&bytes, 1.0),
            gap_ms_max: gap(1.0),
            gap_ms_p99: gap(0.99),
            gap_ms_median: gap(0.5),
            latency_ms,
            cpu_seconds,
        }
    }

    /// Two crowds as one. Percentiles of gaps are the worse of both; the median and the latencies are the larger's and
    /// the checking one's.
    pub(crate) fn and(mut self, other: Report) -> Report {
        if other.latency_ms.samples > self.latency_ms.samples {
            self.latency_ms = other.latency_ms;
        }
        if other.asked > self.asked {
            self.bytes_median = other.bytes_median;
        }
        self.tally.add(other.tally);
        self.asked += other.asked;
        self.stalled += other.stalled;
        self.sampled += other.sampled;
        self.silent += other.silent;
        self.seconds = self.seconds.max(other.seconds);
        self.ramp_seconds = self.ramp_seconds.max(other.ramp_seconds);
        self.bytes += other.bytes;
        self.arrivals += other.arrivals;
        self.gbit_per_s += other.gbit_per_s;
        self.bytes_min = self.bytes_min.min(other.bytes_min);
        self.bytes_max = self.bytes_max.max(other.bytes_max);
        self.gap_ms_max = self.gap_ms_max.max(other.gap_ms_max);
        self.gap_ms_p99 = self.gap_ms_p99.max(other.gap_ms_p99);
        self.gap_ms_median = self.gap_ms_median.max(other.gap_ms_median);
        self.cpu_seconds += other.cpu_seconds;
        self
    }

    /// Why nobody was left at the end, when nobody was.
    pub(crate) fn all_gone(&self) -> Option<String> {
        let t = &self.tally;
        let gone = t.refused + t.rejected + t.closed + t.lied + t.errors + t.timed_out;
        let why = t.first_error.as_deref().unwrap_or("nobody was let in");
        (gone > 0 && gone >= self.asked).then(|| match (gone, t.served) {
            (1, _) => why.to_owned(),
            (_, 0) => format!("none of {gone} was let in: {why}"),
            _ => format!("none of {gone} was left at the end: {why}"),
        })
    }

    /// Everyone asked was served to the end, with bytes, and nothing was lost, doubled or changed for the sample.
    pub(crate) fn is_clean(&self) -> bool {
        let t = &self.tally;
        let failed =
            t.refused + t.rejected + t.closed + t.lied + t.errors + t.timed_out + t.not_opened + self.silent;
        failed == 0 && t.seen.is_perfect()
    }
}

/// The value at a quantile of a sorted slice (nearest rank); the default when there is none.
pub(crate) fn at<T: Copy + Default>(sorted: &[T], quantile: f64) -> T {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted
        .get((last * quantile).ceil() as usize)
        .copied()
        .unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            tally: t,
            latency_ms: l,
            ..
        } = self;
        let seen = &t.seen;
        writeln!(
            out,
            "listeners   {} asked, {} served in {:.1} s",
            self.asked, t.served, self.ramp_seconds
        )?;
        writeln!(
            out,
            "failed      {} refused, {} rejected, {} closed, {} lied, {} errors, {} timed out, {} silent",
            t.refused, t.rejected, t.closed, t.lied, t.errors, t.timed_out, self.silent
        )?;
        if t.not_opened > 0 {
            let why = "interrupted, or this machine is too busy for the ramp";
            writeln!(out, "            {} not opened: {why}", t.not_opened)?;
        }
        if let Some(error) = &t.first_error {
            writeln!(out, "            first: {error}")?;
        }
        if self.stalled > 0 {
            writeln!(
                out,
                "stalled     {} never read, {} of them closed",
                self.stalled, t.stalled_closed
            )?;
        }
        writeln!(
            out,
            "delivered   {:.3} Gb in {:.1} s = {:.3} Gb/s",
            self.bytes as f64 * 8e-9,
            self.seconds,
            self.gbit_per_s
        )?;
        writeln!(
            out,
            "bytes each  min {} median {} max {}",
            self.bytes_min, self.bytes_median, self.bytes_max
        )?;
        writeln!(
            out,
            "longest gap median {:.1} p99 {:.1} max {:.1} ms",
            self.gap_ms_median, self.gap_ms_p99, self.gap_ms_max
        )?;
        match l.samples {
            0 => writeln!(
                out,
                "latency     no stamps seen ({} listeners looked)",
                self.sampled
            )?,
            _ => writeln!(
                out,
                "latency     p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} max {:.1} ms ({} groups, {} listeners)",
                l.p50, l.p90, l.p99, l.p999, l.max, l.samples, self.sampled
            )?,
        }
        writeln!(
            out,
            "order       {} groups: {} missing, {} repeated, {} corrupt, {} breaks, {} restarts",
            seen.groups, seen.missing, seen.repeated, seen.corrupt, seen.breaks, seen.restarts
        )?;
        write!(out, "own CPU     {:.2} s", self.cpu_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_and_none() {
        assert_eq!(at::<u64>(&[], 0.5), 0);
        assert_eq!((at(&[3], 0.0), at(&[3], 1.0)), (3, 3));
        assert_eq!((at(&[1, 2, 3], 0.5), at(&[1, 2, 3], 0.99)), (2, 3));
    }
}
