//! Requests that nobody in good faith sends. Each gets its answer, and a listener beside it notices nothing.

use std::time::{Duration, Instant};

use totality_tests::{Backend, Form, Listener, Talk, basic, pass};

use crate::common::{MOUNT, Stage};

on_both_backends! {
    heads_too_large
    two_readings_are_refused
    broken_chunks_end_a_source
    odd_paths
    hostile_words_are_escaped
    logins
    other_protocols
    fields_that_do_not_matter
    a_head_byte_by_byte
    talk_after_the_request_is_no_request
    half_closed_listeners_are_served
    unknown_mounts_cost_nothing
}

/// Refusals are to come within a second; the machine is shared.
const SOON: Duration = Duration::from_secs(4);

/// One row: a name, what is said, the statuses that will do (0: closed without a word).
type Row<'a> = (&'a str, Vec<u8>, &'a [u16]);

fn check(stage: &Stage, rows: &[Row<'_>]) {
    for (name, said, allowed) in rows {
        let answer = stage.relay.ask(said, SOON);
        let status = answer.status().unwrap_or(0);
        assert!(
            allowed.contains(&status),
            "{name}: expected {allowed:?}, got {status}: {:?}",
            answer.text()
        );
        assert!(
            answer.closed,
            "{name}: expected the connection to be closed, after {:?}",
            answer.text()
        );
    }
}

fn request(line: &str, fields: &str) -> Vec<u8> {
    format!("{line}\r\nHost: relay\r\n{fields}\r\n").into_bytes()
}

fn source(fields: &str, body: &str) -> Vec<u8> {
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    format!("PUT /x.ts HTTP/1.1\r\nHost: relay\r\n{login}{fields}\r\n{body}").into_bytes()
}

fn heads_too_large(backend: Backend) {
    let mut stage = Stage::set("large", backend, |o| o);
    let long = "x".repeat(64 * 1024);
    let many: String = (0..10_000).map(|i| format!("X-{i}: y\r\n")).collect();
    let rows: &[Row<'_>] = &[
        (
            "a request line of 64 KiB",
            request(&format!("GET /{long} HTTP/1.1"), ""),
            &[414, 431],
        ),
        (
            "10,000 fields",
            request("GET /numbered.ts HTTP/1.1", &many),
            &[431],
        ),
        (
            "a field of 64 KiB",
            request("GET /numbered.ts HTTP/1.1", &format!("X: {long}\r\n")),
            &[431],
        ),
        (
            "a line without an end",
            long.clone().into_bytes(),
            &[400, 414, 431],
        ),
        (
            "101 fields",
            request("GET /numbered.ts HTTP/1.1", &"A: b\r\n".repeat(101)),
            &[431],
        ),
    ];
    check(&stage, rows);
    stage.expect_unharmed();
}

fn two_readings_are_refused(backend: Backend) {
    let mut stage = Stage::set("readings", backend, |o| o);
    let bad = [
        (
            "length and chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("a signed length", "Content-Length: +5\r\n"),
        (
            "chunked, and then not",
            "Transfer-Encoding: chunked, identity\r\n",
        ),
        ("a folded field", "X: a\r\n b\r\n"),
        ("a field without a name", ": a\r\n"),
        ("a blank before the colon", "X : a\r\n"),
    ];
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (name, fields) in bad {
        rows.push((name, source(fields, "12345"), &[400, 501]));
    }
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    let http10 = format!("PUT /x.ts HTTP/1.0\r\n{login}Transfer-Encoding: chunked\r\n\r\n");
    rows.push(("chunked in HTTP/1.0", http10.into_bytes(), &[400]));
    let bare = request("GET /numbered.ts HTTP/1.1", "");
    let bare = String::from_utf8(bare).unwrap().replace("\r\n", "\n");
    rows.push(("lines that end with LF alone", bare.into_bytes(), &[400]));
    rows.push((
        "a bare CR in a value",
        request("GET /numbered.ts HTTP/1.1", "X: a\rb\r\n"),
        &[400],
    ));
    rows.push((
        "a NUL in a value",
        request("GET /numbered.ts HTTP/1.1", "X: a\0b\r\n"),
        &[400],
    ));
    check(&stage, &rows);
    stage.expect_unharmed();
}

fn broken_chunks_end_a_source(backend: Backend) {
    let mut stage = Stage::set("chunks", backend, |o| o.set("source.hold", "0s"));
    let long = format!("5;{}\r\n", "x".repeat(100 * 1024));
    let bodies = [
        ("a chunk of 2^64 - 1", "FFFFFFFFFFFFFFFF\r\nx"),
        ("a chunk of -1", "-1\r\nx"),
        ("17 digits", "00000000000000001\r\nx"),
        ("100 KB of extension", &long),
        ("no CRLF after a chunk", "3\r\nabcdef\r\n"),
        ("no digits", "\r\nabc\r\n"),
    ];
    for (name, body) in bodies {
        let said = source("Transfer-Encoding: chunked\r\n", body);
        let answer = stage.relay.ask(&said, SOON);
        assert!(answer.closed, "{name}: expected the connection to be closed");
        assert_eq!(answer.status(), Some(400), "{name}: {:?}", answer.text());
    }
    stage.expect_unharmed();
}

fn odd_paths(backend: Backend) {
    let mut stage = Stage::set("paths", backend, |o| o);
    let long = "a/".repeat(2000);
    let paths = [
        "//",
        "/..",
        "/../../etc/passwd",
        "/%2e%2e%2f",
        "/%2e%2e%2fetc%2fpasswd",
        "/%00",
        "/numbered.ts.",
        "/numbered.ts\\",
        "/numbered.ts/",
        "/%ff%fe",
        "/%",
        "/%zz",
        "/numbered.ts%00",
        "numbered.ts",
        "/NUMBERED.ts",
        &long,
    ];
    let rows: Vec<Row<'_>> = paths
        .iter()
        .map(|path| {
            (
                *path,
                request(&format!("GET {path} HTTP/1.1"), ""),
                &[400, 404, 414][..],
            )
        })
        .collect();
    check(&stage, &rows);
    let raw = [b"GET /".as_slice(), &[0xFF, 0xFE], b" HTTP/1.1\r\n\r\n"].concat();
    check(&stage, &[("bytes that are no UTF-8", raw, &[400, 404])]);
    stage.expect_unharmed();
}

fn hostile_words_are_escaped(backend: Backend) {
    let mut stage = Stage::set("words", backend, |o| o.set("log.access", "-"));
    let script = "<script>alert(1)</script>";
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    let head = format!(
        "PUT /%3Cscript%3Ealert(1).ts HTTP/1.1\r\n{login}Ice-Name: {script}\"\u{1F311}\r\n\
         Ice-Description: {script}\r\nUser-Agent: {script}\r\n\r\n"
    );
    let mut pushing = Talk::open(&stage.studio, stage.relay.at());
    pushing.say(head.as_bytes());
    let taken = pushing.hear_head(SOON);
    assert_eq!(taken.status(), Some(200), "{}", taken.text());
    pushing.say(&(0..200).flat_map(|n| Form::Ts.unit(n)).collect::<Vec<_>>());
    let fields = format!("User-Agent: a\u{1b}[31mb\"{script}\r\nReferer: x\u{1b}]0;y\u{7}\r\n");
    stage.relay.ask(
        &request("GET /numbered.ts HTTP/1.1", &fields),
        Duration::from_millis(500),
    );
    stage.relay.ask(
        &request("GET /nothing HTTP/1.1", &fields),
        Duration::from_millis(500),
    );
    pass(500);
    for path in ["/", "/status.xsl", "/admin/listmounts", "/admin/stats"] {
        let text = stage.relay.admin(path).text();
        assert!(!text.contains(script), "{path} carries the script:\n{text}");
    }
    let json = stage.relay.get("/status-json.xsl");
    serde_json::from_slice::<serde_json::Value>(json.body()).expect("/status-json.xsl is JSON");
    let said = stage.relay.said();
    assert!(
        !said.contains('\u{7}') && !said.contains("\u{1b}[31mb") && !said.contains("\u{1b}]0"),
        "{said}"
    );
    drop(pushing);
    stage.expect_unharmed();
}

fn logins(backend: Backend) {
    let mut stage = Stage::set("logins", backend, |o| o);
    let put = |fields: &str| format!("PUT /y.ts HTTP/1.1\r\nHost: relay\r\n{fields}\r\n").into_bytes();
    let huge = format!("Authorization: Basic {}\r\n", "QUFB".repeat(256 * 1024));
    let rows: &[Row<'_>] = &[
        ("no login", put(""), &[401]),
        ("an empty login", put("Authorization: \r\n"), &[401]),
        ("bad base64", put("Authorization: Basic ?!?\r\n"), &[401]),
        ("1 MB of login", put(&huge), &[400, 431]),
        (
            "another user",
            put(&basic("admin", totality_tests::SOURCE_PASSWORD)),
            &[401],
        ),
        ("a wrong password", put(&basic("source", "wrong")), &[401]),
        (
            "a mount without a name",
            [
                b"PUT / HTTP/1.1\r\n",
                basic("source", totality_tests::SOURCE_PASSWORD).as_bytes(),
                b"\r\n",
            ]
            .concat(),
            &[400, 405],
        ),
        (
            "a mount of the relay's own",
            [
                b"PUT /metrics HTTP/1.1\r\n",
                basic("source", totality_tests::SOURCE_PASSWORD).as_bytes(),
                b"\r\n",
            ]
            .concat(),
            &[400, 403, 404, 405],
        ),
        (
            "SOURCE / ICE/1.0",
            [
                b"SOURCE / ICE/1.0\r\n",
                basic("source", totality_tests::SOURCE_PASSWORD).as_bytes(),
                b"\r\n",
            ]
            .concat(),
            &[400, 405],
        ),
        (
            "a password alone, as Shoutcast has it",
            b"penumbra\r\n\r\n".to_vec(),
            &[400],
        ),
    ];
    check(&stage, rows);
    // A second source with the right password, and one with a wrong one: the first goes on.
    let login = basic("source", totality_tests::SOURCE_PASSWORD);
    let second = format!("PUT {MOUNT} HTTP/1.1\r\n{login}\r\n");
    check(&stage, &[("a second source", second.into_bytes(), &[403, 409])]);
    let wrong = format!("PUT {MOUNT} HTTP/1.1\r\n{}\r\n", basic("source", "wrong"));
    check(
        &stage,
        &[(
            "a second source, wrong password",
            wrong.clone().into_bytes(),
            &[401],
        )],
    );
    // Guessing is slowed down; it must not lock out the source that is on the air.
    let guesses: Vec<u16> = (0..15)
        .filter_map(|_| stage.relay.ask(wrong.as_bytes(), SOON).status())
        .collect();
    assert_eq!(guesses.last(), Some(&429), "{guesses:?}");
    assert!(!stage.source.is_over(), "the source on the air was cut");
    stage.expect_unharmed();
}

fn other_protocols(backend: Backend) {
    let mut stage = Stage::set("protocols", backend, |o| o);
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[7; 500]].concat();
    let rtmp = [&[3][..], &[0x5A; 1536]].concat();
    let noise: Vec<u8> = (0..4096u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80)
        .collect();
    let rows: &[Row<'_>] = &[
        ("HEAD", request("HEAD /numbered.ts HTTP/1.1", ""), &[200]),
        (
            "OPTIONS",
            request("OPTIONS /numbered.ts HTTP/1.1", ""),
            &[200, 204, 405],
        ),
        (
            "a verb nobody knows",
            request("BREW /numbered.ts HTTP/1.1", ""),
            &[400, 405, 501],
        ),
        (
            "POST to a mount",
            request("POST /numbered.ts HTTP/1.1", "Content-Length: 0\r\n"),
            &[400, 405],
        ),
        (
            "CONNECT",
            request("CONNECT other:25 HTTP/1.1", ""),
            &[400, 405, 501],
        ),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &[0, 400, 405, 501, 505],
        ),
        ("TLS", hello, &[0, 400]),
        ("RTMP", rtmp, &[0, 400]),
        ("noise", noise, &[0, 400]),
        ("HTTP/3.7", request("GET /numbered.ts HTTP/3.7", ""), &[400, 505]),
        (
            "a request for another server",
            request("GET http://other/x HTTP/1.1", ""),
            &[400, 404],
        ),
    ];
    check(&stage, rows);
    stage.expect_unharmed();
}

