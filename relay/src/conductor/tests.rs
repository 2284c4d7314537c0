//! The control plane in front of a real relay, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use relay_driver::Backend;
use relay_source::Secret;
use serde_json::Value;

use super::{AccessLog, CONNECTIONS_MAX, Conductor, Settings};
use crate::run::{Open, open};
use crate::steer::Plan;

/// Row A8: what strangers write into every field that they can.
const HOSTILE: &str = "x<script>alert(1)</script>\"'&\\";

struct World {
    conductor: Option<Conductor>,
    open: Option<Open>,
    at: SocketAddr,
    log: PathBuf,
}

/// One answer, taken apart.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

fn station(upstreams: Vec<relay_station::UpstreamSpec>) -> relay_station::Config {
    let source = relay_source::Config {
        password: Some(Secret::new("sp").unwrap()),
        ..Default::default()
    };
    relay_station::Config {
        node_id: "root-1".into(),
        software: "totality/test".into(),
        workers: 1,
        max_batch_delay: Duration::from_millis(5),
        connections_max: 1000,
        reserved: 10,
        head_timeout: Duration::from_secs(15),
        channels_max: 8,
        ring_bytes: 1 << 20,
        ring_seconds: 4,
        ring_max_bytes: 32 << 20,
        chunk_size: 1316,
        listener: Default::default(),
        source,
        mounts: Default::default(),
        node_token: None,
        upstream_timing: Default::default(),
        root_mount: None,
        upstreams,
        on_demand: true,
        cast: None,
        team: None,
    }
}

impl World {
    fn new() -> World {
        World::with(|settings| settings.admin_password = Some(Secret::new("ap").unwrap()))
    }

    fn with(change: impl FnOnce(&mut Settings)) -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "relay-conductor-{}-{}.log",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let log = std::env::temp_dir().join(name);
        let mut settings = Settings {
            access_log: AccessLog::File(log.clone()),
            ..Settings::default()
        };
        change(&mut settings);
        let conductor = Conductor::start(settings).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let open = open(
            station(Vec::new()),
            listen,
            Backend::Mio,
            &Plan::default(),
            conductor.handover(),
        )
        .unwrap();
        conductor.attach(&open);
        World {
            at: open.listen,
            conductor: Some(conductor),
            open: Some(open),
            log,
        }
    }

    /// What comes back for bytes.
    fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.write_all(request).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn get_with(&self, target: &str, fields: &str) -> Answer {
        self.raw(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.at).as_bytes())
    }

    fn get(&self, target: &str) -> Answer {
        self.get_with(target, "")
    }

    /// As the administrator.
    fn admin(&self, target: &str) -> Answer {
        self.get_with(target, &basic("admin", "ap"))
    }

    /// The built-in picture, from a source that stays.
    fn publish(&self, mount: &str, fields: &str) -> TcpStream {
        let mut source = TcpStream::connect(self.at).unwrap();
        let auth = basic("source", "sp");
        let head =
            format!("PUT {mount} HTTP/1.1\r\nHost: h\r\n{auth}Content-Type: video/webm\r\n{fields}\r\n");
        source.write_all(head.as_bytes()).unwrap();
        source.write_all(relay_clip::ECLIPSE_WEBM).unwrap();
        let mount = mount.to_owned();
        self.until(|world| {
            world
                .channel(&mount)
                .is_some_and(|c| c["state"] == "on-air" && c["kind"] == "webm")
        });
        source
    }

    fn channel(&self, mount: &str) -> Option<Value> {
        let all = self.get("/api/v1/channels").json();
        all["channels"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["href"] == mount || c["mount"] == mount)
            .cloned()
    }

    /// A listener that has been greeted.
    fn listen(&self, mount: &str, fields: &str) -> TcpStream {
        let mut listener = TcpStream::connect(self.at).unwrap();
        write!(listener, "GET {mount} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").unwrap();
        let mut first = [0; 12];
        listener.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        listener
    }

    /// Waits for something that comes by itself.
    fn until(&self, holds: impl Fn(&World) -> bool) {
        self.wait(|| holds(self));
    }

    fn wait(&self, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "it did not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it; the access log.
    fn end(mut self) -> String {
        self.open.take().unwrap().close().unwrap();
        self.conductor.take().unwrap().stop().unwrap();
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let _ = open.close();
        }
        if let Some(conductor) = self.conductor.take() {
            let _ = conductor.stop();
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

fn basic(user: &str, password: &str) -> String {
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {token}\r\n")
}

/// Tags that match, and no stray `<`, `&` or control byte.
fn assert_well_formed(xml: &str) {
    let (declaration, mut rest) = xml.split_once("?>").unwrap();
    assert!(declaration.starts_with("<?xml"));
    let mut open = Vec::new();
    while let Some((text, tail)) = rest.split_once('<') {
        assert_text(text);
        let (tag, tail) = tail
            .split_once('>')
            .unwrap_or_else(|| panic!("a tag does not end in {xml}"));
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "{xml}"),
            None => {
                let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
                assert!(
                    name.chars()
                        .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)),
                    "{name}"
                );
                assert!(
                    attributes.is_empty() || attributes.matches('"').count() == 2,
                    "{attributes}"
                );
                assert_text(attributes);
                open.push(name.to_owned());
            }
        }
        rest = tail;
    }
    assert_text(rest);
    assert!(open.is_empty(), "{open:?} in {xml}");
}

