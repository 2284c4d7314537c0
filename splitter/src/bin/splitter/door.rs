//! The TCP side: newcomers' connections, short ones, none of which blocks.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

/// A newcomer says two bytes; who says more says nonsense.
const READ_BYTES: usize = 64;
/// Connections taken at a time.
const ACCEPTS_MAX: usize = 64;

struct Newcomer {
    stream: TcpStream,
    from: SocketAddrV4,
    out: Vec<u8>,
}

/// Bounded by whoever keeps and closes newcomers: the rules refuse those that are too many.
pub(crate) struct Door {
    listener: TcpListener,
    newcomers: HashMap<Token, Newcomer>,
    tokens: HashMap<SocketAddrV4, Token>,
    next: usize,
}

/// What a newcomer's connection has to say.
pub(crate) enum Said {
    Bytes(Vec<u8>),
    /// It ended, or broke.
    Over,
    /// Nothing now.
    Nothing,
}

impl Door {
    /// Newcomers get tokens from `first` on.
    pub(crate) fn new(listener: TcpListener, first: Token) -> Self {
        Self {
            listener,
            newcomers: HashMap::new(),
            tokens: HashMap::new(),
            next: first.0,
        }
    }

    pub(crate) fn listener(&mut self) -> &mut TcpListener {
        &mut self.listener
    }

    /// Connections that wait, with their endpoints.
    ///
    /// # Errors
    ///
    /// When the system cannot give more now; those that were taken are in `out`.
    pub(crate) fn accept(&mut self, out: &mut Vec<(TcpStream, SocketAddrV4)>) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            match self.listener.accept() {
                Ok((stream, SocketAddr::V4(from))) => out.push((stream, from)),
                Ok((_, SocketAddr::V6(_))) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keep a newcomer's connection.
    ///
    /// # Errors
    ///
    /// When it cannot be watched; it is closed then.
    pub(crate) fn keep(
        &mut self,
        registry: &Registry,
        mut stream: TcpStream,
        from: SocketAddrV4,
    ) -> io::Result<()> {
        self.close(from);
        let token = Token(self.next);
        self.next += 1;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.newcomers.insert(
            token,
            Newcomer {
                stream,
                from,
                out: Vec::new(),
            },
        );
        self.tokens.insert(from, token);
        Ok(())
    }

    pub(crate) fn who(&self, token: Token) -> Option<SocketAddrV4> {
        self.newcomers.get(&token).map(|newcomer| newcomer.from)
    }

    pub(crate) fn read(&mut self, from: SocketAddrV4) -> Said {
        let Some(newcomer) = self.get(from) else {
            return Said::Nothing;
        };
        let mut buffer = [0; READ_BYTES];
        loop {
            match newcomer.stream.read(&mut buffer) {
                Ok(0) => return Said::Over,
                Ok(n) => return Said::Bytes(buffer[..n].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Said::Nothing,
                Err(_) => return Said::Over,
            }
        }
    }

    pub(crate) fn tell(&mut self, from: SocketAddrV4, bytes: &[u8]) {
        if let Some(newcomer) = self.get(from) {
            newcomer.out.extend_from_slice(bytes);
        }
        self.flush(from);
    }

    /// The kernel may take more. What cannot be written shows when the connection is read.
    pub(crate) fn flush(&mut self, from: SocketAddrV4) {
        let Some(newcomer) = self.get(from) else { return };
        while !newcomer.out.is_empty() {
            match newcomer.stream.write(&newcomer.out) {
                Ok(n) => drop(newcomer.out.drain(..n)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Closing takes it from the poll as well.
    pub(crate) fn close(&mut self, from: SocketAddrV4) {
        if let Some(token) = self.tokens.remove(&from) {
            self.newcomers.remove(&token);
        }
    }

    fn get(&mut self, from: SocketAddrV4) -> Option<&mut Newcomer> {
        self.newcomers.get_mut(self.tokens.get(&from)?)
    }
}
