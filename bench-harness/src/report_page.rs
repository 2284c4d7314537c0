//! The page of a report: what was found, then each part with its plot, its table and the command that makes it.

use serde::Serialize;
use serde_json::Value;

use crate::report::{Done, Report};
use crate::svg::{Bars, Lines, escape, short};

const STYLE: &str = include_str!("report.css");

/// Below this part of what was due, delays and costs are those of another load.
const DELIVERED: f64 = 0.98;

/// One number against its target.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) found: String,
    pub(crate) met: bool,
}

fn num(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path).and_then(Value::as_f64)
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn word<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// A server's numbers at one point of a sweep.
fn numbers<'a>(cell: &'a Value, server: &str) -> Option<&'a Value> {
    let rows = list(cell, "/medians").iter();
    rows.filter(|row| word(row, "/server") == server)
        .find_map(|row| row.get("numbers").filter(|numbers| !numbers.is_null()))
}

/// The ratio to the floor, with the kernel's packet threads or without, whichever is worse for the server.
fn dearer(numbers: &Value) -> Option<f64> {
    let own = num(numbers, "/times_floor")?;
    Some(num(numbers, "/times_floor_whole").map_or(own, |whole| own.max(whole)))
}

/// Everything that has a target and was measured.
pub(crate) fn findings(parts: &[Done]) -> Vec<Finding> {
    let mut found = Vec::new();
    let of = |key: &str| parts.iter().find(|part| part.key == key).map(|part| &part.result);
    let mut add = |what: String, target: &str, text: String, met: bool| {
        found.push(Finding {
            what,
            target: target.into(),
            found: text,
            met,
        });
    };
    for cell in of("fanout")
        .map(|result| list(result, "/cells"))
        .unwrap_or_default()
    {
        let at = num(cell, "/load/interval_ms").unwrap_or_default();
        if let Some(ratio) = numbers(cell, "relay").and_then(dearer) {
            let what = format!("CPU per byte over the floor, {at} ms");
            add(what, "≤ 1.15", short(ratio), ratio <= 1.15);
        }
        let mio = numbers(cell, "relay-mio").and_then(|n| num(n, "/cpu_s_per_gb"));
        let uring = numbers(cell, "relay").and_then(|n| num(n, "/cpu_s_per_gb"));
        if let (Some(mio), Some(uring)) = (mio, uring) {
            let ratio = uring / mio;
            add(
                format!("io_uring over epoll, {at} ms"),
                "≤ 1.05",
                short(ratio),
                ratio <= 1.05,
            );
        }
    }
    for cell in of("icecast")
        .map(|result| list(result, "/cells"))
        .unwrap_or_default()
    {
        let crowd = num(cell, "/load/listeners").unwrap_or_default();
        let cost = |server| numbers(cell, server).and_then(|n| num(n, "/cpu_s_per_gb"));
        if let (Some(ours), Some(theirs)) = (cost("relay"), cost("icecast2")) {
            let ratio = ours / theirs;
            let what = format!("CPU per byte against Icecast, {crowd} listeners");
            add(what, "≤ 0.10", short(ratio), ratio <= 0.1);
        }
        let delay = |server| numbers(cell, server).and_then(|n| num(n, "/latency_p50_ms"));
        if let (Some(ours), Some(theirs)) = (delay("relay"), delay("icecast2")) {
            let due = numbers(cell, "icecast2")
                .and_then(|n| num(n, "/delivered_ratio"))
                .unwrap_or_default();
            let late = if due < DELIVERED {
                format!(" (it delivered {:.0}% of due)", due * 100.0)
            } else {
                String::new()
            };
            let text = format!("{} against {} ms{late}", short(ours), short(theirs));
            add(
                format!("median delay against Icecast, {crowd} listeners"),
                "lower",
                text,
                ours < theirs,
            );
        }
    }
    for step in of("workers")
        .map(|result| list(result, "/steps"))
        .unwrap_or_default()
    {
        let figure = |path| num(step, path).unwrap_or(f64::NAN);
        let (workers, ratio) = (figure("/workers"), 1.0 / figure("/efficiency"));
        if workers > 1.0 {
            let apart = step.get("apart").and_then(Value::as_bool).unwrap_or_default();
            let bound = if apart {
                ""
            } else {
                ", the crowd on their processors"
            };
            let text = format!(
                "{}; {} times one{bound}",
                short(ratio),
                short(figure("/times_one"))
            );
            add(
                format!("CPU per byte of {workers} workers over one alone"),
                "≤ 1.10",
                text,
                ratio <= 1.1,
            );
        }
    }
    for cell in of("big").map(|result| list(result, "/cells")).unwrap_or_default() {
        let Some(n) = numbers(cell, "relay") else { continue };
        let figure = |path| num(n, path).unwrap_or(f64::NAN);
        let crowd = num(cell, "/load/listeners").unwrap_or_default();
        let packets = figure("/softirq_seconds") / figure("/cpu_seconds");
        let (busy, due) = (
            figure("/server_busy") * (1.0 + packets),
            figure("/delivered_ratio"),
        );
        let text = format!(
            "{} of a processor with its packet threads, {}% of due",
            short(busy),
            short(due * 100.0)
        );
        add(
            format!("{crowd} × 500 kb/s from one processor"),
            "all of it",
            text,
            due >= 0.99 && busy <= 1.0,
        );
        let harmed = figure("/closed") + figure("/faults") + figure("/not_served");
        add(
            format!("closed, unserved or faulty of {crowd}"),
            "0",
            short(harmed),
            harmed == 0.0,
        );
        let spread = figure("/bytes_min_to_max");
        add(
            "slowest over fastest listener".into(),
            "≥ 0.99",
            short(spread),
            spread >= 0.99,
        );
        let user = figure("/own_kib_per_listener");
        add(
            "memory of the server per listener, KiB".into(),
            "≤ 1",
            short(user),
            user <= 1.0,
        );
    }
    delay_finding(&of, &mut add);
    if let Some(row) = of("churn").and_then(|result| list(result, "/runs/0").first()) {
        if let Some(gap) = num(row, "/numbers/gap_max_ms") {
            add(
                "longest gap of those who stay, churn, ms".into(),
                "≤ 250",
                short(gap),
                gap <= 250.0,
            );
        }
        let (came, heard) = (num(row, "/churn/came"), num(row, "/churn/heard"));
        if let (Some(came), Some(heard)) = (came, heard) {
            add(
                "newcomers that heard something".into(),
                "all",
                format!("{heard} of {came}"),
                heard >= came,
            );
        }
    }
    if let Some(result) = of("multicast") {
        let best = list(result, "/rows")
            .iter()
            .filter_map(|row| num(row, "/ns_per_datagram_min"));
        let best = best.fold(f64::INFINITY, f64::min);
        if best.is_finite() {
            add(
                "bare multicast send, ns per datagram (copying)".into(),
                "≤ 45",
                short(best),
                best <= 45.0,
            );
        }
    }
    found
}

