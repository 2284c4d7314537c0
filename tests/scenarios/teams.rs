//! Teams: a relay gives each chunk away once, and its peers carry it to all of them.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use totality_tests::{
    Backend, Checker, Form, Framing, Host, Listener, Opts, PeerLite, Process, Relay, Signal, Source, Talk,
    World, bin, eventually, lacks, pass, play, publish,
};

use crate::common::{KBPS, MOUNT};
use crate::neighbours::start_icecast;

on_both_backends! {
    a_team_carries_every_byte
    a_team_that_floods_carries_every_byte
    a_killed_member_is_out_in_seconds
    a_relay_that_comes_back_has_its_team_again
    a_goodbye_is_heard
    helpers_and_caps_are_what_they_say
    nonsense_changes_nothing
    the_node_says_where_its_team_is
    a_lossy_team_repairs_itself
    the_node_fills_what_the_team_loses
    ffmpeg_plays_from_a_member
}

const PATIENCE: Duration = Duration::from_secs(25);
/// The peers' buffers, in chunks, of which half is played behind: 2.7 s, so that a machine that is busy loses nothing.
const BUFFER: u16 = 512;
/// A member that was killed is out within this; measured generously on machines that are busy.
const OUT: Duration = Duration::from_secs(6);

/// A relay that leads a team.
struct Team {
    members: Vec<PeerLite>,
    source: Source,
    relay: Relay,
    at: SocketAddr,
    root: Host,
    world: World,
}

impl Team {
    fn of(size: usize, name: &str, backend: Backend, wire: &'static str) -> Self {
        let mut team = Self::empty(name, backend, wire);
        (0..size).for_each(|n| team.join(n, &["--wire", wire]));
        team.expect_members(size);
        team
    }

    fn empty(name: &str, backend: Backend, wire: &'static str) -> Self {
        let world = World::new(name);
        let root = world.host("root");
        let at = SocketAddr::new(root.ip(), root.free_port());
        let listen = at.to_string();
        let args = ["--team", MOUNT, "--team-listen", &listen, "--wire", wire];
        // The source may come to another worker than the one that leads.
        let opts = Opts::on(backend)
            .workers(2)
            .args(&args)
            .set("team.buffer", BUFFER)
            .set("team.peers", 64);
        let relay = Relay::start(&root, opts);
        let source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
        Self {
            members: Vec::new(),
            source,
            relay,
            at,
            root,
            world,
        }
    }

    fn join(&mut self, n: usize, args: &[&str]) {
        let home = self.world.host(&format!("home{n}"));
        let url = format!("p2psp://{}", self.at);
        self.members.push(PeerLite::start_with(&home, &url, args));
    }

    fn expect_members(&self, count: usize) {
        let so_many = || self.relay.metric("totality_team_peers") == count as u64;
        assert!(
            eventually(PATIENCE, so_many),
            "expected {count} members, got {}: {}",
            self.relay.metric("totality_team_peers"),
            self.relay.said()
        );
    }

    fn listeners(&self) -> Vec<Listener> {
        let listen = |member: &PeerLite| Listener::tune_in(&self.root, member.at(), "/", Form::Ts);
        let listeners: Vec<_> = self.members.iter().map(listen).collect();
        listeners.iter().for_each(Listener::expect_sound);
        listeners
    }

    /// All of them get what is being sent now, and have got everything before it.
    fn expect_whole(&self, listeners: &[Listener]) {
        let due = self.source.next();
        for (n, listener) in listeners.iter().enumerate() {
            assert!(
                listener.reaches(due, PATIENCE),
                "{due} units sent, {:?} came: {}",
                listener.next(),
                self.members[n].status()
            );
            listener.judge(Checker::expect_whole);
        }
    }
}

fn a_team_carries_every_byte(backend: Backend) {
    carries_every_byte(backend, "team", "b");
}

fn a_team_that_floods_carries_every_byte(backend: Backend) {
    carries_every_byte(backend, "flood", "c");
}

