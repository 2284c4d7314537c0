//! One stream for a whole LAN: what is cast is heard by anybody, by players that know nothing of us too.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use totality_tests::{
    Backend, Checker, Ear, Form, Host, Listener, Opts, PeerLite, Relay, Source, World, bin, eventually,
    lacks, publish, vlc,
};

on_both_backends! {
    everybody_hears_the_same_and_it_is_sent_once
    bare_packets_are_heard_too
    a_group_of_one_sender
    a_source_that_comes_back_is_cast_again
    what_is_no_transport_stream_is_not_cast
    players_that_know_nothing_of_us_play
    a_peer_mends_what_is_lost_over_the_link
    a_peer_mends_what_is_lost_by_parity
    a_silent_lan_is_made_up_for_by_the_link
    a_group_of_ipv6
    interfaces_go_and_come_back
    a_repeater_casts_what_nobody_else_asks_for
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
    if lacks("multicast", true, &["ip", "ethtool"]) {
        return;
    }
    let world = World::new("lan");
    no_trains(&world.host("root"));
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
        assert!(eventually(SOON, || cast() >= before + 400));
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

/// Datagrams leave one by one, as a network card would send them: each is counted, and lost, by itself.
fn no_trains(root: &Host) {
    root.sh(
        "ethtool",
        &["-K", "eth0", "tx-udp-segmentation", "off", "gso", "off"],
    );
}

/// Of a hundred datagrams that come in, so many are dropped, by dice.
fn lose(root: &Host, seat: &Host, percent: u32) {
    no_trains(root);
    let rules = format!(
        "add table inet bad; add chain inet bad in {{ type filter hook input priority 0; }}; \
         add rule inet bad in ip protocol udp numgen random mod 100 < {percent} drop"
    );
    seat.sh("nft", &[&rules]);
}

/// One of the numbers of a peer's LAN.
fn count(peer: &PeerLite, name: &str) -> u64 {
    peer.status()["lan"][name].as_u64().unwrap_or(0)
}

/// 5 % are lost on the way, none for the player: the node is asked for them.
fn a_peer_mends_what_is_lost_over_the_link(backend: Backend) {
    if lacks("a bad LAN", true, &["ip", "nft", "ethtool"]) {
        return;
    }
    let world = World::new("mend");
    let (root, seat) = (world.host("root"), world.host("seat"));
    lose(&root, &seat, 5);
    let mut relay = casting(&root, backend, &[]);
    let source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
    assert!(eventually(SOON, || relay.metric("totality_cast_datagrams") > 50));
    // By what the node announces.
    let peer = PeerLite::start_with(
        &seat,
        &relay.url(MOUNT),
        &["--lan", "auto", "--multicast-if", "eth0"],
    );
    assert!(eventually(SOON, || count(&peer, "received") > 100));
    let player = Listener::tune_in(&seat, peer.at(), "/", Form::Ts);
    player.expect_sound();
    let enough = || count(&peer, "received") > 1000;
    assert!(eventually(SOON, enough), "{}", peer.status());
    let due = source.next();
    assert!(player.reaches(due, SOON), "{due} sent, {:?} came", player.next());
    player.judge(Checker::expect_whole);
    let (repaired, lost) = (count(&peer, "repaired"), count(&peer, "lost"));
    eprintln!("5 % loss, mended over the link: {}", peer.status()["lan"]);
    assert!(repaired > 20 && lost == 0, "{}", peer.status());
    relay.expect_alive();
}

/// Nobody is asked: of what the dice take, parity brings back nearly all.
fn a_peer_mends_what_is_lost_by_parity(backend: Backend) {
    if lacks("a bad LAN", true, &["ip", "nft", "ethtool"]) {
        return;
    }
    let world = World::new("parity");
    let (root, seat) = (world.host("root"), world.host("seat"));
    lose(&root, &seat, 5);
    let relay = casting(&root, backend, &["--multicast-fec", "8+4"]);
    let _source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, 4 * KBPS);
    let peer = PeerLite::start_with(&seat, "", &["--lan", GROUP, "--multicast-if", "eth0"]);
    let enough = || count(&peer, "received") > 3000;
    assert!(eventually(SOON, enough), "{}", peer.status());
    let [received, recovered, lost] = ["received", "recovered", "lost"].map(|name| count(&peer, name));
    let share = lost as f64 / (received + recovered + lost) as f64;
    eprintln!(
        "5 % loss, 8+4 and no repair: {:.4} % lost, {}",
        share * 100.0,
        peer.status()["lan"]
    );
    assert!(recovered > 100, "{}", peer.status());
    // 0.007 % are to be expected; what a single unlucky block costs must not decide.
    assert!(share < 0.005, "{}", peer.status());
}

