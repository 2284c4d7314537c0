//! `peer-lite URL`: follows a channel and plays it to any local player.

mod players;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use peer_lite::{Options, Peer};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How often the status line and the status file are written.
const TICK: Duration = Duration::from_millis(500);

/// The smallest peer of a Totality relay: follows one channel, plays it to any local player.
///
/// Needs no root, no configuration and no player of a certain kind: whatever opens http://127.0.0.1:9999/ plays,
/// as many players at once as you like. Interruptions of the network are bridged without a gap where the node
/// speaks the link; a plain HTTP or Icecast stream is pulled where it does not.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// The channel: http://NODE:PORT/MOUNT
    url: String,
    /// Where players find it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9999")]
    listen: SocketAddr,
    /// Open it in the first of mpv, vlc, ffplay and the browser that is installed
    #[arg(long)]
    open: bool,
    /// Write the status into FILE once a second, as JSON (also at http://127.0.0.1:9999/status)
    #[arg(long, value_name = "FILE")]
    json_status: Option<PathBuf>,
    /// No status line
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  peer-lite http://relay.example:8000/eclipse.ts --open
  peer-lite http://127.0.0.1:8000/eclipse.ts --listen 127.0.0.1:9999
  mpv http://127.0.0.1:9999/          # while it runs; or vlc, ffplay, a browser
  curl http://127.0.0.1:9999/status   # how it is doing, as JSON

Environment:
  RELAY_AUTH_NODE_TOKEN   the secret of the node's links, if it asks for one (or @FILE)

Exit codes: 0 ended as told, 1 could not run, 2 wrong usage";

fn main() -> ExitCode {
    let args = Args::parse();
    // The status line says the rest.
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(tracing::Level::WARN)
        .with_target(false)
        .init();
    match options(&args) {
        Ok(options) => finish(run(&args, options)),
        Err(why) => fail(&why, 2),
    }
}

fn finish(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fail(&error.to_string(), 2),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => fail(
            &format!("{error}; is a peer running already? --listen takes another address"),
            1,
        ),
        Err(error) => fail(&error.to_string(), 1),
    }
}

fn fail(why: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "peer-lite: {why}");
    ExitCode::from(code)
}

fn options(args: &Args) -> Result<Options, String> {
    let token = token().map_err(|why| format!("RELAY_AUTH_NODE_TOKEN: {why}"))?;
    Ok(Options {
        listen: args.listen,
        token,
        ..Options::new(&args.url)
    })
}

fn token() -> Result<Option<relay_link::Token>, String> {
    let Ok(text) = std::env::var("RELAY_AUTH_NODE_TOKEN") else {
        return Ok(None);
    };
    let secret = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"))?,
        None => text,
    };
    relay_link::Token::new(secret.trim())
        .map(Some)
        .map_err(|e| e.to_string())
}

fn run(args: &Args, options: Options) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let peer = Peer::start(options)?;
    if !args.quiet {
        let _ = writeln!(
            io::stderr(),
            "Following {}\nPlay     {}",
            args.url,
            peer.player_url()
        );
    }
    if args.open {
        players::open(peer.player_url());
    }
    let mut screen = screen::Screen::new(args.quiet);
    while signals.pending().next().is_none() {
        if peer.is_broken() {
            return peer.stop();
        }
        let status = peer.status();
        screen.show(&status);
        if let Some(file) = &args.json_status {
            write_status(file, &status)?;
        }
        std::thread::sleep(TICK);
    }
    screen.end();
    // A second signal ends at once.
    std::thread::spawn(move || signals.forever().next().map(|_| std::process::exit(1)));
    peer.stop()
}

/// Readers never see half a file.
fn write_status(file: &PathBuf, status: &peer_lite::Status) -> io::Result<()> {
    let beside = file.with_added_extension("new");
    std::fs::write(&beside, serde_json::to_string_pretty(status)? + "\n")?;
    std::fs::rename(&beside, file)
}