fn carries_every_byte(backend: Backend, name: &str, wire: &'static str) {
    let mut team = Team::of(4, name, backend, wire);
    let listeners = team.listeners();
    pass(3000);
    team.expect_whole(&listeners);
    for member in &team.members {
        assert!(
            member.team("relayed") > 0,
            "it relays nothing: {}",
            member.status()
        );
        assert_eq!(member.status()["via"], "team");
    }
    // One upload of the stream, whoever is in the team.
    let of_team = |name| team.relay.metric(name);
    let (given, again) = (of_team("totality_team_chunks"), of_team("totality_team_resent"));
    let bytes = of_team("totality_bytes_heard");
    assert!(given <= bytes / 1316, "{given} chunks given of {bytes} bytes");
    assert!(again * 50 <= given, "{again} of {given} chunks sent again");
    assert_eq!(of_team("totality_posts_dropped"), 0);
    team.relay.expect_alive();
}

fn a_killed_member_is_out_in_seconds(backend: Backend) {
    let mut team = Team::of(4, "killed", backend, "b");
    let mut listeners = team.listeners();
    pass(500);
    listeners.remove(0);
    team.members[0].process().kill9();
    let since = Instant::now();
    team.expect_members(3);
    assert!(since.elapsed() <= OUT, "it took {:?}", since.elapsed());
    team.members.remove(0);
    pass(1500);
    team.expect_whole(&listeners);
    team.relay.expect_alive();
}

fn a_relay_that_comes_back_has_its_team_again(backend: Backend) {
    let mut team = Team::of(3, "again", backend, "b");
    drop(team.listeners());
    let epoch = |member: &PeerLite| member.status()["epoch"].as_u64();
    let before: Vec<_> = team.members.iter().map(epoch).collect();
    team.relay.kill9();
    pass(500);
    team.relay.start_again();
    team.source = Source::push(&team.root, &team.relay, MOUNT, Form::Ts, 1_000_000, KBPS);
    team.expect_members(3);
    for (member, before) in team.members.iter().zip(before) {
        let on_air = || member.team("joins") >= 2 && epoch(member) != before;
        assert!(eventually(PATIENCE, on_air), "not back: {}", member.status());
    }
    // Whoever comes now hears the new stream only.
    let fresh = |listener: &Listener| listener.judge(|judge| judge.first() >= Some(1_000_000));
    assert!(eventually(PATIENCE, || team.listeners().iter().all(fresh)));
    let listeners = team.listeners();
    team.expect_whole(&listeners);
}

fn a_goodbye_is_heard(backend: Backend) {
    let mut team = Team::of(3, "goodbye", backend, "b");
    let mut listeners = team.listeners();
    listeners.remove(0);
    team.members[0].process().signal(Signal::SIGINT);
    let ended = team.members[0].process().wait(PATIENCE);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    team.members.remove(0);
    team.expect_members(2);
    assert_eq!(team.relay.metric("totality_team_goodbyes"), 1);
    assert_eq!(team.relay.metric("totality_team_expelled"), 0);
    pass(1000);
    team.expect_whole(&listeners);
}

fn helpers_and_caps_are_what_they_say(backend: Backend) {
    let mut team = Team::of(2, "helper", backend, "b");
    let listeners = team.listeners();
    team.join(2, &["--donate"]);
    team.join(3, &["--upload-cap", "64kbit/s"]);
    team.expect_members(4);
    let (helper, capped) = (&team.members[2], &team.members[3]);
    let helps = || helper.team("relayed") > 50;
    assert!(eventually(PATIENCE, helps), "{}", helper.status());
    assert_eq!(helper.status()["bytes_in"], 0, "it plays nothing");
    assert!(
        eventually(PATIENCE, || capped.team("relays_capped") > 50),
        "{}",
        capped.status()
    );
    let uptime = capped.status()["uptime_seconds"].as_i64().unwrap_or(0) + 1;
    let allowed = 64_000 / 8 * (uptime + 1) + 8192 + capped.team("complaints") * 30;
    assert!(capped.team("bytes_sent") <= allowed, "{}", capped.status());
    // What it does not relay is sent again by the relay.
    assert!(team.relay.metric("totality_team_resent") > 0);
    drop(listeners);
    team.relay.expect_alive();
}

