//! `tuning`: audits and tunes this host for the relay, and takes it back. See `tuning --help`.

use clap::{Args, Parser, Subcommand};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tuning::journal::{self, Journal, JournalError};
use tuning::plan::KEEP;
use tuning::{Check, Choice, Demand, Outcome, RootedHost, Row, Status, check, find, nearest, report, said};

/// Exit code for a problem under `--strict`, and for what could not be set or restored.
const EXIT_PROBLEM: u8 = 1;
/// Exit code for a usage error, as clap's own.
const EXIT_USAGE: u8 = 2;

/// Audits and tunes this host for the relay: what is there, what is wanted, what it costs to leave it and to set it.
///
/// Only `apply --yes` and `revert` change anything. Run it in the shell (or the unit) from which the relay starts:
/// limits are inherited.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  tuning check                        20000 listeners, as a table\n  \
                  tuning check --listeners 1000       a smaller hall needs less\n  \
                  tuning check --json | jq '.rows[] | select(.status != \"ok\")'\n  \
                  tuning explain open-files           the longer reason\n  \
                  tuning apply                        what would be set; nothing is\n  \
                  tuning apply --yes                  set it, until the next start\n  \
                  tuning apply --yes --keep           and after it\n  \
                  tuning revert                       as it was before\n\n\
                  Exit codes: 0 done, 1 a problem was found and --strict was given, or something could not be set\n\
                  or restored, 2 usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check everything and print one row each: ok, advice (works, but costs) or problem (will not serve)
    Check {
        #[command(flatten)]
        host: HostArgs,
        /// Exit with 1 if there is a problem row
        #[arg(long)]
        strict: bool,
    },
    /// Say why a check exists, what it costs to leave and to set, and what was measured; without KEY, list the keys
    Explain {
        /// A key as printed by `tuning check`
        key: Option<String>,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Set what is not as it should be, all or nothing; without --yes only say what would be set
    ///
    /// Limits are only raised. Old values are in the journal, on disk, before anything is written. Settings of the
    /// running kernel last until the next start. Keys that write files, take memory or restart a link are only set
    /// when they are named by --with or --only.
    Apply {
        #[command(flatten)]
        host: HostArgs,
        #[command(flatten)]
        keys: KeyArgs,
        /// Set these keys too, which are left alone otherwise
        #[arg(long, value_name = "KEY", num_args = 1.., value_delimiter = ',')]
        with: Vec<String>,
        /// Write; without it nothing is changed
        #[arg(long)]
        yes: bool,
        /// Also write the sysctls, this time's and earlier ones, to /etc/sysctl.d/90-totality.conf for the next start
        #[arg(long)]
        keep: bool,
        /// Set what can be set although something cannot
        #[arg(long)]
        partial: bool,
    },
    /// Restore everything that the journal holds, and remove the files that were made
    Revert {
        #[command(flatten)]
        host: HostArgs,
        #[command(flatten)]
        keys: KeyArgs,
        /// Only say what would be restored
        #[arg(long)]
        dry_run: bool,
        /// Restore also what somebody else has changed since
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
struct HostArgs {
    /// How many listeners this node shall serve at once; limits and memory are measured against it
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    listeners: u64,
    /// Print JSON (stable: fields are added, never renamed)
    #[arg(long)]
    json: bool,
    /// Look at /proc, /sys and /etc below this folder: a saved copy, or a container seen from outside
    /// (/proc/PID/root); io_uring, ethtool and tc are left out then
    #[arg(long, default_value = "/", value_name = "FOLDER")]
    root: PathBuf,
    /// Look at this interface instead of all that are up and have a device (repeatable)
    #[arg(long = "card", value_name = "NAME")]
    cards: Vec<String>,
}

impl HostArgs {
    fn demand(&self) -> Demand {
        Demand {
            listeners: self.listeners,
        }
    }

    fn host(&self) -> RootedHost {
        RootedHost::new(&self.root).with_cards(self.cards.clone())
    }
}

#[derive(Args)]
struct KeyArgs {
    /// Only these keys (as printed by `tuning check`)
    #[arg(long, value_name = "KEY", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,
    /// All but these keys
    #[arg(long, value_name = "KEY", num_args = 1.., value_delimiter = ',')]
    except: Vec<String>,
    /// The journal [default: /var/lib/totality/tuning-journal.json, below --root]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

impl KeyArgs {
    fn journal(&self, root: &Path) -> PathBuf {
        let default = || root.join(journal::DEFAULT.trim_start_matches('/'));
        self.journal.clone().unwrap_or_else(default)
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check { host, strict } => check_host(&host, strict),
        Command::Explain { key, host } => explain(key.as_deref(), &host),
        Command::Apply {
            host,
            keys,
            with,
            yes,
            keep,
            partial,
        } => {
            let journal = keys.journal(&host.root);
            let choice = Choice {
                only: keys.only,
                except: keys.except,
                with,
            };
            unknown(&choice).unwrap_or_else(|| {
                let how = How { yes, keep, partial };
                apply(&host, &choice, &journal, &how)
            })
        }
        Command::Revert {
            host,
            keys,
            dry_run,
            force,
        } => {
            let journal = keys.journal(&host.root);
            let choice = Choice {
                only: keys.only,
                except: keys.except,
                with: Vec::new(),
            };
            unknown(&choice).unwrap_or_else(|| revert(&host, &choice, &journal, dry_run, force))
        }
    }
}

fn check_host(arguments: &HostArgs, strict: bool) -> ExitCode {
    let demand = arguments.demand();
    let rows = check(&arguments.host(), &demand);
    print(&if arguments.json {
        report::json(&rows, &demand)
    } else {
        report::table(&rows, &demand, colour())
    });
    exit_code(&rows, strict)
}

/// The switches of `apply`.
struct How {
    yes: bool,
    keep: bool,
    partial: bool,
}

fn apply(arguments: &HostArgs, choice: &Choice, journal: &Path, how: &How) -> ExitCode {
    let host = arguments.host();
    let mut plan = tuning::plan(&host, &arguments.demand(), choice);
    let kept = if how.keep {
        keep(&host, &mut plan, journal)
    } else {
        Ok(())
    };
    let done = kept.and_then(|()| {
        if how.yes {
            tuning::apply(&host, &plan, journal, how.partial)
        } else {
            Ok(tuning::rehearse(&host, &plan))
        }
    });
    finish(done, |outcomes| {
        if arguments.json {
            said::apply_json(&plan, outcomes, how.yes)
        } else {
            said::apply(&plan, outcomes, how.yes, journal)
        }
    })
}

fn keep(host: &RootedHost, plan: &mut tuning::Plan, journal: &Path) -> Result<(), JournalError> {
    let journal = Journal::existing(journal)?;
    tuning::plan::keep(host, plan, journal.as_ref().map_or(&[], Journal::entries));
    Ok(())
}

fn revert(arguments: &HostArgs, choice: &Choice, journal: &Path, dry: bool, force: bool) -> ExitCode {
    let done = tuning::revert(&arguments.host(), journal, choice, force, dry);
    finish(done, |outcomes| {
        if arguments.json {
            said::revert_json(outcomes, dry)
        } else {
            said::revert(outcomes, dry, journal)
        }
    })
}

fn finish(done: Result<Vec<Outcome>, JournalError>, text: impl Fn(&[Outcome]) -> String) -> ExitCode {
    match done {
        Ok(outcomes) => {
            print(&text(&outcomes));
            ExitCode::from(if outcomes.iter().any(Outcome::bad) {
                EXIT_PROBLEM
            } else {
                0
            })
        }
        Err(error) => {
            eprintln!("tuning: {error}");
            ExitCode::from(EXIT_PROBLEM)
        }
    }
}

fn exit_code(rows: &[Row], strict: bool) -> ExitCode {
    let problem = strict && report::count(rows, Status::Problem) > 0;
    ExitCode::from(if problem { EXIT_PROBLEM } else { 0 })
}

/// The exit code for a key that does not exist, after saying so.
fn unknown(choice: &Choice) -> Option<ExitCode> {
    let mut keys = choice.named().filter(|key| *key != KEEP);
    keys.find_map(|key| known(key).err())
}

fn known(key: &str) -> Result<&'static Check, ExitCode> {
    find(key).ok_or_else(|| {
        let near = nearest(key);
        eprintln!("tuning: no check is called `{key}`; nearest: `{near}` (`tuning explain` lists all)");
        ExitCode::from(EXIT_USAGE)
    })
}

fn explain(key: Option<&str>, arguments: &HostArgs) -> ExitCode {
    let Some(key) = key else {
        print(&said::keys(arguments.json));
        return ExitCode::SUCCESS;
    };
    let check = match known(key) {
        Ok(check) => check,
        Err(code) => return code,
    };
    let host = arguments.host();
    print(&said::explain(check, &host, &arguments.demand(), arguments.json));
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
