//! Datagrams: whole, in order, to whom they are meant, and counted when they are lost.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::mpsc;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, gettid};
use relay_seam::{Closing, Datagram, Head, Input, Interface, Membership, Udp, UdpOptions};
use socket2::SockRef;

use super::*;

on_both_shores!(
    datagrams_come_whole_and_go_with_their_heads,
    a_run_is_cut_into_datagrams,
    neighbours_ride_together_and_keep_their_order,
    many_peers_get_one_datagram_each,
    a_connected_peer_is_heard_under_its_sockets_name,
    strangers_are_heard_while_peers_are_connected,
    peers_beyond_the_limit_are_served_all_the_same,
    a_peer_that_is_not_there_is_told,
    what_is_too_long_is_dropped_and_counted,
    a_closed_socket_takes_nothing,
    a_full_socket_drops_and_holds_nobody_up,
    trains_that_do_not_fit_the_way_go_one_by_one,
    a_flood_of_datagrams_leaves_room_for_connections,
    ipv6_sockets_speak_to_both,
    a_group_is_heard_across_a_wire,
    one_sender_of_a_group_is_heard_and_no_other,
    sockets_are_bounded_and_closed_with_the_driver,
);

/// What a test has in flight for longest; generous, since machines are slow at times.
const PATIENCE: Duration = Duration::from_secs(20);

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn mate() -> UdpSocket {
    mate_at(local())
}

fn mate_at(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    socket
}

fn hear_one(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let (n, _) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(n);
    buffer
}

fn open(desk: &mut Desk, bind: SocketAddr, options: UdpOptions) {
    desk.want(Output::OpenUdp {
        token: 9,
        bind,
        options,
    });
}

/// The socket that was opened.
fn opened(input: &Option<Input<'_>>) -> Option<(Udp, SocketAddr)> {
    let Some(Input::UdpOpened { token, result }) = input else {
        return None;
    };
    assert_eq!(*token, 9);
    Some(*result.as_ref().unwrap())
}

/// A datagram of a head and a stretch of the desk's pattern.
fn post(desk: &mut Desk, udp: Udp, to: SocketAddr, head: &[u8], at: u64, len: u32, segment: u16) {
    desk.want(Output::Datagram(Datagram {
        udp,
        to,
        head: Head::new(head).unwrap(),
        body: (len > 0).then_some(Payload::Span(Span { ring: 7, len, at })),
        segment,
    }));
}

fn say_to(desk: &mut Desk, udp: Udp, to: SocketAddr, bytes: &[u8]) {
    desk.want(Output::Datagram(Datagram {
        udp,
        to,
        head: Head::NONE,
        body: Some(Payload::Own(bytes.into(), 0)),
        segment: 0,
    }));
}

