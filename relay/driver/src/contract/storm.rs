//! A storm: callers who come, ask, stall, reset and go, while the machine sends, pauses and closes, all at once. What
//! is told late must name nobody, and nothing may be left behind.

use std::collections::HashSet;
use std::net::Shutdown;
use std::time::Instant;

use relay_seam::{Closing, Input, Output, Sent};

use super::*;

on_both_shores!(
    late_completions_name_nobody,
    callers_of_a_driver_that_ends_are_let_go
);

/// Callers at the same time, and how often each calls.
const CALLERS: u64 = 8;
const CALLS: u64 = 250;

/// A generator that is the same on every machine (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % below
    }
}

/// Connections as the machine knows them: what is not open may not be spoken of.
#[derive(Default)]
struct Book {
    open: HashSet<(usize, u32)>,
    all: HashSet<(usize, u32)>,
    in_flight: HashSet<(usize, u32)>,
    /// To be closed, as soon as the driver asks: until then it may still be spoken of.
    leaving: HashSet<(usize, u32)>,
    /// The driver has been told, and carries it out after what it is sending: it may find a reset meanwhile.
    closing: HashSet<(usize, u32)>,
}

fn name(conn: Conn) -> (usize, u32) {
    (conn.slot(), conn.generation())
}

impl Book {
    fn came(&mut self, conn: Conn) {
        assert!(self.all.insert(name(conn)), "{conn:?} has been somebody before");
        self.open.insert(name(conn));
    }

    fn expect(&self, conn: Conn, what: &str) {
        assert!(
            self.open.contains(&name(conn)) || self.leaving.contains(&name(conn)),
            "{what} for {conn:?}, which is nobody"
        );
    }

    fn send(&mut self, desk: &mut Desk, dice: &mut Dice, conn: Conn) {
        if self.open.contains(&name(conn)) && self.in_flight.insert(name(conn)) {
            desk.send_from(conn, dice.roll(1000), 1 << 16);
        }
    }

    fn close(&mut self, desk: &mut Desk, dice: &mut Dice, conn: Conn) {
        if !self.open.remove(&name(conn)) {
            return;
        }
        self.leaving.insert(name(conn));
        let how = if dice.roll(2) == 0 {
            Closing::Abort
        } else {
            Closing::Graceful
        };
        desk.close(conn, how);
        // It is nobody any more: this must not reach whoever sits there next.
        if dice.roll(4) == 0 {
            desk.want(Output::Pause { conn });
            desk.want(Output::Close {
                conn,
                how: Closing::Abort,
            });
        }
    }
}

/// A machine that answers with whatever the dice say.
fn whims(seed: u64) -> impl FnMut(&mut Desk, Now, Option<Input<'_>>) + Send {
    let (mut dice, mut book) = (Dice(seed), Book::default());
    move |desk, _, input| match input {
        Some(Input::Accepted { conn, .. }) => {
            book.came(conn);
            desk.want(Output::Bound {
                conn,
                send_buffer: Some(1),
                unsent: None,
                user_timeout: None,
            });
            match dice.roll(4) {
                0 => book.close(desk, &mut dice, conn),
                1 => desk.want(Output::Pause { conn }),
                _ => {}
            }
            book.send(desk, &mut dice, conn);
        }
        Some(Input::Received { conn, .. }) => {
            book.expect(conn, "bytes");
            match dice.roll(3) {
                0 => book.close(desk, &mut dice, conn),
                1 => book.send(desk, &mut dice, conn),
                _ => desk.want(Output::Resume { conn }),
            }
        }
        // A send may be answered after its connection was closed in the same batch; never twice.
        Some(Input::Sent { conn, result }) => {
            assert!(
                book.in_flight.remove(&name(conn)),
                "{conn:?} had no send under way"
            );
            if result == Sent::All && dice.roll(3) > 0 {
                book.send(desk, &mut dice, conn);
            }
        }
        Some(Input::Writable { conn }) => {
            book.expect(conn, "room");
            match dice.roll(3) {
                0 => book.close(desk, &mut dice, conn),
                _ => book.send(desk, &mut dice, conn),
            }
        }
        Some(Input::PeerDone { conn }) => {
            book.expect(conn, "an end");
            book.close(desk, &mut dice, conn);
        }
        Some(Input::Closed { conn, .. }) => {
            if !book.closing.remove(&name(conn)) {
                book.expect(conn, "a reset");
            }
            book.open.remove(&name(conn));
            book.leaving.remove(&name(conn));
        }
        // It has asked for everything.
        None => book.closing = std::mem::take(&mut book.leaving),
        _ => {}
    }
}