fn assert_text(text: &str) {
    assert!(
        !text.contains('>') && text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
    for after in text.split('&').skip(1) {
        let (entity, _) = after.split_once(';').unwrap();
        assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "{entity}");
    }
}

#[test]
fn an_empty_relay_is_healthy_and_says_so() {
    let world = World::new();
    assert_eq!(world.get("/healthz").body, "ok\n");
    assert_eq!(world.get("/readyz").status, 200);
    let health = world.get("/api/v1/health").json();
    assert_eq!(
        (&health["ready"], &health["workers"]),
        (&true.into(), &serde_json::json!([true]))
    );
    assert_eq!(
        world.get("/api/v1/channels").json()["channels"],
        serde_json::json!([])
    );
    let stats = world.get("/status-json.xsl").json();
    let fields: Vec<_> = stats["icestats"].as_object().unwrap().keys().cloned().collect();
    // As a real Icecast 2.4.4 without sources; serde_json sorts them here.
    let mut expected = [
        "admin",
        "host",
        "location",
        "server_id",
        "server_start",
        "server_start_iso8601",
        "dummy",
    ]
    .map(str::to_owned);
    expected.sort();
    assert_eq!(fields, expected);
}

#[test]
fn every_answer_closes_and_binds_the_browser() {
    let world = World::new();
    for target in [
        "/",
        "/healthz",
        "/metrics",
        "/status-json.xsl",
        "/api/v1/node",
        "/nope.m3u",
        "/status.xsl",
    ] {
        let head = world.get(target).head;
        assert!(
            head.contains("connection: close") && head.contains("x-content-type-options: nosniff"),
            "{head}"
        );
        assert!(
            head.contains("server: totality/test") && head.contains("date: "),
            "{head}"
        );
    }
    let page = world.get("/");
    assert!(
        page.head.contains("content-security-policy: default-src 'self'"),
        "{}",
        page.head
    );
    // Neither script nor style nor handler inside the page: the policy would block them.
    for bad in ["<style", " style=", "onclick=", "onload=", "javascript:"] {
        assert!(!page.body.contains(bad), "{bad}");
    }
    assert_eq!(
        page.body.matches("<script").count(),
        page.body.matches("<script src=\"/assets/").count()
    );
    for asset in page.body.split('"').filter(|part| part.starts_with("/assets/")) {
        assert_eq!(world.get(asset).status, 200, "{asset}");
    }
    for (path, status) in [
        ("/assets/nope", 404),
        ("/favicon.ico", 200),
        ("/api/v1/nope", 404),
        ("/admin", 404),
    ] {
        assert_eq!(world.get(path).status, status, "{path}");
    }
    assert_eq!(
        world.raw(b"DELETE /metrics HTTP/1.1\r\nHost: h\r\n\r\n").status,
        405
    );
}

