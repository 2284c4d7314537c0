//! What a report measures: each part is one command of this program, so that any figure can be made again by hand.

/// Which size of report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Some seconds, to see that all of it works; its numbers mean nothing.
    Smoke,
    /// Ten minutes at most.
    Quick,
    /// Windows of a minute, medians of three runs, a soak of half an hour.
    Full,
}

/// One part of a report.
pub(crate) struct Part {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    /// What follows the program's name; without `--json`.
    pub(crate) args: Vec<String>,
    /// It needs a running server, whose URL is put behind its first word.
    pub(crate) needs_server: bool,
    /// It makes a network namespace.
    pub(crate) needs_root: bool,
}

/// Lengths and crowds.
struct Measure {
    listeners: u32,
    kbps: u32,
    intervals: &'static str,
    /// Windows of what is measured `runs` times.
    seconds: u32,
    runs: u32,
    big: u32,
    big_seconds: u32,
    /// Whom to set beside the relay there.
    big_against: &'static str,
    ramp: u32,
    warm_up: u32,
    /// The first crowd that another server meets, and how crowds grow.
    rival: u32,
    factor: f32,
    soak: u32,
    churn: u32,
    stay: u32,
    gap_ms: u32,
    joins: u32,
    round_ms: u32,
    steps: &'static str,
}

impl Size {
    fn measure(self) -> Measure {
        match self {
            Size::Smoke => Measure {
                listeners: 4,
                kbps: 800,
                intervals: "10,350",
                seconds: 1,
                runs: 1,
                big: 8,
                big_seconds: 1,
                big_against: "floor",
                ramp: 500,
                warm_up: 0,
                rival: 4,
                factor: 8.0,
                soak: 2,
                churn: 20,
                stay: 4,
                gap_ms: 60_000,
                joins: 5,
                round_ms: 1,
                steps: "2,4",
            },
            // Ten minutes: what is compared is a median of three short windows, the large crowd has one long one.
            Size::Quick => Measure {
                listeners: 1000,
                kbps: 2000,
                intervals: "10,40,100,350",
                seconds: 3,
                runs: 3,
                big: 19_500,
                big_seconds: 60,
                big_against: "",
                ramp: 2000,
                warm_up: 1,
                rival: 700,
                factor: 1.25,
                soak: 15,
                churn: 1000,
                stay: 5000,
                gap_ms: 250,
                joins: 50,
                round_ms: 100,
                steps: "300,1000,3000",
            },
            Size::Full => Measure {
                listeners: 1000,
                kbps: 2000,
                intervals: "10,40,100,350",
                seconds: 20,
                runs: 3,
                big: 19_500,
                big_seconds: 60,
                big_against: "floor,mio",
                ramp: 1000,
                warm_up: 2,
                rival: 400,
                factor: 1.1,
                soak: 1800,
                churn: 1000,
                stay: 5000,
                gap_ms: 250,
                joins: 200,
                round_ms: 500,
                steps: "300,1000,3000,5000",
            },
        }
    }
}

