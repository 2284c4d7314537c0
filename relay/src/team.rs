//! The team's door: newcomers join a P2PSP team over TCP here, on a thread of its own.
//!
//! It knows no rules. What a newcomer says goes to the worker that leads the team as an order; what the worker says
//! goes to the newcomer. Connections are few and short: while there are [`NEWCOMERS_MAX`], the next waits in the
//! kernel.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use relay_ring::{Bell, Mailbox};
use relay_station::{Answer, House, Newcomer, Order, TEAM_WORKER, TeamSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Newcomers at a time; the rules refuse some of them earlier.
const NEWCOMERS_MAX: usize = 64;
/// No newcomer stays longer: the rules' own limits are below.
const STAY_MAX: Duration = Duration::from_secs(30);
/// How long somebody may take to read what it is told, and to close its side.
const PATIENCE: Duration = Duration::from_secs(2);
/// A kernel that cannot accept is asked again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Words that may wait for one newcomer.
const WORDS_MAX: usize = 16;
/// Answers on their way from the worker to newcomers.
const ANSWERS_MAX: usize = 256;
/// A UDP port may be taken where a free TCP port was given: so often another is tried.
const PORT_TRIES: u8 = 16;

/// A team's TCP port, with its UDP port free beside it.
#[derive(Debug)]
pub struct Doorway {
    listener: TcpListener,
}

impl Doorway {
    /// Takes the port that the team is to have; port 0 becomes one that is free for both.
    ///
    /// # Errors
    ///
    /// What the kernel said: the port is in use, or the address is not here.
    pub fn take(spec: &mut TeamSpec) -> io::Result<Self> {
        let mut tries = PORT_TRIES;
        loop {
            let listener = TcpListener::bind(spec.listen)?;
            let at = SocketAddrV4::new(*spec.listen.ip(), listener.local_addr()?.port());
            match UdpSocket::bind(at) {
                Ok(_) => {
                    spec.listen = at;
                    return Ok(Self { listener });
                }
                Err(error) if spec.listen.port() != 0 || tries == 0 => return Err(error),
                Err(_) => tries -= 1,
            }
        }
    }

    /// Lets newcomers in.
    ///
    /// # Errors
    ///
    /// When there is no thread or descriptor to be had, or the house leads no team.
    pub fn open(self, house: Arc<House>) -> io::Result<Door> {
        let answers = house.answers().cloned();
        let answers = answers.ok_or_else(|| io::Error::other("no team is led here"))?;
        let (tell, told) = mpsc::channel(ANSWERS_MAX);
        let bell = answers.bell().clone();
        self.listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name("team door".into()).spawn(move || {
            let hall = Hall {
                house,
                answers: told,
                talks: HashMap::new(),
                next: 0,
            };
            if let Err(error) = runtime.block_on(hall.serve(self.listener, stopped)) {
                tracing::error!("team: nobody can join any more: {error}");
            }
        })?;
        thread::Builder::new()
            .name("team answers".into())
            .spawn(move || forward(&answers, &tell))?;
        Ok(Door { stop, bell, thread })
    }
}

/// An open door.
#[derive(Debug)]
pub struct Door {
    stop: oneshot::Sender<()>,
    bell: Bell,
    thread: JoinHandle<()>,
}

impl Door {
    /// Lets nobody in any more.
    pub(crate) fn close(self) {
        drop(self.stop);
        let _ = self.thread.join();
        // Nobody is told anything any more: the forwarder notices when it wakes.
        self.bell.ring();
    }
}

/// Passes on what the worker answers, until nobody is there to hear it.
fn forward(answers: &Mailbox<Answer>, tell: &mpsc::Sender<Answer>) {
    let bell = answers.bell();
    while !tell.is_closed() {
        while let Some(answer) = answers.take() {
            let _ = tell.blocking_send(answer);
        }
        bell.park();
        if answers.is_empty() && !tell.is_closed() {
            let mut rung = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut rung, PollTimeout::NONE);
            bell.clear();
        }
        bell.unpark();
    }
}

/// What is said to one newcomer.
#[derive(Debug)]
enum Word {
    Tell(Vec<u8>),
    HangUp,
}

/// Who is here.
struct Hall {
    house: Arc<House>,
    answers: mpsc::Receiver<Answer>,
    talks: HashMap<SocketAddrV4, (u64, mpsc::Sender<Word>)>,
    next: u64,
}

