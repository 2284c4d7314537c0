//! `sink`: what the kernel asks for a send, without a receiver: a network namespace of our own with an `ifb` device, to
//! which everything is sent through the whole transmit path and dropped at its end. Nothing of a server is in it: these
//! are the floors under any server's sends. Time is CPU time of the sending thread.
//!
//! What has a safe call is here: `send`, `sendto`, `sendmmsg`, GSO as a socket option, multicast. Beside them stands
//! the relay's own driver, on both backends: `sink_driver.rs` for datagrams, `sink_tcp.rs` for connections.

use std::fmt;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, send, sendmmsg, sendto, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Uid;
use relay_driver::{Backend, Stats, ZeroCopy};
use serde::Serialize;

use crate::crowd_report::at;
use crate::error::{Doing, Error};
use crate::procfs::Machine;
use crate::sink_driver::{self, Load};
use crate::sink_tcp;
use crate::stop::Stop;
use crate::table::aligned;

/// Payload of one datagram: seven packets of MPEG-TS.
pub(crate) const DATAGRAM: usize = 1316;
/// Datagrams in one GSO send; 48 are 63,168 bytes, the most that fit.
const SEGMENTS: [usize; 5] = [1, 4, 12, 24, 48];
/// Messages in one `sendmmsg`.
const BATCH: usize = 64;
/// Times each row is measured; the least and the median are told.
pub(crate) const ROUNDS: usize = 5;
/// Segments that a connection may send without an answer: nobody answers.
const UNANSWERED: &str = "60000";
/// Addresses behind the device.
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 0);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const PORT: u16 = 9;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// Datagrams of 1,316 bytes to one peer and to many
    Udp,
    /// Segments to connections that nobody answers
    Tcp,
    /// The same datagrams to one group
    Multicast,
}

/// What to measure.
pub(crate) struct Plan {
    pub(crate) way: Way,
    pub(crate) peers: usize,
    /// CPU time that one round of one row takes.
    pub(crate) round: Duration,
}

/// One way to send.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) way: String,
    pub(crate) peers: usize,
    /// Datagrams of one send; for TCP, bytes.
    pub(crate) size: usize,
    pub(crate) ns_per_send_min: f64,
    pub(crate) ns_per_datagram_min: f64,
    pub(crate) ns_per_datagram_median: f64,
    pub(crate) cpu_s_per_gb: f64,
    /// Sends that the kernel refused.
    pub(crate) failed: u64,
    /// Of the sends that were to go without a copy, how many the kernel copied after all; none where none was to.
    pub(crate) copied: Option<f64>,
    /// As a multiple of a bare `sendmmsg` loop, measured just before and just after.
    pub(crate) times_bare: Option<f64>,
}

/// All rows, and where.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) way: Way,
    pub(crate) rows: Vec<Row>,
}

/// Measures all rows of a way.
pub(crate) fn run(plan: &Plan, stop: &Stop) -> Result<Report, Error> {
    let machine = Machine::look();
    let rows = match plan.way {
        Way::Tcp => {
            open_sink()?;
            sink_tcp::rows(plan.peers, stop)?
        }
        Way::Udp => {
            open_sink()?;
            udp(plan, stop)?
        }
        Way::Multicast => {
            open_sink()?;
            multicast(plan, stop)?
        }
    };
    let way = plan.way;
    Ok(Report { machine, way, rows })
}

/// A namespace for this process alone; it and its device end with us.
fn open_sink() -> Result<(), Error> {
    if !Uid::effective().is_root() {
        return Err(Error::Failed(
            "sink needs root: it makes a network namespace".into(),
        ));
    }
    unshare(CloneFlags::CLONE_NEWNET).doing(|| "cannot make a network namespace".into())?;
    let network = format!("{NETWORK}/16");
    let own = format!("{}/16", Ipv4Addr::new(10, 99, 255, 1));
    for words in [
        vec!["link", "set", "lo", "up"],
        vec!["link", "add", "ifb0", "txqueuelen", "10000", "type", "ifb"],
        vec!["link", "set", "ifb0", "multicast", "on", "up"],
        vec!["addr", "add", &own, "dev", "ifb0"],
        vec![
            "route", "replace", &network, "dev", "ifb0", "initcwnd", UNANSWERED,
        ],
        vec!["route", "add", "224.0.0.0/4", "dev", "ifb0"],
    ] {
        let output = Command::new("ip")
            .args(&words)
            .output()
            .doing(|| "cannot run ip (apt install iproute2)".into())?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Failed(format!("ip {}: {}", words.join(" "), why.trim())));
        }
    }
    Ok(())
}

