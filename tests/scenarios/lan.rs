//! One stream for a whole LAN: what is cast is heard by anybody, by players that know nothing of us too.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use totality_tests::{
    Backend, Checker, Ear, Form, Host, Opts, Relay, Source, World, bin, eventually, lacks, publish, vlc,
};

on_both_backends! {
    everybody_hears_the_same_and_it_is_sent_once
    bare_packets_are_heard_too
    a_group_of_one_sender
    a_source_that_comes_back_is_cast_again
    what_is_no_transport_stream_is_not_cast
    players_that_know_nothing_of_us_play
}

const GROUP: &str = "239.255.42.1:5004";
const MOUNT: &str = "/numbered.ts";
const KBPS: u64 = 1000;
const SOON: Duration = Duration::from_secs(20);

fn group(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// A relay that casts.
fn casting(host: &Host, backend: Backend, args: &[&str]) -> Relay {
    let usual = ["--multicast", GROUP, "--multicast-if", "eth0"];
    Relay::start(host, Opts::on(backend).args(&[&usual, args].concat()))
}

fn hears(ear: &Ear, units: u64) -> bool {
    eventually(SOON, || ear.judge(Checker::units) >= units)
}

/// However many hear it, the relay sends the same: one datagram for all.
fn everybody_hears_the_same_and_it_is_sent_once(backend: Backend) {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("lan");
    let mut relay = casting(&world.host("root"), backend, &[]);
    let source = Source::push(relay.host(), &relay, MOUNT, Form::Ts, 0, KBPS);
    let mut rows = Vec::new();
    let mut ears: Vec<Ear> = Vec::new();
    for many in [1, 10, 50] {
        let hosts: Vec<Host> = (ears.len()..many)
            .map(|i| world.host(&format!("seat{i}")))
            .collect();
        ears.extend(
            hosts
                .iter()
                .map(|host| Ear::join(host, group(GROUP), None, Form::Ts)),
        );
        assert!(
            ears.iter().all(|ear| hears(ear, 1)),
            "not all of {many} hear anything"
        );
        let cast = || relay.metric("totality_cast_datagrams");
        let (before, (bytes, _)) = (cast(), relay.host().sent());
        assert!(eventually(SOON, || cast() >= before + 200));
        let (after, (sent, _)) = (cast(), relay.host().sent());
        rows.push((many, (sent - bytes) as f64 / (after - before) as f64));
    }
    eprintln!("bytes on the wire per datagram, by receivers: {rows:?}");
    for (many, bytes) in &rows {
        // 36 bytes of RTP, 28 of UDP and IP, 14 of Ethernet, and 2 % for what the hosts say of themselves.
        let expected = (1316 + 36 + 28 + 14) as f64;
        assert!(
            (bytes / expected - 1.0).abs() < 0.02,
            "{many} receivers: {bytes} bytes a datagram"
        );
    }
    ears.iter().for_each(|ear| ear.judge(Checker::expect_whole));
    assert_eq!(relay.metric("totality_posts_dropped"), 0);
    drop(source);
    relay.expect_alive();
}

fn bare_packets_are_heard_too(backend: Backend) {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("bare");
    let relay = casting(&world.host("root"), backend, &["--multicast-format", "ts"]);
    let ear = Ear::join(&world.host("seat"), group(GROUP), None, Form::Ts);
    // From the first byte on: the ear was there before the source.
    let _source = Source::push(relay.host(), &relay, MOUNT, Form::Ts, 0, KBPS);
    assert!(hears(&ear, 100));
    ear.judge(|checker| {
        checker.expect_whole();
        // The first two units are tables.
        assert!(checker.first() <= Some(2), "{:?}", checker.first());
    });
}

/// A receiver that names the sender hears that sender and no other (RFC 4607).
fn a_group_of_one_sender(backend: Backend) {
    const SSM: &str = "232.1.2.3:5006";
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("ssm");
    let root = world.host("root");
    let opts = Opts::on(backend).args(&["--multicast", SSM, "--multicast-if", &root.ip().to_string()]);
    let relay = Relay::start(&root, opts);
    let _source = Source::push(relay.host(), &relay, MOUNT, Form::Ts, 0, KBPS);
    let std::net::IpAddr::V4(sender) = root.ip() else {
        unreachable!()
    };
    let seat = world.host("seat");
    let ear = Ear::join(&seat, group(SSM), Some(sender), Form::Ts);
    let other = Ear::join(&seat, group(SSM), Some(Ipv4Addr::new(10, 66, 0, 200)), Form::Ts);
    assert!(hears(&ear, 100));
    ear.judge(Checker::expect_whole);
    assert_eq!(other.datagrams(), 0);
}

fn a_source_that_comes_back_is_cast_again(backend: Backend) {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("blink");
    let relay = casting(&world.host("root"), backend, &[]);
    let ear = Ear::join(&world.host("seat"), group(GROUP), None, Form::Ts);
    let source = Source::push(relay.host(), &relay, MOUNT, Form::Ts, 0, KBPS);
    assert!(hears(&ear, 100));
    let next = source.stop();
    // Everything up to the last byte of the old run comes before the new one.
    let whole = |next: u64| {
        eventually(SOON, || {
            ear.judge(|c| c.next().is_some_and(|heard| heard >= next))
        })
    };
    assert!(
        whole(next / 7 * 7),
        "heard {:?} of {next}",
        ear.judge(Checker::next)
    );
    let again = Source::push(relay.host(), &relay, MOUNT, Form::Ts, 10_000, KBPS);
    assert!(whole(10_100), "heard {:?}", ear.judge(Checker::next));
    ear.judge(|checker| {
        assert!(checker.faults().is_empty(), "{:?}", checker.faults());
        assert_eq!(checker.jumps().len(), 1, "{:?}", checker.jumps());
    });
    drop(again);
}

fn what_is_no_transport_stream_is_not_cast(backend: Backend) {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("mp3");
    let relay = casting(
        &world.host("root"),
        backend,
        &["--multicast-mount", "/numbered.mp3"],
    );
    let _source = Source::push(relay.host(), &relay, "/numbered.mp3", Form::Mp3, 0, 128);
    let warned = || relay.said().contains("only MPEG-TS is cast");
    assert!(eventually(SOON, warned), "{}", relay.said());
    assert!(relay.said().contains("--multicast-mount"), "{}", relay.said());
    assert_eq!(relay.metric("totality_cast_datagrams"), 0);
}

/// VLC by the group's address, FFmpeg by the announcement; in another host, through the cable.
fn players_that_know_nothing_of_us_play(backend: Backend) {
    if lacks("players in the LAN", true, &["ip", "ffmpeg", "ffprobe", "vlc"]) {
        return;
    }
    let world = World::new("vlclan");
    let relay = casting(&world.host("root"), backend, &["--multicast-fec", "8+4"]);
    let encode = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25 -pix_fmt yuv420p -c:a aac -f mpegts \
                  -content_type video/mp2t";
    let encode: Vec<&str> = encode.split_whitespace().collect();
    let _encoder = publish(relay.host(), "ts", &encode, &relay.icecast_url(MOUNT));
    assert!(eventually(SOON, || relay.metric("totality_cast_datagrams") > 100));
    let seat = world.host("seat");
    seat.sh("ip", &["route", "add", "224.0.0.0/4", "dev", "eth0"]);
    let file = seat.file("played.ts");
    std::fs::write(&file, b"").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let sout = format!("--sout=#std{{access=file,mux=ts,dst={}}}", file.display());
    let url = format!("rtp://@{GROUP}");
    let mut player = vlc(&seat, "vlc", &[&url, "--miface=eth0", &sout]);
    let played = || std::fs::metadata(&file).map_or(0, |m| m.len());
    let plays = eventually(Duration::from_secs(40), || played() > 100_000);
    // What it writes is whole up to the last block.
    player.kill9();
    assert!(plays, "VLC played {} bytes and said {}", played(), player.said());
    let show = ["-v", "quiet", "-show_entries", "stream=codec_name"];
    let found = seat.sh("ffprobe", &[&show[..], &[&file.display().to_string()]].concat());
    assert!(
        found.contains("h264") && found.contains("aac"),
        "{found}; VLC said {}",
        player.said()
    );
    let sdp = relay.url(&format!("{MOUNT}.sdp"));
    let found = seat.sh(
        "ffprobe",
        &[&show[..], &["-protocol_whitelist", "http,tcp,udp,rtp", &sdp]].concat(),
    );
    assert!(found.contains("h264") && found.contains("aac"), "{found}");
}

/// Exit code 2, and what would help.
#[test]
fn what_cannot_be_cast_to_is_refused_at_the_start() {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("badcast");
    let host = world.host("root");
    let rows: [(&[&str], &[&str]); 8] = [
        (
            &["--multicast", "10.1.2.3:5004"],
            &["multicast.group", "239.255.42.1:5004"],
        ),
        (&["--multicast", "239.255.42.1"], &["multicast.group"]),
        (
            &["--multicast", GROUP, "--multicast-if", "nosuch0"],
            &["nosuch0", "eth0"],
        ),
        (
            &["--multicast", GROUP],
            &["no multicast route", "ip route add 224.0.0.0/4"],
        ),
        (
            &["--multicast", "[ff15::1]:5004", "--multicast-if", "nosuch0"],
            &["nosuch0"],
        ),
        (&["--multicast-if", "eth0"], &["multicast.group"]),
        (
            &["--multicast", GROUP, "--multicast-fec", "9"],
            &["multicast.fec", "8+4"],
        ),
        (
            &[
                "--multicast",
                GROUP,
                "--multicast-format",
                "ts",
                "--multicast-fec",
                "8+4",
            ],
            &["multicast.fec", "rtp"],
        ),
    ];
    for (args, parts) in rows {
        let mut command = Command::new(bin("relay"));
        command.args(["run", "--listen", "127.0.0.1:0"]).args(args);
        let out = host.run(|| command.output()).unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        parts
            .iter()
            .for_each(|part| assert!(said.contains(part), "{args:?}: expected {part:?} in: {said}"));
    }
    host.sh("ip", &["link", "set", "eth0", "down"]);
    let mut command = Command::new(bin("relay"));
    command.args([
        "run",
        "--listen",
        "127.0.0.1:0",
        "--multicast",
        GROUP,
        "--multicast-if",
        "eth0",
    ]);
    let out = host.run(|| command.output()).unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("ip link set eth0 up"), "{said}");
}