/// Plays a machine that opens a socket first; `on` gets its name and address when it is open, and all inputs after.
fn with_socket<F, W>(stage: Stage, bind: SocketAddr, options: UdpOptions, mut on: F, world: W) -> Stats
where
    F: FnMut(&mut Desk, Udp, Option<Input<'_>>) + Send,
    W: FnOnce(SocketAddr),
{
    let (tell, told) = mpsc::channel();
    let mut options = Some(options);
    let mut socket = None;
    stage.play(
        move |desk, _, input| {
            if let Some(options) = options.take() {
                open(desk, bind, options);
            }
            if let Some((udp, addr)) = opened(&input) {
                socket = Some(udp);
                tell.send(addr).unwrap();
            }
            if let Some(udp) = socket {
                on(desk, udp, input);
            }
        },
        |_| world(told.recv_timeout(PATIENCE).unwrap()),
    )
}

/// As [`with_socket`], on loopback with the defaults.
fn on_loopback<F, W>(stage: Stage, on: F, world: W) -> Stats
where
    F: FnMut(&mut Desk, Udp, Option<Input<'_>>) + Send,
    W: FnOnce(SocketAddr),
{
    with_socket(stage, local(), UdpOptions::default(), on, world)
}

fn datagrams_come_whole_and_go_with_their_heads(backend: Backend) {
    const SIZES: [usize; 6] = [1, 0, 1316, 9000, 3, 1316];
    let stats = on_loopback(
        Stage::new(backend),
        |desk, udp, input| {
            if let Some(Input::Datagram { udp: on, from, bytes }) = input {
                assert_eq!(on, udp);
                desk.want(Output::Datagram(Datagram {
                    udp,
                    to: from,
                    head: Head::new(b"head").unwrap(),
                    body: Some(Payload::Own(bytes.into(), 0)),
                    segment: 0,
                }));
            }
        },
        |addr| {
            let mate = mate();
            let bytes = pattern(9000);
            for len in SIZES {
                mate.send_to(&bytes[..len], addr).unwrap();
            }
            for len in SIZES {
                assert_same(&hear_one(&mate), &[b"head", &bytes[..len]].concat());
            }
        },
    );
    let bytes: usize = SIZES.iter().sum();
    assert_eq!((stats.datagrams_received, stats.datagrams_sent), (6, 6));
    assert_eq!(stats.datagram_bytes_received, bytes as u64);
    assert_eq!(stats.datagram_bytes_sent, (bytes + 4 * SIZES.len()) as u64);
}

fn a_run_is_cut_into_datagrams(backend: Backend) {
    const RUN: u32 = 60 * 1316 + 500;
    for connect in [false, true] {
        let mut stage = Stage::new(backend);
        stage.ring = pattern(RUN as usize);
        let expected = Arc::clone(&stage.ring);
        let mate = mate();
        let to = mate.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        let stats = on_loopback(
            stage,
            move |desk, udp, input| match input {
                Some(Input::UdpOpened { .. }) => {
                    if connect {
                        desk.want(Output::ConnectUdp { udp, peer: to });
                    }
                    post(desk, udp, to, b"", 0, RUN, 1316);
                }
                Some(Input::Posted { taken, dropped }) => tell.send((taken, dropped)).unwrap(),
                _ => {}
            },
            |_| {
                for chunk in expected.chunks(1316) {
                    assert_same(&hear_one(&mate), chunk);
                }
                assert_eq!(told.recv_timeout(PATIENCE), Ok((1, 0)));
            },
        );
        // 49 whole chunks are the most that fit into a train of 65,507 bytes.
        assert_eq!((stats.datagrams_sent, stats.trains), (61, 2), "{stats:?}");
        assert_eq!(stats.udp_peers, u64::from(connect));
    }
}

fn neighbours_ride_together_and_keep_their_order(backend: Backend) {
    for connect in [false, true] {
        let (mate, other) = (mate(), mate());
        let (to, to_other) = (mate.local_addr().unwrap(), other.local_addr().unwrap());
        let mut batch = 0;
        let stats = on_loopback(
            Stage::new(backend),
            move |desk, udp, input| match input {
                Some(Input::UdpOpened { .. }) if connect => {
                    desk.want(Output::ConnectUdp { udp, peer: to });
                    desk.want(Output::ConnectUdp { udp, peer: to });
                }
                None if batch < 2 => {
                    batch += 1;
                    for i in 0..20 {
                        post(desk, udp, to, &[batch, i], u64::from(i) * 1000, 1000, 0);
                    }
                    post(desk, udp, to, &[batch, 20], 0, 2000, 0);
                    post(desk, udp, to_other, &[batch], 0, 7, 0);
                    post(desk, udp, to, &[batch, 21], 0, 0, 0);
                }
                _ => {}
            },
            |_| {
                let bytes = pattern(1 << 16);
                for batch in 1..=2u8 {
                    for i in 0..20u8 {
                        let body = &bytes[usize::from(i) * 1000..][..1000];
                        assert_same(&hear_one(&mate), &[&[batch, i], body].concat());
                    }
                    assert_same(&hear_one(&mate), &[&[batch, 20], &bytes[..2000]].concat());
                    assert_same(&hear_one(&mate), &[batch, 21]);
                    assert_same(&hear_one(&other), &[&[batch], &bytes[..7]].concat());
                }
            },
        );
        assert_eq!((stats.datagrams_sent, stats.trains), (46, 2), "{stats:?}");
    }
}

fn many_peers_get_one_datagram_each(backend: Backend) {
    const PEERS: usize = 300;
    let mates: Vec<_> = (0..PEERS).map(|_| mate()).collect();
    let peers: Vec<_> = mates.iter().map(|mate| mate.local_addr().unwrap()).collect();
    let (tell, told) = mpsc::channel();
    let stats = on_loopback(
        Stage::new(backend),
        move |desk, udp, input| match input {
            Some(Input::UdpOpened { .. }) => {
                for (i, peer) in peers.iter().enumerate() {
                    if i % 2 == 0 {
                        desk.want(Output::ConnectUdp { udp, peer: *peer });
                    }
                }
                for (i, peer) in peers.iter().enumerate() {
                    post(desk, udp, *peer, &(i as u16).to_be_bytes(), i as u64, 100, 0);
                }
            }
            Some(Input::Posted { taken, dropped }) => tell.send((taken, dropped)).unwrap(),
            _ => {}
        },
        |_| {
            let bytes = pattern(PEERS + 100);
            for (i, mate) in mates.iter().enumerate() {
                let expected = [&(i as u16).to_be_bytes(), &bytes[i..][..100]].concat();
                assert_same(&hear_one(mate), &expected);
            }
            let mut taken = 0;
            while taken < PEERS as u32 {
                let (more, dropped) = told.recv_timeout(PATIENCE).unwrap();
                assert_eq!(dropped, 0);
                taken += more;
            }
        },
    );
    assert_eq!((stats.datagrams_sent, stats.udp_peers), (300, 150));
}

fn a_connected_peer_is_heard_under_its_sockets_name(backend: Backend) {
    let mate = mate();
    let peer = mate.local_addr().unwrap();
    let stats = on_loopback(
        Stage::new(backend),
        move |desk, udp, input| match input {
            Some(Input::UdpOpened { .. }) => {
                desk.want(Output::ConnectUdp { udp, peer });
                say_to(desk, udp, peer, b"hello");
            }
            Some(Input::Datagram { udp: on, from, bytes }) => {
                assert_eq!((on, from), (udp, peer));
                match bytes {
                    b"part" => desk.want(Output::DisconnectUdp { udp, peer }),
                    _ => say_to(desk, udp, peer, bytes),
                }
                if bytes == b"part" {
                    say_to(desk, udp, peer, b"parted");
                }
            }
            _ => {}
        },
        |addr| {
            assert_same(&hear_one(&mate), b"hello");
            // Only what comes from the socket's own address gets through.
            mate.connect(addr).unwrap();
            for word in [&b"one"[..], b"two"] {
                mate.send(word).unwrap();
                assert_same(&hear_one(&mate), word);
            }
            mate.send(b"part").unwrap();
            assert_same(&hear_one(&mate), b"parted");
            // What comes while the peer's own socket is being closed may be lost.
            mate.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut tries = 0..1000;
            while mate.recv_from(&mut [0; 9]).is_err() {
                assert!(tries.next().is_some(), "a parted peer is not heard");
                mate.send(b"three").unwrap();
            }
        },
    );
    assert_eq!(stats.udp_peers, 1);
}

fn strangers_are_heard_while_peers_are_connected(backend: Backend) {
    const STRANGERS: usize = 200;
    let (mut connected, mut heard) = (0, 0);
    let (tell, told) = mpsc::channel();
    on_loopback(
        Stage::new(backend),
        move |desk, udp, input| match input {
            Some(Input::Datagram { bytes, .. }) => {
                assert_eq!(bytes, b"knock");
                heard += 1;
                tell.send(heard).unwrap();
            }
            // A peer more each turn, so that arrivals meet sockets in the making.
            None if connected < 500 => {
                connected += 1;
                let peer = SocketAddr::from(([127, 0, 0, 1], 20_000 + connected));
                desk.want(Output::ConnectUdp { udp, peer });
            }
            _ => {}
        },
        |addr| {
            for _ in 0..STRANGERS {
                mate().send_to(b"knock", addr).unwrap();
            }
            while told.recv_timeout(PATIENCE).unwrap() < STRANGERS {}
        },
    );
}

fn peers_beyond_the_limit_are_served_all_the_same(backend: Backend) {
    let mates: Vec<_> = (0..5).map(|_| mate()).collect();
    let peers: Vec<_> = mates.iter().map(|mate| mate.local_addr().unwrap()).collect();
    let mut stage = Stage::new(backend);
    stage.setup.max_udp_peers = 3;
    let stats = on_loopback(
        stage,
        move |desk, udp, input| {
            if let Some(Input::UdpOpened { .. }) = input {
                for peer in &peers {
                    desk.want(Output::ConnectUdp { udp, peer: *peer });
                }
                peers.iter().for_each(|peer| say_to(desk, udp, *peer, b"x"));
            }
        },
        |_| mates.iter().for_each(|mate| assert_same(&hear_one(mate), b"x")),
    );
    assert_eq!((stats.udp_peers, stats.udp_peers_refused), (3, 2));
}

/// Once heard by a send, once by a receive; whichever comes first.
fn a_peer_that_is_not_there_is_told(backend: Backend) {
    let absent = mate().local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let mut said = 0;
    let stats = on_loopback(
        Stage::new(backend),
        move |desk, udp, input| match input {
            Some(Input::UdpOpened { .. }) => desk.want(Output::ConnectUdp { udp, peer: absent }),
            Some(Input::Unreachable { udp: on, peer }) => {
                assert_eq!((on, peer), (udp, absent));
                tell.send(()).unwrap();
            }
            None if said < 3 => {
                said += 1;
                say_to(desk, udp, absent, b"anybody?");
            }
            _ => {}
        },
        |_| told.recv_timeout(PATIENCE).unwrap(),
    );
    assert!(stats.datagrams_unreachable > 0, "{stats:?}");
    assert_eq!(stats.datagrams_sent + stats.datagrams_refused, 3, "{stats:?}");
}

fn what_is_too_long_is_dropped_and_counted(backend: Backend) {
    let mut stage = Stage::new(backend);
    stage.setup.max_datagram_bytes = 1000;
    let (tell, told) = mpsc::channel();
    let stats = on_loopback(
        stage,
        move |desk, udp, input| match input {
            Some(Input::Datagram { from, bytes, .. }) => {
                assert_eq!(bytes.len(), 1000);
                let too_long = vec![0; Datagram::BYTES_MAX + 1];
                say_to(desk, udp, from, &too_long);
                say_to(desk, udp, from, bytes);
            }
            Some(Input::Posted { taken, dropped }) => tell.send((taken, dropped)).unwrap(),
            _ => {}
        },
        |addr| {
            let mate = mate();
            let bytes = pattern(1001);
            mate.send_to(&bytes, addr).unwrap();
            mate.send_to(&bytes[..1000], addr).unwrap();
            assert_same(&hear_one(&mate), &bytes[..1000]);
            assert_eq!(told.recv_timeout(PATIENCE), Ok((1, 1)));
        },
    );
    assert_eq!((stats.datagrams_received, stats.datagrams_too_long), (1, 1));
    assert_eq!((stats.datagrams_sent, stats.datagrams_refused), (1, 1));
}

fn a_closed_socket_takes_nothing(backend: Backend) {
    let mate = mate();
    let to = mate.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let stats = on_loopback(
        Stage::new(backend),
        move |desk, udp, input| match input {
            Some(Input::UdpOpened { .. }) => {
                desk.want(Output::ConnectUdp { udp, peer: to });
                say_to(desk, udp, to, b"last words");
                desk.want(Output::CloseUdp { udp });
            }
            Some(Input::Posted { taken, dropped }) => {
                tell.send((taken, dropped)).unwrap();
                if dropped == 0 {
                    // The close of that batch is carried out after this.
                    desk.deadline = Some(Now::new(0, 0));
                }
            }
            None if desk.deadline.take().is_some() => {
                desk.want(Output::CloseUdp { udp });
                desk.want(Output::DisconnectUdp { udp, peer: to });
                desk.want(Output::ConnectUdp { udp, peer: to });
                say_to(desk, udp, to, b"from beyond");
            }
            _ => {}
        },
        |_| {
            assert_same(&hear_one(&mate), b"last words");
            assert_eq!(told.recv_timeout(PATIENCE), Ok((1, 0)));
            assert_eq!(told.recv_timeout(PATIENCE), Ok((0, 1)));
        },
    );
    assert_eq!((stats.datagrams_sent, stats.datagrams_refused), (1, 1));
}

/// Runs `body` on a thread with a network of its own, or says why not. Everything in it goes with the thread.
pub(super) fn in_a_namespace(body: impl FnOnce() + Send) {
    if !Uid::effective().is_root() {
        println!("skipped: a network namespace needs root");
        return;
    }
    thread::scope(|scope| {
        let alone = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            body();
        });
        alone.join().unwrap();
    });
}

