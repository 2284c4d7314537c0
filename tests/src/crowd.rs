//! Many connections at once, held by one thread or by none.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::world::{Host, connect_from};

/// Connections from addresses of their own (10.77.0.0/16; see [`crate::World::crowd_addresses`]).
#[derive(Debug)]
pub struct Crowd {
    /// The connections.
    pub streams: Vec<TcpStream>,
}

impl Crowd {
    /// `count` connections from different addresses that each say `request` and then nothing. `receive` is what their
    /// kernel may keep for each.
    ///
    /// # Panics
    ///
    /// When one cannot connect.
    pub fn come(host: &Host, to: SocketAddr, count: usize, request: &[u8], receive: Option<usize>) -> Self {
        let from = |i: usize| IpAddr::V4(Ipv4Addr::new(10, 77, (i / 250) as u8, (i % 250 + 1) as u8));
        Self::come_from(host, to, count, request, receive, from)
    }

    /// The same from addresses of the caller's choice.
    ///
    /// # Panics
    ///
    /// When one cannot connect.
    pub fn come_from(
        host: &Host,
        to: SocketAddr,
        count: usize,
        request: &[u8],
        receive: Option<usize>,
        from: impl Fn(usize) -> IpAddr + Send + Sync,
    ) -> Self {
        let streams = host.run(|| {
            let one = |i| {
                let mut stream =
                    connect_from(from(i), to, receive).unwrap_or_else(|e| panic!("caller {i}: {e}"));
                let _ = stream.write_all(request);
                stream
            };
            (0..count).map(one).collect()
        });
        Self { streams }
    }

    /// How many of them the relay has let go.
    pub fn closed(&self) -> usize {
        let hung = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (i, stream) in self.streams.iter().enumerate() {
            epoll
                .add(stream, EpollEvent::new(EpollFlags::EPOLLRDHUP, i as u64))
                .unwrap();
        }
        let mut events = vec![EpollEvent::empty(); self.streams.len().max(1)];
        let told = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        events[..told]
            .iter()
            .filter(|event| event.events().intersects(hung))
            .count()
    }

    /// Everybody says these bytes; those who are gone do not.
    pub fn say(&mut self, bytes: &[u8]) {
        for stream in &mut self.streams {
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(bytes);
        }
    }

    /// What each has heard by now, up to a kilobyte.
    pub fn heard(&mut self) -> Vec<Vec<u8>> {
        let read = |stream: &mut TcpStream| {
            let _ = stream.set_nonblocking(true);
            let mut buffer = vec![0; 1024];
            let n = stream.read(&mut buffer).unwrap_or(0);
            buffer.truncate(n);
            buffer
        };
        self.streams.iter_mut().map(read).collect()
    }
}