/// The LAN falls silent and comes back: the player hears every byte, once.
fn a_silent_lan_is_made_up_for_by_the_link(backend: Backend) {
    if lacks("a silent LAN", true, &["ip", "nft"]) {
        return;
    }
    let world = World::new("silent");
    let (root, seat) = (world.host("root"), world.host("seat"));
    let relay = casting(&root, backend, &[]);
    let source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
    let peer = PeerLite::start_with(
        &seat,
        &relay.url(MOUNT),
        &["--lan", GROUP, "--multicast-if", "eth0"],
    );
    assert!(
        eventually(SOON, || count(&peer, "received") > 50),
        "{}",
        peer.status()
    );
    let player = Listener::tune_in(&seat, peer.at(), "/", Form::Ts);
    player.expect_sound();
    let rules = "add table inet mute; add chain inet mute in { type filter hook input priority 0; }; \
                 add rule inet mute in ip daddr 239.255.42.1 drop";
    seat.sh("nft", &[rules]);
    let via = |way: &str| eventually(SOON, || peer.status()["via"] == way);
    assert!(via("link"), "{}", peer.status());
    let due = source.next() + 200;
    assert!(player.reaches(due, SOON), "{due} due, {:?} came", player.next());
    assert!(
        eventually(SOON, || count(&peer, "rejoins") > 0),
        "{}",
        peer.status()
    );
    seat.sh("nft", &["delete", "table", "inet", "mute"]);
    assert!(via("lan"), "{}", peer.status());
    let due = source.next() + 200;
    assert!(player.reaches(due, SOON), "{due} due, {:?} came", player.next());
    player.judge(Checker::expect_whole);
    assert_eq!(count(&peer, "lost"), 0, "{}", peer.status());
}

/// The same over IPv6: the interface goes by its number there, and the address is the link's own.
fn a_group_of_ipv6(backend: Backend) {
    const SITE: &str = "[ff15::42]:5004";
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("six");
    let (root, seat) = (world.host("root"), world.host("seat"));
    for host in [&root, &seat] {
        // An address is tentative until nobody has objected to it.
        let settled = || {
            !host
                .sh("ip", &["-6", "addr", "show", "dev", "eth0", "scope", "link"])
                .contains("tentative")
        };
        let has_one = || {
            host.sh("ip", &["-6", "addr", "show", "dev", "eth0"])
                .contains("fe80")
        };
        assert!(eventually(SOON, || has_one() && settled()));
    }
    let opts = Opts::on(backend).args(&["--multicast", SITE, "--multicast-if", "eth0"]);
    let relay = Relay::start(&root, opts);
    let _source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
    let peer = PeerLite::start_with(&seat, "", &["--lan", SITE, "--multicast-if", "eth0"]);
    assert!(
        eventually(SOON, || count(&peer, "received") > 50),
        "{}",
        peer.status()
    );
    let player = Listener::tune_in(&seat, peer.at(), "/", Form::Ts);
    player.expect_sound();
    assert_eq!(count(&peer, "lost"), 0, "{}", peer.status());
}

