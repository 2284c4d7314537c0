//! Workers that pass newcomers to each other.

use relay_seam::{Closing, Input};

use super::*;
use crate::{Crew, Share};

on_both_shores!(
    all_come_to_one_and_both_serve,
    a_sleeper_is_woken_by_what_it_is_passed,
    who_has_finished_is_passed_nobody
);

type Play = Box<dyn FnMut(&mut Desk, Now, Option<Input<'_>>) + Send>;

/// Two workers, of which only the first listens.
struct Pair {
    crew: Crew,
    addr: SocketAddr,
    ends: [(Arc<AtomicBool>, Bell); 2],
}

impl Pair {
    fn start(backend: Backend, plays: [Play; 2]) -> Self {
        let mut stages = [Stage::new(backend), Stage::new(backend)];
        let addr = stages[0].addr;
        stages[1].setup.listeners.clear();
        let bells = stages.each_ref().map(|stage| stage.setup.bell.clone());
        for (stage, share) in stages.iter_mut().zip(Share::among(bells)) {
            stage.setup.share = Some(share);
        }
        let ends = stages
            .each_ref()
            .map(|stage| (Arc::clone(&stage.stop), stage.setup.bell.clone()));
        let workers = stages.into_iter().zip(plays).map(|(stage, on)| {
            let desk = Desk {
                out: VecDeque::new(),
                done: false,
                deadline: None,
                ring: stage.ring,
                mail: stage.mail,
                seen: 0,
            };
            let (bell, stop) = (stage.setup.bell.clone(), stage.stop);
            (stage.setup, Script { desk, on, bell, stop })
        });
        Self {
            crew: Crew::start(backend, workers).unwrap(),
            addr,
            ends,
        }
    }

    fn stop(&self, worker: usize) {
        let (stop, bell) = &self.ends[worker];
        stop.store(true, Ordering::SeqCst);
        bell.ring();
    }

    fn end(self) -> Vec<Stats> {
        (0..2).for_each(|worker| self.stop(worker));
        self.crew.join().unwrap()
    }
}

/// Answers everything with its name.
fn named(name: u8) -> Play {
    Box::new(move |desk, _, input| {
        if let Some(Input::Received { conn, .. }) = input {
            desk.say(conn, &[name]);
        }
    })
}

/// Asks who serves.
fn who(stream: &TcpStream) -> u8 {
    write_all(stream, b"?");
    read_some(stream, 1)[0]
}

fn all_come_to_one_and_both_serve(backend: Backend) {
    const CLIENTS: usize = 200;
    let pair = Pair::start(backend, [named(b'0'), named(b'1')]);
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(pair.addr)).collect();
    let served: Vec<u8> = clients.iter().map(who).collect();
    let first = served.iter().filter(|name| **name == b'0').count();
    let second = CLIENTS - first;
    // The rule: 16 ahead, or an eighth of what one holds; one may be on its way.
    assert!((second..=second + 18).contains(&first), "{first} and {second}");
    let stats = pair.end();
    assert_eq!([stats[0].accepts, stats[1].accepts], [CLIENTS as u64, 0]);
    assert_eq!(stats[0].connections_passed, second as u64);
    assert_eq!(stats[1].connections_taken, second as u64);
    // What was passed stays where it has come to.
    assert_eq!([stats[1].connections_passed, stats[0].connections_taken], [0, 0]);
}

/// Nothing else than the passed connection can wake the second worker.
fn a_sleeper_is_woken_by_what_it_is_passed(backend: Backend) {
    let pair = Pair::start(backend, [named(b'0'), named(b'1')]);
    let mut clients = Vec::new();
    let served: Vec<u8> = (0..19)
        .map(|_| {
            clients.push(client(pair.addr));
            who(&clients[clients.len() - 1])
        })
        .collect();
    // The first holds 17 when the 18th comes.
    assert_eq!(served, b"0000000000000000010"[..], "{served:?}");
    pair.end();
}

fn who_has_finished_is_passed_nobody(backend: Backend) {
    let (tell, told) = std::sync::mpsc::channel();
    let last = Box::new(move |desk: &mut Desk, _: Now, input: Option<Input<'_>>| {
        if let Some(Input::Received { conn, .. }) = input {
            desk.say(conn, b"1");
            desk.close(conn, Closing::Graceful);
            desk.done = true;
            tell.send(()).unwrap();
        }
    });
    let pair = Pair::start(backend, [named(b'0'), last]);
    let mut clients: Vec<_> = (0..18).map(|_| client(pair.addr)).collect();
    let served: Vec<u8> = clients.iter().map(who).collect();
    assert_eq!(served.iter().filter(|name| **name == b'1').count(), 1);
    told.recv_timeout(Duration::from_secs(20)).unwrap();
    // Its last connection closes, then it is gone; whoever was passed to it in between is closed, not forgotten.
    assert!(read_all(&clients[served.iter().position(|name| *name == b'1').unwrap()]).is_empty());
    let mut closed = 0;
    while closed < 50 {
        let next = client(pair.addr);
        write_all(&next, b"?");
        let answer = read_all_or_one(&next);
        clients.push(next);
        match answer {
            Some(name) => {
                assert_eq!(name, b'0');
                break;
            }
            None => closed += 1,
        }
    }
    assert!(closed < 50, "the first goes on to pass to one that has gone");
    let stats = pair.end();
    assert!(stats[0].connections_passed <= 1 + closed, "{stats:?}");
}

/// One byte; `None` when the connection was closed instead.
fn read_all_or_one(mut stream: &TcpStream) -> Option<u8> {
    let mut byte = [0];
    matches!(stream.read(&mut byte), Ok(1)).then_some(byte[0])
}