pub(super) fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(
        done.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Nobody answers for the address, so what is sent to it waits in the socket's send buffer, which fills.
fn a_full_socket_drops_and_holds_nobody_up(backend: Backend) {
    in_a_namespace(|| {
        ip("link add v0 type veth peer name v1");
        ip("addr add 10.77.0.1/24 dev v0");
        ip("link set v0 up");
        ip("link set v1 up");
        let absent = SocketAddr::from(([10, 77, 0, 2], 9));
        let mate = mate_at(([10, 77, 0, 1], 0).into());
        let to = mate.local_addr().unwrap();
        let options = UdpOptions {
            send_buffer: Some(1),
            ..UdpOptions::default()
        };
        let (tell, told) = mpsc::channel();
        let stats = with_socket(
            Stage::new(backend),
            ([0, 0, 0, 0], 0).into(),
            options,
            move |desk, udp, input| match input {
                Some(Input::UdpOpened { .. }) => {
                    desk.want(Output::ConnectUdp { udp, peer: to });
                    for i in 0..50 {
                        post(desk, udp, absent, &[i], 0, u32::from(1000 + u16::from(i % 2)), 0);
                    }
                    say_to(desk, udp, to, b"through");
                }
                Some(Input::Posted { taken, dropped }) => tell.send((taken, dropped)).unwrap(),
                _ => {}
            },
            |_| {
                assert_same(&hear_one(&mate), b"through");
                let (taken, dropped) = told.recv_timeout(PATIENCE).unwrap();
                assert!(
                    dropped > 0 && taken > 1 && taken + dropped == 51,
                    "{taken} {dropped}"
                );
            },
        );
        assert!(stats.datagrams_full > 0, "{stats:?}");
        assert_eq!(stats.datagrams_full + stats.datagrams_sent, 51, "{stats:?}");
    });
}

/// A segment that is longer than the way's packets cannot ride in a train: IP cuts it instead.
fn trains_that_do_not_fit_the_way_go_one_by_one(backend: Backend) {
    in_a_namespace(|| {
        ip("link set lo mtu 1280");
        for connect in [false, true] {
            let mate = mate();
            let to = mate.local_addr().unwrap();
            let mut stage = Stage::new(backend);
            stage.ring = pattern(40_000);
            let expected = Arc::clone(&stage.ring);
            let stats = on_loopback(
                stage,
                move |desk, udp, input| {
                    if let Some(Input::UdpOpened { .. }) = input {
                        if connect {
                            desk.want(Output::ConnectUdp { udp, peer: to });
                        }
                        post(desk, udp, to, b"h", 0, 39_999, 2000);
                    }
                },
                |_| {
                    assert_same(&hear_one(&mate), &[b"h", &expected[..1999]].concat());
                    for chunk in expected[1999..39_999].chunks(2000) {
                        assert_same(&hear_one(&mate), chunk);
                    }
                },
            );
            assert_eq!((stats.trains, stats.trains_refused), (0, 1), "{stats:?}");
            assert_eq!(stats.datagrams_sent, 20, "{stats:?}");
        }
    });
}

fn a_flood_of_datagrams_leaves_room_for_connections(backend: Backend) {
    let stop = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    let mut asked = false;
    let stage = Stage::new(backend);
    let tcp = stage.addr;
    let stats = stage.play(
        move |desk, _, input| {
            if !std::mem::replace(&mut asked, true) {
                open(desk, local(), UdpOptions::default());
            }
            if let Some((_, addr)) = opened(&input) {
                tell.send(addr).unwrap();
            }
            if let Some(Input::Received { conn, bytes }) = input {
                desk.say(conn, bytes);
                desk.close(conn, Closing::Graceful);
            }
        },
        |_| {
            let addr = told.recv_timeout(PATIENCE).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mate = mate();
                    while !stop.load(Ordering::SeqCst) {
                        let _ = mate.send_to(&[1; 200], addr);
                    }
                });
                for i in 0..50 {
                    let stream = client(tcp);
                    write_all(&stream, &[i]);
                    assert_same(&read_all(&stream), &[i]);
                }
                stop.store(true, Ordering::SeqCst);
            });
        },
    );
    assert!(stats.datagrams_received > 0, "{stats:?}");
}