/// An interface that is down for a while, at either end: the peer joins again, the relay sends again.
fn interfaces_go_and_come_back(backend: Backend) {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("blinks");
    let (root, seat) = (world.host("root"), world.host("seat"));
    let relay = casting(&root, backend, &[]);
    let _source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
    let peer = PeerLite::start_with(&seat, "", &["--lan", GROUP, "--multicast-if", "eth0"]);
    let more = || {
        let before = count(&peer, "received");
        eventually(SOON, || count(&peer, "received") > before + 50)
    };
    assert!(more(), "{}", peer.status());
    let rejoined = || {
        let before = count(&peer, "rejoins");
        eventually(SOON, || count(&peer, "rejoins") > before + 1)
    };
    for host in [&seat, &root] {
        host.sh("ip", &["link", "set", "eth0", "down"]);
        assert!(rejoined(), "{}", peer.status());
        assert_eq!(peer.status()["state"], "holding");
        host.sh("ip", &["link", "set", "eth0", "up"]);
        assert!(more(), "{}: {}", host.name(), peer.status());
        assert_eq!(peer.status()["state"], "on-air");
    }
}

/// What is cast is followed, and its places are those of the root: a peer may be mended by either.
fn a_repeater_casts_what_nobody_else_asks_for(backend: Backend) {
    if lacks("multicast", true, &["ip", "nft", "ethtool"]) {
        return;
    }
    let world = World::new("branch");
    let (root, branch, seat) = (world.host("root"), world.host("branch"), world.host("seat"));
    lose(&branch, &seat, 5);
    let relay = Relay::start(&root, Opts::on(backend));
    let source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
    let usual = [
        "--multicast",
        GROUP,
        "--multicast-if",
        "eth0",
        "--multicast-mount",
        MOUNT,
    ];
    let repeater = Relay::start(&branch, Opts::on(backend).upstream(relay.at()).args(&usual));
    assert!(eventually(SOON, || repeater.metric("totality_cast_datagrams") > 50));
    let url = relay.url(MOUNT);
    let peer = PeerLite::start_with(&seat, &url, &["--lan", GROUP, "--multicast-if", "eth0"]);
    let player_comes = || count(&peer, "received") > 20;
    assert!(eventually(SOON, player_comes), "{}", peer.status());
    let player = Listener::tune_in(&seat, peer.at(), "/", Form::Ts);
    player.expect_sound();
    assert!(
        eventually(SOON, || count(&peer, "repaired") > 10),
        "{}",
        peer.status()
    );
    let due = source.next();
    assert!(player.reaches(due, SOON), "{due} sent, {:?} came", player.next());
    player.judge(Checker::expect_whole);
}

/// A peer, too, says at its start what cannot be: exit code 2, and what would help.
#[test]
fn what_cannot_be_heard_is_refused_at_the_start() {
    if lacks("multicast", true, &["ip"]) {
        return;
    }
    let world = World::new("badear");
    let host = world.host("seat");
    let held = host.run(|| std::net::UdpSocket::bind("0.0.0.0:5010")).unwrap();
    let rows: [(&[&str], &[&str]); 6] = [
        (&["--lan", "10.1.2.3:5004"], &["224.0.0.0/4", "10.1.2.3:5004"]),
        (&["--lan", "239.255.42.1"], &["239.255.42.1:5004"]),
        (
            &["--lan", GROUP, "--multicast-if", "nosuch0"],
            &["nosuch0", "eth0"],
        ),
        (
            &["--lan", GROUP],
            &["no multicast route", "ip route add 224.0.0.0/4"],
        ),
        (
            &["--lan", "239.255.42.1:5010", "--multicast-if", "eth0"],
            &["5010", "in use"],
        ),
        (
            &["http://10.66.0.1:9/x.ts", "--lan", "auto"],
            &["--lan auto", "x.ts.sdp"],
        ),
    ];
    for (args, parts) in rows {
        let mut command = Command::new(bin("peer-lite"));
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        let out = host.run(|| command.output()).unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        parts
            .iter()
            .for_each(|part| assert!(said.contains(part), "{args:?}: expected {part:?} in: {said}"));
    }
    drop(held);
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