#[test]
fn http_1_0_and_head_are_served() {
    let world = World::new();
    assert_eq!(world.raw(b"GET /healthz HTTP/1.0\r\n\r\n").body, "ok\n");
    let head = world.raw(b"HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn a_channel_is_seen_from_everywhere() {
    let world = World::new();
    let fields = "ice-name: The Sun\r\nice-genre: sky\r\nice-description: Corona\r\n\
                  ice-url: http://sun/\r\nice-bitrate: 900\r\n";
    let _source = world.publish("/eclipse.webm", fields);
    let _listener = world.listen("/eclipse.webm", "User-Agent: player/1\r\n");
    world.until(|w| w.channel("/eclipse.webm").is_some_and(|c| c["listeners"] == 1));

    let stats = world.get("/status-json.xsl").json();
    let source = &stats["icestats"]["source"];
    assert_eq!(source["server_name"], "The Sun");
    assert_eq!(source["bitrate"], 900);
    assert_eq!(
        source["listenurl"],
        format!("http://localhost:{}/eclipse.webm", world.at.port())
    );
    assert_eq!(
        (&source["listeners"], &source["server_type"]),
        (&1.into(), &"video/webm".into())
    );
    assert!(
        source["stream_start_iso8601"]
            .as_str()
            .unwrap()
            .ends_with("+0000")
    );
    assert_eq!(source.get("title"), None);

    let other = world.publish("/two.webm", "");
    let stats = world.get("/status-json.xsl").json();
    assert_eq!(stats["icestats"]["source"].as_array().unwrap().len(), 2);
    let one = world.get("/status-json.xsl?mount=/two.webm").json();
    assert_eq!(one["icestats"]["source"]["server_name"], "Unspecified name");
    assert!(
        world.get("/status-json.xsl?mount=/three").json()["icestats"]
            .get("source")
            .is_none()
    );
    drop(other);

    let channel = world.get("/api/v1/channels/eclipse.webm").json();
    assert_eq!(
        (&channel["name"], &channel["plays"]),
        (&"The Sun".into(), &"video".into())
    );
    assert_eq!(world.get("/api/v1/channels/nope").status, 404);
    let node = world.get("/api/v1/node").json();
    assert_eq!((&node["id"], &node["listeners"]), (&"root-1".into(), &1.into()));

    let list = world.get("/eclipse.webm.m3u");
    assert!(list.head.contains("audio/x-mpegurl"));
    assert_eq!(
        list.body,
        format!(
            "#EXTM3U\r\n#EXTINF:-1,The Sun\r\nhttp://{}/eclipse.webm\r\n",
            world.at
        )
    );
    let forged = world.raw(b"GET /eclipse.webm.m3u HTTP/1.1\r\nHost: user@evil\r\n\r\n");
    assert!(
        forged.body.contains(&format!("http://{}/eclipse.webm", world.at)),
        "{}",
        forged.body
    );
    assert_eq!(world.get("/three.m3u").status, 404);
}

#[test]
fn metrics_have_a_sentence_each_and_count() {
    let world = World::new();
    let _source = world.publish("/eclipse.webm", "");
    let text = world.get("/metrics");
    assert!(text.head.contains("content-type: text/plain; version=0.0.4"));
    let mut typed = std::collections::HashSet::new();
    for line in text.body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(
                typed.insert(rest.split(' ').next().unwrap()),
                "{line} comes twice"
            );
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            assert!(
                typed.contains(series.split('{').next().unwrap()),
                "{line} has no type"
            );
        }
    }
    for series in [
        "totality_sources{worker=\"0\"} 1",
        "totality_channel_on_air{mount=\"/eclipse.webm\"} 1",
        "totality_driver_accepts{worker=\"0\"}",
        "totality_build_info{version=",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
    ] {
        assert!(text.body.contains(series), "{series} in {}", text.body);
    }
    for entry in relay_station::CATALOGUE {
        assert!(
            text.body
                .contains(&format!("\ntotality_{}{{worker=\"0\"}} ", entry.name)),
            "{}",
            entry.name
        );
    }
}