/// p99 with nothing held back, against three times what N plain sends take on this machine.
fn delay_finding<'a>(
    of: &impl Fn(&str) -> Option<&'a Value>,
    add: &mut impl FnMut(String, &str, String, bool),
) {
    let cell = |key| of(key).and_then(|result| list(result, "/cells").first());
    let (Some(cell), Some(floor)) = (cell("delay"), cell("fanout")) else {
        return;
    };
    let p99 = numbers(cell, "relay").and_then(|n| num(n, "/latency_p99_ms"));
    let cpu = numbers(floor, "floor").and_then(|n| num(n, "/cpu_seconds"));
    let load = |path| num(floor, path);
    let (Some(p99), Some(cpu), Some(seconds), Some(interval)) =
        (p99, cpu, load("/load/seconds"), load("/load/interval_ms"))
    else {
        return;
    };
    let all = cpu * 1e3 / (seconds * 1e3 / interval.max(1.0));
    let target = format!("≤ {} (3 × N sends)", short(3.0 * all));
    let what = "p99 of delivery with nothing held back, ms".into();
    // What never came has no delay: a percentile of the rest says nothing.
    let due = numbers(cell, "relay")
        .and_then(|n| num(n, "/delivered_ratio"))
        .unwrap_or_default();
    if due < DELIVERED {
        let text = format!("only {:.0}% of due was delivered", due * 100.0);
        return add(what, &target, text, false);
    }
    add(what, &target, short(p99), p99 <= 3.0 * all);
}

