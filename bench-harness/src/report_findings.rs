//! What of a report has a target: each number against it, with the part that made it.

use serde::Serialize;
use serde_json::Value;

use crate::report::Done;
use crate::svg::short;

/// Below this part of what was due, delays and costs are those of another load.
const DELIVERED: f64 = 0.98;
/// What one run differs from the next by: two backends within it are alike.
const NOISE: f64 = 1.05;

/// What has no target is told all the same.
const REPORTED: &str = "reported";

/// One number against its target.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) target: String,
    pub(crate) found: String,
    /// None: it could not be measured here.
    pub(crate) met: Option<bool>,
    /// The part whose command made it.
    pub(crate) part: &'static str,
}

impl Finding {
    /// It has a target.
    pub(crate) fn is_aimed(&self) -> bool {
        self.target != REPORTED
    }

    /// In one word.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None if self.target == REPORTED => "",
            None => "no figure",
        }
    }
}

pub(crate) fn num(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path).and_then(Value::as_f64)
}

pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(crate) fn word<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The points of a sweep; a comparison is a sweep of one.
pub(crate) fn cells(result: &Value) -> &[Value] {
    match result.get("medians") {
        Some(_) => std::slice::from_ref(result),
        None => list(result, "/cells"),
    }
}

/// A server's numbers at one point of a sweep.
pub(crate) fn numbers<'a>(cell: &'a Value, server: &str) -> Option<&'a Value> {
    let rows = list(cell, "/medians").iter();
    rows.filter(|row| word(row, "/server") == server)
        .find_map(|row| row.get("numbers").filter(|numbers| !numbers.is_null()))
}

fn figure(cell: &Value, server: &str, path: &str) -> Option<f64> {
    numbers(cell, server).and_then(|numbers| num(numbers, path))
}

/// Everything that has a target, part by part.
pub(crate) fn findings(parts: &[Done]) -> Vec<Finding> {
    let mut found = Vec::new();
    for part in parts {
        let mut out = Out {
            part,
            found: &mut found,
        };
        match part.key {
            "fanout" => out.fanout(),
            "rivals" => out.rivals(),
            "outlast" => out.outlast(),
            "big" => out.big(),
            "delay" => out.delay(parts.iter().find(|part| part.key == "fanout")),
            "churn" => out.churn(),
            "workers" => out.workers(),
            "latency" => out.chain(),
            "join" => out.join(),
            "udp" => out.udp(),
            "tcp" => out.tcp(),
            "multicast" => out.multicast(),
            _ => {}
        }
    }
    found
}

/// Where findings of one part go.
struct Out<'a> {
    part: &'a Done,
    found: &'a mut Vec<Finding>,
}