fn ipv6_sockets_speak_to_both(backend: Backend) {
    let any: SocketAddr = "[::]:0".parse().unwrap();
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6 here");
        return;
    }
    let mates = [mate(), mate_at("[::1]:0".parse().unwrap())];
    let peers = mates.each_ref().map(|mate| mate.local_addr().unwrap());
    let mut heard = 0;
    with_socket(
        Stage::new(backend),
        any,
        UdpOptions::default(),
        move |desk, udp, input| {
            if let Some(Input::Datagram { from, bytes, .. }) = input {
                assert!(peers.contains(&from), "{from}");
                say_to(desk, udp, from, bytes);
                heard += 1;
                if heard == 2 {
                    for peer in peers {
                        desk.want(Output::ConnectUdp { udp, peer });
                    }
                }
            }
        },
        |addr| {
            for _ in 0..2 {
                for (mate, here) in mates.iter().zip(["127.0.0.1", "::1"]) {
                    let here: IpAddr = here.parse().unwrap();
                    mate.send_to(b"hello", (here, addr.port())).unwrap();
                    assert_same(&hear_one(mate), b"hello");
                }
            }
        },
    );
}

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 42, 1);
const PORT: u16 = 5004;

/// Two ends of a wire: the driver with 10.78.0.1 here, and `far` on a thread whose network has the other end, with .2
/// and .3.
fn across_a_wire(far: impl FnOnce() + Send, near: impl FnOnce(mpsc::Sender<()>) + Send) {
    in_a_namespace(|| {
        let (ready, is_ready) = mpsc::channel();
        let (wired, is_wired) = mpsc::channel::<()>();
        let (go, may_go) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                ready.send(gettid()).unwrap();
                is_wired.recv_timeout(PATIENCE).unwrap();
                ip("addr add 10.78.0.2/24 dev v1");
                ip("addr add 10.78.0.3/24 dev v1");
                ip("link set v1 up");
                // Answers once; then the wire is known to work both ways.
                let echo = mate_at(([10, 78, 0, 2], 9).into());
                let (_, from) = echo.recv_from(&mut [0]).unwrap();
                echo.send_to(b"!", from).unwrap();
                may_go.recv_timeout(PATIENCE).unwrap();
                far();
            });
            let there = is_ready.recv_timeout(PATIENCE).unwrap();
            ip(&format!("link add v0 type veth peer name v1 netns {there}"));
            ip("addr add 10.78.0.1/24 dev v0");
            ip("link set v0 up");
            wired.send(()).unwrap();
            // A wire takes a moment until both of its ends carry, and drops what it is given before.
            let probe = mate_at(([10, 78, 0, 1], 0).into());
            probe.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut tries = 0..1000;
            while probe.recv_from(&mut [0]).is_err() {
                assert!(tries.next().is_some(), "the wire does not work");
                probe.send_to(b"?", (Ipv4Addr::new(10, 78, 0, 2), 9)).unwrap();
            }
            near(go);
        });
    });
}