/// The whole page; nothing in it comes from elsewhere.
pub(crate) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let parts: Vec<String> = report.parts.iter().map(section).collect();
    let links: Vec<String> = report
        .parts
        .iter()
        .map(|part| format!("<a href=\"#{}\">{}</a>", part.key, escape(part.title)))
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>bench-harness report</title><style>{STYLE}</style></head><body><main>\
         <header><h1>bench-harness report</h1><p class=\"machine\">{} · {} cores · {} MiB · Linux {} · {} · \
         load before \
         {:.2} · {} report, {:.0} s · version {}</p></header>{}<nav>{}</nav>{}{}</main></body></html>\n",
        escape(&machine.cpu),
        machine.cores,
        machine.memory_mib,
        escape(&machine.kernel),
        escape(&machine.congestion_control),
        machine.load,
        report.size,
        report.seconds,
        report.version,
        if report.size == "smoke" {
            String::new()
        } else {
            summary(&report.findings)
        },
        links.join(""),
        parts.join(""),
        caveats(report),
    )
}

fn summary(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let (class, mark) = if finding.met {
            ("met", "met")
        } else {
            ("missed", "missed")
        };
        format!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"{class}\">{mark}</td></tr>",
            escape(&finding.what),
            escape(&finding.target),
            escape(&finding.found)
        )
    };
    let rows: Vec<String> = findings.iter().map(row).collect();
    format!(
        "<section><h2>Targets</h2><div class=\"wide\"><table><thead><tr><th>what</th><th class=\"n\">target</th><th \
         class=\"n\">found</th><th></th></tr></thead><tbody>{}</tbody></table></div></section>",
        rows.join("")
    )
}

fn caveats(report: &Report) -> String {
    let mut notes: Vec<String> = Vec::new();
    for note in report
        .parts
        .iter()
        .flat_map(|part| list(&part.result, "/caveats"))
    {
        let note = note.as_str().unwrap_or_default().to_owned();
        if !notes.contains(&note) && !note.contains("was not idle before") {
            notes.push(note);
        }
    }
    if report.size != "full" {
        notes.insert(
            0,
            "One run of some seconds each: single figures move by 10 % and more between runs.".into(),
        );
    }
    if report.machine.load > 0.5 {
        let load = report.machine.load;
        notes.insert(
            0,
            format!("The machine was not idle (load {load:.2}): delays are those of a busy machine."),
        );
    }
    let items: Vec<String> = notes
        .iter()
        .map(|note| format!("<li>{}</li>", escape(note)))
        .collect();
    format!(
        "<section id=\"caveats\"><h2>Caveats</h2><ul>{}</ul></section>",
        items.join("")
    )
}

fn section(part: &Done) -> String {
    let Done {
        key,
        title,
        about,
        command,
        seconds,
        status,
        text,
        ..
    } = part;
    let failed = match status {
        Some(0) => String::new(),
        Some(code) => {
            format!("<p class=\"missed\">This command ended with status {code}: see its words below.</p>")
        }
        None => "<p class=\"missed\">This part did not come to its end: see its words below.</p>".into(),
    };
    let plots: Vec<String> = plots(part)
        .into_iter()
        .map(|(caption, svg)| {
            format!(
                "<figure>{svg}<figcaption>{}</figcaption></figure>",
                escape(&caption)
            )
        })
        .collect();
    format!(
        "<section id=\"{key}\"><h2>{}</h2><p>{}</p>{failed}<div class=\"plots\">{}</div><p \
         class=\"command\"><code>{}</code>\
         <span>{seconds:.0} s</span></p><details{}><summary>What it said</summary><pre>{}</pre></details></section>",
        escape(title),
        escape(about),
        plots.join(""),
        escape(command),
        if *status == Some(0) && !plots.is_empty() {
            ""
        } else {
            " open"
        },
        escape(text.trim_end())
    )
}

fn plots(part: &Done) -> Vec<(String, String)> {
    let result = &part.result;
    match part.key {
        "fanout" => sweep(result, "/load/interval_ms", "ms"),
        "icecast" | "big" | "delay" => sweep(result, "/load/listeners", "listeners"),
        "latency" => vec![chain(result)],
        "join" => vec![join(result)],
        "churn" => vec![churn(result)],
        "capacity" => vec![
            capacity(result, "/numbers/server_busy", "processors"),
            memory_curve(result),
        ],
        "soak" => soak(result),
        "workers" => vec![workers(result)],
        "udp" | "multicast" | "tcp" => vec![sink(result)],
        _ => Vec::new(),
    }
    .into_iter()
    .filter(|(_, svg)| svg.contains("<title>") || svg.contains("<polyline"))
    .collect()
}