fn nonsense_changes_nothing(backend: Backend) {
    let mut team = Team::of(2, "nonsense", backend, "b");
    let listeners = team.listeners();
    let fds = team.relay.fds();
    let stranger = team.world.host("stranger");
    // Every beginning of a join, and some that are none.
    for said in [
        &b""[..],
        b"P",
        b"PX",
        b"M\0",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        &[b'R'; 4000],
    ] {
        let mut talk = Talk::open(&stranger, team.at);
        let _ = talk.try_say(said);
    }
    let socket = stranger.run(|| UdpSocket::bind((stranger.ip(), 0)).unwrap());
    for len in [0, 1, 2, 3, 4, 8, 12, 700, 1318, 2000] {
        for byte in [0, b'H', b'G', 0xff] {
            socket.send_to(&vec![byte; len], team.at).unwrap();
        }
    }
    pass(1000);
    team.expect_whole(&listeners);
    assert!(team.relay.metric("totality_team_unheeded") >= 30);
    team.expect_members(2);
    assert_eq!(team.relay.metric("totality_team_expelled"), 0);
    team.relay.expect_alive();
    team.relay.expect_fds_back(fds);
}

fn the_node_says_where_its_team_is(backend: Backend) {
    let mut team = Team::empty("found", backend, "c");
    let home = team.world.host("home");
    team.members
        .push(PeerLite::start_with(&home, &team.relay.url(MOUNT), &["--team"]));
    team.expect_members(1);
    let listeners = team.listeners();
    pass(500);
    team.expect_whole(&listeners);
    assert_eq!(
        team.members[0].team("from_splitter"),
        team.members[0].team("received")
    );
    let status = team.members[0].status();
    assert_eq!(
        (&status["via"], &status["team"]["wire"]),
        (&"team".into(), &"c".into())
    );
}

/// So many of a hundred datagrams to a host are lost.
fn lose(host: &Host, percent: u32) {
    host.sh("nft", &["add table inet weather"]);
    host.sh(
        "nft",
        &["add chain inet weather in { type filter hook input priority 0; }"],
    );
    let rule =
        format!("add rule inet weather in meta l4proto udp numgen random mod 100 < {percent} counter drop");
    host.sh("nft", &[&rule]);
}

/// Three of a hundred datagrams to each member are lost: chunks, reports, greetings.
fn a_lossy_team_repairs_itself(backend: Backend) {
    if lacks("a lossy team", true, &["nft"]) {
        return;
    }
    const MEMBERS: usize = 12;
    let mut team = Team::empty("lossy", backend, "b");
    for n in 0..MEMBERS {
        let home = team.world.host(&format!("home{n}"));
        lose(&home, 3);
        team.join(n, &[]);
    }
    team.expect_members(MEMBERS);
    let listeners = team.listeners();
    pass(6000);
    team.expect_whole(&listeners);
    let (mut received, mut lost) = (0, 0);
    for member in &team.members {
        received += member.team("received");
        lost += member.team("lost");
    }
    let again = team.relay.metric("totality_team_resent") as i64;
    assert!(
        received > 1000 && again > 0,
        "{received} received, {again} sent again"
    );
    assert_eq!(lost, 0, "of {received}");
    assert_eq!(team.relay.metric("totality_team_expelled"), 0);
}

