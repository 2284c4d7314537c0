//! The floor: the least that a server of plain system calls can do. One thread; every T ms it takes what the
//! source sent and gives the same buffer to each socket with one plain `send()`. Nobody is waited for,
//! nothing is kept, nothing is parsed beyond the first word of a request. What another server costs above
//! this is that server's own.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Socket, Type};

use crate::error::{Doing, Error};
use crate::stop::Stop;

/// Connections that may wait for the next tick.
const BACKLOG: i32 = 4096;
/// Connections served at most, source and newcomers included.
const CONNECTIONS_MAX: usize = 65_536;
/// Longest request head, in bytes.
const REQUEST_MAX: usize = 4096;
/// Bytes taken from the source per tick at most.
const TICK_MAX: usize = 8 << 20;

const WELCOME: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n";

struct Floor {
    door: TcpListener,
    newcomers: Vec<(TcpStream, Vec<u8>)>,
    source: Option<TcpStream>,
    crowd: Vec<TcpStream>,
    batch: Vec<u8>,
    /// Sends that the kernel took only in part, or not at all: bytes a listener never gets.
    short_sends: u64,
}

/// Serves on `listen` until a signal; reports on stdout how many sends fell short.
pub(crate) fn run(listen: SocketAddr, interval: Duration, stop: &Stop) -> Result<(), Error> {
    let mut floor = Floor::open(listen)?;
    let mut next = Instant::now();
    while !stop.asked() {
        floor.tick();
        next = (next + interval).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    println!("floor: {} short sends", floor.short_sends);
    Ok(())
}

impl Floor {
    fn open(listen: SocketAddr) -> Result<Floor, Error> {
        let door = Socket::new(Domain::for_address(listen), Type::STREAM, None)
            .and_then(|door| {
                door.set_reuse_address(true)?;
                door.bind(&listen.into())?;
                door.listen(BACKLOG)?;
                door.set_nonblocking(true)?;
                Ok(TcpListener::from(door))
            })
            .doing(|| format!("cannot listen on {listen}"))?;
        let (newcomers, crowd, batch) = (Vec::new(), Vec::new(), Vec::with_capacity(TICK_MAX));
        Ok(Floor {
            door,
            newcomers,
            source: None,
            crowd,
            batch,
            short_sends: 0,
        })
    }

    fn tick(&mut self) {
        self.accept();
        self.admit();
        self.take();
        self.give();
    }

    fn accept(&mut self) {
        while self.newcomers.len() + self.crowd.len() < CONNECTIONS_MAX {
            let Ok((socket, _)) = self.door.accept() else {
                return;
            };
            // Nagle would hold back the last part of each batch until the batch before is acknowledged.
            if socket
                .set_nonblocking(true)
                .and_then(|()| socket.set_nodelay(true))
                .is_ok()
            {
                self.newcomers.push((socket, Vec::new()));
            }
        }
    }

    /// Whoever has sent a whole request head becomes the source or one of the crowd.
    fn admit(&mut self) {
        for (mut socket, mut head) in std::mem::take(&mut self.newcomers) {
            let mut buffer = [0; 1024];
            match socket.read(&mut buffer) {
                Ok(0) => continue,
                Ok(got) => head.extend(&buffer[..got]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => continue,
            }
            match head.windows(4).any(|four| four == b"\r\n\r\n") {
                false if head.len() < REQUEST_MAX => self.newcomers.push((socket, head)),
                false => {}
                true => self.welcome(socket, &head),
            }
        }
    }

    fn welcome(&mut self, mut socket: TcpStream, head: &[u8]) {
        let is_source = head.starts_with(b"PUT ") || head.starts_with(b"SOURCE ");
        if socket.write_all(WELCOME).is_err() {
            return;
        }
        match is_source {
            true => self.source = Some(socket),
            false => self.crowd.push(socket),
        }
    }

    fn take(&mut self) {
        self.batch.clear();
        let Some(source) = &mut self.source else { return };
        let end = source.take(TICK_MAX as u64).read_to_end(&mut self.batch);
        let alive = matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if !alive && self.batch.len() < TICK_MAX {
            self.source = None;
        }
    }

    fn give(&mut self) {
        let Floor {
            crowd,
            batch,
            short_sends,
            ..
        } = self;
        if batch.is_empty() {
            return;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        crowd.retain(|socket| match send(socket.as_raw_fd(), batch, flags) {
            Ok(sent) => {
                *short_sends += u64::from(sent < batch.len());
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                *short_sends += 1;
                true
            }
            Err(_) => false,
        });
    }
}