pub(crate) fn peer(n: usize) -> SocketAddrV4 {
    let host = u32::from(NETWORK) + 256 + n as u32;
    SocketAddrV4::new(Ipv4Addr::from(host), PORT)
}

fn socket() -> Result<UdpSocket, Error> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).doing(|| "cannot open a UDP socket".into())?;
    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(8 << 20);
    Ok(socket)
}

fn connected(count: usize, segments: usize) -> Result<Vec<UdpSocket>, Error> {
    let one = |n| {
        let socket = socket()?;
        socket
            .connect(peer(n))
            .doing(|| "cannot connect into the sink".into())?;
        if segments > 1 {
            gso(&socket)?;
        }
        Ok(socket)
    };
    (0..count).map(one).collect()
}

fn gso(socket: &UdpSocket) -> Result<(), Error> {
    let size = DATAGRAM as i32;
    setsockopt(socket, sockopt::UdpGsoSegment, &size).doing(|| "no UDP_SEGMENT in this kernel".into())
}

pub(crate) fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Measures one row. `work` sends once and says how many units went out and how many were refused.
fn row(
    plan: &Plan,
    name: &str,
    (peers, size, bytes): (usize, usize, usize),
    stop: &Stop,
    mut work: impl FnMut() -> (u64, u64),
) -> Result<Row, Error> {
    let mut rounds = Vec::new();
    let mut failed = 0;
    for _ in 0..ROUNDS {
        stop.check()?;
        let (start, mut sent) = (thread_time(), 0);
        let mut turns = 0;
        while thread_time() - start < plan.round && turns < 10_000_000 {
            // The clock is read once in a while: it costs as much as some of what is measured.
            for _ in 0..32 {
                let (good, bad) = work();
                sent += good;
                failed += bad;
                turns += 1;
            }
        }
        rounds.push((thread_time() - start).as_secs_f64() * 1e9 / (sent as f64).max(1.0));
    }
    rounds.sort_by(f64::total_cmp);
    let least = at(&rounds, 0.0);
    let datagrams = (bytes as f64 / DATAGRAM as f64).max(1.0);
    Ok(Row {
        way: name.into(),
        peers,
        size,
        ns_per_send_min: least,
        ns_per_datagram_min: least / datagrams,
        ns_per_datagram_median: at(&rounds, 0.5) / datagrams,
        cpu_s_per_gb: least / bytes as f64,
        failed,
        copied: None,
        times_bare: None,
    })
}

/// The backends that this host allows.
fn backends() -> Vec<(Backend, &'static str)> {
    let best = relay_driver::probe().backend();
    let all = [(Backend::Uring, "io_uring"), (Backend::Mio, "mio")];
    all.into_iter()
        .filter(|(backend, _)| best == Backend::Uring || *backend == Backend::Mio)
        .collect()
}

/// What part of the sends that were to go without a copy was copied: by the kernel, or by the driver because too much
/// was held.
fn copied(stats: &Stats) -> Option<f64> {
    let wanted = stats.zero_copy_sends + stats.zero_copy_capped;
    let copied = stats.zero_copy_copied + stats.zero_copy_capped;
    (wanted > 0).then(|| copied as f64 / wanted as f64)
}

/// Measures the relay's own driver.
fn driver(
    plan: &Plan,
    name: String,
    backend: Backend,
    (peers, connect, chunks): (Vec<SocketAddr>, bool, usize),
    zero_copy: ZeroCopy,
    stop: &Stop,
) -> Result<Row, Error> {
    stop.check()?;
    let count = peers.len();
    let outcome = sink_driver::run(Load {
        backend,
        peers,
        connect,
        zero_copy,
        chunks,
        chunk: DATAGRAM,
        rounds: ROUNDS,
        round: plan.round,
    })?;
    let mut rounds = outcome.ns;
    rounds.sort_by(f64::total_cmp);
    let least = at(&rounds, 0.0);
    Ok(Row {
        way: name,
        peers: count,
        size: chunks,
        ns_per_send_min: least,
        ns_per_datagram_min: least / chunks as f64,
        ns_per_datagram_median: at(&rounds, 0.5) / chunks as f64,
        cpu_s_per_gb: least / (chunks * DATAGRAM) as f64,
        failed: outcome.dropped + outcome.stats.trains_refused,
        copied: copied(&outcome.stats),
        times_bare: None,
    })
}

