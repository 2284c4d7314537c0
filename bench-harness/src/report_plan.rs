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
}

/// Lengths and crowds.
struct Measure {
    listeners: u32,
    kbps: u32,
    big: u32,
    ramp: u32,
    seconds: u32,
    big_seconds: u32,
    soak: u32,
    churn: u32,
    stay: u32,
    round_ms: u32,
    runs: u32,
    steps: &'static str,
}

impl Size {
    fn measure(self) -> Measure {
        match self {
            Size::Smoke => Measure {
                listeners: 4,
                kbps: 800,
                big: 8,
                ramp: 500,
                seconds: 1,
                big_seconds: 1,
                soak: 2,
                churn: 20,
                stay: 4,
                round_ms: 1,
                runs: 1,
                steps: "2,4",
            },
            Size::Quick => Measure {
                listeners: 1000,
                kbps: 2000,
                big: 19_500,
                ramp: 1000,
                seconds: 6,
                big_seconds: 20,
                soak: 40,
                churn: 1000,
                stay: 5000,
                round_ms: 100,
                runs: 1,
                steps: "300,1000,3000",
            },
            Size::Full => Measure {
                listeners: 1000,
                kbps: 2000,
                big: 19_500,
                ramp: 1000,
                seconds: 20,
                big_seconds: 60,
                soak: 1800,
                churn: 1000,
                stay: 5000,
                round_ms: 500,
                runs: 3,
                steps: "300,1000,3000,5000",
            },
        }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// All parts, in the order of the page.
pub(crate) fn parts(size: Size) -> Vec<Part> {
    let Measure {
        listeners,
        kbps,
        big,
        ramp,
        seconds,
        big_seconds,
        soak,
        churn,
        stay,
        round_ms,
        runs,
        steps,
    } = size.measure();
    let part = |key, title, about, line: String| Part {
        key,
        title,
        about,
        args: words(&line),
        needs_server: key == "join",
    };
    let load = format!("--ramp {ramp}/s --warm-up 1");
    vec![
        part(
            "fanout",
            "What a delivered byte costs",
            "CPU time of the server per GB that listeners received. The floor is one plain send() system call \
             per listener \
             and interval, and nothing else. A server that hands its sends to the kernel in batches (io_uring) saves \
             system calls, and can come out below it; `real T` in the table shows whether it batched longer instead.",
            format!(
                "fanout --against floor,mio --listeners {listeners} --kbps {kbps} --intervals 10,40,100,350 --seconds \
                 {seconds} --runs {runs} {load}"
            ),
        ),
        part(
            "icecast",
            "Beside Icecast",
            "The same crowd, the same stream, one after another on the same processor; then twice the crowd.",
            format!(
                "fanout --against floor,icecast2 --listeners {listeners},{} --kbps {kbps} --intervals 100 --seconds \
                 {seconds} --runs {runs} {load}",
                2 * listeners
            ),
        ),
        part(
            "big",
            "A whole 10 Gb/s server from one processor",
            "As many viewers as a classic media server of 10 Gb/s has, at 500 kb/s each.",
            format!(
                "fanout --against floor --listeners {big} --kbps 500 --intervals 200 --seconds {big_seconds} --ramp \
                 {ramp}/s --warm-up 2"
            ),
        ),
        part(
            "delay",
            "Delivery when nothing is held back",
            "max_batch_delay 0: every group goes to everybody at once. The last of N listeners waits for N sends.",
            format!(
                "fanout --listeners {listeners} --kbps {kbps} --intervals 0 --seconds {seconds} --runs {runs} {load}"
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
            "join --count 50".into(),
        ),
        part(
            "churn",
            "People who come and go",
            "Newcomers beside a crowd that stays. Those who stay must not notice.",
            format!(
                "churn --per-second {churn}/s --listeners {stay} --kbps 500 --seconds {seconds} --gap-ms 250 {load}"
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
                "scale --listeners {} --kbps {kbps} --interval-ms 40 --seconds {seconds} --runs {runs} {load}",
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
            "Over loopback, whose receive path runs inside the send: an upper bound.",
            format!("sink tcp --peers 64 --round-ms {round_ms}"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

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
}
