//! A crowd larger than one process may have files, or one address ports: several processes, each from an address of
//! its own in 127.0.0.0/8, whose windows open together and whose reports become one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use crate::crowd::Report;
use crate::error::Error;
use crate::events::Event;
use crate::http::Url;
use crate::launch::Launch;
use crate::measure::{Heard, Load};
use crate::procfs::raise_file_limit;
use crate::source::wall_us;
use crate::stop::Stop;

/// Files a crowd needs beyond its sockets.
pub(crate) const FILES_SPARE: u64 = 64;
/// Most connections from one address: well within the ephemeral ports.
const PORTS_MAX: u64 = 20_000;
/// What a ramp may take beyond its time until all windows open.
const SETTLE: Duration = Duration::from_secs(3);

/// Newcomers of an RTMP server may wait for the next key picture, which our source makes each 2 s: the window opens
/// later than that.
const RTMP_WARM_UP: u64 = 3;

/// Most listeners that one process can have here.
fn share_max() -> usize {
    let files = raise_file_limit().saturating_sub(FILES_SPARE);
    files.clamp(1, PORTS_MAX) as usize
}

/// Sizes of the processes' shares, as equal as they can be.
fn shares(count: usize, most: usize) -> Vec<usize> {
    let parts = count.div_ceil(most).max(1);
    (0..parts)
        .map(|part| count / parts + usize::from(part < count % parts))
        .collect()
}

/// Starts as many processes as the crowd needs. The first has the listeners that check, and those that never read.
pub(crate) fn start(url: &Url, directory: &Path, load: &Load) -> Result<Vec<Heard>, Error> {
    let most = load
        .crowd_cpus
        .map_or(usize::MAX, |(_, many)| load.listeners.div_ceil(many.max(1)));
    let parts = shares(load.listeners, share_max().min(most.max(1)));
    let warm_up = match url.is_rtmp() {
        true => load.warm_up_seconds.max(RTMP_WARM_UP),
        false => load.warm_up_seconds,
    };
    let ramp = Duration::from_secs_f64(load.listeners as f64 / f64::from(load.ramp));
    let lead = ramp + Duration::from_secs(warm_up) + SETTLE;
    let together = wall_us() / 1000 + lead.as_millis() as u64;
    let alone = parts.len() == 1;
    let one = |(part, count): (usize, &usize)| {
        let (sample, stall) = if part == 0 {
            (load.sample, load.stall)
        } else {
            (0, 0)
        };
        let launch = Launch::own("listeners")?
            .arg(url.to_string())
            .flag("--count", count)
            .flag("--seconds", load.seconds)
            .flag("--warm-up", warm_up)
            .flag("--ramp", (load.ramp as usize / parts.len()).max(1))
            .flag("--patience-ms", load.patience_ms)
            .flag("--latency-sample", sample)
            .flag("--stall", stall)
            .arg("--events")
            .cpu(load.cpu_of_part(part));
        let launch = if alone {
            launch
        } else {
            let from = IpAddr::from(Ipv4Addr::new(127, 0, 1, part as u8 + 1));
            launch.flag("--from", from).flag("--not-before-ms", together)
        };
        Heard::start(launch, "listeners", directory)
    };
    parts.iter().enumerate().map(one).collect()
}

/// Waits for all reports, and adds them up.
pub(crate) fn join(crowds: Vec<Heard>, within: Duration, stop: &Stop) -> Result<Report, Error> {
    let mut whole: Option<Report> = None;
    for mut crowd in crowds {
        let report = crowd.expect(within, stop, |event| match event {
            Some(Event::Crowd { report }) => Some(Report::clone(report)),
            _ => None,
        })?;
        whole = Some(match whole {
            None => report,
            Some(sum) => sum.and(report),
        });
    }
    Ok(whole.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_and_whole() {
        assert_eq!(shares(1000, 20_000), [1000]);
        assert_eq!(shares(19_501, 10_000), [9_751, 9_750]);
        assert_eq!(shares(0, 10), [0]);
        assert_eq!(shares(50_000, 19_936).iter().sum::<usize>(), 50_000);
    }
}