/// Nothing is reported and sent again; but the node has a link, too, and the same numbers.
fn the_node_fills_what_the_team_loses(backend: Backend) {
    if lacks("holes filled by link", true, &["nft"]) {
        return;
    }
    let mut team = Team::empty("filled", backend, "b");
    team.join(0, &["--no-reports"]);
    let home = team.world.host("home");
    lose(&home, 5);
    let url = team.relay.url(MOUNT);
    team.members
        .push(PeerLite::start_with(&home, &url, &["--team", "--no-reports"]));
    team.expect_members(2);
    let mut listeners = team.listeners();
    pass(4000);
    let (helped, listener) = (team.members.remove(1), listeners.remove(1));
    let due = team.source.next();
    assert!(listener.reaches(due, PATIENCE), "{}", helped.status());
    listener.judge(Checker::expect_whole);
    assert!(helped.team("filled") > 0, "{}", helped.status());
    assert!(
        helped.team("filled") <= helped.team("lost"),
        "{}",
        helped.status()
    );
    assert_eq!(team.relay.metric("totality_team_resent"), 0);
}

/// The program that leads a team and is no relay.
#[test]
fn a_splitter_alone_leads_what_icecast_serves() {
    if lacks("a splitter beside Icecast", false, &["icecast2"]) {
        return;
    }
    let world = World::new("alone");
    let root = world.host("root");
    let (_icecast, ice) = start_icecast(&root, "");
    let source = Source::push_as(&root, ice, MOUNT, Form::Ts, 0, KBPS, Framing::Source);
    let at = SocketAddr::new(root.ip(), root.free_port());
    let mut command = Command::new(bin("splitter"));
    let url = format!("http://{ice}{MOUNT}");
    command.args([
        "--source",
        &url,
        "--listen",
        &at.to_string(),
        "--buffer-chunks",
        "512",
    ]);
    let splitter = Process::start(&root, "splitter", command);
    let home = |n| world.host(&format!("home{n}"));
    let members: Vec<_> = (0..2)
        .map(|n| PeerLite::start(&home(n), &format!("p2psp://{at}")))
        .collect();
    let listen = |member: &PeerLite| {
        let listener = Listener::tune_in(&root, member.at(), "/", Form::Ts);
        listener.expect_sound();
        listener
    };
    let listeners: Vec<_> = members.iter().map(listen).collect();
    pass(1500);
    let due = source.next();
    for listener in &listeners {
        assert!(
            listener.reaches(due, PATIENCE),
            "{:?}: {}",
            listener.next(),
            splitter.said()
        );
        listener.judge(Checker::expect_whole);
    }
    assert!(members.iter().all(|member| member.team("relayed") > 0));
    // The encoder goes, and another one comes: the splitter asks again, and the team hears it.
    source.stop();
    pass(1000);
    let again = Source::push_as(&root, ice, MOUNT, Form::Ts, 1_000_000, KBPS, Framing::Source);
    let hears = |member: &PeerLite| listen(member).judge(|judge| judge.first() >= Some(1_000_000));
    assert!(
        eventually(PATIENCE, || members.iter().all(hears)),
        "nobody hears the second encoder: {}",
        splitter.said()
    );
    drop(again);
}

fn ffmpeg_plays_from_a_member(backend: Backend) {
    if lacks("a team plays", false, &["ffmpeg"]) {
        return;
    }
    let world = World::new("teamplay");
    let [root, home] = ["root", "home"].map(|name| world.host(name));
    let at = SocketAddr::new(root.ip(), root.free_port()).to_string();
    let args = [
        "--team",
        "/x.ts",
        "--team-listen",
        &at,
        "--team-buffer",
        "128",
        "--team-peers",
        "8",
    ];
    let relay = Relay::start(&root, Opts::on(backend).args(&args));
    let encode = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-g",
        "25",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        "-f",
        "mpegts",
        "-content_type",
        "video/mp2t",
    ];
    let _encoder = publish(&root, "studio", &encode, &relay.icecast_url("/x.ts"));
    let member = PeerLite::start(&home, &format!("p2psp://{at}"));
    let plays = || member.status()["state"] == "on-air";
    assert!(eventually(PATIENCE, plays), "{}", member.status());
    pass(1500);
    let complaint = play(&home, &format!("http://{}/", member.at()), 3, &[]).err();
    assert_eq!(complaint, None);
}
