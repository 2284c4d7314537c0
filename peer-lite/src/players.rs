//! Opening the stream in whatever player is installed.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// In order of preference, each with the arguments that come before the URL.
const PLAYERS: [(&str, &[&str]); 4] = [
    ("mpv", &["--"]),
    ("vlc", &["--"]),
    ("ffplay", &["-loglevel", "error"]),
    ("xdg-open", &[]),
];

/// Starts the first player there is; it outlives us and our terminal's signals do not reach it.
pub(crate) fn open(url: &str) {
    match PLAYERS
        .into_iter()
        .find_map(|(name, args)| Some((find(name)?, args)))
    {
        Some((program, args)) => start(program, args, url),
        None => tracing::warn!("none of mpv, vlc, ffplay and xdg-open is installed; open {url} in a player"),
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn start(program: PathBuf, args: &[&str], url: &str) {
    let mut command = Command::new(&program);
    command
        .args(args)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    match command.spawn() {
        // Waited for, so that it does not stay behind as a zombie.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => tracing::warn!(
            "{} does not start: {error}; open {url} in a player",
            program.display()
        ),
    }
}
