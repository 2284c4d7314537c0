//! The relay's program.

fn main() -> std::process::ExitCode {
    relay::cli::run()
}