fn outcome(sent: nix::Result<usize>) -> (u64, u64) {
    (u64::from(sent.is_ok()), u64::from(sent.is_err()))
}

fn udp(plan: &Plan, stop: &Stop) -> Result<Vec<Row>, Error> {
    let chunk = vec![0x47; DATAGRAM * SEGMENTS[4]];
    let mut rows = Vec::new();
    let open = socket()?;
    let to = SockaddrIn::from(peer(0));
    let one = &chunk[..DATAGRAM];
    let plain = MsgFlags::empty();
    rows.push(row(plan, "sendto", (1, 1, DATAGRAM), stop, || {
        outcome(sendto(open.as_raw_fd(), one, &to, plain))
    })?);
    for segments in SEGMENTS {
        let sockets = connected(1, segments)?;
        let bytes = &chunk[..DATAGRAM * segments];
        let fd = sockets[0].as_raw_fd();
        let name = if segments == 1 {
            "send, connected"
        } else {
            "send, connected, GSO"
        };
        rows.push(row(plan, name, (1, segments, bytes.len()), stop, || {
            outcome(send(fd, bytes, plain))
        })?);
    }
    for segments in [1, 12, 48] {
        let sockets = connected(plan.peers, segments)?;
        let bytes = &chunk[..DATAGRAM * segments];
        let name = if segments == 1 {
            "send, own sockets"
        } else {
            "send, own sockets, GSO"
        };
        let mut turn = sockets.iter().cycle();
        rows.push(row(
            plan,
            name,
            (plan.peers, segments, bytes.len()),
            stop,
            || {
                turn.next()
                    .map_or((0, 1), |socket| outcome(send(socket.as_raw_fd(), bytes, plain)))
            },
        )?);
    }
    for segments in [1, 12, 48] {
        rows.push(mmsg(plan, &chunk[..DATAGRAM * segments], segments, stop)?);
    }
    for (backend, name) in backends() {
        for (connect, chunks) in [(false, 1), (true, 1), (true, 12), (true, 48)] {
            let peers = (0..plan.peers).map(|n| peer(n).into()).collect();
            let how = if connect { "own sockets" } else { "one socket" };
            let gso = if chunks > 1 { ", GSO" } else { "" };
            let way = format!("driver on {name}, {how}{gso}");
            let load = (peers, connect, chunks);
            let measure = || driver(plan, way.clone(), backend, load.clone(), ZeroCopy::Off, stop);
            rows.push(if chunks == 1 {
                beside_bare(plan, &chunk[..DATAGRAM], stop, measure)?
            } else {
                measure()?
            });
        }
    }
    for chunks in [12, 48] {
        let peers = (0..plan.peers).map(|n| peer(n).into()).collect();
        rows.extend(registered(plan, "own sockets", (peers, true, chunks), stop)?);
    }
    Ok(rows)
}

/// Measures a row between two bare loops: the load of a machine changes from row to row.
fn beside_bare(
    plan: &Plan,
    one: &[u8],
    stop: &Stop,
    mut measure: impl FnMut() -> Result<Row, Error>,
) -> Result<Row, Error> {
    let before = mmsg(plan, one, 1, stop)?.ns_per_datagram_median;
    let mut row = measure()?;
    let after = mmsg(plan, one, 1, stop)?.ns_per_datagram_median;
    row.times_bare = Some(2.0 * row.ns_per_datagram_median / (before + after));
    Ok(row)
}

/// Without a copy, from registered memory; none where there is no io_uring.
fn registered(
    plan: &Plan,
    how: &str,
    load: (Vec<SocketAddr>, bool, usize),
    stop: &Stop,
) -> Result<Option<Row>, Error> {
    if relay_driver::probe().backend() == Backend::Mio {
        return Ok(None);
    }
    let way = format!("driver on io_uring, {how}, registered");
    driver(plan, way, Backend::Uring, load, ZeroCopy::Auto, stop).map(Some)
}