fn here() -> Interface {
    Interface::Address(Ipv4Addr::new(10, 78, 0, 1))
}

/// One datagram for everybody, and a member on the sending host that hears nothing of it.
fn a_group_is_heard_across_a_wire(backend: Backend) {
    const DATAGRAMS: usize = 40;
    let group = SocketAddr::from((GROUP, PORT));
    let bytes = pattern(DATAGRAMS * 1316);
    let expected = Arc::clone(&bytes);
    let (member, is_member) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    across_a_wire(
        move || {
            let mate = mate_at((Ipv4Addr::UNSPECIFIED, PORT).into());
            mate.join_multicast_v4(&GROUP, &Ipv4Addr::new(10, 78, 0, 2))
                .unwrap();
            member.send(()).unwrap();
            for chunk in expected.chunks(1316) {
                assert_same(&hear_one(&mate), chunk);
            }
            done.send(()).unwrap();
        },
        move |go| {
            let mut stage = Stage::new(backend);
            stage.ring = Arc::clone(&bytes);
            let options = UdpOptions {
                multicast_interface: Some(here()),
                ..UdpOptions::default()
            };
            let home = mate_at((Ipv4Addr::UNSPECIFIED, PORT).into());
            home.join_multicast_v4(&GROUP, &Ipv4Addr::new(10, 78, 0, 1))
                .unwrap();
            home.set_nonblocking(true).unwrap();
            let mail = Arc::clone(&stage.mail);
            let bell = stage.setup.bell.clone();
            let stats = with_socket(
                stage,
                ([10, 78, 0, 1], 0).into(),
                options,
                move |desk, udp, input| match input {
                    Some(Input::UdpOpened { .. }) => desk.want(Output::ConnectUdp { udp, peer: group }),
                    Some(Input::Woken) if desk.seen < desk.mail.load(Ordering::SeqCst) => {
                        desk.seen = 1;
                        post(desk, udp, group, b"", 0, (DATAGRAMS * 1316) as u32, 1316);
                    }
                    _ => {}
                },
                |_| {
                    go.send(()).unwrap();
                    is_member.recv_timeout(PATIENCE).unwrap();
                    mail.store(1, Ordering::SeqCst);
                    bell.ring();
                    is_done.recv_timeout(PATIENCE).unwrap();
                },
            );
            assert_eq!((stats.datagrams_sent, stats.trains, stats.udp_peers), (40, 1, 1));
            let mut one = [0; 2000];
            assert_eq!(
                home.recv(&mut one).unwrap_err().kind(),
                std::io::ErrorKind::WouldBlock
            );
        },
    );
}

