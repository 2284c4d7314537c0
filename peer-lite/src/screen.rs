//! The status line: rewritten in place on a terminal, now and then a line elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use peer_lite::{Status, TeamStatus};

/// Away from a terminal a line is written so often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where the status line goes.
#[derive(Debug)]
pub(crate) struct Screen {
    quiet: bool,
    terminal: bool,
    last: Option<(Instant, String)>,
}

impl Screen {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            last: None,
        }
    }

    pub(crate) fn show(&mut self, status: &Status) {
        let due = match &self.last {
            None => true,
            Some((at, state)) => self.terminal || at.elapsed() >= LINE_EVERY || *state != status.state,
        };
        if self.quiet || !due {
            return;
        }
        let line = line(status);
        // Somebody may have closed stderr; that is no reason to stop playing.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r\x1b[K{line}"),
            false => writeln!(io::stderr(), "{line}"),
        };
        self.last = Some((Instant::now(), status.state.clone()));
    }

    /// Leaves the last line where it is.
    pub(crate) fn end(&self) {
        if self.terminal && !self.quiet {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(status: &Status) -> String {
    if let Some(team) = &status.team {
        return team_line(status, team);
    }
    if status.via.is_empty() {
        return format!("{:<10} {}", status.state, status.url);
    }
    format!(
        "{:<10} buffer {:>4.1} s  {:>5} kb/s  from {} by {}  {} player{}  {} gap{}{}",
        status.state,
        status.buffer_seconds,
        status.rate_kbps,
        status.source,
        status.via,
        status.listeners,
        plural(status.listeners),
        status.gaps,
        plural(status.gaps),
        status.lan.as_ref().map_or_else(String::new, mended),
    )
}

fn team_line(status: &Status, team: &TeamStatus) -> String {
    if team.state != "member" && team.state != "leaving" {
        return format!("{:<10} {}  {}", team.state, status.url, team.reason);
    }
    format!(
        "{:<10} {} mate{}  received {} relayed {} lost {} again {} debt {}  {:>5} kb/s  {}",
        team.state,
        team.mates,
        plural(team.mates),
        team.received,
        team.relayed,
        team.lost,
        team.duplicates,
        team.debt,
        status.rate_kbps,
        match team.donating {
            true => "helping".to_owned(),
            false => format!("{} player{}", status.listeners, plural(status.listeners)),
        },
    )
}

fn mended(lan: &peer_lite::LanStatus) -> String {
    format!("  mended {} by parity, {} by link", lan.recovered, lan.repaired)
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_says_what_it_takes_and_gives() {
        let mut status = Status {
            url: "p2psp://sun:8001".into(),
            team: Some(TeamStatus {
                state: "waiting".into(),
                reason: "nobody there".into(),
                ..TeamStatus::default()
            }),
            ..Status::default()
        };
        assert_eq!(line(&status), "waiting    p2psp://sun:8001  nobody there");
        status.team = Some(TeamStatus {
            state: "member".into(),
            mates: 1,
            received: 7,
            relayed: 5,
            lost: 2,
            debt: -3,
            ..TeamStatus::default()
        });
        let line = line(&status);
        assert!(
            line.contains("1 mate  received 7 relayed 5 lost 2 again 0 debt -3"),
            "{line}"
        );
    }

    #[test]
    fn the_line_says_what_matters() {
        let status = Status {
            state: "on-air".into(),
            source: "root".into(),
            via: "link".into(),
            buffer_seconds: 7.25,
            rate_kbps: 500,
            listeners: 1,
            ..Status::default()
        };
        let line = line(&status);
        for part in [
            "on-air",
            "7.2 s",
            "500 kb/s",
            "from root by link",
            "1 player ",
            "0 gaps",
        ] {
            assert!(line.contains(part), "{part:?} in {line}");
        }
    }
}
