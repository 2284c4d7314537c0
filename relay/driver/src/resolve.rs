//! Names to addresses, off the data path.
//!
//! `getaddrinfo` blocks for as long as it likes, so it runs on a few threads of its own; answers come through a
//! queue and an `eventfd` that the driver watches. IP literals never come here.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Most threads that resolve at once.
const THREADS_MAX: usize = 4;
/// Most questions that wait for a thread; one more is refused.
const QUESTIONS_MAX: usize = 256;

/// What a name came to.
pub(crate) type Answer = (u64, io::Result<Vec<SocketAddr>>);

/// Asks and collects. Threads start with the first questions and end when this is dropped.
pub(crate) struct Resolver {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    desk: Mutex<Desk>,
    asked: Condvar,
    ready: EventFd,
}

#[derive(Default)]
struct Desk {
    questions: VecDeque<(u64, String, u16)>,
    answers: Vec<Answer>,
    idle: usize,
    closed: bool,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing is left half done under this lock, so a poisoned one is as good as any.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver {
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let ready = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let shared = Shared {
            desk: Mutex::default(),
            asked: Condvar::new(),
            ready,
        };
        Ok(Self {
            shared: Arc::new(shared),
            threads: 0,
        })
    }

    /// Readable when there are answers.
    pub(crate) fn ready(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// Asks; the answer carries `id`.
    pub(crate) fn ask(&mut self, id: u64, host: &str, port: u16) -> io::Result<()> {
        let mut desk = self.shared.desk();
        if desk.questions.len() >= QUESTIONS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "too many names are being resolved already",
            ));
        }
        desk.questions.push_back((id, host.to_owned(), port));
        let busy = desk.questions.len() > desk.idle;
        drop(desk);
        self.shared.asked.notify_one();
        if busy && self.threads < THREADS_MAX {
            self.hire()
        } else {
            Ok(())
        }
    }

    fn hire(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("resolver".into())
            .spawn(move || work(&shared))?;
        self.threads += 1;
        Ok(())
    }

    /// Takes all answers.
    pub(crate) fn answers(&mut self) -> Vec<Answer> {
        let _ = self.shared.ready.read();
        std::mem::take(&mut self.shared.desk().answers)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // A thread inside getaddrinfo cannot be called back: it ends by itself afterwards.
        self.shared.desk().closed = true;
        self.shared.asked.notify_all();
    }
}

fn work(shared: &Shared) {
    while let Some((id, host, port)) = next_question(shared) {
        let answer = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        let answer = answer.map_err(|e| io::Error::new(e.kind(), format!("cannot resolve {host}: {e}")));
        shared.desk().answers.push((id, answer));
        let _ = shared.ready.write(1);
    }
}

fn next_question(shared: &Shared) -> Option<(u64, String, u16)> {
    let mut desk = shared.desk();
    loop {
        if desk.closed {
            return None;
        }
        if let Some(question) = desk.questions.pop_front() {
            return Some(question);
        }
        desk.idle += 1;
        desk = shared.asked.wait(desk).unwrap_or_else(PoisonError::into_inner);
        desk.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(resolver: &mut Resolver, n: usize) -> Vec<Answer> {
        let mut got = Vec::new();
        while got.len() < n {
            let ready = resolver.ready();
            let mut fds = [nix::poll::PollFd::new(ready, nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
            got.append(&mut resolver.answers());
        }
        got
    }

    #[test]
    fn localhost_is_found_and_every_question_is_answered() {
        let mut resolver = Resolver::new().unwrap();
        for id in 0..20 {
            resolver.ask(id, "localhost", 80).unwrap();
        }
        let mut answers = wait_for(&mut resolver, 20);
        answers.sort_by_key(|(id, _)| *id);
        assert_eq!(
            answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            (0..20).collect::<Vec<_>>()
        );
        assert!(
            answers
                .into_iter()
                .all(|(_, a)| a.unwrap().iter().all(|a| a.ip().is_loopback()))
        );
        assert!(resolver.threads <= THREADS_MAX);
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_by_name() {
        let mut resolver = Resolver::new().unwrap();
        resolver.ask(1, "a name with spaces", 80).unwrap();
        let (_, answer) = wait_for(&mut resolver, 1).pop().unwrap();
        assert!(answer.unwrap_err().to_string().contains("a name with spaces"));
    }
}
