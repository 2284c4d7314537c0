//! Icecast on either side: it relays our channels, and we pull its.

use std::net::SocketAddr;
use std::time::Duration;

use totality_tests::{
    Backend, Checker, Form, Host, Listener, Opts, Process, Relay, SOURCE_PASSWORD, Source, World, eventually,
    ffmpeg, icecast, lacks, play, vlc,
};
use totality_tests::{Framing, get};

use crate::common::{KBPS, MOUNT};

on_both_backends! {
    icecast_relays_us
    we_pull_from_icecast
    we_pull_from_vlc
}

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn start_icecast(host: &Host, relay: &str) -> (Process, SocketAddr) {
    let at = SocketAddr::new(host.ip(), host.free_port());
    let logs = host.file("icecast-logs");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::set_permissions(&logs, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let xml = format!(
        "<icecast><limits><clients>100</clients><sources>10</sources></limits>\
         <authentication><source-password>{SOURCE_PASSWORD}</source-password>\
         <admin-user>admin</admin-user><admin-password>x</admin-password></authentication>\
         <hostname>icecast</hostname>\
         <listen-socket><port>{}</port><bind-address>{}</bind-address></listen-socket>{relay}\
         <paths><logdir>{}</logdir><webroot>/usr/share/icecast2/web</webroot>\
         <adminroot>/usr/share/icecast2/admin</adminroot></paths>\
         <logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog></logging></icecast>",
        at.port(),
        at.ip(),
        logs.display()
    );
    let process = icecast(host, "icecast", &xml);
    assert!(
        eventually(PATIENCE, || host.connect(at).is_ok()),
        "Icecast does not listen: {}",
        process.said()
    );
    (process, at)
}

fn icecast_relays_us(backend: Backend) {
    if lacks("Icecast", false, &["icecast2"]) {
        return;
    }
    let world = World::new("ice");
    let (root, far) = (world.host("root"), world.host("far"));
    let relay = Relay::start(&root, Opts::on(backend));
    let source = Source::push(&root, &relay, MOUNT, Form::Ts, 0, KBPS);
    let (ip, port) = (relay.at().ip(), relay.at().port());
    let from_us = format!(
        "<relay><server>{ip}</server><port>{port}</port><mount>{MOUNT}</mount><local-mount>{MOUNT}</local-mount>\
         <on-demand>0</on-demand><relay-shoutcast-metadata>0</relay-shoutcast-metadata></relay>"
    );
    let (_icecast, at) = start_icecast(&far, &from_us);
    let head = || {
        get(&far, at, "/status-json.xsl", "")
            .text()
            .contains("numbered.ts")
    };
    assert!(eventually(PATIENCE, head), "Icecast does not relay us");
    let listener = Listener::tune_in(&far, at, MOUNT, Form::Ts);
    listener.expect_sound();
    let due = source.next() + 200;
    assert!(listener.reaches(due, PATIENCE), "{:?}", listener.next());
    // Icecast lets newcomers in anywhere, in the middle of a packet too; from there on it is whole.
    listener.judge(|heard| {
        assert!(
            heard.faults().len() <= 1 && heard.jumps().is_empty() && heard.units() > 200,
            "{heard:?}"
        );
    });
}

fn we_pull_from_icecast(backend: Backend) {
    if lacks("Icecast", false, &["icecast2"]) {
        return;
    }
    let world = World::new("pull");
    let (root, far) = (world.host("root"), world.host("far"));
    let (_icecast, at) = start_icecast(&far, "");
    let source = Source::push_as(&far, at, MOUNT, Form::Ts, 0, KBPS, Framing::Source);
    let pull = format!("/pulled.ts=http://{at}{MOUNT}");
    let relay = Relay::start(&root, Opts::on(backend).args(&["--pull", &pull]));
    let listener = Listener::tune_in(&root, relay.at(), "/pulled.ts", Form::Ts);
    listener.expect_sound();
    let due = source.next() + 200;
    assert!(listener.reaches(due, PATIENCE), "{:?}", listener.next());
    listener.judge(Checker::expect_whole);
    // The source blinks: we come back for it.
    drop(source);
    let group = Form::Ts.group();
    let first = group << 12;
    let again = || {
        let said = get(&far, at, "/status-json.xsl", "").text();
        !said.contains("numbered.ts")
    };
    assert!(eventually(PATIENCE, again), "Icecast still has the old source");
    let source = Source::push_as(&far, at, MOUNT, Form::Ts, first, KBPS, Framing::Source);
    assert!(
        listener.reaches(first, PATIENCE),
        "{} sent, {:?} came",
        source.next(),
        listener.next()
    );
    // Where Icecast cut the old stream and began the new one there may be a piece of a packet.
    listener.judge(|heard| assert!(heard.jumps().len() == 1 && heard.faults().len() <= 2, "{heard:?}"));
}

/// VLC's own HTTP output is a live URL like any other.
fn we_pull_from_vlc(backend: Backend) {
    if lacks("VLC", false, &["vlc", "ffmpeg"]) {
        return;
    }
    let world = World::new("vlcpull");
    let host = world.host("root");
    let film = host.file("film.ts");
    let make = [
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=160x120:rate=25",
        "-t",
        "20",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "25",
        "-f",
        "mpegts",
    ];
    let args: Vec<&str> = make.iter().copied().chain([film.to_str().unwrap()]).collect();
    assert!(
        ffmpeg(&host, "film", &args)
            .wait(PATIENCE)
            .is_some_and(|status| status.success())
    );
    std::fs::set_permissions(&film, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let at = SocketAddr::new(host.ip(), host.free_port());
    let sout = format!("--sout=#std{{access=http,mux=ts,dst={at}/film.ts}}");
    let _vlc = vlc(&host, "vlc", &["--loop", &sout, film.to_str().unwrap()]);
    let pull = format!("/pulled.ts=http://{at}/film.ts");
    let relay = Relay::start(&host, Opts::on(backend).args(&["--pull", &pull]));
    let known = || relay.get("/api/v1/channels").text().contains("on-air");
    assert!(eventually(PATIENCE, known), "{}", relay.said());
    play(&host, &relay.url("/pulled.ts"), 3, &[]).unwrap();
}