impl Hall {
    async fn serve(mut self, listener: TcpListener, mut stop: oneshot::Receiver<()>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (gone, mut going) = mpsc::channel(NEWCOMERS_MAX);
        loop {
            tokio::select! {
                _ = &mut stop => return Ok(()),
                Some(answer) = self.answers.recv() => self.pass_on(answer),
                Some((from, id)) = going.recv() => self.forget(from, id),
                came = listener.accept(), if self.talks.len() < NEWCOMERS_MAX => match came {
                    Ok((stream, SocketAddr::V4(from))) => self.welcome(stream, from, &gone),
                    Ok(_) => {}
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
            }
        }
    }

    /// What the worker has answered goes to whom it concerns.
    fn pass_on(&mut self, answer: Answer) {
        let (to, word) = match answer {
            Answer::Tell(to, bytes) => (to, Word::Tell(bytes)),
            Answer::HangUp(to) => (to, Word::HangUp),
        };
        let heard = self.talks.get(&to).map(|(_, words)| words.try_send(word).is_ok());
        // Who does not take in what it is told is let go with its words.
        if heard == Some(false) {
            self.talks.remove(&to);
        }
    }

    fn welcome(&mut self, stream: TcpStream, from: SocketAddrV4, gone: &mpsc::Sender<(SocketAddrV4, u64)>) {
        let (words, heard) = mpsc::channel(WORDS_MAX);
        let (house, gone, id) = (self.house.clone(), gone.clone(), self.next);
        self.next += 1;
        self.talks.insert(from, (id, words));
        tokio::spawn(async move {
            let talk = talk(stream, from, &house, heard);
            if timeout(STAY_MAX, talk).await.unwrap_or(Parting::Gone) == Parting::Gone {
                post(&house, Newcomer::HungUp(from));
            }
            let _ = gone.send((from, id)).await;
        });
    }

    fn forget(&mut self, from: SocketAddrV4, id: u64) {
        if self.talks.get(&from).is_some_and(|(talk, _)| *talk == id) {
            self.talks.remove(&from);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parting {
    /// It went.
    Gone,
    /// It was let go.
    LetGo,
}

async fn talk(
    mut stream: TcpStream,
    from: SocketAddrV4,
    house: &House,
    mut words: mpsc::Receiver<Word>,
) -> Parting {
    if !post(house, Newcomer::Connected(from)) {
        return Parting::LetGo;
    }
    let mut piece = [0; 64];
    loop {
        tokio::select! {
            biased;
            word = words.recv() => match word {
                Some(Word::Tell(bytes)) => match timeout(PATIENCE, stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    _ => return Parting::Gone,
                },
                Some(Word::HangUp) | None => {
                    let _ = timeout(PATIENCE, close(stream)).await;
                    return Parting::LetGo;
                }
            },
            read = stream.read(&mut piece) => match read {
                Ok(n) if n > 0 => {
                    if !post(house, Newcomer::Said(from, piece[..n].to_vec())) {
                        return Parting::Gone;
                    }
                }
                _ => return Parting::Gone,
            },
        }
    }
}

/// What was said is delivered: a close with bytes unread would destroy it.
async fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut piece = [0; 512];
    while stream.read(&mut piece).await? > 0 {}
    Ok(())
}

/// Whether the worker took it.
fn post(house: &House, newcomer: Newcomer) -> bool {
    house.mailbox(TEAM_WORKER).post(Order::Team(newcomer)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(listen: SocketAddrV4) -> TeamSpec {
        TeamSpec {
            mount: "/a.ts".into(),
            listen,
            http: "127.0.0.1:8000".parse().unwrap(),
            rules: splitter::Config::default(),
        }
    }

    #[test]
    fn a_team_has_one_port_for_both() {
        let mut first = spec("127.0.0.1:0".parse().unwrap());
        let doorway = Doorway::take(&mut first).unwrap();
        assert_ne!(first.listen.port(), 0);
        let again = Doorway::take(&mut spec(first.listen));
        assert_eq!(again.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
        drop(doorway);
        let _taken = UdpSocket::bind(first.listen).unwrap();
        let again = Doorway::take(&mut spec(first.listen));
        assert_eq!(again.err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
    }
}