fn one_sender_of_a_group_is_heard_and_no_other(backend: Backend) {
    let group = SocketAddr::from((GROUP, PORT));
    let (heard, is_heard) = mpsc::channel();
    across_a_wire(
        move || {
            let from = |last| {
                let mate = mate_at(([10, 78, 0, last], 0).into());
                let interface = Ipv4Addr::new(10, 78, 0, last);
                SockRef::from(&mate).set_multicast_if_v4(&interface).unwrap();
                mate
            };
            let (wrong, right) = (from(3), from(2));
            wrong.send_to(b"wrong", group).unwrap();
            right.send_to(b"right", group).unwrap();
        },
        move |go| {
            let options = UdpOptions {
                groups: vec![Membership {
                    group: GROUP.into(),
                    source: Some(Ipv4Addr::new(10, 78, 0, 2)),
                    interface: Some(here()),
                }],
                ..UdpOptions::default()
            };
            let stats = with_socket(
                Stage::new(backend),
                group,
                options,
                move |_, _, input| {
                    if let Some(Input::Datagram { from, bytes, .. }) = input {
                        heard.send((from.ip(), bytes.to_vec())).unwrap();
                    }
                },
                |_| {
                    go.send(()).unwrap();
                    let (from, bytes) = is_heard.recv_timeout(PATIENCE).unwrap();
                    assert_eq!((from, &bytes[..]), ([10, 78, 0, 2].into(), &b"right"[..]));
                },
            );
            assert_eq!(stats.datagrams_received, 1);
        },
    );
}