/// Two plots over the points of a sweep: cost, and delay.
fn sweep(result: &Value, over: &str, unit: &str) -> Vec<(String, String)> {
    let cells = list(result, "/cells");
    let labels = || {
        cells
            .iter()
            .map(|cell| format!("{} {unit}", num(cell, over).unwrap_or_default()))
            .collect()
    };
    let mut servers: Vec<&str> = Vec::new();
    for row in cells.iter().flat_map(|cell| list(cell, "/medians")) {
        let name = word(row, "/server");
        if !servers.contains(&name) {
            servers.push(name);
        }
    }
    let draw = |path: &str, unit| {
        let value = |server: &str, cell| numbers(cell, server).and_then(|n| num(n, path));
        let series = servers.iter().map(|server| {
            let values = cells.iter().map(|cell| value(server, cell)).collect();
            ((*server).to_owned(), values)
        });
        Bars {
            unit,
            labels: labels(),
            series: series.collect(),
        }
        .draw()
    };
    vec![
        (
            "CPU-seconds of the server per delivered GB; less is better".into(),
            draw("/cpu_s_per_gb", "s/GB"),
        ),
        (
            "Delivery latency, 99th percentile; it holds the batching interval".into(),
            draw("/latency_p99_ms", "ms"),
        ),
    ]
}

fn chain(result: &Value) -> (String, String) {
    let rows = list(result, "/rows");
    let quantiles = [
        ("p50", "median"),
        ("p90", "p90"),
        ("p99", "p99"),
        ("p999", "p99.9"),
    ];
    let series = quantiles.map(|(key, name)| {
        let path = format!("/latency_ms/{key}");
        let known = |row: &Value| row.pointer("/error").is_some_and(Value::is_null);
        let values = rows
            .iter()
            .map(|row| num(row, &path).filter(|_| known(row)))
            .collect();
        (name.to_owned(), values)
    });
    let bars = Bars {
        unit: "ms",
        labels: rows.iter().map(|row| word(row, "/hop").to_owned()).collect(),
        series: series.into(),
    };
    (
        "Age of the bytes at each hop, since they were due at the source".into(),
        bars.draw(),
    )
}

fn join(result: &Value) -> (String, String) {
    let one = |path: &str| {
        let at = ["min", "median", "p99", "max"].map(|key| num(result, &format!("/{path}/{key}")));
        at.to_vec()
    };
    let bars = Bars {
        unit: "ms",
        labels: ["least", "median", "p99", "most"].map(str::to_owned).into(),
        series: vec![
            ("first byte".into(), one("first_byte_ms")),
            ("decodable".into(), one("joined_ms")),
        ],
    };
    ("From connect; less is better".into(), bars.draw())
}

fn churn(result: &Value) -> (String, String) {
    let at = ["p50", "p90", "p99", "p999", "max"]
        .map(|key| num(result, &format!("/runs/0/0/churn/first_byte_ms/{key}")));
    let bars = Bars {
        unit: "ms",
        labels: ["median", "p90", "p99", "p99.9", "most"]
            .map(str::to_owned)
            .into(),
        series: vec![("newcomer due → first byte".into(), at.into())],
    };
    ("How long newcomers wait".into(), bars.draw())
}

fn steps(result: &Value, path: &str) -> Vec<(f64, f64)> {
    let point = |step: &Value| Some((num(step, "/listeners")?, num(step, path)?));
    list(result, "/steps").iter().filter_map(point).collect()
}

fn capacity(result: &Value, path: &str, unit: &str) -> (String, String) {
    let lines = Lines {
        across: "viewers",
        unit,
        series: vec![("CPU of the server".into(), steps(result, path))],
    };
    ("Processors used, by size of the crowd".into(), lines.draw())
}

fn memory_curve(result: &Value) -> (String, String) {
    let mib = |path| {
        steps(result, path)
            .into_iter()
            .map(|(x, kib)| (x, kib / 1024.0))
            .collect()
    };
    let lines = Lines {
        across: "viewers",
        unit: "MiB",
        series: vec![
            ("server".into(), mib("/numbers/rss_kib")),
            ("kernel, both ends".into(), mib("/numbers/socket_kib")),
        ],
    };
    ("Memory, by size of the crowd".into(), lines.draw())
}

fn soak(result: &Value) -> Vec<(String, String)> {
    let samples = list(result, "/comparison/runs/0/0/samples");
    let over = |path: &str, unit: f64| {
        let point = |sample: &Value| Some((num(sample, "/seconds")?, num(sample, path)? / unit));
        samples.iter().filter_map(point).collect::<Vec<_>>()
    };
    let draw = |name: &str, unit, points| {
        let series = vec![(name.to_owned(), points)];
        Lines {
            across: "seconds",
            unit,
            series,
        }
        .draw()
    };
    vec![
        (
            "Resident memory of the server".into(),
            draw("memory", "MiB", over("/rss_kib", 1024.0)),
        ),
        (
            "Open files of the server".into(),
            draw("open files", "", over("/files", 1.0)),
        ),
    ]
}

