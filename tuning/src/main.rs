//! `tuning`: audits this host for the relay. See `tuning --help`.

use clap::{Parser, Subcommand};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use tuning::{Demand, RootedHost, Row, Status, check, find, nearest, report};

/// Exit code for a problem under `--strict`.
const EXIT_PROBLEM: u8 = 1;
/// Exit code for a usage error, as clap's own.
const EXIT_USAGE: u8 = 2;

/// Audits this host for the relay: what is there, what is wanted, and what it costs to leave it.
///
/// Nothing is changed. Run it in the shell (or the unit) from which the relay starts: limits are inherited.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  tuning check                        20000 listeners, as a table\n  \
                  tuning check --listeners 1000       a smaller hall needs less\n  \
                  tuning check --json | jq '.rows[] | select(.status != \"ok\")'\n  \
                  tuning explain open-files           the longer reason\n\n\
                  Exit codes: 0 done, 1 a problem was found and --strict was given, 2 usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check everything and print one row each: ok, advice (works, but costs) or problem (will not serve)
    Check {
        /// How many listeners this node shall serve at once; limits and memory are measured against it
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        listeners: u64,
        /// Print JSON (stable: fields are added, never renamed)
        #[arg(long)]
        json: bool,
        /// Exit with 1 if there is a problem row
        #[arg(long)]
        strict: bool,
        /// Read /proc and /sys below this folder: a saved copy, or a container seen from outside
        /// (/proc/PID/root); the live io_uring question is left out then
        #[arg(long, default_value = "/", value_name = "FOLDER")]
        root: PathBuf,
    },
    /// Say why a check exists, what it costs, and what was measured; without KEY, list the keys
    Explain {
        /// A key as printed by `tuning check`
        key: Option<String>,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check {
            listeners,
            json,
            strict,
            root,
        } => {
            let demand = Demand { listeners };
            let rows = check(&RootedHost::new(root), &demand);
            print(&if json {
                report::json(&rows, &demand)
            } else {
                report::table(&rows, &demand, colour())
            });
            exit_code(&rows, strict)
        }
        Command::Explain { key } => explain(key.as_deref()),
    }
}

fn exit_code(rows: &[Row], strict: bool) -> ExitCode {
    let problem = strict && report::count(rows, Status::Problem) > 0;
    ExitCode::from(if problem { EXIT_PROBLEM } else { 0 })
}

fn explain(key: Option<&str>) -> ExitCode {
    let Some(key) = key else {
        print(
            &tuning::checks::ALL
                .iter()
                .map(|check| format!("{}\n", check.key))
                .collect::<String>(),
        );
        return ExitCode::SUCCESS;
    };
    let Some(check) = find(key) else {
        let near = nearest(key);
        eprintln!("tuning: no check is called `{key}`; nearest: `{near}` (`tuning explain` lists all)");
        return ExitCode::from(EXIT_USAGE);
    };
    let paragraphs = check.why.split("\n\n");
    let text: Vec<String> = paragraphs
        .map(|part| report::wrap(part, 80).join("\n") + "\n")
        .collect();
    print(&format!("{}\n\n{}", check.key, text.join("\n")));
    ExitCode::SUCCESS
}

/// Colour only where a person looks and has not asked otherwise (no-color.org).
fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A reader that went away (`| head`) is no error of ours.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
