//! First light: real encoders publish, real players play, and nobody has anything to complain about.

use std::time::Duration;

use totality_tests::{
    Backend, Opts, Process, Relay, World, basic, decodes, eventually, ffmpeg, lacks, pass, play, publish, vlc,
};

on_both_backends! {
    ffmpeg_to_ffmpeg_in_every_format
    titles_reach_a_player
    vlc_plays
    vlc_publishes
}

const VIDEO: [&str; 10] = [
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
];
const AAC: [&str; 4] = ["-c:a", "aac", "-b:a", "64k"];

/// Name, encoder and muxer, content type.
fn formats() -> Vec<(&'static str, Vec<&'static str>, &'static str)> {
    let with = |parts: &[&[&'static str]]| parts.concat();
    let theora = [
        "-c:v",
        "libtheora",
        "-q:v",
        "5",
        "-g",
        "25",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "libvorbis",
        "-f",
        "ogg",
    ];
    let webm = [
        "-c:v",
        "libvpx",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-b:v",
        "300k",
        "-g",
        "25",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "libvorbis",
        "-f",
        "webm",
        "-cluster_time_limit",
        "1000",
    ];
    let fragments = [
        "-f",
        "mp4",
        "-movflags",
        "frag_keyframe+empty_moov+default_base_moof",
    ];
    vec![
        ("x.ts", with(&[&VIDEO, &AAC, &["-f", "mpegts"]]), "video/mp2t"),
        ("x.flv", with(&[&VIDEO, &AAC, &["-f", "flv"]]), "video/x-flv"),
        ("x.mp4", with(&[&VIDEO, &AAC, &fragments]), "video/mp4"),
        ("x.webm", webm.to_vec(), "video/webm"),
        ("x.ogv", theora.to_vec(), "video/ogg"),
        (
            "x.ogg",
            vec!["-vn", "-c:a", "libvorbis", "-f", "ogg"],
            "audio/ogg",
        ),
        ("x.opus", vec!["-vn", "-c:a", "libopus", "-f", "ogg"], "audio/ogg"),
        (
            "x.mp3",
            vec!["-vn", "-c:a", "libmp3lame", "-b:a", "128k", "-f", "mp3"],
            "audio/mpeg",
        ),
        ("x.aac", vec!["-vn", "-c:a", "aac", "-f", "adts"], "audio/aac"),
    ]
}

fn ffmpeg_to_ffmpeg_in_every_format(backend: Backend) {
    if lacks("first light", false, &["ffmpeg"]) {
        return;
    }
    let world = World::new("light");
    let (root, studio, home) = (world.host("root"), world.host("studio"), world.host("home"));
    let mut relay = Relay::start(&root, Opts::on(backend));
    let mut encoders: Vec<Process> = Vec::new();
    for (i, (name, encode, content_type)) in formats().into_iter().enumerate() {
        let (mut args, mount) = (encode, format!("/{name}"));
        args.extend(["-content_type", content_type]);
        // By turns as ffmpeg's own Icecast client, and as plain HTTP.
        let url = if i % 2 == 0 {
            relay.icecast_url(&mount)
        } else {
            args.extend(["-method", "PUT", "-auth_type", "basic"]);
            relay.icecast_url(&mount).replace("icecast://", "http://")
        };
        encoders.push(publish(&studio, name, &args, &url));
    }
    let names: Vec<&str> = formats().iter().map(|format| format.0).collect();
    for name in &names {
        let on_air = eventually(Duration::from_secs(20), || {
            relay
                .ask(
                    format!("HEAD /{name} HTTP/1.1\r\n\r\n").as_bytes(),
                    Duration::from_secs(12),
                )
                .status()
                == Some(200)
        });
        assert!(on_air, "{name} is not on the air");
    }
    let mut complaints = Vec::new();
    for round in 0..3 {
        // Newcomers come at whatever moment this is.
        pass(700 + 410 * round);
        std::thread::scope(|scope| {
            let players: Vec<_> = names
                .iter()
                .map(|name| {
                    let (url, home) = (relay.url(&format!("/{name}")), &home);
                    scope.spawn(move || play(home, &url, 3, &[]))
                })
                .collect();
            complaints.extend(
                players
                    .into_iter()
                    .filter_map(|player| player.join().unwrap().err()),
            );
        });
    }
    assert!(
        complaints.is_empty(),
        "players complained:\n{}",
        complaints.join("\n")
    );
    for encoder in &mut encoders {
        assert!(
            encoder.ended().is_none(),
            "an encoder gave up: {}",
            encoder.said()
        );
    }
    relay.expect_alive();
}

fn titles_reach_a_player(backend: Backend) {
    if lacks("titles", false, &["ffmpeg", "ffprobe"]) {
        return;
    }
    let world = World::new("icy");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend));
    let encode = [
        "-vn",
        "-c:a",
        "libmp3lame",
        "-b:a",
        "128k",
        "-content_type",
        "audio/mpeg",
        "-f",
        "mp3",
    ];
    let _encoder = publish(&host, "mp3", &encode, &relay.icecast_url("/radio.mp3"));
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    let update = format!(
        "GET /admin/metadata?mode=updinfo&mount=/radio.mp3&song=Diamond%20ring HTTP/1.1\r\n\
         Host: {}\r\n{login}Connection: close\r\n\r\n",
        relay.at()
    );
    let patience = Duration::from_secs(20);
    let said = || relay.ask(update.as_bytes(), Duration::from_secs(5)).status() == Some(200);
    assert!(eventually(patience, said), "the title was not taken");
    let url = relay.url("/radio.mp3");
    let seen = || {
        let args = [
            "-v",
            "error",
            "-icy",
            "1",
            "-show_entries",
            "format_tags=StreamTitle",
            "-of",
            "csv=p=0",
            &url,
        ];
        host.sh("ffprobe", &args).contains("Diamond ring")
    };
    assert!(eventually(patience, seen), "expected a player to see the title");
    play(&host, &url, 3, &["-icy", "1"]).unwrap();
}