/// One call, of whatever manner. Being refused or reset is no fault.
fn call(addr: SocketAddr, dice: &mut Dice) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    // Some are closed without having been sent to, by a machine that paused them: do not wait for these.
    stream.set_read_timeout(Some(Duration::from_millis(5)))?;
    stream.write_all(b"bytes that nobody may want")?;
    match dice.roll(5) {
        0 => reset(stream),
        1 => stream.shutdown(Shutdown::Write)?,
        2 => drop(stream.read(&mut [0; 4096])?),
        3 => {
            stream.read_exact(&mut [0; 1 << 15])?;
            reset(stream);
        }
        _ => {}
    }
    Ok(())
}

/// Says that it is over, even when the test's own side panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn on(backend: Backend, test: &str) -> String {
    match backend {
        Backend::Uring => format!("contract::storm::on_uring::{test}"),
        Backend::Mio => format!("contract::storm::on_mio::{test}"),
    }
}

fn late_completions_name_nobody(backend: Backend) {
    alone(&on(backend, "late_completions_name_nobody"), || {
        for seed in 1..=3 {
            println!("seed {seed}");
            let before = descriptors();
            let mut stage = Stage::new(backend);
            // A kernel that often asks for patience, besides.
            stage.faults = (5, vec![libc::EINTR, libc::EBUSY, libc::EAGAIN]);
            let stats = stage.play(whims(seed), |addr| {
                thread::scope(|scope| {
                    for caller in 0..CALLERS {
                        let mut dice = Dice(seed << 32 | caller);
                        scope.spawn(move || (0..CALLS).for_each(|_| drop(call(addr, &mut dice))));
                    }
                });
            });
            assert!(stats.accepts > CALLERS * CALLS / 2, "{stats:?}");
            assert!(
                stats.aborts > 0 && stats.graceful_closes > 0 && stats.closed_by_peer > 0,
                "{stats:?}"
            );
            assert_eq!(descriptors(), before);
        }
    });
}

/// The driver is told to end while callers are at the door: whoever was accepted, and whoever was about to be, is let
/// go, and no descriptor stays.
fn callers_of_a_driver_that_ends_are_let_go(backend: Backend) {
    alone(&on(backend, "callers_of_a_driver_that_ends_are_let_go"), || {
        for seed in 1..=20 {
            let before = descriptors();
            let stage = Stage::new(backend);
            let (addr, over) = (stage.addr, AtomicBool::new(false));
            let reached = AtomicUsize::new(0);
            thread::scope(|scope| {
                for caller in 0..CALLERS {
                    let (over, reached) = (&over, &reached);
                    scope.spawn(move || {
                        let mut dice = Dice(seed << 32 | caller);
                        while !over.load(Ordering::SeqCst) {
                            reached.fetch_add(usize::from(call(addr, &mut dice).is_ok()), Ordering::SeqCst);
                        }
                    });
                }
                let _over = Over(&over);
                stage.play(whims(seed), |_| {
                    let until = Instant::now() + Duration::from_secs(20);
                    while reached.load(Ordering::SeqCst) < 50 {
                        assert!(Instant::now() < until, "nobody is answered");
                        thread::yield_now();
                    }
                });
            });
            assert_eq!(descriptors(), before, "seed {seed}");
        }
    });
}
