//! Who goes before whom, and what mistakes are told.

use std::io::Write as _;
use std::path::Path;

use super::*;

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &[&str])]) -> Result<Settings, Error> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    load_from(Some(on_disk.path()), env, flags)
}

fn load_from(
    file: Option<&Path>,
    env: &[(&str, &str)],
    flags: &[(&str, &[&str])],
) -> Result<Settings, Error> {
    let env = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let flags = flags
        .iter()
        .map(|(k, v)| ((*k).to_owned(), v.iter().map(|v| (*v).to_owned()).collect()))
        .collect();
    Settings::load(&Sources {
        file,
        env: &env,
        flags: &flags,
    })
}

/// What is said after the file's name.
fn mistake(file: &str) -> String {
    let text = load(file, &[], &[]).unwrap_err().to_string();
    text.split_once(':')
        .map_or(text.clone(), |(_, rest)| rest.to_owned())
}

#[test]
fn nothing_at_all_is_a_root_on_loopback() {
    let settings = load_from(None, &[], &[]).unwrap();
    assert_eq!(settings.listen, "127.0.0.1:8000".parse().unwrap());
    assert!(!settings.takes_sources() && settings.backend.is_none() && settings.local.is_none());
    assert_eq!(settings.station.connections_max, 21_000);
    assert_eq!(settings.station.listener, relay_listener::Config::default());
    let (ours, theirs) = (&settings.station.source, relay_source::Config::default());
    assert_eq!(
        (ours.timeout, ours.hold, ours.min_rate),
        (theirs.timeout, theirs.hold, theirs.min_rate)
    );
}

#[test]
fn flags_go_before_variables_before_the_file() {
    let file = "[server]\nlisten = '127.0.0.1:1'\n[limits]\nlisteners = 1\nburst = '1KiB'\n";
    let env = [
        ("RELAY_SERVER_LISTEN", "127.0.0.1:2"),
        ("RELAY_LIMITS_LISTENERS", "2"),
    ];
    let settings = load(file, &env, &[("server.listen", &["127.0.0.1:3"])]).unwrap();
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.station.listener.max, 2);
    assert_eq!(settings.station.listener.burst, 1024);
}

#[test]
fn mistakes_in_a_file_are_pointed_at() {
    for (file, said) in [
        (
            "[server]\nlistn = 'x'",
            "2: unknown key `server.listn`; the nearest known key is `server.listen`",
        ),
        (
            "\n[sever]\n",
            "2: unknown key `sever`; the nearest known key is `[server]`",
        ),
        (
            "workers = 2",
            "1: unknown key `workers`; the nearest known key is `server.workers`",
        ),
        (
            "[limits]\nworkers = 2",
            "2: unknown key `limits.workers`; the nearest known key is `server.workers`",
        ),
        (
            "[server]\n\nworkers = 'many'",
            "3: server.workers: expected auto or a whole number from 1 to 64, got \"many\"",
        ),
        (
            "[limits]\nring = '1KiB'",
            "2: limits.ring: expected a size from 256 KiB to 4 GiB, such as 64KiB, got \"1KiB\"",
        ),
        (
            "[server]\npage = 7",
            "2: server.page: expected true or false, got \"7\"",
        ),
        (
            "[server]\npage = [1]",
            "2: server.page: expected one value, got one of type array",
        ),
        ("server = 1", "1: server: expected a table, got \"1\""),
        (
            "[mounts.x]\n",
            "1: mounts: expected a mount that begins with /, got \"x\"",
        ),
        (
            "[mounts.'/x']\nholt = 1",
            "2: unknown key `mounts.\"/x\".holt`; the nearest known key is `mounts.\"/x\".hold`",
        ),
        (
            "[source]\nmax_rate = '5'",
            "2: source.max_rate: expected a rate such as 500kbit/s or 8Mbit/s, got \"5\"",
        ),
        (
            "[source]\nfallback = '/metrics'",
            "2: source.fallback: expected a mount such as /eclipse.ts",
        ),
    ] {
        let told = mistake(file);
        assert!(told.starts_with(said), "{file:?}: {told}");
    }
}

