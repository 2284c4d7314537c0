//! Connections that we open: resolve, then try each address in turn, within the time given.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use relay_seam::{Conn, Input, Machine, Now};
use socket2::{Domain, Protocol, Socket, Type};

use crate::resolve::Resolver;
use crate::seat::{Phase, Seat};
use crate::shore::Shore;
use crate::sockopt;
use crate::wheel::Wheel;

/// Most calls at once; one more fails at once.
const CALLS_MAX: usize = 256;
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// The calls under way.
pub(crate) struct Calls {
    under_way: HashMap<u64, Call>,
    next: u64,
    resolver: Resolver,
}

struct Call {
    token: u64,
    deadline: Now,
    /// When to give the present address up.
    attempt_until: Now,
    attempt: Option<(Conn, SocketAddr)>,
    left: VecDeque<SocketAddr>,
    last_error: Option<io::Error>,
}

impl Calls {
    pub(crate) fn new(resolver: Resolver) -> Self {
        Self {
            under_way: HashMap::new(),
            next: 0,
            resolver,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Now> {
        self.under_way.values().map(|call| call.attempt_until).min()
    }

    pub(crate) fn forget_all(&mut self) {
        self.under_way.clear();
    }

    fn begin(&mut self, call: Call) -> u64 {
        let id = self.next;
        self.next += 1;
        self.under_way.insert(id, call);
        id
    }
}

impl<S: Shore, M: Machine + ?Sized> Wheel<'_, S, M> {
    /// Begins a call ([`relay_seam::Output::Connect`]).
    pub(crate) fn call(&mut self, token: u64, host: &str, port: u16, timeout: Duration) -> io::Result<()> {
        let deadline = self.now + timeout;
        if self.calls.under_way.len() >= CALLS_MAX {
            let error = format!("cannot connect to {host}: {CALLS_MAX} connects are under way already");
            return self.fail(token, io::Error::new(io::ErrorKind::WouldBlock, error));
        }
        let literal: Option<IpAddr> = host.parse().ok();
        let left = literal.map(|ip| SocketAddr::new(ip, port)).into_iter().collect();
        let call = Call {
            token,
            deadline,
            attempt_until: deadline,
            attempt: None,
            left,
            last_error: None,
        };
        let id = self.calls.begin(call);
        if literal.is_some() {
            return self.try_next(id);
        }
        match self.calls.resolver.ask(id, host, port) {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(id, error),
        }
    }

    /// The resolver has answers.
    pub(crate) fn answered(&mut self) -> io::Result<()> {
        for (id, answer) in self.calls.resolver.answers() {
            let Some(call) = self.calls.under_way.get_mut(&id) else {
                continue;
            };
            match answer {
                Ok(addresses) => call.left.extend(addresses.into_iter().take(ADDRESSES_MAX)),
                Err(error) => call.last_error = Some(error),
            }
            self.try_next(id)?;
        }
        Ok(())
    }

    /// Begins to connect to the next address that can be begun with.
    fn try_next(&mut self, id: u64) -> io::Result<()> {
        loop {
            let Some(call) = self.calls.under_way.get_mut(&id) else {
                return Ok(());
            };
            let Some(addr) = call.left.pop_front() else {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                let error = call.last_error.take().unwrap_or_else(none);
                return self.give_up(id, error);
            };
            // What time is left is shared by the addresses that are left, so that a dead first one does not eat it.
            let share = call.deadline.since(self.now) / (call.left.len() as u32 + 1);
            call.attempt_until = self.now + share;
            match self.dial(id, addr)? {
                Ok(conn) => {
                    self.set_attempt(id, conn, addr);
                    return Ok(());
                }
                Err(error) => self.note(id, error),
            }
        }
    }

    fn set_attempt(&mut self, id: u64, conn: Conn, addr: SocketAddr) {
        if let Some(call) = self.calls.under_way.get_mut(&id) {
            call.attempt = Some((conn, addr));
        }
    }

    fn note(&mut self, id: u64, error: io::Error) {
        if let Some(call) = self.calls.under_way.get_mut(&id) {
            call.last_error = Some(error);
            call.attempt = None;
        }
    }

    /// The inner error is this address's, the outer one the driver's.
    fn dial(&mut self, id: u64, addr: SocketAddr) -> io::Result<io::Result<Conn>> {
        let fd = match begin_connect(addr) {
            Ok(fd) => fd,
            Err(error) => return Ok(Err(error)),
        };
        let Ok(conn) = self.seats.insert(Seat::new(fd, Phase::Connecting(id))) else {
            return Ok(Err(io::Error::other("the driver's table of connections is full")));
        };
        let adopted = self
            .seats
            .get(conn)
            .map(|seat| self.shore.adopt(conn, seat.fd.as_fd()));
        if let Some(Err(error)) = adopted {
            self.release(conn)?;
            return Ok(Err(error));
        }
        self.shore.watch_room(conn)?;
        Ok(Ok(conn))
    }

    /// The socket of a call says that it has connected, or failed.
    pub(crate) fn reached(&mut self, conn: Conn, id: u64) -> io::Result<()> {
        let Some(seat) = self.seats.get_mut(conn) else {
            return Ok(());
        };
        if let Some(error) = sockopt::take_error(&seat.fd).or_else(|| sockopt::peer(&seat.fd).err()) {
            if error.raw_os_error() == Some(libc::ENOTCONN) {
                // Told too early: it is still under way.
                return self.shore.watch_room(conn);
            }
            self.note(id, error);
            self.release(conn)?;
            return self.try_next(id);
        }
        seat.phase = Phase::Open;
        let Some(Call {
            token,
            attempt: Some((_, addr)),
            ..
        }) = self.calls.under_way.remove(&id)
        else {
            return self.release(conn);
        };
        self.stats.connects.one();
        self.shore.read(conn)?;
        self.machine.handle(
            self.now,
            Input::Connected {
                token,
                result: Ok((conn, addr)),
            },
        );
        Ok(())
    }

    pub(crate) fn expire_calls(&mut self) -> io::Result<()> {
        if self.calls.deadline().is_none_or(|deadline| self.now < deadline) {
            return Ok(());
        }
        let due = |call: &Call| call.attempt_until <= self.now;
        let ids: Vec<u64> = self
            .calls
            .under_way
            .iter()
            .filter(|(_, c)| due(c))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().try_for_each(|id| self.expire(id))
    }

    fn expire(&mut self, id: u64) -> io::Result<()> {
        let Some(call) = self.calls.under_way.get_mut(&id) else {
            return Ok(());
        };
        let late = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        if let Some((conn, _)) = call.attempt.take() {
            self.release(conn)?;
        }
        let Some(call) = self.calls.under_way.get_mut(&id) else {
            return Ok(());
        };
        if call.deadline <= self.now {
            return self.give_up(id, late);
        }
        call.last_error = Some(late);
        self.try_next(id)
    }

    fn give_up(&mut self, id: u64, error: io::Error) -> io::Result<()> {
        let Some(call) = self.calls.under_way.remove(&id) else {
            return Ok(());
        };
        self.fail(call.token, error)
    }

    fn fail(&mut self, token: u64, error: io::Error) -> io::Result<()> {
        self.stats.connect_failures.one();
        self.machine.handle(
            self.now,
            Input::Connected {
                token,
                result: Err(error),
            },
        );
        Ok(())
    }
}

fn begin_connect(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    sockopt::no_delay(&socket)?;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}
