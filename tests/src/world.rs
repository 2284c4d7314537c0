//! Hosts and the cables between them.
//!
//! With root, each host is a network namespace with one cable (a veth pair) to a switch (a bridge in a namespace of its
//! own). Without, all hosts share loopback, and what needs cables says that it cannot run. Names carry the process id,
//! so that a world can clear away what a killed one has left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::tools::is_root;
use crate::weather::Weather;

/// All our namespaces begin so; the process id follows.
const PREFIX: &str = "totality-";
/// The addresses of hosts.
const NET: [u8; 3] = [10, 66, 0];
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

static WORLDS: AtomicU32 = AtomicU32::new(0);

/// Some hosts, and the switch they are plugged into.
#[derive(Debug)]
pub struct World {
    prefix: String,
    isolated: bool,
    hosts: Mutex<BTreeMap<String, Host>>,
    dir: Arc<TempDir>,
}

/// One host; a cheap handle.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    netns: Option<Arc<File>>,
    netns_name: String,
    switch: String,
    port: String,
    ip: Ipv4Addr,
    dir: Arc<TempDir>,
}

/// Lets time pass.
pub fn pass(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn try_run(program: &str, args: &[&str]) -> io::Result<Output> {
    Command::new(program).args(args).output()
}

fn run(program: &str, args: &[&str]) {
    let out = try_run(program, args).unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {}: {said}", args.join(" "));
}

/// `ip` with words.
fn ip(line: &str) {
    run("ip", &line.split_whitespace().collect::<Vec<_>>());
}

impl World {
    /// An empty world. Its namespaces go with it; those of worlds that were killed go now.
    pub fn new(name: &str) -> Self {
        let isolated = is_root() && crate::tools::have("ip");
        let id = WORLDS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{id}-", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&format!("totality-{name}-"))
            .tempdir()
            .unwrap();
        // Players and relays that run as nobody read and write here too.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), all).unwrap();
        if isolated {
            clear_leftovers();
            let switch = format!("{prefix}switch");
            ip(&format!("netns add {switch}"));
            ip(&format!("-n {switch} link add br0 type bridge"));
            ip(&format!("-n {switch} link set br0 up"));
        }
        Self {
            prefix,
            isolated,
            hosts: Mutex::new(BTreeMap::new()),
            dir: Arc::new(dir),
        }
    }

    /// Puts weather between a host and the switch: its cable is cut in the middle, and what comes out at either end is
    /// carried over by hand, late, or not at all. It lasts as long as what is returned.
    ///
    /// # Panics
    ///
    /// On a world without namespaces.
    pub fn weather(&self, host: &Host, seed: u64) -> Weather {
        assert!(self.isolated, "weather needs namespaces");
        let (port, switch) = (&host.port, &host.switch);
        let air = format!("{}air-{port}", self.prefix);
        let far = format!("w{port}");
        ip(&format!("netns add {air}"));
        ip(&format!("-n {switch} link set {port} nomaster"));
        ip(&format!("-n {switch} link set {port} netns {air}"));
        ip(&format!(
            "-n {air} link add far type veth peer name {far} netns {switch}"
        ));
        ip(&format!("-n {air} link set {port} up"));
        ip(&format!("-n {air} link set far up"));
        ip(&format!("-n {switch} link set {far} master br0 up"));
        // One packet, one frame, with its own checksum: else whole trains of packets would be lost at once.
        for (netns, device) in [
            (&host.netns_name, "eth0"),
            (&air, port),
            (&air, "far"),
            (switch, &far),
        ] {
            let words =
                format!("netns exec {netns} ethtool -K {device} tx off rx off tso off gso off gro off");
            ip(&words);
        }
        let netns = File::open(format!("/var/run/netns/{air}")).unwrap();
        Weather::begin(netns, [port.clone(), "far".to_owned()], seed)
    }

    /// Whether hosts have networks of their own.
    pub fn is_isolated(&self) -> bool {
        self.isolated
    }

    /// The host of this name; it is made when it is asked for the first time.
    pub fn host(&self, name: &str) -> Host {
        let mut hosts = self.hosts.lock().unwrap();
        let number = hosts.len() + 1;
        hosts
            .entry(name.to_owned())
            .or_insert_with(|| self.make_host(name, number as u8))
            .clone()
    }

    fn make_host(&self, name: &str, number: u8) -> Host {
        let (switch, netns_name) = (format!("{}switch", self.prefix), format!("{}{name}", self.prefix));
        let port = format!("p{number}");
        let mut host = Host {
            name: name.to_owned(),
            netns: None,
            netns_name: netns_name.clone(),
            switch: switch.clone(),
            port: port.clone(),
            ip: Ipv4Addr::LOCALHOST,
            dir: self.dir.clone(),
        };
        if self.isolated {
            host.ip = Ipv4Addr::new(NET[0], NET[1], NET[2], number);
            ip(&format!("netns add {netns_name}"));
            ip(&format!("-n {netns_name} link set lo up"));
            ip(&format!(
                "-n {netns_name} link add eth0 type veth peer name {port} netns {switch}"
            ));
            ip(&format!("-n {netns_name} addr add {}/24 dev eth0", host.ip));
            ip(&format!("-n {netns_name} link set eth0 up"));
            ip(&format!("-n {switch} link set {port} master br0 up"));
            let path = format!("/var/run/netns/{netns_name}");
            host.netns = Some(Arc::new(File::open(path).unwrap()));
        }
        host
    }

    /// Gives a host the 65,536 addresses of 10.77.0.0/16, and shows the others the way to them.
    ///
    /// # Panics
    ///
    /// On a world without namespaces.
    pub fn crowd_addresses(&self, crowd: &Host) {
        assert!(self.isolated, "a crowd's addresses need namespaces");
        ip(&format!(
            "-n {} route add local 10.77.0.0/16 dev lo",
            crowd.netns_name
        ));
        let hosts = self.hosts.lock().unwrap();
        for host in hosts.values().filter(|host| host.name != crowd.name) {
            ip(&format!(
                "-n {} route add 10.77.0.0/16 via {}",
                host.netns_name, crowd.ip
            ));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.isolated {
            remove_namespaces(|name| name.starts_with(&self.prefix));
        }
    }
}

fn namespaces() -> Vec<String> {
    let out = try_run("ip", &["netns", "list"])
        .map(|out| out.stdout)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&out).into_owned();
    text.lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn remove_namespaces(ours: impl Fn(&str) -> bool) {
    for name in namespaces().iter().filter(|name| ours(name)) {
        let _ = try_run("ip", &["netns", "del", name]);
    }
}

/// Removes the namespaces of test processes that are no more, and ends what still runs in them.
fn clear_leftovers() {
    let dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())
    };
    for name in namespaces().iter().filter(|name| dead(name)) {
        let pids = try_run("ip", &["netns", "pids", name])
            .map(|out| out.stdout)
            .unwrap_or_default();
        for pid in String::from_utf8_lossy(&pids).split_whitespace() {
            let _ = try_run("kill", &["-9", pid]);
        }
    }
    remove_namespaces(dead);
}