#[test]
fn what_is_not_toml_is_pointed_at() {
    assert!(mistake("[server]\nworkers = 1 2\n").starts_with("2: "));
}

#[test]
fn variables_and_flags_are_named() {
    let told = load_from(None, &[("RELAY_SERVER_WORKERS", "0")], &[])
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with("RELAY_SERVER_WORKERS: server.workers: expected"),
        "{told}"
    );
    let told = load_from(None, &[], &[("server.max_batch_delay", &["soon"])])
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with("--max-batch-delay: server.max_batch_delay: expected a time"),
        "{told}"
    );
    for (stray, value) in [
        ("local.loop", "true"),
        ("local.mount", "/x.ts"),
        ("local.kbps", "9"),
    ] {
        let told = load_from(None, &[], &[(stray, &[value])])
            .unwrap_err()
            .to_string();
        assert!(told.contains("--source FILE"), "{told}");
    }
}

#[test]
fn strange_variables_are_noticed() {
    let strange =
        strange_env(["RELAY_SERVER_LISTN", "RELAY_SERVER_LISTEN", "RELAY_HOST", "PATH"].into_iter());
    assert_eq!(
        strange,
        [(
            "RELAY_SERVER_LISTN".to_owned(),
            Some("RELAY_SERVER_LISTEN".to_owned())
        )]
    );
}

#[test]
fn secrets_may_be_in_files_and_are_never_shown() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"s3cret\n").unwrap();
    let at = format!("@{}", secret.path().display());
    let file = "[auth]\nadmin_password = 'adm1n'\n[upstreams]\nlist = ['pull+http://u:pa55@h/a.ts']\n\
                [mounts.'/x']\npassword = 'm0unt'";
    let settings = load(file, &[("RELAY_AUTH_SOURCE_PASSWORD", &at)], &[]).unwrap();
    assert!(
        settings
            .station
            .source
            .password
            .as_ref()
            .unwrap()
            .matches("s3cret")
    );
    assert!(
        settings
            .station
            .source_at("/x")
            .password
            .as_ref()
            .unwrap()
            .matches("m0unt")
    );
    let shown = settings.show();
    for hidden in ["s3cret", "adm1n", "pa55", "m0unt"] {
        assert!(!shown.contains(hidden), "{hidden} in {shown}");
    }
    assert!(shown.contains("source_password = \"***\""));
    let told = load("", &[("RELAY_AUTH_SOURCE_PASSWORD", &"x".repeat(300))], &[])
        .unwrap_err()
        .to_string();
    assert!(told.ends_with("got ***"), "{told}");
}

#[test]
fn mounts_inherit_what_is_not_said_of_them() {
    let file = "[source]\nhold = '1s'\nmax_rate = '8Mbit/s'\n[mounts.'/x']\nfallback = '/y'\nmax_rate = ''";
    let settings = load(file, &[], &[]).unwrap();
    let x = settings.station.source_at("/x");
    assert_eq!(
        (x.hold.as_secs(), x.fallback.as_deref(), x.max_rate),
        (1, Some("/y"), None)
    );
    assert_eq!(settings.station.source.max_rate, Some(1_000_000));
}

