//! Connections that the machine opens.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::mpsc;

use relay_seam::{Closing, Input, Output};

use super::*;

on_both_shores!(
    a_connection_out_works_both_ways,
    a_name_is_resolved,
    a_refusal_is_told,
    silence_is_given_up,
    an_impossible_name_is_refused,
    every_listener_is_heard_and_names_its_peers,
);

fn connect(desk: &mut Desk, host: &str, port: u16, timeout: Duration) {
    desk.want(Output::Connect {
        token: 42,
        host: host.into(),
        port,
        timeout,
    });
}

/// Connects out once; what came of it comes back, the error's kind if one.
fn try_connect(backend: Backend, host: &str, port: u16, timeout: Duration) -> Result<SocketAddr, ErrorKind> {
    let (tell, told) = mpsc::channel();
    let (mut asked, mut came) = (false, None);
    let host = host.to_owned();
    Stage::new(backend).play(
        move |desk, _, input| match input {
            None if !std::mem::replace(&mut asked, true) => connect(desk, &host, port, timeout),
            Some(Input::Connected { token, result }) => {
                assert_eq!(token, 42);
                tell.send(result.map(|(_, addr)| addr).map_err(|e| e.kind()))
                    .unwrap();
            }
            _ => {}
        },
        |_| came = told.recv_timeout(Duration::from_secs(20)).ok(),
    );
    came.unwrap()
}

fn a_connection_out_works_both_ways(backend: Backend) {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = far.local_addr().unwrap().port();
    let mut asked = false;
    let stats = Stage::new(backend).play(
        move |desk, _, input| match input {
            None if !std::mem::replace(&mut asked, true) => {
                connect(desk, "127.0.0.1", port, Duration::from_secs(20));
            }
            Some(Input::Connected { result, .. }) => {
                let (conn, addr) = result.unwrap();
                assert_eq!(addr.port(), port);
                desk.say(conn, b"GET");
            }
            Some(Input::Received { conn, bytes }) => {
                assert_eq!(bytes, b"200");
                desk.close(conn, Closing::Graceful);
            }
            _ => {}
        },
        |_| {
            let (stream, _) = far.accept().unwrap();
            patient(&stream);
            assert_eq!(read_some(&stream, 3), b"GET");
            write_all(&stream, b"200");
            assert!(read_all(&stream).is_empty());
        },
    );
    assert_eq!(stats.connects, 1);
}

fn a_name_is_resolved(backend: Backend) {
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = far.local_addr().unwrap().port();
    let reached = try_connect(backend, "localhost", port, Duration::from_secs(20));
    assert_eq!(reached.unwrap().port(), port);
}

fn a_refusal_is_told(backend: Backend) {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let reached = try_connect(backend, "127.0.0.1", port, Duration::from_secs(20));
    assert_eq!(reached, Err(ErrorKind::ConnectionRefused));
}

/// A listener whose queue is full does not answer.
fn silence_is_given_up(backend: Backend) {
    let far = bind("127.0.0.1:0".parse().unwrap(), false, 0).unwrap();
    let addr = far.local_addr().unwrap();
    let _queue: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok()).collect();
    let reached = try_connect(backend, "127.0.0.1", addr.port(), Duration::from_millis(50));
    assert_eq!(reached, Err(ErrorKind::TimedOut));
}

fn an_impossible_name_is_refused(backend: Backend) {
    assert!(try_connect(backend, "a name with spaces", 80, Duration::from_secs(20)).is_err());
}

/// The second one listens on IPv6 and, with it, on IPv4.
fn every_listener_is_heard_and_names_its_peers(backend: Backend) {
    let Ok(both) = bind("[::]:0".parse().unwrap(), true, 16) else {
        println!("skipped: no IPv6 here");
        return;
    };
    let port = both.local_addr().unwrap().port();
    let mut stage = Stage::new(backend);
    stage.setup.listeners.push(both);
    stage.play(
        |desk, _, input| {
            if let Some(Input::Accepted { conn, peer }) = input {
                desk.say(conn, peer.to_string().as_bytes());
                desk.close(conn, Closing::Graceful);
            }
        },
        |addr| {
            for addr in [addr, SocketAddr::from(([127, 0, 0, 1], port))] {
                let stream = client(addr);
                let me = stream.local_addr().unwrap().to_string();
                assert_eq!(String::from_utf8(read_all(&stream)).unwrap(), me);
            }
        },
    );
}
