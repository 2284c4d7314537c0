//! The page in a real browser: Chromium, driven over WebDriver, plays a channel.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use totality_tests::{Backend, Host, Opts, Process, Relay, World, eventually, lacks, publish};

on_both_backends! {
    the_page_plays_in_a_browser
}

const PATIENCE: Duration = Duration::from_secs(40);

/// A browser, as far as this story needs one.
struct Browser<'h> {
    host: &'h Host,
    driver: SocketAddr,
    session: String,
    _process: Process,
}

impl<'h> Browser<'h> {
    fn open(host: &'h Host) -> Self {
        let port = host.free_port();
        let driver = SocketAddr::new([127, 0, 0, 1].into(), port);
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let process = Process::start(host, "chromedriver", command);
        assert!(
            eventually(PATIENCE, || host.connect(driver).is_ok()),
            "chromedriver does not listen: {}",
            process.said()
        );
        let profile = host.file("browser");
        let mut browser = Self {
            host,
            driver,
            session: String::new(),
            _process: process,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--autoplay-policy=no-user-gesture-required",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let session = browser.ask("POST", "", Some(&wanted));
        browser.session = format!("/{}", session["sessionId"].as_str().expect("a session"));
        browser
    }

    fn visit(&self, url: &str) {
        self.ask("POST", "/url", Some(&json!({"url": url})));
    }

    fn run(&self, script: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            Some(&json!({"script": script, "args": []})),
        )
    }

    /// One WebDriver command; the value it answers with.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = self.host.connect(self.driver).expect("chromedriver");
        let head = format!(
            "{method} /session{}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.session,
            self.driver,
            body.len()
        );
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.write_all(head.as_bytes()).expect("a request");
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        // Some drivers keep the connection open: the length says where the answer ends.
        while !is_whole(&answer) {
            let n = stream.read(&mut piece).expect("an answer");
            assert!(n > 0, "the driver hung up: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..n]);
        }
        let text = String::from_utf8_lossy(&answer);
        let (_, json) = text.split_once("\r\n\r\n").expect("a body");
        let answer: Value = serde_json::from_str(json).expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{method} {path}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ask("DELETE", "", None);
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| answer.len() >= head.len() + 4 + length)
}

fn the_page_plays_in_a_browser(backend: Backend) {
    if lacks("the page", false, &["chromedriver", "chromium", "ffmpeg"]) {
        return;
    }
    let world = World::new("page");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend));
    let encode = [
        "-c:v",
        "libvpx",
        "-deadline",
        "realtime",
        "-g",
        "25",
        "-c:a",
        "libvorbis",
        "-f",
        "webm",
        "-content_type",
        "video/webm",
    ];
    let _source = publish(&host, "source", &encode, &relay.icecast_url("/sun.webm"));
    let known = || relay.get("/api/v1/channels").text().contains("/sun.webm");
    assert!(eventually(PATIENCE, known), "the channel never came");

    let browser = Browser::open(&host);
    browser.visit(&format!("http://{}/?play=/sun.webm", relay.at()));
    let text = || browser.run("return document.body.innerText").to_string();
    assert!(
        eventually(PATIENCE, || text().contains("/sun.webm")),
        "{}",
        text()
    );
    let script = "const v = document.querySelector('video'); return v ? v.currentTime : -1";
    let played = || browser.run(script).as_f64().unwrap_or(-1.0);
    assert!(
        eventually(PATIENCE, || played() > 1.0),
        "the picture stands at {} s",
        played()
    );
    let shown =
        browser.run("const v = document.querySelector('video'); return [v.videoWidth, v.videoHeight]");
    assert_eq!(shown, json!([320, 180]));
}