impl Host {
    /// Its address.
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.ip)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file in the world's own folder, named after the host; it goes with the world.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{}-{name}", self.name))
    }

    /// Does something in this host's network: sockets made and programs started by `f` are there.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let Some(netns) = &self.netns else { return f() };
        std::thread::scope(|scope| {
            let enter_and_run = || {
                setns(netns, CloneFlags::CLONE_NEWNET).expect("entering a network namespace");
                f()
            };
            scope
                .spawn(enter_and_run)
                .join()
                .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }

    /// Runs a program to its end on this host.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn sh(&self, program: &str, args: &[&str]) -> String {
        let out = self
            .run(|| try_run(program, args))
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "{program} {args:?} on {}: {said}",
            self.name
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// A port that nobody has here.
    pub fn free_port(&self) -> u16 {
        let at = SocketAddr::new(self.ip(), 0);
        self.run(|| TcpListener::bind(at).unwrap().local_addr().unwrap().port())
    }

    /// Connects from this host.
    ///
    /// # Errors
    ///
    /// As the kernel says.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&to, CONNECT))
    }

    /// Connects from one of this host's addresses, with a receive buffer of so many bytes if one is named.
    ///
    /// # Errors
    ///
    /// As the kernel says.
    pub fn connect_from(
        &self,
        from: IpAddr,
        to: SocketAddr,
        receive: Option<usize>,
    ) -> io::Result<TcpStream> {
        self.run(|| connect_from(from, to, receive))
    }

    /// What it has sent by its cable since it was made: bytes and packets.
    ///
    /// # Panics
    ///
    /// On a world without namespaces.
    pub fn sent(&self) -> (u64, u64) {
        let text = self
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
            .unwrap();
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("eth0:"))
            .unwrap();
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        (numbers[8], numbers[9])
    }

    /// Pulls this host's cable out for so long.
    ///
    /// # Panics
    ///
    /// On a world without namespaces.
    pub fn cut_link(&self, ms: u64) {
        self.unplug();
        pass(ms);
        self.plug();
    }

    /// Pulls this host's cable out.
    pub fn unplug(&self) {
        assert!(self.netns.is_some(), "cables need namespaces");
        ip(&format!("-n {} link set {} down", self.switch, self.port));
    }

    /// Puts it in again.
    pub fn plug(&self) {
        ip(&format!("-n {} link set {} up", self.switch, self.port));
    }

    /// Lets the kernel drop what comes in to this host, and what goes out, once `quota` bytes have gone that way.
    ///
    /// # Panics
    ///
    /// When nftables cannot.
    pub fn drop_after(&self, quota: u64) {
        for hook in ["input", "output"] {
            let rules = format!(
                "add table inet hole; add chain inet hole {hook} {{ type filter hook {hook} priority 0; }}; \
                 add rule inet hole {hook} ip protocol tcp quota over {quota} bytes drop"
            );
            self.sh("nft", &[&rules]);
        }
    }

    /// Kernel memory of all TCP sockets on this machine, in bytes (`/proc/net/sockstat`; the kernel keeps one sum).
    pub fn tcp_memory(&self) -> u64 {
        let text = self
            .run(|| std::fs::read_to_string("/proc/thread-self/net/sockstat"))
            .unwrap();
        let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
        let pages: u64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap();
        pages * 4096
    }
}

/// See [`Host::connect_from`]; for callers who are on the host already.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr, receive: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), CONNECT)?;
    Ok(socket.into())
}
