//! `bench-harness`: see `cli.rs` for what it can do.

use std::process::ExitCode;

use bench_harness::cli::{Cli, run};
use clap::Parser;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-harness: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
