//! The command line.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{Arg, ArgAction};
use clap::{ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::config::{KEYS, Key, Shape};
use crate::{check, demo, keygen, start, status};

/// Flags that `-h` shows; `--help` shows all.
const COMMON: &[&str] = &[
    "listen",
    "workers",
    "backend",
    "max-batch-delay",
    "upstream",
    "source",
    "loop",
    "mount",
    "team",
    "access-log",
    "log",
];

/// Totality: a live relay. One stream in, a crowd of listeners out, more relays behind it.
#[derive(Debug, Parser)]
#[command(name = "relay", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

const EXAMPLES: &str = "\
First steps:
  relay demo                              see the whole chain at work on this machine
  relay run                               a root on 127.0.0.1:8000; it says how to publish
  relay run --source film.ts --loop       ... with a channel from a file
  relay run --upstream http://root:8000   a repeater: any channel of another node, on demand
  relay <command> --help                  more examples

Exit codes: 0 ended as told, 1 could not run, 2 wrong usage or configuration";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a node
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Show a root, a repeater and a peer at work on this machine, with a built-in picture
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(demo::Options),
    /// Check a configuration and print what is in force
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Print a fresh random secret: a password or a node token
    #[command(
        after_help = "Example:\n  relay keygen > node-token && RELAY_AUTH_NODE_TOKEN=@node-token relay run"
    )]
    Keygen,
    /// Show how a running node is doing
    #[command(
        after_help = "Examples:\n  relay status\n  relay status http://root:8000 --json | jq .channels"
    )]
    Status(status::Options),
}

const RUN_EXAMPLES: &str = "\
Examples:
  A root for the world, and ffmpeg that publishes to it:
    export RELAY_AUTH_SOURCE_PASSWORD=$(relay keygen)
    relay run --listen [::]:8000
    ffmpeg -re -i film.mp4 -c copy -f mpegts -content_type video/mp2t \\
      icecast://source:$RELAY_AUTH_SOURCE_PASSWORD@127.0.0.1:8000/film.ts
  A repeater with a spare upstream, and one that always carries a certain channel:
    relay run --listen [::]:8000 --upstream http://root-a:8000 --upstream http://root-b:8000
    relay run --upstream http://root-a:8000/film.ts
  A channel pulled from an Icecast server, and one from a pipe:
    relay run --upstream pull+http://radio.example:8000/stream.ogg
    ffmpeg -re -i film.mp4 -c copy -f mpegts - | relay run --source - --mount /film.ts
  A channel that peers spread among themselves, and one of them:
    relay run --source film.ts --loop --team /film.ts
    peer-lite p2psp://127.0.0.1:8001

Every flag (--help shows all of them) is also a key of the file and a variable:
  --limits-ring 8MiB     [limits] ring = \"8MiB\"     RELAY_LIMITS_RING=8MiB
Flags go before variables, variables before the file. Secrets are never flags; each may be @FILE:
  RELAY_AUTH_SOURCE_PASSWORD   for publishing, as user `source`
  RELAY_AUTH_ADMIN_PASSWORD    for /admin, as user `admin`
  RELAY_AUTH_NODE_TOKEN        for links between nodes";

const DEMO_EXAMPLES: &str = "\
Examples:
  relay demo                 until Ctrl-C
  relay demo --seconds 20    ends by itself and says whether every hop worked
  relay demo --port 8100     on other ports: 8100, 8110 and 10099";

const CHECK_EXAMPLES: &str = "\
Examples:
  relay check -c relay.toml           exit code 0 if it can be used, 2 if not
  relay check --example > relay.toml  every key with its default, explained";

#[derive(Debug, Args)]
struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
struct Check {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", env = "RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// Print an example file instead: every key with its default, explained
    #[arg(long)]
    example: bool,
    #[command(flatten)]
    flags: Flags,
}

/// The flags of the table of keys: what was given, by `section.name`.
#[derive(Clone, Debug, Default)]
struct Flags(BTreeMap<String, Vec<String>>);

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &Key| Some(matches.get_many::<String>(key.flag?)?.cloned().collect());
        Ok(Self(
            KEYS.iter()
                .filter_map(|key| Some((key.id(), given(key)?)))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        KEYS.iter()
            .filter_map(|key| Some((key, key.flag?)))
            .fold(command, |command, (key, flag)| command.arg(arg(key, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(key: &'static Key, flag: &'static str) -> Arg {
    let default = match key.default {
        "" | "[]" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let arg = Arg::new(flag)
        .long(flag)
        .value_name(key.value)
        .help(format!("{}{default}", key.help))
        .help_heading(heading(key.section))
        .hide_short_help(!COMMON.contains(&flag))
        .allow_hyphen_values(key.name == "source" || key.name == "access");
    match key.shape {
        Shape::List => arg.action(ArgAction::Append),
        Shape::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        _ => arg,
    }
}

fn heading(section: &str) -> &'static str {
    match section {
        "server" => "Serving",
        "limits" => "Limits",
        "source" => "Sources",
        "upstreams" => "Upstreams",
        "local" => "A channel from here",
        "team" => "A team of peers",
        _ => "Logs",
    }
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Verb::Run(run) => start::run(run.config.as_deref(), &run.flags.0),
        Verb::Demo(options) => demo::run(&options),
        Verb::Check(check) if check.example => print(&crate::config::example()),
        Verb::Check(check) => check::run(check.config.as_deref(), &check.flags.0),
        Verb::Keygen => keygen::secret()
            .map_err(Failure::from)
            .and_then(|secret| print(&format!("{secret}\n"))),
        Verb::Status(options) => status::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "relay: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ends with another code than 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 1: it could not run; 2: wrong usage or configuration.
    pub code: u8,
    /// For people: who, what was expected, what came, what to do.
    pub text: String,
}

impl Failure {
    /// It could not run.
    pub fn runtime(text: impl ToString) -> Self {
        Self {
            code: 1,
            text: text.to_string(),
        }
    }

    /// It was told something that cannot be.
    pub fn usage(text: impl ToString) -> Self {
        Self {
            code: 2,
            text: text.to_string(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::runtime(error)
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self::usage(error)
    }
}

/// Writes to standard output. Somebody who reads no more (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn flags(args: &[&str]) -> Result<BTreeMap<String, Vec<String>>, clap::Error> {
        let args = ["relay", "run"].iter().chain(args);
        Cli::try_parse_from(args).map(|cli| match cli.command {
            Verb::Run(run) => run.flags.0,
            _ => BTreeMap::new(),
        })
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_keys() {
        let given = flags(&[
            "--listen",
            "[::]:1",
            "--page=false",
            "--loop",
            "--upstream",
            "a",
            "--upstream",
            "b",
        ])
        .unwrap();
        assert_eq!(given["server.listen"], ["[::]:1"]);
        assert_eq!(given["server.page"], ["false"]);
        assert_eq!(given["local.loop"], ["true"]);
        assert_eq!(given["upstreams.list"], ["a", "b"]);
        assert_eq!(given.len(), 4);
    }

    #[test]
    fn standard_input_is_a_dash() {
        assert_eq!(
            flags(&["--source", "-", "--access-log", "-"]).unwrap()["local.source"],
            ["-"]
        );
    }

    #[test]
    fn secrets_have_no_flags() {
        assert_eq!(
            flags(&["--auth-source-password", "x"]).unwrap_err().exit_code(),
            2
        );
    }
}