fn sockets_are_bounded_and_closed_with_the_driver(backend: Backend) {
    let name = match backend {
        Backend::Uring => "contract::udp::on_uring::sockets_are_bounded_and_closed_with_the_driver",
        Backend::Mio => "contract::udp::on_mio::sockets_are_bounded_and_closed_with_the_driver",
    };
    alone(name, || {
        let before = descriptors();
        let mut stage = Stage::new(backend);
        stage.setup.max_udp_sockets = 2;
        let (tell, told) = mpsc::channel();
        let mut asked = 0;
        let stats = stage.play(
            move |desk, _, input| {
                if asked < 3 {
                    asked += 1;
                    open(desk, local(), UdpOptions::default());
                }
                if let Some(Input::UdpOpened { result, .. }) = input {
                    if let Ok((udp, _)) = &result {
                        desk.want(Output::ConnectUdp {
                            udp: *udp,
                            peer: ([127, 0, 0, 1], 9).into(),
                        });
                    }
                    tell.send(result.map(|_| ()).map_err(|e| e.to_string())).unwrap();
                }
            },
            |_| {
                let came: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
                assert_eq!(came.iter().filter(|one| one.is_ok()).count(), 2);
                let why = came.into_iter().find_map(Result::err).unwrap();
                assert!(why.contains("2 sockets are open already"), "{why}");
            },
        );
        assert_eq!(
            (stats.udp_opens, stats.udp_open_failures, stats.udp_peers),
            (2, 1, 2)
        );
        assert_eq!(descriptors(), before);
    });
}