#[test]
fn an_administrator_asks_and_changes() {
    let world = World::new();
    let _one = world.publish("/one.webm", "ice-name: One\r\n");
    let two = world.publish("/two.webm", "");
    let mut listener = world.listen("/one.webm", "User-Agent: ear/1\r\n");
    world.until(|w| {
        w.admin("/admin/listclients?mount=/one.webm")
            .body
            .contains("<Listeners>1<")
    });

    let clients = world.admin("/admin/listclients?mount=/one.webm").body;
    assert_well_formed(&clients);
    assert!(
        clients.contains("<IP>127.0.0.1</IP><UserAgent>ear/1</UserAgent>"),
        "{clients}"
    );
    let api = world.admin("/api/v1/listeners?mount=/one.webm").json();
    assert_eq!(
        (&api["listeners"][0]["agent"], &api["listeners"][0]["link"]),
        (&"ear/1".into(), &false.into())
    );
    for call in ["stats", "stats?mount=/one.webm", "listmounts"] {
        let answer = world.admin(&format!("/admin/{call}"));
        assert_well_formed(&answer.body);
        assert!(
            answer.body.contains("<source mount=\"/one.webm\">"),
            "{}",
            answer.body
        );
    }

    let moved = world.admin("/admin/moveclients?mount=/one.webm&destination=/two.webm");
    assert!(
        moved
            .body
            .contains("<message>Clients moved from /one.webm to /two.webm</message><return>1<")
    );
    world.until(|w| {
        w.admin("/admin/listclients?mount=/two.webm")
            .body
            .contains("<Listeners>1<")
    });
    let clients = world.admin("/admin/listclients?mount=/two.webm").body;
    let id = clients
        .split_once("<ID>")
        .unwrap()
        .1
        .split_once('<')
        .unwrap()
        .0
        .to_owned();

    let wrong = world.admin(&format!("/admin/killclient?mount=/one.webm&id={id}"));
    assert!(
        wrong.body.contains("not found</message><return>0<"),
        "{}",
        wrong.body
    );
    let killed = world.admin(&format!("/admin/killclient?mount=/two.webm&id={id}"));
    assert!(
        killed
            .body
            .contains(&format!("Client {id} removed</message><return>1<"))
    );
    // What had been sent, then the end.
    let mut rest = Vec::new();
    let _ = listener.read_to_end(&mut rest);

    assert!(
        world
            .admin("/admin/killsource?mount=/two.webm")
            .body
            .contains("Source Removed")
    );
    world.until(|w| w.channel("/two.webm").is_none_or(|c| c["state"] != "on-air"));
    drop(two);

    for (call, status) in [
        ("listclients", 400),
        ("listclients?mount=/three", 400),
        ("killclient?mount=/one.webm&id=x", 400),
        ("moveclients?mount=/one.webm&destination=/three", 400),
        ("metadata?mount=/one.webm&mode=updinfo", 400),
        ("metadata?mount=/one.webm&song=x", 400),
        ("nonsense", 400),
    ] {
        assert_eq!(world.admin(&format!("/admin/{call}")).status, status, "{call}");
    }
}

#[test]
fn titles_come_from_admin_and_source_and_are_limited() {
    let world = World::new();
    let _source = world.publish("/one.webm", "");
    let title = |world: &World| {
        world.channel("/one.webm").unwrap()["title"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    let set = world.admin("/admin/metadata?mount=/one.webm&mode=updinfo&song=A%20%26+B");
    assert_eq!(set.status, 200);
    assert_well_formed(&set.body);
    assert_eq!(title(&world), "A & B");
    let source = basic("source", "sp");
    let artist = "/admin/metadata?mount=/one.webm&mode=updinfo&artist=X&title=Y%0d%0aZ";
    assert_eq!(world.get_with(artist, &source).status, 200);
    assert_eq!(title(&world), "X - Y  Z");
    let long = format!(
        "/admin/metadata?mount=/one.webm&mode=updinfo&song={}",
        "%C3%A9".repeat(1200)
    );
    assert_eq!(world.get_with(&long, &source).status, 200);
    assert_eq!(title(&world).len(), 2048);

    // Row A14. Fifty in a row take far less than five seconds; ten a second are let through.
    let began = Instant::now();
    let answers: Vec<u16> = (0..50)
        .map(|n| {
            world
                .admin(&format!("/admin/metadata?mount=/one.webm&mode=updinfo&song={n}"))
                .status
        })
        .collect();
    let seconds = began.elapsed().as_secs() as usize + 2;
    let passed = answers.iter().filter(|status| **status == 200).count();
    assert!(
        passed <= 10 * seconds && answers.iter().all(|s| matches!(s, 200 | 429)),
        "{answers:?}"
    );
    if seconds == 2 {
        assert!(world.get("/metrics").body.lines().any(|l| {
            l.strip_prefix("totality_control_titles_limited ")
                .is_some_and(|n| n.parse::<u32>().unwrap() >= 30)
        }));
    }
    // A source's password is for titles only.
    assert_eq!(world.get_with("/admin/stats", &source).status, 401);
}

#[test]
fn without_a_password_nobody_is_the_administrator() {
    let world = World::with(|_| ());
    let _source = world.publish("/one.webm", "");
    let refused = world.admin("/admin/stats");
    assert_eq!(refused.status, 403);
    assert!(
        refused.body.contains("RELAY_AUTH_ADMIN_PASSWORD"),
        "{}",
        refused.body
    );
    assert_eq!(world.get("/api/v1/listeners").status, 403);
    let song = "/admin/metadata?mount=/one.webm&mode=updinfo&song=x";
    assert_eq!(world.get_with(song, &basic("source", "sp")).status, 200);
    assert_eq!(world.get_with(song, &basic("source", "")).status, 401);
    assert_eq!(world.get_with(song, &basic("admin", "")).status, 403);
}

#[test]
fn guessing_passwords_is_slow() {
    let world = World::new();
    assert!(
        world
            .get("/admin/stats")
            .head
            .contains("www-authenticate: basic realm=")
    );
    for _ in 0..10 {
        assert_eq!(
            world.get_with("/admin/stats", &basic("admin", "guess")).status,
            401
        );
    }
    // Even the right one, for the rest of the minute.
    let refused = world.admin("/admin/stats");
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("retry-after: "));
}

#[test]
fn other_sites_change_nothing() {
    // Rows G1 and G3.
    let world = World::with(|settings| {
        settings.admin_password = Some(Secret::new("ap").unwrap());
        settings.hostname = "radio.example".into();
    });
    let _source = world.publish("/one.webm", "");
    let (auth, song) = (
        basic("admin", "ap"),
        "/admin/metadata?mount=/one.webm&mode=updinfo&song=x",
    );
    for field in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        for call in [song, "/admin/killsource?mount=/one.webm"] {
            assert_eq!(
                world.get_with(call, &format!("{auth}{field}")).status,
                403,
                "{field}"
            );
        }
    }
    let at_host = |host: &str, agent: &str| {
        let call = format!("GET {song} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{auth}\r\n");
        world.raw(call.as_bytes()).status
    };
    let browser = "Mozilla/5.0 (X11)";
    assert_eq!(at_host("evil.example", browser), 421);
    assert_eq!(
        (
            at_host("radio.example:8000", browser),
            at_host("localhost", browser)
        ),
        (200, 200)
    );
    assert_eq!(
        at_host("whatever.example", "Lavf/59"),
        200,
        "encoders know a relay by any name"
    );
    let head = format!("HEAD {song} HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n");
    assert_eq!(world.raw(head.as_bytes()).status, 405);
    assert_eq!(world.channel("/one.webm").unwrap()["state"], "on-air");
}