/// One chunk to each of many peers from one socket, in batches: what a splitter or a tracker's swarm asks for.
fn mmsg(plan: &Plan, bytes: &[u8], segments: usize, stop: &Stop) -> Result<Row, Error> {
    let open = socket()?;
    if segments > 1 {
        gso(&open)?;
    }
    let peers: Vec<Option<SockaddrIn>> = (0..plan.peers).map(|n| Some(peer(n).into())).collect();
    let slices = vec![[IoSlice::new(bytes)]; BATCH];
    let mut batches = peers.chunks(BATCH).cycle();
    let name = if segments == 1 {
        "sendmmsg x64"
    } else {
        "sendmmsg x64, GSO"
    };
    row(plan, name, (plan.peers, segments, bytes.len()), stop, || {
        let Some(batch) = batches.next() else {
            return (0, 1);
        };
        let mut headers = MultiHeaders::preallocate(batch.len(), None);
        let sent = sendmmsg(
            open.as_raw_fd(),
            &mut headers,
            &slices,
            batch,
            [],
            MsgFlags::empty(),
        );
        match sent {
            Ok(sent) => (sent.count() as u64, 0),
            Err(_) => (0, 1),
        }
    })
}

fn multicast(plan: &Plan, stop: &Stop) -> Result<Vec<Row>, Error> {
    let chunk = vec![0x47; DATAGRAM * SEGMENTS[4]];
    let mut rows = Vec::new();
    for segments in SEGMENTS {
        let socket = socket()?;
        let quiet = socket
            .set_multicast_loop_v4(false)
            .and_then(|()| socket.set_multicast_ttl_v4(1));
        quiet
            .and_then(|()| socket.connect((GROUP, PORT)))
            .doing(|| "cannot send to the group".into())?;
        if segments > 1 {
            gso(&socket)?;
        }
        let bytes = &chunk[..DATAGRAM * segments];
        let name = if segments == 1 {
            "send, group"
        } else {
            "send, group, GSO"
        };
        rows.push(row(plan, name, (1, segments, bytes.len()), stop, || {
            outcome(send(socket.as_raw_fd(), bytes, MsgFlags::empty()))
        })?);
    }
    for (backend, name) in backends() {
        for chunks in [1, 12, 48] {
            let group = vec![SocketAddr::from((GROUP, PORT))];
            // Neighbours ride together, so that single chunks make trains, too.
            let gso = if chunks > 1 { ", GSO" } else { ", joined" };
            let way = format!("driver on {name}, group{gso}");
            let load = (group, true, chunks);
            rows.push(driver(plan, way, backend, load, ZeroCopy::Off, stop)?);
        }
    }
    for chunks in [12, 48] {
        let group = vec![SocketAddr::from((GROUP, PORT))];
        rows.extend(registered(plan, "group", (group, true, chunks), stop)?);
    }
    Ok(rows)
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.way == Way::Tcp {
            "bytes"
        } else {
            "datagrams"
        };
        let heads = [
            "way",
            "peers",
            unit,
            "ns/send",
            "ns/datagram",
            "median",
            "CPU-s/GB",
            "refused",
            "copied",
        ];
        let mut cells = vec![heads.map(str::to_owned).to_vec()];
        cells.extend(self.rows.iter().map(|row| {
            vec![
                row.way.clone(),
                row.peers.to_string(),
                row.size.to_string(),
                format!("{:.0}", row.ns_per_send_min),
                format!("{:.1}", row.ns_per_datagram_min),
                format!("{:.1}", row.ns_per_datagram_median),
                format!("{:.3}", row.cpu_s_per_gb),
                row.failed.to_string(),
                row.copied.map_or_else(|| "-".into(), |part| format!("{part:.3}")),
            ]
        }));
        let Machine {
            cpu, kernel, load, ..
        } = &self.machine;
        let place = "ifb sink in a namespace: the whole transmit path, then dropped";
        write!(
            out,
            "{}\n\n- {place}\n- CPU time of the sending thread, least of {ROUNDS} rounds; a datagram is \
             {DATAGRAM} bytes\n\
             - machine: {cpu}, Linux {kernel}, load before {load:.2}",
            aligned(&cells)
        )?;
        let beside = |row: &Row| row.times_bare.map(|times| (row.way.clone(), times));
        for (way, times) in self.rows.iter().filter_map(beside) {
            write!(
                out,
                "\n- one chunk to each: {way} takes {times:.2} times what a bare sendmmsg loop beside it does"
            )?;
        }
        Ok(())
    }
}
