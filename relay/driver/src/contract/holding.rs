//! Memory that the kernel still reads: what was sent without a copy arrives as it was, though the ring has moved on.

use std::sync::Mutex;

use relay_ring::{Reader, Ring, Writer};
use relay_seam::Sent;

use super::*;
use crate::ZeroCopy;

on_both_shores!(
    a_stalled_reader_gets_what_it_was_sent,
    held_memory_is_bounded_for_each_and_all_of_it_comes_back,
);

/// The ring: the writer laps it many times.
const RING: usize = 256 * 1024;
const TOTAL: u64 = 8 * RING as u64;
/// Appended at a time, and the most in one send.
const STEP: usize = 16 * 1024;

/// What the kernel keeps of somebody who does not read: at our end, and at his.
const SEND_BUFFER: u32 = 64 * 1024;
const LARGE_SEND_BUFFER: u32 = 512 * 1024;
const RECEIVE_BUFFER: usize = 8 * 1024;

/// The byte at a position.
fn byte_at(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
}

fn bytes_at(at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64).map(byte_at).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Ready,
    InFlight(u32),
    /// Was full once, and is not sent to any more.
    Stalled,
    Done,
}

/// Writes a ring as fast as its first reader reads, and offers it to others until they are full.
struct Fountain {
    writer: Writer,
    reader: Reader,
    bell: Bell,
    stop: Arc<AtomicBool>,
    guests: Vec<(Conn, u64, Mood)>,
    want: usize,
    send_buffer: u32,
    out: VecDeque<Output>,
    in_flight: usize,
    /// How far each guest was told, in the order in which they came.
    told: Arc<Mutex<Vec<u64>>>,
}

impl Fountain {
    fn fill(&mut self) {
        let head = self.reader.ring().head();
        let first = self.guests.first().map_or(0, |guest| guest.1);
        if head < TOTAL && first == head {
            let bytes = bytes_at(head, STEP);
            assert_eq!(
                self.writer.append(&bytes),
                STEP,
                "the writer waits for nobody at {head}"
            );
        }
        let floor = self.reader.ring().floor();
        let head = self.reader.pin(floor).unwrap();
        for (conn, at, mood) in &mut self.guests {
            if *mood != Mood::Ready {
                continue;
            }
            if *at == TOTAL {
                *mood = Mood::Done;
                let (conn, how) = (*conn, Closing::Graceful);
                self.out.push_back(Output::Close { conn, how });
            } else if *at < head {
                let len = (head - *at).min(STEP as u64) as u32;
                *mood = Mood::InFlight(len);
                self.in_flight += 1;
                let payload = Payload::Span(Span {
                    ring: 0,
                    len,
                    at: *at,
                });
                self.out.push_back(Output::Send { conn: *conn, payload });
            }
        }
        if self.in_flight == 0 {
            self.reader.unpin();
        }
    }

    fn sent(&mut self, conn: Conn, result: Sent) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.reader.unpin();
        }
        let leader = self.guests[0].0;
        let guest = self.guests.iter_mut().find(|guest| guest.0 == conn).unwrap();
        let Mood::InFlight(len) = guest.2 else { panic!() };
        guest.1 += match result {
            Sent::All => u64::from(len),
            Sent::Some(n) => u64::from(n),
            Sent::Full | Sent::Gone => 0,
        };
        guest.2 = match result {
            Sent::All => Mood::Ready,
            _ => Mood::Stalled,
        };
        if guest.2 == Mood::Stalled && conn != leader {
            let how = Closing::Graceful;
            self.out.push_back(Output::Close { conn, how });
        }
        *self.told.lock().unwrap() = self.guests.iter().map(|guest| guest.1).collect();
    }
}

impl Machine for Fountain {
    fn handle(&mut self, _: Now, input: Input<'_>) {
        match input {
            Input::Accepted { conn, .. } => {
                self.guests.push((conn, 0, Mood::Ready));
                self.out.push_back(Output::Bound {
                    conn,
                    send_buffer: Some(self.send_buffer),
                    unsent: None,
                    user_timeout: None,
                });
            }
            Input::Sent { conn, result } => self.sent(conn, result),
            Input::Writable { conn } => {
                let guest = self.guests.iter_mut().find(|guest| guest.0 == conn).unwrap();
                guest.2 = Mood::Ready;
            }
            _ => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output> {
        if self.out.is_empty() && self.in_flight == 0 && self.guests.len() == self.want {
            self.fill();
        }
        self.out.pop_front()
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.reader.bytes(span.at, span.len as usize)
    }

    fn reader(&self, _: Span) -> Option<&Reader> {
        Some(&self.reader)
    }

    fn deadline(&self) -> Option<Now> {
        None
    }

    fn park(&mut self, parked: bool) -> bool {
        if parked {
            self.bell.park()
        } else {
            self.bell.unpark()
        }
        !(parked && self.stop.load(Ordering::SeqCst))
    }

    fn finished(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn narrow_client(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    patient(&stream);
    stream
}

/// Plays a fountain to one who reads all the time and `stalled` who read only at the end. Everybody must get the bytes
/// that they were told, to the last one.
fn play(backend: Backend, stalled: usize, send_buffer: u32) -> (Stats, Ring) {
    let stage = Stage::new(backend);
    let mut setup = stage.setup;
    setup.zero_copy = ZeroCopy::Always;
    let (writer, ring) = Ring::new(RING, 1, 0).unwrap();
    let told = Arc::<Mutex<Vec<u64>>>::default();
    let mut fountain = Fountain {
        writer,
        reader: ring.reader(0),
        bell: setup.bell.clone(),
        stop: Arc::clone(&stage.stop),
        guests: Vec::new(),
        want: stalled + 1,
        send_buffer,
        out: VecDeque::new(),
        in_flight: 0,
        told: Arc::clone(&told),
    };
    let stats = thread::scope(|scope| {
        let curtain = Curtain(setup.bell.clone(), Arc::clone(&stage.stop));
        let driver = scope.spawn(move || run(backend, setup, &mut fountain).unwrap());
        let mut clients = vec![client(stage.addr)];
        clients.resize_with(stalled + 1, || narrow_client(stage.addr));
        let all = read_some(&clients[0], TOTAL as usize);
        assert_same(&all, &bytes_at(0, TOTAL as usize));
        let told = told.lock().unwrap().clone();
        for (client, told) in clients.iter().zip(told).skip(1) {
            assert!(told < TOTAL, "it never stalled");
            assert_same(&read_all(client), &bytes_at(0, told as usize));
        }
        drop(curtain);
        driver.join().unwrap()
    });
    (stats, ring)
}

fn a_stalled_reader_gets_what_it_was_sent(backend: Backend) {
    let (stats, ring) = play(backend, 1, SEND_BUFFER);
    if backend == Backend::Uring {
        assert!(
            stats.zero_copy_sends > 10,
            "{} without a copy",
            stats.zero_copy_sends
        );
        assert!(
            ring.version() > 0,
            "no memory was held when the writer came round"
        );
    } else {
        assert_eq!((stats.zero_copy_sends, ring.version()), (0, 0));
    }
}

fn held_memory_is_bounded_for_each_and_all_of_it_comes_back(backend: Backend) {
    let (stats, _) = play(backend, 20, LARGE_SEND_BUFFER);
    if backend == Backend::Uring {
        assert!(stats.zero_copy_capped > 0, "nobody was held back");
        assert!(stats.zero_copy_bytes > 0);
    }
}