impl Out<'_> {
    /// A number that may be absent: then the part's failure is what was found.
    fn put(&mut self, what: impl Into<String>, target: &str, found: Option<(String, bool)>) {
        let (found, met) = match found {
            Some((found, met)) => (found, Some(met)),
            None => (self.part.why_not(), None),
        };
        self.found.push(Finding {
            what: what.into(),
            target: target.into(),
            found,
            met,
            part: self.part.key,
        });
    }

    /// The usual: at most so much.
    fn at_most(&mut self, what: impl Into<String>, most: f64, found: Option<f64>) {
        let found = found.map(|found| (short(found), found <= most));
        self.put(what, &format!("≤ {most}"), found);
    }

    /// A figure without a target.
    fn tell(&mut self, what: &str, found: Option<String>) {
        self.found.push(Finding {
            what: what.into(),
            target: REPORTED.into(),
            found: found.unwrap_or_else(|| self.part.why_not()),
            met: None,
            part: self.part.key,
        });
    }

    fn chain(&mut self) {
        let last = list(&self.part.result, "/rows").last().unwrap_or(&Value::Null);
        let both = num(last, "/latency_ms/p50").zip(num(last, "/latency_ms/p99"));
        let both = both.filter(|_| last.pointer("/error").is_some_and(Value::is_null));
        let found =
            both.map(|(p50, p99)| format!("{} / {}, at the {}", short(p50), short(p99), word(last, "/hop")));
        self.tell("root → repeater → repeater → peer, delay p50 / p99, ms", found);
    }

    fn join(&mut self) {
        let joined = &self.part.result;
        let both = num(joined, "/joined_ms/median").zip(num(joined, "/joined_ms/p99"));
        let found = both.map(|(median, p99)| format!("{} / {}", short(median), short(p99)));
        self.tell("connect → decodable picture, median / p99, ms", found);
    }

    fn fanout(&mut self) {
        if cells(&self.part.result).is_empty() {
            self.put("CPU per byte over the floor", "≤ 1.15", None);
        }
        for cell in cells(&self.part.result) {
            let at = num(cell, "/load/interval_ms").unwrap_or_default();
            // With the kernel's packet threads or without, whichever is worse for the server.
            let dearer = |server| {
                let whole = figure(cell, server, "/times_floor_whole").unwrap_or(0.0);
                figure(cell, server, "/times_floor").map(|own| own.max(whole))
            };
            let cost = |server| figure(cell, server, "/cpu_s_per_gb");
            let found = dearer("relay").zip(cost("relay").zip(cost("floor")));
            let found = found.map(|(ratio, (ours, floor))| {
                let text = format!("{} ({} against {} s/GB)", short(ratio), short(ours), short(floor));
                (text, ratio <= 1.15)
            });
            self.put(format!("CPU per byte over the floor, {at} ms"), "≤ 1.15", found);
            let ratio = cost("relay")
                .zip(cost("relay-mio"))
                .map(|(uring, mio)| uring / mio);
            let both =
                dearer("relay-mio").map_or(String::new(), |mio| format!(" (epoll: {} × floor)", short(mio)));
            let found = ratio.map(|ratio| (short(ratio) + &both, ratio <= NOISE));
            self.put(
                format!("io_uring over epoll, CPU per byte, {at} ms"),
                "≤ 1.05",
                found,
            );
        }
    }

    fn rivals(&mut self) {
        for (rival, most) in [("icecast2", 0.1), ("nginx-rtmp", 1.0)] {
            let cell = cells(&self.part.result).first().unwrap_or(&Value::Null);
            let both = |path| figure(cell, "relay", path).zip(figure(cell, rival, path));
            let ratio = both("/cpu_s_per_gb").map(|(ours, theirs)| ours / theirs);
            let crowd = num(cell, "/load/listeners").unwrap_or_default();
            let what = format!("CPU per byte against {rival}, {crowd} listeners");
            match list(cell, "/medians")
                .iter()
                .find(|row| word(row, "/server") == rival)
            {
                Some(row) if ratio.is_none() => self.absent(what, &format!("≤ {most}"), word(row, "/error")),
                _ => self.at_most(what, most, ratio),
            }
            // A picture is sent when it is made; what is held back for up to the interval cannot be younger.
            if rival != "icecast2" {
                continue;
            }
            let due = figure(cell, rival, "/delivered_ratio").unwrap_or_default();
            let late = match due < DELIVERED {
                true => format!(" (it delivered {:.0}% of due)", due * 100.0),
                false => String::new(),
            };
            let found = both("/latency_p50_ms").map(|(ours, theirs)| {
                let text = format!("{} against {} ms{late}", short(ours), short(theirs));
                (text, ours < theirs)
            });
            if found.is_some() {
                self.put(
                    format!("median delay against {rival}, {crowd} listeners"),
                    "lower",
                    found,
                );
            }
        }
    }

    fn absent(&mut self, what: String, target: &str, why: &str) {
        self.found.push(Finding {
            what,
            target: target.into(),
            found: why.lines().next().unwrap_or("no figure").to_owned(),
            met: None,
            part: self.part.key,
        });
    }

    fn outlast(&mut self) {
        let result = &self.part.result;
        let (what, target) = ("twice the load where Icecast stops", "in time");
        if let Some(why) = result.pointer("/missing").and_then(Value::as_str) {
            return self.absent(what.into(), target, why);
        }
        let gbit = |step: &Value| num(step, "/numbers/gbit_per_s").map_or("-".into(), short);
        let met = list(result, "/steps").last();
        let found = met.zip(result.get("twice")).map(|(last, twice)| {
            let kept = twice.get("late").is_some_and(Value::is_null);
            let crowd = num(last, "/listeners").unwrap_or_default();
            let stops = match num(result, "/stops_at") {
                Some(_) => {
                    let busy = num(last, "/numbers/server_busy").unwrap_or_default() * 100.0;
                    format!("Icecast stops at {crowd} ({} Gb/s, CPU {busy:.0}%)", gbit(last))
                }
                None => format!("Icecast served all up to {crowd}"),
            };
            let late = if kept { "in time" } else { word(twice, "/late") };
            let p99 = num(twice, "/numbers/latency_p99_ms").map_or("-".into(), short);
            let double = num(twice, "/listeners").unwrap_or_default();
            (
                format!(
                    "{stops}; relay at {double}: {} Gb/s, p99 {p99} ms, {late}",
                    gbit(twice)
                ),
                kept,
            )
        });
        self.put(what, target, found);
    }

    fn big(&mut self) {
        let result = &self.part.result;
        let cell = cells(result).first().unwrap_or(&Value::Null);
        let crowd = num(cell, "/load/listeners").unwrap_or_default();
        let seconds = num(cell, "/load/seconds").unwrap_or_default();
        let of = |path| figure(cell, "relay", path);
        // With the kernel's packet threads: they work on somebody's processor.
        let busy = of("/server_busy").zip(of("/softirq_seconds").zip(of("/cpu_seconds")));
        let busy = busy.map(|(busy, (packets, own))| busy * (1.0 + packets / own));
        let carried = busy
            .zip(of("/gbit_per_s").zip(of("/delivered_ratio")))
            .map(|(busy, (gbit, due))| {
                let text = format!(
                    "{} Gb/s, {}% of due, {} of a processor with its packet threads",
                    short(gbit),
                    short(due * 100.0),
                    short(busy)
                );
                (text, due >= 0.99 && busy <= 1.0)
            });
        let what = format!("{crowd} × 500 kb/s for {seconds} s from one processor");
        self.put(what, "all of it", carried);
        let harmed = of("/closed").zip(of("/faults").zip(of("/not_served")));
        let harmed = harmed.map(|(closed, (faults, unserved))| closed + faults + unserved);
        self.put(
            format!("closed, unserved or faulty of {crowd}"),
            "0",
            harmed.map(|harmed| (short(harmed), harmed == 0.0)),
        );
        let spread = of("/bytes_min_to_max");
        self.put(
            "slowest over fastest listener",
            "≥ 0.99",
            spread.map(|spread| (short(spread), spread >= 0.99)),
        );
        let user = of("/own_kib_per_listener");
        self.at_most(format!("user memory per listener at {crowd}, KiB"), 1.0, user);
    }

    /// p99 with nothing held back, against three times what N plain sends take on this machine.
    fn delay(&mut self, fanout: Option<&Done>) {
        let nothing = Value::Null;
        let cell = cells(&self.part.result).first().unwrap_or(&nothing);
        let floor = fanout
            .and_then(|part| cells(&part.result).first())
            .unwrap_or(&nothing);
        let rounds = num(floor, "/load/seconds").zip(num(floor, "/load/interval_ms"));
        let rounds = rounds.map(|(seconds, interval)| seconds * 1e3 / interval.max(1.0));
        let all = figure(floor, "floor", "/cpu_seconds").zip(rounds);
        let all = all.map(|(cpu, rounds)| cpu * 1e3 / rounds);
        for (server, name) in [("relay", "io_uring"), ("relay-mio", "epoll")] {
            let of = |path| figure(cell, server, path);
            // What never came has no delay: a percentile of the rest says nothing.
            let due = of("/delivered_ratio").unwrap_or_default();
            let found = of("/latency_p99_ms").zip(all).map(|(p99, all)| {
                let tail = of("/latency_p999_ms").map_or("-".into(), short);
                match due < DELIVERED {
                    true => (format!("only {:.0}% of due was delivered", due * 100.0), false),
                    false => (format!("{} (p99.9 {tail})", short(p99)), p99 <= 3.0 * all),
                }
            });
            let target = match all {
                Some(all) => format!("≤ {} (3 × N sends)", short(3.0 * all)),
                None => "≤ 3 × N sends".into(),
            };
            let what = format!("p99 of delivery with nothing held back, {name}, ms");
            if all.is_none() && of("/latency_p99_ms").is_some() {
                self.absent(what, &target, "it is set against the floor of the part fanout");
            } else if found.is_some() || server == "relay" {
                self.put(what, &target, found);
            }
        }
    }

    fn churn(&mut self) {
        let row = list(&self.part.result, "/runs/0").first().unwrap_or(&Value::Null);
        self.at_most(
            "longest gap of those who stay, churn, ms",
            250.0,
            num(row, "/numbers/gap_max_ms"),
        );
        let (came, heard) = (num(row, "/churn/came"), num(row, "/churn/heard"));
        let found = came
            .zip(heard)
            .map(|(came, heard)| (format!("{heard} of {came}"), heard >= came));
        self.put("newcomers that heard something", "all", found);
    }

    /// As many listeners for each: what they cost must not depend on the others. The crowd is not in it.
    fn workers(&mut self) {
        let steps = || list(&self.part.result, "/steps").iter();
        let beside = steps().filter(|step| num(step, "/workers").is_some_and(|workers| workers > 1.0));
        let rows: Vec<(String, Option<(String, bool)>)> = beside
            .map(|step| {
                // Where bytes came more seldom than from one alone, they came cheaper: that is no comparison.
                let alike = step.get("alike").and_then(Value::as_bool).unwrap_or_default();
                let ratio = num(step, "/efficiency")
                    .filter(|_| alike)
                    .map(|efficiency| 1.0 / efficiency);
                let apart = step.get("apart").and_then(Value::as_bool).unwrap_or_default();
                let bound = if apart {
                    ""
                } else {
                    ", the crowd on their processors"
                };
                let times = num(step, "/times_one").map_or("-".into(), short);
                let workers = num(step, "/workers").unwrap_or_default();
                let found = ratio.map(|ratio| {
                    (
                        format!("{}; {times} times one{bound}", short(ratio)),
                        ratio <= 1.1,
                    )
                });
                (format!("CPU per byte of {workers} workers over one alone"), found)
            })
            .collect();
        if rows.is_empty() {
            self.put("CPU per byte of two workers over one alone", "≤ 1.10", None);
        }
        for (what, found) in rows {
            self.put(what, "≤ 1.10", found);
        }
    }

    fn udp(&mut self) {
        let rows = || list(&self.part.result, "/rows").iter();
        let median = |row: &Value| num(row, "/ns_per_datagram_median");
        let peers = rows().filter_map(|row| num(row, "/peers")).fold(0.0, f64::max);
        let registered = rows().filter(|row| is_driver(row) && word(row, "/way").contains("registered"));
        // Zero copy is what the kernel says it is: a row of which anything was copied shows something else.
        let registered = registered
            .filter(|row| num(row, "/size") == Some(48.0) && num(row, "/copied") == Some(0.0))
            .filter_map(median);
        let registered = registered.min_by(f64::total_cmp);
        // P2PSP's shape: whichever way is the driver's cheapest, against the bare loops on both sides of it.
        let single = rows().filter(|row| is_driver(row) && num(row, "/size") == Some(1.0));
        let times = single
            .filter_map(|row| num(row, "/times_bare"))
            .min_by(f64::total_cmp);
        self.at_most(
            format!("48 datagrams to each of {peers} peers, zero copy, ns of CPU per datagram"),
            45.0,
            registered,
        );
        self.at_most(
            format!("one chunk to each of {peers} peers, over a bare sendmmsg loop"),
            1.05,
            times,
        );
    }

    fn tcp(&mut self) {
        let price = |way: &str| {
            let mut rows = list(&self.part.result, "/rows").iter();
            let row =
                rows.find(|row| word(row, "/way").ends_with(way) && num(row, "/size") == Some(65_536.0));
            row.and_then(|row| num(row, "/ns_per_send_min"))
        };
        let both = price("io_uring, zero copy").zip(price("io_uring, copying"));
        let found = both.map(|(zero, copying)| format!("{} against {} ns", short(zero), short(copying)));
        self.tell("64 KiB over TCP to nobody, zero copy against copying", found);
    }

    fn multicast(&mut self) {
        let rows = || {
            list(&self.part.result, "/rows")
                .iter()
                .filter(|row| num(row, "/size") == Some(48.0))
        };
        let best = |ours: bool| {
            let rows = rows().filter(|row| is_driver(row) == ours);
            rows.filter_map(|row| num(row, "/ns_per_datagram_median"))
                .min_by(f64::total_cmp)
        };
        let (what, found) = match best(true) {
            None => ("multicast × 48, bare sends, ns of CPU per datagram", best(false)),
            ours => ("multicast × 48, ns of CPU per datagram", ours),
        };
        self.at_most(what, 45.0, found);
    }
}

