//! `report`: runs every part as a command of its own, keeps what each of them said, and writes one page about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use nix::unistd::Uid;
use serde::Serialize;
use serde_json::Value;

use crate::compare::beside_us;
use crate::error::{Doing, Error};
use crate::launch::Launch;
use crate::measure::{Heard, publish};
use crate::procfs::Machine;
use crate::report_findings::{Finding, findings};
use crate::report_page;
use crate::report_plan::{Part, Size, parts};
use crate::servers::{Kind, Server, Setup};
use crate::stop::Stop;

/// Longest time for one part of a full report.
const PART_MAX: Duration = Duration::from_secs(3600);
/// Length of the source under a part that needs a server.
const SOURCE_SECONDS: u64 = 600;
const SOURCE_KBPS: u32 = 2000;

/// Where and how much.
pub(crate) struct Plan {
    pub(crate) size: Size,
    pub(crate) out: PathBuf,
    /// Only these parts; all where empty.
    pub(crate) only: Vec<String>,
    pub(crate) relay: Option<PathBuf>,
}

/// What one command left behind.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) command: String,
    pub(crate) seconds: f64,
    /// 0: measured. Others: see `text`.
    pub(crate) status: Option<i32>,
    /// What this part needs and this machine has not: it was not tried.
    pub(crate) lacking: Option<&'static str>,
    pub(crate) text: String,
    pub(crate) result: Value,
}

/// The JSON of a report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) size: String,
    pub(crate) machine: Machine,
    pub(crate) version: &'static str,
    pub(crate) seconds: f64,
    pub(crate) parts: Vec<Done>,
    pub(crate) findings: Vec<Finding>,
}

impl Done {
    /// Why there is no figure.
    pub(crate) fn why_not(&self) -> String {
        if let Some(lacking) = self.lacking {
            return lacking.to_owned();
        }
        if self.status == Some(0) {
            return "not among what it measured".into();
        }
        let last = self.text.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("no figure").trim().to_owned()
    }

    /// Its command ended as it should, or was not tried.
    pub(crate) fn ended_well(&self) -> bool {
        self.lacking.is_some() || self.status == Some(0)
    }

    /// It has its figures, or cannot have them here.
    pub(crate) fn is_fine(&self) -> bool {
        self.lacking.is_some() || !self.result.is_null()
    }
}

/// Measures, and writes `report.json`, `report.html` and `report.md` after each part, so that an interrupted report is
/// one too.
pub(crate) fn run(plan: &Plan, bar: &ProgressBar, stop: &Stop) -> Result<Report, Error> {
    fs::create_dir_all(&plan.out).doing(|| format!("cannot make {}", plan.out.display()))?;
    let start = Instant::now();
    let mut report = Report {
        size: format!("{:?}", plan.size).to_lowercase(),
        machine: Machine::look(),
        version: env!("CARGO_PKG_VERSION"),
        seconds: 0.0,
        parts: Vec::new(),
        findings: Vec::new(),
    };
    let wanted = |part: &Part| plan.only.is_empty() || plan.only.iter().any(|key| key == part.key);
    let parts: Vec<Part> = parts(plan.size).into_iter().filter(wanted).collect();
    bar.set_length(parts.len() as u64);
    for part in parts {
        bar.set_message(part.key);
        let done = with_server(plan, part, stop)?;
        report.parts.push(done);
        report.seconds = start.elapsed().as_secs_f64();
        report.findings = findings(&report.parts);
        write(plan, &report)?;
        bar.inc(1);
    }
    Ok(report)
}

fn write(plan: &Plan, report: &Report) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(report).map_err(std::io::Error::from);
    let written = json.and_then(|json| fs::write(plan.out.join("report.json"), json + "\n"));
    written
        .and_then(|()| fs::write(plan.out.join("report.html"), report_page::page(report)))
        .and_then(|()| fs::write(plan.out.join("report.md"), report_page::markdown(report)))
        .doing(|| format!("cannot write into {}", plan.out.display()))
}

fn with_server(plan: &Plan, mut part: Part, stop: &Stop) -> Result<Done, Error> {
    if part.needs_root && !Uid::effective().is_root() {
        let lacking = Some("it needs root, to make a network namespace");
        let done = done(part, Duration::ZERO, None, String::new(), Value::Null);
        return Ok(Done { lacking, ..done });
    }
    let directory = tempfile::Builder::new().prefix("bench-").tempdir();
    let directory = directory.doing(|| "cannot make a temporary directory".into())?;
    let served = if part.needs_server {
        match serve(plan, directory.path(), stop) {
            Ok(served) => {
                part.args.insert(1, served.0.url.to_string());
                Some(served)
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                part.args.insert(1, "URL".into());
                return Ok(done(part, Duration::ZERO, None, error.to_string(), Value::Null));
            }
        }
    } else {
        if let (Some(relay), true) = (&plan.relay, part.args[0] != "sink") {
            part.args.extend(["--relay".into(), relay.display().to_string()]);
        }
        None
    };
    let outcome = one(part, directory.path(), stop);
    drop(served);
    outcome
}

/// A relay with a stream. What is dropped first ends first: the relay, then its source.
fn serve(plan: &Plan, directory: &Path, stop: &Stop) -> Result<(Server, Heard), Error> {
    let setup = Setup {
        directory,
        relay: plan.relay.clone().or_else(|| beside_us("relay")),
        listeners: 100,
        kbps: SOURCE_KBPS,
        interval: Duration::from_millis(100),
        cpu: None,
        workers: 1,
    };
    let server = setup.start(Kind::Relay, stop)?;
    let source = publish(&server, directory, (SOURCE_KBPS, SOURCE_SECONDS), None, stop)?;
    Ok((server, source))
}

fn one(part: Part, directory: &Path, stop: &Stop) -> Result<Done, Error> {
    let (log, json) = (directory.join("text"), directory.join("json"));
    let (first, rest) = part
        .args
        .split_first()
        .ok_or_else(|| Error::Failed("a part without a command".into()))?;
    let mut launch = Launch::own(first)?;
    for word in rest {
        launch = launch.arg(word);
    }
    let start = Instant::now();
    let mut guard = launch
        .flag("--json", json.display())
        .start(part.key, &log, false)?;
    let status = loop {
        stop.check()?;
        if let Some(status) = guard.ended()? {
            break status.code();
        }
        if start.elapsed() > PART_MAX {
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    let result = fs::read_to_string(&json).unwrap_or_default();
    let result = serde_json::from_str(&result).unwrap_or(Value::Null);
    Ok(done(part, start.elapsed(), status, text, result))
}

/// The command as a person would repeat it: the server that was started for it is gone.
fn command(part: &Part) -> String {
    let url = usize::from(part.needs_server);
    let word = |(at, word): (usize, &String)| match at == url && url > 0 {
        true => "URL".to_owned(),
        false => word.clone(),
    };
    let words: Vec<String> = part.args.iter().enumerate().map(word).collect();
    format!("bench-harness {}", words.join(" "))
}

fn done(part: Part, took: Duration, status: Option<i32>, text: String, result: Value) -> Done {
    Done {
        key: part.key,
        title: part.title,
        about: part.about,
        command: command(&part),
        seconds: took.as_secs_f64(),
        status,
        lacking: None,
        text,
        result,
    }
}