/// Newcomers per second that any server takes.
const GENTLE: u32 = 500;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// All parts, in the order of the page.
pub(crate) fn parts(size: Size) -> Vec<Part> {
    let Measure {
        listeners,
        kbps,
        intervals,
        seconds,
        runs,
        big,
        big_seconds,
        big_against,
        ramp,
        warm_up,
        rival,
        factor,
        soak,
        churn,
        stay,
        gap_ms,
        joins,
        round_ms,
        steps,
    } = size.measure();
    let part = |key, title, about, line: String| Part {
        key,
        title,
        about,
        args: words(&line),
        needs_server: key == "join",
        needs_root: matches!(key, "udp" | "multicast" | "tcp"),
    };
    let load = format!("--ramp {ramp}/s --warm-up {warm_up}");
    // Other servers may not take newcomers as fast as they come to ours: that is not what is asked here.
    let gentle = format!("--ramp {}/s --warm-up {warm_up}", ramp.min(GENTLE));
    let big_against = match big_against {
        "" => String::new(),
        names => format!(" --against {names}"),
    };
    vec![
        part(
            "fanout",
            "What a delivered byte costs",
            "CPU time of the server per GB that listeners received. The floor is one plain send() system call \
             per listener \
             and interval, and nothing else. A server that hands its sends to the kernel in batches (io_uring) saves \
             system calls, and can come out below it; `real T` in the table shows whether it batched longer instead.",
            format!(
                "fanout --against floor,mio --listeners {listeners} --kbps {kbps} --intervals {intervals} --seconds \
                 {seconds} --runs {runs} {load}"
            ),
        ),
        part(
            "rivals",
            "Beside other servers",
            "The same crowd, the same rate, one after another on the same processor. Players of nginx-rtmp are sent \
             pictures over RTMP, each when it is made; the others are sent a transport stream.",
            format!(
                "compare --against icecast2,nginx-rtmp --listeners {listeners} --kbps {kbps} --interval-ms 100 \
                 --seconds {seconds} --runs {runs} {gentle}"
            ),
        ),
        part(
            "outlast",
            "Twice the load where Icecast stops",
            "Icecast meets growing crowds until one is not served in time; then the relay meets twice that crowd.",
            format!("outlast --from {rival} --factor {factor} --kbps {kbps} --seconds {seconds} {gentle}"),
        ),
        part(
            "big",
            "A whole 10 Gb/s server from one processor",
            "As many viewers as a classic media server of 10 Gb/s has, at 500 kb/s each.",
            format!(
                "fanout{big_against} --listeners {big} --kbps 500 --intervals 200 --seconds {big_seconds} --ramp \
                 {ramp}/s --warm-up {}",
                2 * warm_up
            ),
        ),
        part(
            "delay",
            "Delivery when nothing is held back",
            "max_batch_delay 0: every group goes to everybody at once. The last of N listeners waits for N sends.",
            format!(
                "fanout --against mio --listeners {listeners} --kbps {kbps} --intervals 0 --seconds {seconds} --runs \
                 {runs} {load}"
            ),
        ),
        part(
            "latency",
            "Through a chain",
            "Root, two repeaters and a peer, all heard at once. Every time counts from when a group was due at \
             the source.",
            format!("latency --interval-ms 0 --listeners 20 --kbps {kbps} --seconds {seconds} {load}"),
        ),
        part(
            "join",
            "How long a newcomer waits",
            "From connect to the first byte, and to everything that a decoder needs for a picture (PAT, PMT, an IDR \
             picture), at all phases of a 2 s group of pictures.",
            format!("join --count {joins}"),
        ),
        part(
            "churn",
            "People who come and go",
            "Newcomers beside a crowd that stays. Those who stay must not notice.",
            format!(
                "churn --per-second {churn}/s --listeners {stay} --kbps 500 --seconds {seconds} --gap-ms {gap_ms} \
                 {load}"
            ),
        ),
        part(
            "capacity",
            "How many viewers this host carries",
            "A few crowds are measured; what a viewer costs tells where CPU, memory and open files run out.",
            format!("capacity --kbps {kbps} --steps {steps} --seconds {seconds} {load}"),
        ),
        part(
            "workers",
            "Two workers against one",
            "CPU time of a worker's own thread over the bytes it told: alone, and beside others with as many listeners \
             each. Crowd and source are not in it; where they have no processor of their own they bound the Gb/s, not \
             the cost.",
            format!(
                "scale --listeners {} --kbps {kbps} --interval-ms 10 --seconds {seconds} --runs {runs} {load}",
                listeners.div_ceil(2)
            ),
        ),
        part(
            "soak",
            "A longer run",
            "Memory and open files over time, with newcomers beside the crowd.",
            format!("soak --listeners {listeners} --kbps 500 --churn 20 --seconds {soak} {load}"),
        ),
        part(
            "udp",
            "What the kernel asks for a datagram",
            "No server in it: sends into an ifb device in a namespace, through the whole transmit path. One trip costs \
             about the same for one datagram as for twelve; segmentation (GSO) divides it.",
            format!("sink udp --round-ms {round_ms}"),
        ),
        part(
            "multicast",
            "What the kernel asks for a group",
            "One send whatever the number of receivers.",
            format!("sink multicast --round-ms {round_ms}"),
        ),
        part(
            "tcp",
            "What the kernel asks for a TCP send",
            "Connections to nobody (TCP_REPAIR), into the same device: the whole way out, and no acknowledgements. \
             Zero copy pays from some KiB a send on.",
            format!("sink tcp --peers 64 --round-ms {round_ms}"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory, Parser};

    #[test]
    fn every_part_is_a_command_that_we_understand() {
        for size in [Size::Smoke, Size::Quick, Size::Full] {
            for mut part in parts(size) {
                if part.needs_server {
                    part.args.insert(1, "http://127.0.0.1:1/a.ts".into());
                }
                let line = [vec!["bench-harness".to_owned()], part.args].concat();
                assert!(Cli::try_parse_from(&line).is_ok(), "{line:?}");
            }
        }
    }

    /// So that a smoke report is a smoke test of the whole bench.
    #[test]
    fn every_command_is_in_a_report() {
        // These are what others are made of: a floor, a source and a crowd are in every comparison.
        let inside = ["source", "listeners", "floor", "report", "help"];
        let used: Vec<String> = parts(Size::Smoke)
            .into_iter()
            .map(|part| part.args[0].clone())
            .collect();
        let cli = Cli::command();
        for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(
                inside.contains(&name) || used.iter().any(|used| used == name),
                "{name}"
            );
        }
    }

    /// Waiting is what takes most of the time; it adds up from the words of the commands.
    #[test]
    fn a_quick_report_fits_into_ten_minutes() {
        let number = |part: &Part, flag: &str| -> Option<f64> {
            let at = part.args.iter().position(|word| word == flag)?;
            part.args[at + 1].trim_end_matches("/s").parse().ok()
        };
        let count = |part: &Part, flag: &str| {
            let at = part.args.iter().position(|word| word == flag);
            at.map_or(1, |at| part.args[at + 1].split(',').count()) as f64
        };
        let whole: f64 = parts(Size::Quick)
            .iter()
            .map(|part| {
                let Some(window) = number(part, "--seconds") else {
                    return 10.0;
                };
                let crowd = number(part, "--listeners").unwrap_or(2000.0);
                let ramp = number(part, "--ramp").map_or(0.0, |rate| crowd / rate);
                // Start and end of server, source and crowd took 0.7 s where it was measured.
                let one = window + ramp + number(part, "--warm-up").unwrap_or(2.0) + 1.0;
                let servers = match part.args[0].as_str() {
                    "outlast" => 6.0,
                    "scale" => 2.0,
                    "fanout" | "compare" => {
                        1.0 + count(part, "--against")
                            * f64::from(u8::from(part.args.iter().any(|word| word == "--against")))
                    }
                    _ => count(part, "--steps"),
                };
                one * servers * count(part, "--intervals") * number(part, "--runs").unwrap_or(1.0)
            })
            .sum();
        assert!(whole < 580.0, "{whole} s");
    }
}