/// The relay's own driver, and no bare system call.
fn is_driver(row: &Value) -> bool {
    word(row, "/way").starts_with("driver")
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
            command: format!("bench-harness {key}"),
            seconds: 1.0,
            status: Some(0),
            lacking: None,
            text: "said".into(),
            result,
        }
    }

    fn met(found: &[Finding]) -> Vec<Option<bool>> {
        found.iter().map(|finding| finding.met).collect()
    }

    #[test]
    fn targets_are_met_or_missed_by_the_numbers() {
        let cell = |ratio: f64| {
            json!({"load": {"interval_ms": 100}, "medians": [
            {"server": "floor", "numbers": {"times_floor": 1.0, "cpu_s_per_gb": 1.0}},
            {"server": "relay", "numbers": {"times_floor": ratio, "cpu_s_per_gb": ratio}},
            {"server": "relay-mio", "numbers": {"times_floor": 1.1, "cpu_s_per_gb": 1.1}}]})
        };
        let found = findings(&[part("fanout", json!({"cells": [cell(1.1), cell(1.2)]}))]);
        assert_eq!(met(&found), [Some(true), Some(true), Some(false), Some(false)]);
        assert!(found.iter().all(|finding| finding.part == "fanout"));
    }

    #[test]
    fn what_could_not_be_measured_is_neither_met_nor_missed() {
        let keys = [
            "fanout",
            "rivals",
            "outlast",
            "big",
            "delay",
            "churn",
            "workers",
            "multicast",
        ];
        let found = findings(&keys.map(|key| part(key, Value::Null)));
        assert!(
            found.len() >= 10 && found.iter().all(|finding| finding.met.is_none()),
            "{found:?}"
        );
        let missing = json!({"missing": "icecast2 is not installed", "steps": [], "twice": null});
        let found = findings(&[part("outlast", missing)]);
        assert_eq!(
            (found[0].met, found[0].found.as_str()),
            (None, "icecast2 is not installed")
        );
    }

    #[test]
    fn a_rival_is_set_against_the_relay_of_the_same_run() {
        let row = |server: &str, cpu: f64, p50: f64| {
            let numbers = json!({"cpu_s_per_gb": cpu, "latency_p50_ms": p50, "delivered_ratio": 1.0});
            json!({"server": server, "numbers": numbers})
        };
        let rows = json!([
            row("relay", 0.35, 50.0),
            row("icecast2", 3.6, 180.0),
            row("nginx-rtmp", 0.3, 2.0)
        ]);
        let found = findings(&[part(
            "rivals",
            json!({"load": {"listeners": 1000}, "medians": rows}),
        )]);
        assert_eq!(met(&found), [Some(true), Some(true), Some(false)]);
        let rows =
            json!([row("relay", 0.35, 50.0), {"server": "icecast2", "numbers": null, "error": "not there"}]);
        let found = findings(&[part(
            "rivals",
            json!({"load": {"listeners": 1000}, "medians": rows}),
        )]);
        assert_eq!((found[0].met, found[0].found.as_str()), (None, "not there"));
    }

    #[test]
    fn twice_the_load_is_served_or_not() {
        let answer = |late: Value| {
            json!({"missing": null, "stops_at": 900,
                "steps": [{"listeners": 900, "numbers": {"gbit_per_s": 1.7, "server_busy": 0.99}}],
                "twice": {"listeners": 1800, "late": late, "numbers": {"gbit_per_s": 3.6, "latency_p99_ms": 110.0}}})
        };
        let found = findings(&[part("outlast", answer(Value::Null))]);
        assert_eq!(met(&found), [Some(true)]);
        assert!(
            found[0]
                .found
                .contains("stops at 900 (1.70 Gb/s, CPU 99%); relay at 1800: 3.60 Gb/s"),
            "{found:?}"
        );
        assert_eq!(
            met(&findings(&[part("outlast", answer(json!("97% came")))])),
            [Some(false)]
        );
    }

    #[test]
    fn a_delay_of_the_few_bytes_that_came_is_no_success() {
        let cell = |server: &str, due: f64| {
            json!({"load": {"interval_ms": 10, "seconds": 6}, "medians": [
            {"server": server, "numbers": {"cpu_seconds": 3.0, "latency_p99_ms": 1.0, "delivered_ratio": due}}]})
        };
        let delay = |due| {
            let parts = [
                part("fanout", json!({"cells": [cell("floor", 1.0)]})),
                part("delay", json!({"cells": [cell("relay", due)]})),
            ];
            findings(&parts).last().unwrap().met
        };
        assert_eq!((delay(1.0), delay(0.08)), (Some(true), Some(false)));
    }

    #[test]
    fn sends_without_a_copy_are_told_beside_those_with_one() {
        let row = |way: &str, ns: f64| json!({"way": way, "size": 65_536, "ns_per_send_min": ns});
        let rows = json!([
            row("relay, mio, copying", 8e3),
            row("relay, io_uring, copying", 7e3),
            row("relay, io_uring, zero copy", 3e3)
        ]);
        let found = findings(&[part("tcp", json!({"rows": rows}))]);
        assert_eq!(
            (found[0].found.as_str(), found[0].verdict()),
            ("3000 against 7000 ns", "")
        );
    }

    #[test]
    fn datagrams_are_priced_by_the_drivers_best_way() {
        let row = |way: &str, size: u32, ns: f64| {
            let median = ns;
            json!({"way": way, "peers": 512, "size": size, "ns_per_datagram_median": median})
        };
        let beside = |mut row: Value, what: &str, value: f64| {
            row[what] = value.into();
            row
        };
        let rows = |copied: f64| {
            json!([
                row("sendmmsg x64", 1, 1800.0),
                row("send, own sockets, GSO", 48, 67.0),
                beside(
                    row("driver on io_uring, one socket", 1, 1850.0),
                    "times_bare",
                    1.02
                ),
                beside(row("driver on mio, own sockets", 1, 2100.0), "times_bare", 1.2),
                beside(
                    row("driver on io_uring, own sockets, registered", 48, 46.0),
                    "copied",
                    copied
                ),
            ])
        };
        let found = findings(&[part("udp", json!({"rows": rows(0.0)}))]);
        assert_eq!(met(&found), [Some(false), Some(true)], "{found:?}");
        let found = findings(&[part("udp", json!({"rows": rows(0.5)}))]);
        assert_eq!(met(&found), [None, Some(true)], "what is copied is no zero copy");
        let group = json!([row("send", 48, 40.0), row("driver on mio, group, GSO", 48, 47.0)]);
        assert_eq!(
            met(&findings(&[part("multicast", json!({"rows": group}))])),
            [Some(false)]
        );
        let bare = json!([row("send", 48, 40.0), row("send", 1, 400.0)]);
        assert_eq!(
            met(&findings(&[part("multicast", json!({"rows": bare}))])),
            [Some(true)]
        );
    }

    #[test]
    fn the_whole_of_a_10_gb_server_is_four_rows() {
        let numbers = json!({"server_busy": 0.8, "softirq_seconds": 1.0, "cpu_seconds": 48.0, "gbit_per_s": 9.75,
            "delivered_ratio": 1.0, "closed": 0.0, "faults": 0.0, "not_served": 0.0, "bytes_min_to_max": 0.995,
            "own_kib_per_listener": 1.2});
        let cell = json!({"load": {"listeners": 19500, "seconds": 60}, "medians": [
            {"server": "relay", "numbers": numbers}]});
        let found = findings(&[part("big", json!({"cells": [cell]}))]);
        assert_eq!(met(&found), [Some(true), Some(true), Some(true), Some(false)]);
    }
}
