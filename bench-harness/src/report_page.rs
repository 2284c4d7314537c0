//! The page of a report: what was found, then each part with its plot, its table and the command that makes it.

use serde_json::Value;

use crate::report::{Done, Report};
use crate::report_findings::{Finding, cells, list, num, numbers, word};
use crate::svg::{Bars, Lines, escape};

const STYLE: &str = include_str!("report.css");

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
        let class = match finding.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "unknown",
        };
        format!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"{class}\">{}</td>\
             <td><a href=\"#{}\">{}</a></td></tr>",
            escape(&finding.what),
            escape(&finding.target),
            escape(&finding.found),
            finding.verdict(),
            finding.part,
            finding.part,
        )
    };
    let rows: Vec<String> = findings.iter().map(row).collect();
    format!(
        "<section><h2>Targets</h2><div class=\"wide\"><table class=\"targets\"><thead><tr><th>what</th><th \
         class=\"n\">target</th><th class=\"n\">found</th><th></th><th>made by</th></tr></thead><tbody>{}</tbody>\
         </table></div></section>",
        rows.join("")
    )
}

/// The findings for a readme: a table that names the command behind each figure.
pub(crate) fn markdown(report: &Report) -> String {
    let clean = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let row = |finding: &Finding| {
        let Finding {
            what,
            target,
            found,
            part,
            ..
        } = finding;
        let (what, target, found) = (clean(what), clean(target), clean(found));
        format!(
            "| {what} | {target} | {found} | {} | {part} |\n",
            finding.verdict()
        )
    };
    let named = |part: &&Done| report.findings.iter().any(|finding| finding.part == part.key);
    let commands = report.parts.iter().filter(named);
    let commands: String = commands
        .map(|part| format!("{}: {}\n", part.key, part.command))
        .collect();
    let machine = &report.machine;
    format!(
        "{}, {} cores, {} MiB, Linux {}, loopback, load before {:.2}; `bench-harness report --{}`, {:.0} s:\n\n\
         | what | target | found | | made by |\n|---|---|---|---|---|\n{}\n```text\n{commands}```\n",
        clean(&machine.cpu),
        machine.cores,
        machine.memory_mib,
        clean(&machine.kernel),
        machine.load,
        report.size,
        report.seconds,
        report.findings.iter().map(row).collect::<String>(),
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
            "Windows of a few seconds: single figures move by 10 % and more between runs; what is compared is a median \
             of several."
                .into(),
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
        lacking,
        text,
        ..
    } = part;
    let failed = match status {
        _ if lacking.is_some() => format!(
            "<p class=\"unknown\">Not measured here: {}.</p>",
            escape(lacking.unwrap_or_default())
        ),
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
        "rivals" => [
            sweep(result, "/load/listeners", "listeners"),
            vec![memory(result), ages(result)],
        ]
        .concat(),
        "delay" => [sweep(result, "/load/listeners", "listeners"), vec![ages(result)]].concat(),
        "big" => sweep(result, "/load/listeners", "listeners"),
        "outlast" => vec![outlast(result)],
        "latency" => vec![chain(result), hops(result)],
        "join" => vec![join(result)],
        "churn" => vec![churn(result)],
        "capacity" => vec![
            capacity(result, "/numbers/server_busy", "processors"),
            throughput(result),
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
    let cells = cells(result);
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

/// Quantiles as they spread towards 1: each nine is as wide as the one before.
fn quantiles(caption: &str, series: Vec<(String, &Value)>) -> (String, String) {
    let place = |quantile: f64| -(1.0 - quantile.min(0.99998)).log10();
    let points = |curve: &Value| {
        let both = |point: &Value| Some((place(num(point, "/0")?), num(point, "/1")?));
        curve.as_array().into_iter().flatten().filter_map(both).collect()
    };
    let lines = Lines {
        across: "percentile",
        unit: "ms",
        series: series
            .into_iter()
            .map(|(name, curve)| (name, points(curve)))
            .collect(),
        ticks: [
            (0.0, "0"),
            (0.5, "50"),
            (0.9, "90"),
            (0.99, "99"),
            (0.999, "99.9"),
            (0.9999, "99.99"),
            (1.0, "all"),
        ]
        .map(|(quantile, text)| (place(quantile), text))
        .to_vec(),
    };
    (caption.into(), lines.draw())
}

/// Delivery latency of each server, in its first run.
fn ages(result: &Value) -> (String, String) {
    let rows = cells(result)
        .first()
        .map_or(&[][..], |cell| list(cell, "/runs/0"));
    let curve = |row: &'_ Value| {
        Some((
            word(row, "/server").to_owned(),
            row.pointer("/crowd/latency_ms/curve")?.clone(),
        ))
    };
    let curves: Vec<(String, Value)> = rows.iter().filter_map(curve).collect();
    let series = curves.iter().map(|(name, curve)| (name.clone(), curve)).collect();
    quantiles(
        "Delivery latency by percentile, since a group was due at the source",
        series,
    )
}

fn hops(result: &Value) -> (String, String) {
    let nothing = Value::Null;
    let rows = list(result, "/rows").iter();
    let series = rows.map(|row| {
        let curve = row.pointer("/latency_ms/curve").unwrap_or(&nothing);
        (word(row, "/hop").to_owned(), curve)
    });
    quantiles(
        "The same by percentile; the last hop is the whole chain",
        series.collect(),
    )
}

fn memory(result: &Value) -> (String, String) {
    let rows = || cells(result).iter().flat_map(|cell| list(cell, "/medians"));
    let values = |path: &str| rows().map(|row| num(row, path)).collect();
    let bars = Bars {
        unit: "KiB",
        labels: rows().map(|row| word(row, "/server").to_owned()).collect(),
        series: vec![
            ("server".into(), values("/numbers/own_kib_per_listener")),
            (
                "kernel, both ends".into(),
                values("/numbers/socket_kib_per_listener"),
            ),
        ],
    };
    ("Memory for each listener".into(), bars.draw())
}

fn outlast(result: &Value) -> (String, String) {
    let point = |step: &Value, path: &str| Some((num(step, "/listeners")?, num(step, path)?));
    let steps = list(result, "/steps");
    let all = || steps.iter().chain(result.get("twice"));
    let kbps = num(result, "/load/kbps").unwrap_or_default();
    let due = all()
        .filter_map(|step| num(step, "/listeners"))
        .map(|n| (n, n * kbps * 1e-6));
    let lines = Lines {
        across: "listeners",
        unit: "Gb/s",
        series: vec![
            ("due".into(), due.collect()),
            (
                "relay".into(),
                result
                    .get("twice")
                    .and_then(|step| point(step, "/numbers/gbit_per_s"))
                    .into_iter()
                    .collect(),
            ),
            (
                word(result, "/rival").to_owned(),
                steps
                    .iter()
                    .filter_map(|step| point(step, "/numbers/gbit_per_s"))
                    .collect(),
            ),
        ],
        ticks: Vec::new(),
    };
    ("Delivered, by size of the crowd".into(), lines.draw())
}

fn throughput(result: &Value) -> (String, String) {
    let kbps = num(result, "/kbps").unwrap_or_default();
    let delivered = steps(result, "/numbers/gbit_per_s");
    let due = delivered.iter().map(|(n, _)| (*n, n * kbps * 1e-6)).collect();
    let lines = Lines {
        across: "viewers",
        unit: "Gb/s",
        series: vec![("due".into(), due), ("delivered".into(), delivered)],
        ticks: Vec::new(),
    };
    ("Throughput, by size of the crowd".into(), lines.draw())
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
        ticks: Vec::new(),
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
        ticks: Vec::new(),
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
            ticks: Vec::new(),
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
            lacking: None,
            text: "<script>".into(),
            result,
        }
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