fn vlc_plays(backend: Backend) {
    if lacks("VLC as a player", false, &["ffmpeg", "vlc"]) {
        return;
    }
    let world = World::new("vlc");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend));
    let encode = [&VIDEO[..], &AAC, &["-f", "mpegts", "-content_type", "video/mp2t"]].concat();
    let _encoder = publish(&host, "ts", &encode, &relay.icecast_url("/x.ts"));
    pass(2000);
    let file = host.file("played.ts");
    let sout = format!("--sout=#std{{access=file,mux=ts,dst={}}}", file.display());
    let mut player = vlc(
        &host,
        "vlc",
        &[&relay.url("/x.ts"), &sout, "--run-time=4", "vlc://quit"],
    );
    let ended = player.wait(Duration::from_secs(30));
    assert!(ended.is_some(), "VLC did not come to an end");
    let bytes = std::fs::metadata(&file).map_or(0, |m| m.len());
    assert!(bytes > 50_000, "VLC played {bytes} bytes");
    let status = ffmpeg(
        &host,
        "look",
        &["-i", &file.display().to_string(), "-f", "null", "-"],
    )
    .wait(Duration::from_secs(30));
    assert!(status.is_some_and(|s| s.success()));
}

fn vlc_publishes(backend: Backend) {
    if lacks("VLC as a source", false, &["ffmpeg", "vlc"]) {
        return;
    }
    let world = World::new("shout");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend));
    let film = host.file("film.ogg");
    let input = [
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=330:duration=40",
        "-c:a",
        "libvorbis",
        &film.display().to_string(),
    ]
    .map(str::to_owned);
    let mut making = ffmpeg(
        &host,
        "film",
        &input.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(
        making.wait(Duration::from_secs(30)).is_some_and(|s| s.success()),
        "{}",
        making.said()
    );
    decodes(&host, &film).unwrap();
    let dst = relay.icecast_url("/vlc.ogg").replace("icecast://", "");
    let sout = format!("--sout=#std{{access=shout,mux=ogg,dst={dst}}}");
    let source = vlc(&host, "vlc", &[&film.display().to_string(), &sout]);
    let on_air = || {
        relay
            .ask(b"HEAD /vlc.ogg HTTP/1.1\r\n\r\n", Duration::from_secs(12))
            .status()
            == Some(200)
    };
    assert!(
        eventually(Duration::from_secs(20), on_air),
        "VLC said: {}",
        source.said()
    );
    play(&host, &relay.url("/vlc.ogg"), 3, &[]).unwrap();
}