fn fields_that_do_not_matter(backend: Backend) {
    let mut stage = Stage::set("fields", backend, |o| o);
    let cookies: String = (0..60).map(|i| format!("Cookie: a{i}=b\r\n")).collect();
    let rows = [
        ("a range", "Range: bytes=0-99\r\n"),
        ("ranges", "Range: bytes=0-1,5-9,100-,-3\r\n"),
        ("17 commas", "Accept-Encoding: ,,,,,,,,,,,,,,,,,gzip\r\n"),
        ("cookies", cookies.as_str()),
        ("an upgrade", "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"),
    ];
    for (name, fields) in rows {
        let stream = stage.audience.connect(stage.relay.at()).unwrap();
        let listener = Listener::tune_in_with(stream, MOUNT, Form::Ts, fields);
        listener.expect_sound();
        assert!(
            listener.head().starts_with("HTTP/1.1 200 "),
            "{name}: {}",
            listener.head()
        );
        listener.judge(totality_tests::Checker::expect_whole);
    }
    let many: String = (0..10_000).map(|i| format!("Cookie: a{i}=b\r\n")).collect();
    check(
        &stage,
        &[(
            "10,000 cookies",
            request("GET /numbered.ts HTTP/1.1", &many),
            &[431],
        )],
    );
    stage.expect_unharmed();
}