#[test]
fn upstreams_keep_their_order() {
    let list: &[&str] = &["http://a:1", "http://[::1]:2/x%20y.ts", "pull+http://b/z.ogg?q=1"];
    let flags: [(&str, &[&str]); 2] = [
        ("upstreams.list", list),
        ("upstreams.pull", &["/here.ts=http://c:3/there.ts"]),
    ];
    let upstreams = load_from(None, &[], &flags).unwrap().station.upstreams;
    let told: Vec<_> = upstreams
        .iter()
        .map(|u| {
            (
                u.host.as_str(),
                u.port,
                u.mount.as_deref(),
                u.plain_url.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", 1, None, None),
            ("::1", 2, Some("/x y.ts"), None),
            ("b", 80, Some("/z.ogg"), Some("http://b/z.ogg?q=1")),
            ("c", 3, Some("/here.ts"), Some("http://c:3/there.ts")),
        ]
    );
    for wrong in ["a:1", "https://a", "pull+http://a/", "http://a/metrics"] {
        assert!(
            load_from(None, &[], &[("upstreams.list", &[wrong])]).is_err(),
            "{wrong}"
        );
    }
    let by_variable = load_from(None, &[("RELAY_UPSTREAMS_LIST", "http://a:1 http://b:2")], &[]).unwrap();
    assert_eq!(by_variable.station.upstreams.len(), 2);
}

#[test]
fn what_is_shown_can_be_read_again() {
    let flags: [(&str, &[&str]); 3] = [
        ("server.workers", &["3"]),
        ("limits.ring", &["8MiB"]),
        ("upstreams.list", &["http://a:1"]),
    ];
    let shown = load_from(None, &[], &flags).unwrap().show();
    let again = load(&shown, &[], &[]).unwrap();
    assert_eq!(
        (
            again.station.workers,
            again.station.ring_bytes,
            again.station.upstreams.len()
        ),
        (3, 8 << 20, 1)
    );
}

/// `relay check --example > relay/relay.toml.example` writes it anew.
#[test]
fn the_example_is_the_table_of_keys() {
    let example = include_str!("../../relay.toml.example");
    assert_eq!(example, super::example());
    load(example, &[], &[]).unwrap();
    let uncommented: String = example
        .lines()
        .map(|l| l.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(l))
        .map(|l| format!("{l}\n"))
        .collect();
    // The example's secret is in a file that is not there; all else is in force as it stands.
    let told = load(&uncommented, &[], &[]).unwrap_err().to_string();
    assert!(
        told.contains("mounts.\"/eclipse.ts\".password: expected a file that can be read"),
        "{told}"
    );
}

#[test]
fn a_team_is_led_in_the_house_unless_somebody_knows_better() {
    let led = load("[team]\nmount = \"/sun.ts\"", &[], &[])
        .unwrap()
        .station
        .team
        .unwrap();
    assert_eq!(led.listen, "127.0.0.1:8001".parse().unwrap());
    assert_eq!(led.http, "127.0.0.1:8000".parse().unwrap());
    assert_eq!(
        (led.mount.as_str(), &led.rules),
        ("/sun.ts", &splitter::Config::default())
    );
    let open = "[team]\nmount = \"/sun.ts\"\nlisten = \"8.8.8.8:8001\"\n";
    let told = mistake(open);
    assert!(told.contains("--i-know-this-wire-is-open"), "{told}");
    let known = load(&format!("{open}open = true"), &[], &[]).unwrap();
    assert_eq!(
        known.station.team.unwrap().listen,
        "8.8.8.8:8001".parse().unwrap()
    );
    let c = load("[team]\nmount = \"/sun.ts\"\nwire = \"c\"", &[], &[]).unwrap();
    assert!(c.station.team.unwrap().rules.send_header);
    // At every address the source is where the team is.
    let wide = "[server]\nlisten = \"0.0.0.0:80\"\n[team]\nmount = \"/a\"\nlisten = \"10.0.0.1:8001\"";
    let wide = load(wide, &[], &[]).unwrap().station.team.unwrap();
    assert_eq!(wide.http, "10.0.0.1:80".parse().unwrap());
}

#[test]
fn mistakes_about_a_team_are_told() {
    for (bad, word) in [
        ("wire = \"c\"", "team.mount"),
        ("monitors = [\"10.0.0.1\"]", "team.mount"),
        ("mount = \"sun\"", "mount"),
        ("mount = \"/a\"\nlisten = \"[::1]:8001\"", "IPv4"),
        ("mount = \"/a\"\nwire = \"a\"", "b or c"),
        ("mount = \"/a\"\nbuffer = 16\npeers = 17", "from 1 to 16"),
        ("mount = \"/a\"\nmonitors = [\"host\"]", "IPv4"),
    ] {
        let told = mistake(&format!("[team]\n{bad}"));
        assert!(told.contains(word), "{bad}: {told}");
    }
}
