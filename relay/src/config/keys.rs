//! The table of keys: everything that can be configured, once. Flags, environment, file, `relay check` and the example
//! file are all read off it.

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its table in the file.
    pub section: &'static str,
    /// Its name in that table.
    pub name: &'static str,
    /// Its flag, without the dashes; none for secrets.
    pub flag: Option<&'static str>,
    /// What its value looks like, for help.
    pub value: &'static str,
    /// Its default as it would be written in the file; empty: unset.
    pub default: &'static str,
    /// How it is written.
    pub shape: Shape,
    /// What it is, with units; whole sentences.
    pub help: &'static str,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string in the file.
    Text,
    /// A number in the file, or a word in its place.
    Number,
    /// `true` or `false`; as a flag, its name alone is enough.
    Switch,
    /// A list in the file; a flag that may be repeated; separated by blanks in the environment.
    List,
    /// A string that is never printed; `@file` reads it from there.
    Secret,
}

impl Key {
    /// `section.name`.
    pub fn id(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Its name in the environment.
    pub fn env(&self) -> String {
        format!("RELAY_{}_{}", self.section, self.name).to_uppercase()
    }
}

/// The key `section.name`.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// What each section is about, in the order of the file.
pub const SECTIONS: &[(&str, &str)] = &[
    ("server", "Where and how to serve."),
    (
        "auth",
        "Secrets. Here or in the environment, never flags; \"@/run/secrets/x\" reads a file. There are \
         no default passwords.",
    ),
    (
        "limits",
        "Everything has a limit; what the limits add up to is printed at the start.",
    ),
    (
        "source",
        "Sources: encoders that publish here, and what becomes of listeners when one goes.",
    ),
    (
        "upstreams",
        "Other nodes and servers that channels come from, in order of preference.",
    ),
    ("local", "A channel from a file or from standard input."),
    (
        "multicast",
        "One channel for everybody in the LAN at once, by IP multicast: players open it without asking this relay.",
    ),
    (
        "team",
        "A P2PSP team that spreads one channel: peers relay it to one another (peer-lite p2psp://HOST:8001).",
    ),
    ("log", "Logs."),
];

/// Sections that hold one table per mount, with these keys.
pub(super) const MOUNT_KEYS: &[&str] = &[
    "password",
    "timeout",
    "hold",
    "fallback",
    "min_rate",
    "rate_window",
    "max_rate",
];

macro_rules! keys {
    ($($section:ident {
        $($name:ident $shape:ident $flag:literal $value:literal = $default:literal $help:literal;)*
    })*) => {
        /// Every key, in the order of the file.
        pub const KEYS: &[Key] = &[$($(Key {
            section: stringify!($section),
            name: stringify!($name),
            flag: flag($flag),
            value: $value,
            default: $default,
            shape: Shape::$shape,
            help: $help,
        },)*)*];
    };
}

const fn flag(name: &'static str) -> Option<&'static str> {
    if name.is_empty() { None } else { Some(name) }
}

keys! {
    server {
        listen Text "listen" "ADDR:PORT" = "127.0.0.1:8000"
            "Where to listen. One port serves listeners, sources, links and the page. [::]:8000 is every \
             address, IPv4 too.";
        workers Number "workers" "N|auto" = "auto"
            "Worker threads; each serves its share of the listeners on a core of its own. auto: one per \
             core.";
        backend Text "backend" "uring|mio|auto" = "auto"
            "The kernel interface. auto: io_uring where it is allowed, else mio (epoll).";
        steer Text "steer" "cpu|hash|auto" = "auto"
            "Which worker a newcomer comes to. cpu: the one on whose core its packets arrive. hash: any, evenly. \
             auto: cpu where a network card has a queue for each worker, else hash. In both, a worker that \
             holds clearly more than another passes newcomers on.";
        zero_copy Text "zero-copy" "auto|off|always" = "auto"
            "Send from the kernel-registered ring without a copy. auto: on those ways out on which the kernel \
             reports that nothing is copied (never on loopback); always: to measure. Needs io_uring.";
        max_batch_delay Text "max-batch-delay" "TIME" = "100ms"
            "The longest that bytes may wait to be sent together with others, when a worker is busy. 0: \
             never wait.";
        watchdog Text "watchdog" "TIME" = "10s"
            "A worker that does not turn for so long is stuck: the process says so and ends itself, for a \
             supervisor to start it again. 0s: never.";
        node_id Text "node-id" "NAME" = ""
            "This node's name in link paths and on status pages. Unset: random at each start.";
        page Switch "page" "BOOL" = "true"
            "Serve the web page at /.";
        hostname Text "hostname" "NAME" = ""
            "The name by which others reach this relay, for the URLs it shows. Unset: the address \
             listened on.";
        contact Text "contact" "TEXT" = ""
            "Whom to write to, as status pages show it.";
        location Text "location" "TEXT" = ""
            "Where this relay stands, as status pages show it.";
    }
    auth {
        source_password Secret "" "SECRET" = ""
            "Password of the user `source`, for publishing. Unset: publishing is refused; only `relay \
             run` without a file, on loopback, makes one up and prints it.";
        admin_password Secret "" "SECRET" = ""
            "Password of the user `admin`, for /admin. Unset: /admin is refused.";
        node_token Secret "" "SECRET" = ""
            "Shared by the nodes of a tree: links show it and ask for it. Unset: links are open to \
             loopback only.";
    }
    limits {
        listeners Number "limits-listeners" "N" = "20000"
            "Listeners at once; one more is answered 503 with Retry-After.";
        connections Number "limits-connections" "N|auto" = "auto"
            "Connections of every kind at once. auto: listeners + 1000, or what the limit of open files \
             leaves.";
        reserved Number "limits-reserved" "N" = "100"
            "Connections kept free for sources, links and status pages when listeners take all others.";
        per_prefix Number "limits-per-prefix" "N" = "256"
            "Connections from one IPv4 address or IPv6 /64; loopback is exempt. 0: no limit.";
        channels Number "limits-channels" "N" = "64"
            "Channels at once.";
        ring Text "limits-ring" "BYTES" = "4MiB"
            "Memory of one channel's ring, at least; rounded up to a power of two.";
        ring_seconds Number "limits-ring-seconds" "SECONDS" = "16"
            "How much of a channel its ring holds where the bit rate is known; makes rings larger, never \
             smaller.";
        ring_max Text "limits-ring-max" "BYTES" = "16MiB"
            "No ring grows beyond this, whatever the bit rate.";
        head_timeout Text "limits-head-timeout" "TIME" = "15s"
            "How long a request head may take.";
        send_buffer Text "limits-send-buffer" "BYTES" = "128KiB"
            "SO_SNDBUF of a listener (the kernel doubles it): bounds what is sent and not yet acknowledged.";
        unsent Text "limits-unsent" "BYTES" = "32KiB"
            "TCP_NOTSENT_LOWAT: the kernel's memory for a listener that does not read. The rest waits in \
             the ring. Raised for a stream that brings more in one batch.";
        burst Text "limits-burst" "BYTES" = "64KiB"
            "A newcomer starts at the newest join point this far behind the head, so that players can \
             fill their buffers.";
        turn_bytes Text "limits-turn-bytes" "BYTES" = "128KiB"
            "The most that one listener is sent in one turn, so that one backlog does not hold up the \
             others.";
        dead_after Text "limits-dead-after" "TIME" = "15s"
            "A listener that acknowledges nothing for so long is dead (TCP_USER_TIMEOUT).";
        patience Text "limits-patience" "TIME" = "10s"
            "How long a listener may wait for a channel that has no picture yet.";
        jumps Number "limits-jumps" "N" = "3"
            "A listener too slow for the stream loses its place and is moved forward; so many times, \
             then it is closed.";
        jump_memory Text "limits-jump-memory" "TIME" = "60s"
            "How long such a move is held against it.";
        chunk_size Number "limits-chunk-size" "BYTES" = "1316"
            "Size of a chunk of channels that begin here: 7 packets of MPEG-TS, and with any header \
             within an MTU of 1400.";
    }
    source {
        timeout Text "source-timeout" "TIME" = "10s"
            "A source that sends nothing for so long is gone.";
        hold Text "source-hold" "TIME" = "10s"
            "When a source goes, its listeners are kept for so long, waiting for it to come back.";
        fallback Text "source-fallback" "/MOUNT" = ""
            "The mount that listeners hear after `hold`. Unset: they are let go.";
        min_rate Text "source-min-rate" "RATE" = "512bit/s"
            "A source slower than this over `rate_window` is cut: a byte now and then must not hold a mount.";
        rate_window Text "source-rate-window" "TIME" = "30s"
            "What `min_rate` is measured over.";
        max_rate Text "source-max-rate" "RATE" = ""
            "A source faster than this is slowed down. Unset: no limit.";
    }
    upstreams {
        list List "upstream" "URL" = "[]"
            "http://HOST:PORT: any of its channels, followed by link while somebody listens. \
             http://HOST:PORT/MOUNT: this channel, followed always. pull+http://HOST/MOUNT: a plain HTTP \
             or Icecast stream, pulled always.";
        pull List "pull" "MOUNT=URL" = "[]"
            "A plain HTTP or Icecast stream under a mount of its own: \"/local.ts=http://HOST/remote.ts\".";
    }
    local {
        source Text "source" "FILE|-" = ""
            "Play a file, or standard input (-), as a channel, paced by its own clock.";
        loop Switch "loop" "BOOL" = "false"
            "Play the file again and again, with continuous time stamps.";
        mount Text "mount" "/MOUNT" = ""
            "Its mount. Unset: the file's name, or /live with the format's ending.";
        kbps Number "kbps" "N" = ""
            "Play the bytes as they are at this rate in kbit/s, whatever the format.";
        content_type Text "content-type" "TYPE" = ""
            "Its media type. Unset: found out.";
        name Text "name" "TEXT" = ""
            "Its name, for people.";
    }
    multicast {
        group Text "multicast" "GROUP:PORT" = ""
            "Cast a channel of MPEG-TS to this group, such as 239.255.42.1:5004. 232.0.0.0/8 is for receivers that \
             name this sender. Unset: nothing is cast.";
        interface Text "multicast-if" "IFACE" = ""
            "The network interface that it leaves by, by name or address. Unset: where the route leads.";
        mount Text "multicast-mount" "/MOUNT" = ""
            "Which channel. Unset: the first of MPEG-TS that comes on the air.";
        format Text "multicast-format" "rtp|ts" = "rtp"
            "rtp: packets behind RTP headers (rtp://@GROUP:PORT in players), so that receivers notice what is \
             missing. ts: bare packets (udp://@GROUP:PORT).";
        ttl Number "multicast-ttl" "N" = "1"
            "How many routers it may pass. 1: it stays in the LAN.";
        fec Text "multicast-fec" "DATA+PARITY" = ""
            "Parity for receivers that know it (peer-lite --lan): 8+4 sends 4 datagrams more for every 8, of which \
             any 8 suffice. It goes to the port two above, where plain players do not see it. Needs rtp.";
    }
    team {
        mount Text "team" "/MOUNT" = ""
            "Lead a team of peers with this channel. Unset: no team.";
        listen Text "team-listen" "ADDR:PORT" = "127.0.0.1:8001"
            "Where peers join (TCP) and chunks come from (UDP, the same port); IPv4.";
        wire Text "wire" "b|c" = "b"
            "The generation of the wire: b (the C++ peers of 2016 to 2018) or c (those of 2018, which flood). Both \
             authenticate nobody: on loopback and private addresses only, unless `open`.";
        peers Number "team-peers" "N" = "128"
            "Members at once; one more is refused.";
        buffer Number "team-buffer" "CHUNKS" = "256"
            "The peers' buffers; they play half of it behind. No team can be larger than its buffers.";
        monitors List "team-monitor" "ADDR" = "[]"
            "Peers at these addresses may be monitors, whose reports of lost chunks get others expelled. Unset: \
             those of this host.";
        open Switch "i-know-this-wire-is-open" "BOOL" = "false"
            "Lead the team at a public address although anybody there can forge and take anything.";
    }
    log {
        format Text "log" "human|json" = "human"
            "How the log on standard error is written.";
        level Text "log-level" "FILTER" = "info"
            "error, warn, info, debug, trace, or a filter by module such as \"info,relay=debug\".";
        access Text "access-log" "FILE|-" = ""
            "The access log: Icecast's combined format with the seconds connected at the end. -: \
             standard output. A file may be moved away: it is opened anew within a second.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_described_and_in_order() {
        let mut seen: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
        seen.dedup();
        let described: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(seen, described);
    }

    #[test]
    fn flags_are_unique_and_secrets_have_none() {
        let mut flags: Vec<_> = KEYS.iter().filter_map(|key| key.flag).collect();
        let n = flags.len();
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(flags.len(), n);
        assert!(
            KEYS.iter()
                .all(|key| (key.shape == Shape::Secret) == key.flag.is_none())
        );
    }
}