fn workers(result: &Value) -> (String, String) {
    let steps = list(result, "/steps");
    let of = |path: &str| steps.iter().map(|step| num(step, path)).collect();
    let bars = Bars {
        unit: "s/GB",
        labels: steps
            .iter()
            .map(|step| format!("{} workers", num(step, "/workers").unwrap_or_default()))
            .collect(),
        series: vec![
            ("cheapest".into(), of("/cpu_s_per_gb_least")),
            ("all".into(), of("/cpu_s_per_gb")),
            ("dearest".into(), of("/cpu_s_per_gb_most")),
        ],
    };
    (
        "CPU-seconds of a worker per GB it told; level is sharing nothing".into(),
        bars.draw(),
    )
}

fn sink(result: &Value) -> (String, String) {
    let rows = list(result, "/rows");
    let label = |row: &Value| num(row, "/size").unwrap_or_default().to_string();
    let mut labels: Vec<String> = Vec::new();
    let mut ways: Vec<&str> = Vec::new();
    for row in rows {
        if !labels.contains(&label(row)) {
            labels.push(label(row));
        }
        let way = word(row, "/way").trim_end_matches(", GSO");
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    let find = |way: &str, size: &String| {
        let mut same = rows
            .iter()
            .filter(|row| word(row, "/way").trim_end_matches(", GSO") == way);
        same.find(|row| label(row) == *size)
            .and_then(|row| num(row, "/ns_per_datagram_min"))
    };
    let series = ways.iter().map(|way| {
        (
            (*way).to_owned(),
            labels.iter().map(|size| find(way, size)).collect(),
        )
    });
    let unit = if word(result, "/way") == "tcp" {
        "bytes"
    } else {
        "datagrams"
    };
    let bars = Bars {
        unit: "ns",
        series: series.collect(),
        labels: labels.iter().map(|size| format!("{size} {unit}")).collect(),
    };
    (
        "CPU time for 1,316 bytes, by the size of one send; from 4 datagrams on with GSO".into(),
        bars.draw(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn part(key: &'static str, result: Value) -> Done {
        Done {
            key,
            title: "t",
            about: "a",
            command: "c <x>".into(),
            seconds: 1.0,
            status: Some(0),
            text: "<script>".into(),
            result,
        }
    }

    #[test]
    fn targets_are_met_or_missed_by_the_numbers() {
        let cell = |ratio: f64| {
            json!({"load": {"interval_ms": 100}, "medians": [
            {"server": "relay", "numbers": {"times_floor": ratio, "cpu_s_per_gb": ratio}}]})
        };
        let found = findings(&[part("fanout", json!({"cells": [cell(1.1), cell(1.2)]}))]);
        assert_eq!(
            found.iter().map(|finding| finding.met).collect::<Vec<_>>(),
            [true, false]
        );
        assert!(findings(&[part("fanout", Value::Null), part("churn", json!({}))]).is_empty());
    }

    #[test]
    fn a_delay_of_the_few_bytes_that_came_is_no_success() {
        let cell = |server: &str, due: f64| {
            json!({"load": {"interval_ms": 10, "seconds": 6}, "medians": [
            {"server": server, "numbers": {"cpu_seconds": 3.0, "latency_p99_ms": 1.0, "delivered_ratio": due}}]})
        };
        let met = |due| {
            let parts = [
                part("fanout", json!({"cells": [cell("floor", 1.0)]})),
                part("delay", json!({"cells": [cell("relay", due)]})),
            ];
            findings(&parts)[0].met
        };
        assert_eq!((met(1.0), met(0.08)), (true, false));
    }

    #[test]
    fn a_section_shows_words_and_not_markup() {
        let html = section(&part("fanout", Value::Null));
        assert!(
            !html.contains("<script>") && html.contains("c &lt;x&gt;"),
            "{html}"
        );
    }

    #[test]
    fn servers_without_numbers_leave_no_bar() {
        let cells = json!({"cells": [{"load": {"listeners": 5}, "medians": [
            {"server": "floor", "numbers": {"cpu_s_per_gb": 0.3, "latency_p99_ms": 9.0}},
            {"server": "relay", "numbers": null, "error": "no"}]}]});
        let plots = plots(&part("big", cells));
        assert_eq!((plots.len(), plots[0].1.matches("<title>").count()), (2, 1));
    }
}