fn a_head_byte_by_byte(backend: Backend) {
    let mut stage = Stage::set("bytes", backend, |o| o);
    let mut talk = Talk::open(&stage.audience, stage.relay.at());
    let head = request(
        "GET /numbered.ts HTTP/1.0",
        "User-Agent: slow\r\nIcy-MetaData: 0\r\n",
    );
    let began = Instant::now();
    for byte in &head {
        talk.say(&[*byte]);
        pass(2);
    }
    let answer = talk.hear_until(SOON, |bytes| bytes.len() > 4000);
    assert_eq!(
        answer.status(),
        Some(200),
        "after {:?}: {:?}",
        began.elapsed(),
        answer.text()
    );
    assert!(answer.text().starts_with("HTTP/1.0 200"));
    drop(talk);
    // A head too large, byte by byte: refused as the whole one is.
    let mut talk = Talk::open(&stage.audience, stage.relay.at());
    let long = request(&format!("GET /{} HTTP/1.1", "x".repeat(64 * 1024)), "");
    for byte in &long {
        if talk.try_say(&[*byte]).is_err() {
            break;
        }
    }
    assert!(talk.hear(SOON).closed);
    stage.expect_unharmed();
}

fn talk_after_the_request_is_no_request(backend: Backend) {
    let mut stage = Stage::set("pipeline", backend, |o| o);
    let served = stage.relay.metric("totality_greeted");
    let mut stream = stage.audience.connect(stage.relay.at()).unwrap();
    let listener = Listener::tune_in_with(
        stream.try_clone().unwrap(),
        MOUNT,
        Form::Ts,
        "\r\nGET /numbered.ts HTTP/1.1\r\nHost: again\r\n",
    );
    listener.expect_sound();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let more = b"GET /numbered.ts HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(1000);
    for _ in 0..40 {
        if std::io::Write::write_all(&mut stream, &more).is_err() {
            break;
        }
    }
    let due = stage.source.next() + 50;
    // It is served on, or let go; what it hears is the stream and nothing else.
    listener.reaches(due, SOON);
    listener.judge(totality_tests::Checker::expect_whole);
    assert_eq!(
        stage.relay.metric("totality_greeted"),
        served + 1,
        "talk was taken for a request"
    );
    drop(listener);
    drop(stream);
    stage.expect_unharmed();
}

fn half_closed_listeners_are_served(backend: Backend) {
    let mut stage = Stage::set("half", backend, |o| o);
    let stream = stage.audience.connect(stage.relay.at()).unwrap();
    let listener = Listener::tune_in_with(stream.try_clone().unwrap(), MOUNT, Form::Ts, "");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    listener.expect_sound();
    let due = stage.source.next() + 200;
    assert!(
        listener.reaches(due, Duration::from_secs(10)),
        "expected to be served on: {:?}",
        listener.next()
    );
    listener.judge(totality_tests::Checker::expect_whole);
    drop(listener);
    drop(stream);
    stage.expect_unharmed();
}

fn unknown_mounts_cost_nothing(backend: Backend) {
    const MANY: usize = 100_000;
    let mut stage = Stage::set("unknown", backend, |o| o);
    let said = request("GET /nothing-here HTTP/1.1", "");
    for _ in 0..MANY {
        let answer = stage.relay.ask(&said, SOON);
        assert_eq!(answer.status(), Some(404), "{:?}", answer.text());
    }
    stage.expect_unharmed();
}
