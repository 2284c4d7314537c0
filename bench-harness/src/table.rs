//! The table of a comparison, what to keep in mind when reading it, and medians over runs.

use crate::crowd_report::at;
use crate::measure::{Load, Numbers, Row};
use crate::procfs::Machine;
use crate::report_findings::Finding;

/// From here a processor counts as full, and latencies as those of a queue.
const FULL: f64 = 0.95;
/// From this part of a server's own CPU time on, the kernel's packet threads are worth a word.
const SOFTIRQ_SHARE: f64 = 0.05;
/// And what they use in any case: less says nothing.
const SOFTIRQ_MIN: f64 = 0.05;
/// From this load on (before we began) somebody else was at work.
const NOISY: f64 = 0.5;

/// Aligned columns: the first to the left, all others to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<width$}", width = widths[0]),
            _ => format!("{cell:>width$}", width = widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Targets and what was found, for a terminal.
pub(crate) fn findings(findings: &[Finding]) -> String {
    let wide =
        |text: fn(&Finding) -> &str| findings.iter().map(|finding| text(finding).chars().count()).max();
    let verdict = wide(|finding| finding.verdict()).unwrap_or(0);
    let what = wide(|finding| &finding.what).unwrap_or(0);
    let line = |finding: &Finding| {
        let target = match finding.is_aimed() {
            true => format!(" (target {})", finding.target),
            false => String::new(),
        };
        let text = format!(
            "{:<verdict$}  {:<what$}  {}{target}",
            finding.verdict(),
            finding.what,
            finding.found
        );
        text.trim_end().to_owned()
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One line per server.
pub(crate) fn comparison(rows: &[Row]) -> String {
    let heads = [
        "server", "CPU-s/GB", "x floor", "busy", "crowd", "Gb/s", "of due", "RSS MiB", "KiB/lst", "sock KiB",
        "p50 ms", "p99 ms", "max ms", "gap ms", "min/max", "unserved", "closed", "faults",
    ];
    let mut cells = vec![heads.map(str::to_owned).to_vec()];
    cells.extend(
        rows.iter()
            .filter_map(|row| Some(line(&row.server, row.numbers.as_ref()?))),
    );
    quiet(cells) + &without_numbers(rows)
}

/// Columns that are only worth their place when something is in them.
const HARM: [&str; 3] = ["unserved", "closed", "faults"];

/// The table without those of its columns that count harm and are zero throughout; a word says so.
pub(crate) fn quiet(mut rows: Vec<Vec<String>>) -> String {
    let Some(heads) = rows.first().cloned() else {
        return String::new();
    };
    let (mut kept, mut zeros) = (vec![true; heads.len()], Vec::new());
    for (column, head) in heads
        .iter()
        .enumerate()
        .filter(|(_, head)| HARM.contains(&head.as_str()))
    {
        if rows[1..]
            .iter()
            .filter_map(|row| row.get(column))
            .all(|cell| cell == "0")
        {
            kept[column] = false;
            zeros.push(head.as_str());
        }
    }
    for row in &mut rows {
        let mut column = 0;
        row.retain(|_| {
            column += 1;
            kept[column - 1]
        });
    }
    match zeros.is_empty() || rows.len() < 2 {
        true => aligned(&rows),
        false => format!("{}\n({}: none)", aligned(&rows), zeros.join(", ")),
    }
}

/// A line for each server that could not be measured.
pub(crate) fn without_numbers(rows: &[Row]) -> String {
    let none = rows.iter().filter(|row| row.numbers.is_none());
    let line = |row: &Row| {
        let why = row.error.as_deref().unwrap_or("no numbers");
        format!("\n{}  {why}", row.server)
    };
    none.map(line).collect()
}

fn line(server: &str, n: &Numbers) -> Vec<String> {
    let percent = |ratio: f64| format!("{:.0}%", ratio * 100.0);
    vec![
        server.to_owned(),
        format!("{:.3}", n.cpu_s_per_gb),
        n.times_floor.map_or("-".into(), |ratio| format!("{ratio:.2}")),
        percent(n.server_busy),
        percent(n.crowd_busy),
        format!("{:.3}", n.gbit_per_s),
        percent(n.delivered_ratio),
        format!("{:.1}", n.rss_kib / 1024.0),
        format!("{:.1}", n.own_kib_per_listener),
        format!("{:.0}", n.socket_kib_per_listener),
        format!("{:.1}", n.latency_p50_ms),
        format!("{:.1}", n.latency_p99_ms),
        format!("{:.1}", n.latency_max_ms),
        format!("{:.0}", n.gap_max_ms),
        format!("{:.3}", n.bytes_min_to_max),
        n.not_served.to_string(),
        n.closed.to_string(),
        n.faults.to_string(),
    ]
}

/// What a reader must know before quoting a number.
pub(crate) fn caveats(machine: &Machine, load: &Load, rows: &[Row]) -> Vec<String> {
    let Machine {
        cpu,
        cores,
        kernel,
        congestion_control,
        memory_mib,
        load: loadavg,
    } = machine;
    let place = |cpu: Option<usize>| cpu.map_or("any CPU".into(), |cpu| format!("CPU {cpu}"));
    let mut notes = vec![
        format!(
            "machine: {cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, {congestion_control}, loopback"
        ),
        format!(
            "server on {}, source and crowd on {}",
            place(load.cpu_server),
            place(load.cpu_crowd)
        ),
        "compare ratios within one run; loopback copies what a network card would not, and has no loss"
            .into(),
        "latency: group due at the source -> read by a listener; it holds the batching interval".into(),
        "sock KiB: both ends of each connection, per listener".into(),
    ];
    if load.stall > 0 {
        notes.push(format!(
            "{} of the listeners never read; they are in the memory, not in the bytes",
            load.stall
        ));
    }
    if *loadavg > NOISY {
        notes.push(format!(
            "the machine was not idle before (load {loadavg:.2}): expect noise"
        ));
    }
    if load.cpu_server == load.cpu_crowd {
        notes.push("server and crowd share processors: CPU time holds, latencies do not".into());
    }
    for row in rows {
        let once = row.error.as_ref().filter(|_| row.numbers.is_some());
        notes.extend(once.map(|error| format!("{}: not in every run: {error}", row.server)));
        notes.extend(
            row.numbers
                .iter()
                .flat_map(|numbers| remarks(&row.server, numbers)),
        );
    }
    notes
}

fn remarks(server: &str, n: &Numbers) -> Vec<String> {
    let mut notes = Vec::new();
    if n.server_busy > FULL {
        notes.push(format!(
            "{server}: its processor was full; it may be unable to serve this load"
        ));
    }
    if n.crowd_busy > FULL {
        notes.push(format!(
            "{server}: the crowd's processor was full; latency and bytes are the crowd's limit"
        ));
    }
    if n.softirq_seconds > (SOFTIRQ_SHARE * n.cpu_seconds).max(SOFTIRQ_MIN) {
        notes.push(format!(
            "{server}: packet threads of the kernel used {:.2} CPU-s beside its {:.2}: part of its work may be \
             in neither",
            n.softirq_seconds, n.cpu_seconds
        ));
    }
    if n.not_served > 0.0 {
        notes.push(format!(
            "{server}: {} listeners were not let in, or not within the ramp",
            n.not_served
        ));
    }
    if n.closed > 0.0 {
        notes.push(format!("{server}: it closed {} of its listeners", n.closed));
    }
    if n.delivered_ratio < 0.98 {
        notes.push(format!(
            "{server}: delivered only {:.0}% of what was due",
            n.delivered_ratio * 100.0
        ));
    }
    notes
}

/// Fills in each row's ratio to the floor of the same run.
pub(crate) fn relate(rows: &mut [Row]) {
    let floor = rows.iter().find(|row| row.server == "floor");
    let Some(floor) = floor.and_then(|row| row.numbers.clone()) else {
        return;
    };
    let whole = |n: &Numbers| (n.cpu_seconds + n.softirq_seconds) / (n.gbit_per_s).max(1e-9);
    for numbers in rows.iter_mut().filter_map(|row| row.numbers.as_mut()) {
        numbers.times_floor = Some(numbers.cpu_s_per_gb / floor.cpu_s_per_gb);
        numbers.times_floor_whole = Some(whole(numbers) / whole(&floor));
    }
}

/// Per server the median of each number over the runs in which it has numbers; its first error if it has none.
pub(crate) fn medians(runs: &[Vec<Row>]) -> Vec<Row> {
    let servers = runs.first().into_iter().flatten().map(|row| row.server.as_str());
    servers
        .map(|server| median_row(runs.iter().flatten().filter(|row| row.server == server).collect()))
        .collect()
}

fn median_row(rows: Vec<&Row>) -> Row {
    let all: Vec<&Numbers> = rows.iter().filter_map(|row| row.numbers.as_ref()).collect();
    let error = rows.iter().find_map(|row| row.error.clone());
    let numbers = (!all.is_empty()).then(|| median(&all));
    Row {
        server: rows[0].server.clone(),
        error,
        missing: rows.iter().any(|row| row.missing),
        numbers,
        crowd: None,
        churn: None,
        samples: Vec::new(),
        workers: Vec::new(),
    }
}

fn median(all: &[&Numbers]) -> Numbers {
    let of = |field: fn(&Numbers) -> f64| {
        let mut values: Vec<f64> = all.iter().map(|numbers| field(numbers)).collect();
        values.sort_by(f64::total_cmp);
        at(&values, 0.5)
    };
    let related = all.iter().all(|numbers| numbers.times_floor.is_some());
    Numbers {
        cpu_seconds: of(|n| n.cpu_seconds),
        cpu_s_per_gb: of(|n| n.cpu_s_per_gb),
        times_floor: related.then(|| of(|n| n.times_floor.unwrap_or(0.0))),
        times_floor_whole: related.then(|| of(|n| n.times_floor_whole.unwrap_or(0.0))),
        server_busy: of(|n| n.server_busy),
        crowd_busy: of(|n| n.crowd_busy),
        gbit_per_s: of(|n| n.gbit_per_s),
        arrival_ms: of(|n| n.arrival_ms),
        softirq_seconds: of(|n| n.softirq_seconds),
        delivered_ratio: of(|n| n.delivered_ratio),
        rss_kib: of(|n| n.rss_kib),
        own_kib: of(|n| n.own_kib),
        files: of(|n| n.files),
        own_kib_per_listener: of(|n| n.own_kib_per_listener),
        socket_kib: of(|n| n.socket_kib),
        socket_kib_per_listener: of(|n| n.socket_kib_per_listener),
        latency_p50_ms: of(|n| n.latency_p50_ms),
        latency_p99_ms: of(|n| n.latency_p99_ms),
        latency_p999_ms: of(|n| n.latency_p999_ms),
        latency_max_ms: of(|n| n.latency_max_ms),
        gap_max_ms: of(|n| n.gap_max_ms),
        bytes_min_to_max: of(|n| n.bytes_min_to_max),
        not_served: of(|n| n.not_served),
        closed: of(|n| n.closed),
        faults: of(|n| n.faults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: &'static str, cpu_s_per_gb: f64) -> Row {
        let numbers = Numbers {
            cpu_s_per_gb,
            ..Numbers::default()
        };
        Row {
            server: server.into(),
            error: None,
            missing: false,
            numbers: Some(numbers),
            crowd: None,
            churn: None,
            samples: Vec::new(),
            workers: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_run_and_then_the_median() {
        let mut runs = vec![
            vec![row("floor", 1.0), row("relay", 1.5)],
            vec![row("floor", 2.0), row("relay", 2.2)],
            vec![row("floor", 4.0), row("relay", 8.0)],
        ];
        runs.iter_mut().for_each(|rows| relate(rows));
        let medians = medians(&runs);
        let relay = medians[1].numbers.as_ref().unwrap();
        assert_eq!((relay.cpu_s_per_gb, relay.times_floor), (2.2, Some(1.5)));
    }

    #[test]
    fn a_server_without_numbers_keeps_its_reason() {
        let broken = Row {
            server: "x".into(),
            error: Some("no".into()),
            missing: false,
            numbers: None,
            crowd: None,
            churn: None,
            samples: Vec::new(),
            workers: Vec::new(),
        };
        let medians = medians(&[vec![broken]]);
        assert!(medians[0].numbers.is_none() && medians[0].error.as_deref() == Some("no"));
    }

    #[test]
    fn harm_is_shown_where_there_is_any() {
        let rows = |closed: &str| {
            let words = |words: [&str; 4]| words.map(str::to_owned).to_vec();
            vec![
                words(["server", "closed", "faults", "x"]),
                words(["a", closed, "0", "1"]),
            ]
        };
        assert_eq!(quiet(rows("0")), "server  x\na       1\n(closed, faults: none)");
        assert_eq!(
            quiet(rows("3")),
            "server  closed  x\na            3  1\n(faults: none)"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "1".into()]];
        assert_eq!(aligned(&rows), "a     10\nlong   1");
    }
}
