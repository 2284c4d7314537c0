//! Plays stories from seeds; stops at the first in which something is wrong.

use std::process::ExitCode;

use clap::Parser;

/// The simulator: real stations on a made-up network and clock.
#[derive(Debug, Parser)]
struct Flags {
    /// How many stories.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// One JSON object a story.
    #[arg(long)]
    json: bool,
    /// Go on after a story in which something is wrong.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let (from, count) = flags.seed.map_or((flags.from, flags.seeds), |seed| (seed, 1));
    let mut bad = 0u64;
    for seed in from..from.saturating_add(count) {
        let outcome = sim::play(seed, flags.trace);
        report(&outcome, flags.json);
        if !outcome.wrongs.is_empty() {
            bad += 1;
            eprintln!("repeat it with: cargo run --release -p sim -- --seed {seed} --trace");
            if !flags.keep_going {
                break;
            }
        }
    }
    if bad > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn report(outcome: &sim::Outcome, json: bool) {
    if json {
        let object = serde_json::json!({
            "seed": outcome.seed, "wrongs": outcome.wrongs, "hash": format!("{:016x}", outcome.hash),
            "events": outcome.events, "simulated_ms": outcome.simulated_ms,
            "checked_bytes": outcome.checked_bytes, "jumps": outcome.jumps,
        });
        return println!("{object}");
    }
    let state = if outcome.wrongs.is_empty() { "ok" } else { "WRONG" };
    println!(
        "seed {:>6}  {state:<5}  {:>6.1} s  {:>7} events  {:>9} bytes checked  {:>3} jumps  {:016x}",
        outcome.seed,
        outcome.simulated_ms as f64 / 1e3,
        outcome.events,
        outcome.checked_bytes,
        outcome.jumps,
        outcome.hash
    );
    outcome.wrongs.iter().for_each(|wrong| println!("    {wrong}"));
}
