//! `peer-lite URL`: follows a channel and plays it to any local player.

mod players;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use peer_lite::{Lan, Options, Peer, TeamOptions};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use splitter::Dialect;

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
    /// The channel: http://NODE:PORT/MOUNT; or a team: p2psp://SPLITTER:PORT
    #[arg(required_unless_present = "lan")]
    url: Option<String>,
    /// Hear it by IP multicast from this group; a URL beside it names the node that repairs what is lost. auto: the
    /// group that the node announces for the URL. SENDER@ takes it from one sender only
    #[arg(long, value_name = "[SENDER@]GROUP:PORT|auto", conflicts_with = "team")]
    lan: Option<String>,
    /// The network interface on which the group is heard, by name or address
    #[arg(long, value_name = "IFACE", requires = "lan")]
    multicast_if: Option<String>,
    /// Where players find it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9999")]
    listen: SocketAddr,
    /// Open it in the first of mpv, vlc, ffplay and the browser that is installed
    #[arg(long)]
    open: bool,
    /// Write the status into FILE once a second, as JSON (also at http://127.0.0.1:9999/status)
    #[arg(long, value_name = "FILE")]
    json_status: Option<PathBuf>,
    /// Join the team that the node leads with this channel (relay run --team)
    #[arg(long)]
    team: bool,
    /// In a team: what it speaks, b or c (the splitter's --wire)
    #[arg(long, value_enum, default_value_t = Wire::B)]
    wire: Wire,
    /// In a team: send others at most so many bits per second, such as 2Mbit/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    upload_cap: Option<u64>,
    /// In a team: only help, play nothing
    #[arg(long)]
    donate: bool,
    /// In a team: say that this is a monitor, whose reports of losses get others expelled
    #[arg(long)]
    monitor: bool,
    /// In a team: do not report losses (splitters other than ours may expel members for them)
    #[arg(long)]
    no_reports: bool,
    /// No status line
    #[arg(long, short)]
    quiet: bool,
}

/// What a team speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wire {
    B,
    C,
}

/// `500kbit/s`, `2Mbit/s`, or bits per second.
fn rate(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches("bit/s");
    let (number, unit) = match number.as_bytes().last() {
        Some(b'k') => (&number[..number.len() - 1], 1_000),
        Some(b'M') => (&number[..number.len() - 1], 1_000_000),
        _ => (number, 1),
    };
    let bits = number.parse().ok().and_then(|n: u64| n.checked_mul(unit));
    bits.ok_or_else(|| format!("expected a rate such as 500kbit/s or 2Mbit/s, got {text:?}"))
}

const EXAMPLES: &str = "\
Examples:
  peer-lite http://relay.example:8000/eclipse.ts --open
  peer-lite http://127.0.0.1:8000/eclipse.ts --listen 127.0.0.1:9999
  mpv http://127.0.0.1:9999/          # while it runs; or vlc, ffplay, a browser
  peer-lite p2psp://192.168.1.10:8001 --upload-cap 2Mbit/s
  curl http://127.0.0.1:9999/status   # how it is doing, as JSON
  peer-lite --lan 239.255.42.1:5004 --multicast-if eth0
  peer-lite http://relay.example:8000/eclipse.ts --lan auto

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
        lan: lan(args)?,
        token,
        join_team: args.team,
        team: TeamOptions {
            wire: match args.wire {
                Wire::B => Dialect::B,
                Wire::C => Dialect::C,
            },
            upload_cap: args.upload_cap,
            donate: args.donate,
            monitor: args.monitor,
            report_losses: !args.no_reports,
        },
        ..Options::new(args.url.as_deref().unwrap_or_default())
    })
}

/// The group that was named, or that the node announces.
fn lan(args: &Args) -> Result<Option<Lan>, String> {
    let Some(text) = &args.lan else { return Ok(None) };
    let lan = match text.as_str() {
        "auto" => peer_lite::announced(args.url.as_deref().unwrap_or_default())
            .map_err(|why| format!("--lan auto: {why}"))?,
        text => Lan::parse(text).ok_or_else(|| {
            format!(
                "--lan: expected [SENDER@]GROUP:PORT with a group in 224.0.0.0/4 or ff00::/8, such as \
                 239.255.42.1:5004, or auto; got {text:?}"
            )
        })?,
    };
    Ok(Some(Lan {
        interface: args.multicast_if.clone(),
        ..lan
    }))
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
            peer.status().url,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_people_write_them() {
        assert_eq!(rate("2Mbit/s"), Ok(2_000_000));
        assert_eq!(rate("500kbit/s"), Ok(500_000));
        assert_eq!(rate("64000"), Ok(64_000));
        for bad in [
            "",
            "fast",
            "2Gbit/s",
            "-1",
            "99999999999999999999",
            "18446744073709551615k",
        ] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