#[test]
fn hostile_words_are_inert_everywhere() {
    // Row A8.
    let world = World::new();
    let mount = "/m%3Cscript%3E%22%27%26.webm";
    let shown = "/m<script>\"'&.webm";
    let _source = world.publish(
        mount,
        &format!("ice-name: {HOSTILE}\r\nUser-Agent: {HOSTILE}\r\nice-url: {HOSTILE}\r\n"),
    );
    let listener = world.listen(mount, &format!("User-Agent: {HOSTILE}\r\nReferer: {HOSTILE}\r\n"));
    let quoted = "mount=/m%3Cscript%3E%22%27%26.webm";
    let song = format!("/admin/metadata?{quoted}&mode=updinfo&song=%1b%5b31m%00%3Cscript%3E%0d%0aevil");
    assert_eq!(world.admin(&song).status, 200);
    world.until(|w| {
        w.admin(&format!("/admin/listclients?{quoted}"))
            .body
            .contains("<Listeners>1<")
    });

    for call in [
        "stats".to_owned(),
        "listmounts".to_owned(),
        format!("listclients?{quoted}"),
        format!("killclient?{quoted}&id=0"),
    ] {
        let body = world.admin(&format!("/admin/{call}")).body;
        assert_well_formed(&body);
        assert!(!body.contains("<script>"), "{body}");
    }
    let api = world.channel(shown).unwrap();
    assert_eq!((&api["name"], &api["mount"]), (&HOSTILE.into(), &shown.into()));
    assert_eq!(api["title"], "[31m <script>  evil");
    assert_eq!(
        world.get("/status-json.xsl").json()["icestats"]["source"]["server_name"],
        HOSTILE
    );
    for target in ["/api/v1/channels", "/status-json.xsl"] {
        assert!(!world.get(target).body.chars().any(char::is_control), "{target}");
    }
    let html = world.get("/status.xsl").body;
    assert!(
        !html.contains("<script") && html.contains("&lt;script&gt;"),
        "{html}"
    );
    assert!(!world.get("/admin/%3Cscript%3E").body.contains("<script>"));
    let metrics = world.get("/metrics").body;
    assert!(
        metrics.contains("{mount=\"/m<script>\\\"'&.webm\"} 1"),
        "{metrics}"
    );
    let list = world.get(&format!("{mount}.m3u")).body;
    assert!(
        list.ends_with(&format!("http://{}{mount}\r\n", world.at)),
        "{list}"
    );
    // Bytes that are not text, in the control plane's own line.
    let words = b"GET /healthz HTTP/1.1\r\nHost: h\r\nUser-Agent: \x9b31m\"\\\r\nReferer: a\" b\r\n\r\n";
    assert_eq!(world.raw(words).status, 200);
    drop(listener);

    let log = world.end();
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log}");
    let of_listener = log
        .lines()
        .find(|line| line.contains(&format!("\"GET {mount} HTTP/1.1\" 200")))
        .unwrap();
    assert!(
        of_listener.contains("\"x<script>alert(1)</script>\\\"'&\\\\\""),
        "{of_listener}"
    );
    assert!(
        log.lines().any(|line| line.starts_with("127.0.0.1 - admin [")
            && line.contains("\"GET /admin/stats HTTP/1.1\" 200"))
    );
    assert!(log.contains("\\x9b31m"), "{log}");
    for line in log.lines() {
        assert!(line.rsplit(' ').next().unwrap().parse::<u64>().is_ok(), "{line}");
    }
}

