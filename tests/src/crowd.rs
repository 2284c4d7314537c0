//! Many connections at once, held by one thread or by none.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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

    /// They listen from now on, without a judge: what comes is read and forgotten.
    pub fn drink(self) -> Drinkers {
        let streams = self.streams;
        let heard: Arc<[AtomicU64]> = streams.iter().map(|_| AtomicU64::new(0)).collect();
        let done = Arc::new(AtomicBool::new(false));
        let (theirs, stop) = (heard.clone(), done.clone());
        let thread = std::thread::spawn(move || drink(streams, &theirs, &stop));
        Drinkers {
            heard,
            done,
            thread: Some(thread),
        }
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

/// Many who read what comes, on one thread.
#[derive(Debug)]
pub struct Drinkers {
    heard: Arc<[AtomicU64]>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drinkers {
    /// How many bytes the one who has heard least has heard.
    pub fn least(&self) -> u64 {
        self.heard
            .iter()
            .map(|n| n.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    /// How many bytes all of them have heard.
    pub fn total(&self) -> u64 {
        self.heard.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for Drinkers {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drink(mut streams: Vec<TcpStream>, heard: &[AtomicU64], done: &AtomicBool) {
    const ROUND: Duration = Duration::from_millis(20);
    let mut buffer = vec![0; 256 * 1024];
    for stream in &streams {
        let _ = stream.set_nonblocking(true);
    }
    while !done.load(Ordering::Relaxed) {
        for (stream, heard) in streams.iter_mut().zip(heard) {
            let n = stream.read(&mut buffer).unwrap_or(0);
            heard.fetch_add(n as u64, Ordering::Relaxed);
        }
        std::thread::sleep(ROUND);
    }
}
