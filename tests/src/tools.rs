//! Real encoders and players.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::world::Host;

/// Whether a program is installed.
pub fn have(program: &str) -> bool {
    tool(program).is_some()
}

/// Where a program is.
pub fn tool(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(program))
        .find(|path| path.exists())
}

/// Whether namespaces and the like may be had.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether something that a scenario needs is missing. It is said, and with `CI` set it is a failure.
///
/// # Panics
///
/// In CI, when something is missing.
pub fn lacks(scenario: &str, root: bool, programs: &[&str]) -> bool {
    let mut missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !have(program))
        .collect();
    if root && !is_root() {
        missing.push("root");
    }
    if missing.is_empty() {
        return false;
    }
    let text = format!("{scenario} cannot run: it needs {}", missing.join(", "));
    let ci = std::env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"));
    assert!(!ci, "{text}");
    note_missing(&text);
    true
}

/// Says that something was not done, where the summary of `tests/run` finds it.
pub fn note_missing(text: &str) {
    eprintln!("{text}");
    // Runners keep what a passing test says to themselves: the summary of `tests/run` reads this.
    if let Some(file) = std::env::var_os("TOTALITY_SKIPPED") {
        let noted = std::fs::OpenOptions::new().create(true).append(true).open(file);
        let _ =
            noted.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes()));
    }
}

/// Runs ffmpeg on a host, with what it says kept.
pub fn ffmpeg(host: &Host, name: &str, args: &[&str]) -> Process {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-hide_banner", "-nostdin", "-v", "error"])
        .args(args);
    Process::start(host, name, command)
}

/// Publishes a test picture with sound in real time, encoded by `encode`, to `url`.
pub fn publish(host: &Host, name: &str, encode: &[&str], url: &str) -> Process {
    let input = [
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x180:rate=25",
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=440:sample_rate=44100",
    ];
    let args: Vec<&str> = input.iter().chain(encode).copied().chain([url]).collect();
    ffmpeg(host, name, &args)
}

/// Lets ffmpeg play a URL for so many seconds; what it complained about.
pub fn play(host: &Host, url: &str, seconds: u32, options: &[&str]) -> Result<(), String> {
    let seconds = seconds.to_string();
    let tail = ["-i", url, "-t", &seconds, "-f", "null", "-"];
    let args: Vec<&str> = options.iter().chain(&tail).copied().collect();
    let name = format!("player-{}", unique());
    let mut player = ffmpeg(host, &name, &args);
    let status = player.wait(Duration::from_secs(40));
    let said = player.said();
    match status {
        None => Err(format!(
            "{url}: the player did not come to an end; it said {said:?}"
        )),
        Some(status) if !status.success() || !said.is_empty() => Err(format!("{url}: {status}: {said}")),
        Some(_) => Ok(()),
    }
}

/// Whether ffmpeg decodes a file without a word.
pub fn decodes(host: &Host, path: &Path) -> Result<(), String> {
    play(host, &path.display().to_string(), 600, &[])
}

/// Runs VLC without a face, as nobody: it refuses root.
pub fn vlc(host: &Host, name: &str, args: &[&str]) -> Process {
    let mut command = as_nobody("vlc");
    let home = host.file(&format!("{name}-home"));
    std::fs::create_dir_all(&home).unwrap();
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    command
        .env("HOME", home)
        .args(["-I", "dummy", "--no-interact"])
        .args(args);
    Process::start(host, name, command)
}

/// Runs Icecast with this configuration.
pub fn icecast(host: &Host, name: &str, xml: &str) -> Process {
    let path = host.file(&format!("{name}.xml"));
    std::fs::write(&path, xml).unwrap();
    let mut command = as_nobody("icecast2");
    command.arg("-c").arg(path);
    Process::start(host, name, command)
}

/// A program as the user nobody, if we may choose.
fn as_nobody(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
    command
}

fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