#[test]
fn too_many_at_once_are_closed_and_counted() {
    let world = World::new();
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hand = world.conductor.as_ref().unwrap().handover();
    // They never say a word, so each holds its place until its patience ends.
    let silent: Vec<_> = (0..CONNECTIONS_MAX + 5)
        .map(|_| {
            let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
            hand(door.accept().unwrap().0, Vec::new());
            client
        })
        .collect();
    let refused = || world.conductor.as_ref().unwrap().desk.tallies.refused_full.get();
    world.wait(|| refused() == 5);
    drop(silent);
    // Their places are free again.
    world.wait(|| {
        let mut stream = TcpStream::connect(world.at).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).is_ok() && text.ends_with("ok\n")
    });
}

#[test]
fn a_conductor_that_is_never_attached_ends_too() {
    let conductor = Conductor::start(Settings::default()).unwrap();
    drop(conductor.handover());
    conductor.stop().unwrap();
    let missing = AccessLog::File("/nonexistent/access.log".into());
    let error = Conductor::start(Settings {
        access_log: missing,
        ..Settings::default()
    })
    .unwrap_err();
    assert!(error.to_string().contains("/nonexistent/access.log"), "{error}");
}

#[test]
fn a_request_may_come_in_pieces_and_rubbish_ends_alone() {
    let world = World::new();
    let mut slow = TcpStream::connect(world.at).unwrap();
    for piece in ["GET /heal", "thz HTTP/1.1\r\nHo", "st: h\r\n\r", "\n"] {
        slow.write_all(piece.as_bytes()).unwrap();
        assert_eq!(world.get("/healthz").status, 200);
    }
    let mut text = String::new();
    slow.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("\r\n\r\nok\n"), "{text}");
    assert_eq!(
        world
            .raw(b"POST /tracker HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
            .status,
        405
    );
}

#[test]
fn a_draining_relay_is_not_ready() {
    let world = World::new();
    assert_eq!(world.get("/readyz").status, 200);
    // A source keeps the house turning while it drains.
    let _source = world.publish("/one.webm", "");
    world.open.as_ref().unwrap().house.drain();
    let answer = world.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("draining"), "{}", answer.body);
    assert_eq!(world.get("/api/v1/health").status, 503);
    assert_eq!(world.get("/healthz").status, 200);
}

#[test]
fn without_a_page_there_is_none() {
    let world = World::with(|settings| settings.page = false);
    assert_eq!(world.get("/").status, 404);
    assert_eq!(world.get("/healthz").status, 200);
}

#[test]
fn each_documented_path_answers() {
    let world = World::new();
    let _source = world.publish("/eclipse.webm", "");
    let document = include_str!("../../openapi.yaml");
    let paths: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("  /")?.strip_suffix(':'))
        .collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths {
        let path = format!("/{}", path.replace("{mount}", "eclipse.webm"));
        let query = if path.contains("metadata") {
            "?mount=/eclipse.webm&mode=updinfo&song=x"
        } else {
            "?mount=/eclipse.webm"
        };
        if ["killclient", "moveclients", "killsource"]
            .iter()
            .any(|call| path.ends_with(call))
        {
            // They exist: what they do is told elsewhere.
            assert_eq!(world.admin(&path).status, 400, "{path}");
            continue;
        }
        // Nothing is cast here.
        let expected = if path.ends_with(".sdp") { 404 } else { 200 };
        assert_eq!(world.admin(&format!("{path}{query}")).status, expected, "{path}");
    }
}
