//! Runs of chunks from a ring to a connected peer, without a copy where the backend can, while the ring is written on.

use std::net::UdpSocket;

use relay_ring::{Reader, Ring, Writer};
use relay_seam::{Datagram, Head, Udp, UdpOptions};
use socket2::SockRef;

use super::udp::{in_a_namespace, ip};
use super::*;
use crate::ZeroCopy;

on_both_shores!(
    runs_come_whole_while_the_ring_is_lapped,
    runs_that_do_not_fit_the_way_come_all_the_same,
);

const RING: usize = 256 * 1024;
const STEPS: u64 = 40;
const CHUNKS: u64 = 48;

/// Writes a run, posts it, and waits until it is asked for the next.
struct Team {
    writer: Writer,
    reader: Reader,
    bytes: Arc<[u8]>,
    chunk: u16,
    peer: SocketAddr,
    opened: bool,
    step: u64,
    out: VecDeque<Output>,
    bell: Bell,
    stop: Arc<AtomicBool>,
}

impl Team {
    fn run(&self) -> u64 {
        CHUNKS * u64::from(self.chunk)
    }

    fn post_next(&mut self, udp: Udp) {
        let (at, len) = (self.step * self.run(), self.run() as usize);
        self.step += 1;
        let taken = self.writer.append(&self.bytes[at as usize..][..len]);
        assert_eq!(taken, len, "the writer was made to wait");
        self.reader.pin(at).unwrap();
        let len = len as u32;
        self.out.push_back(Output::Datagram(Datagram {
            udp,
            to: self.peer,
            head: Head::NONE,
            body: Some(Payload::Span(Span { ring: 0, len, at })),
            segment: self.chunk,
        }));
    }
}

impl Machine for Team {
    fn handle(&mut self, _: Now, input: Input<'_>) {
        match input {
            Input::UdpOpened { result, .. } => {
                let (udp, _) = result.unwrap();
                self.out.push_back(Output::ConnectUdp { udp, peer: self.peer });
                self.post_next(udp);
            }
            Input::Posted { taken, dropped } => {
                assert_eq!((taken, dropped), (1, 0));
                self.reader.unpin();
            }
            Input::Datagram { udp, .. } if self.step < STEPS => self.post_next(udp),
            _ => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output> {
        if !std::mem::replace(&mut self.opened, true) {
            let bind = ([127, 0, 0, 1], 0).into();
            self.out.push_back(Output::OpenUdp {
                token: 0,
                bind,
                options: UdpOptions::default(),
            });
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

/// Plays a team whose chunks have so many bytes; all of them must come, in order.
fn play(backend: Backend, chunk: u16) -> Stats {
    let stage = Stage::new(backend);
    let mut setup = stage.setup;
    setup.zero_copy = ZeroCopy::Always;
    let mate = UdpSocket::bind("127.0.0.1:0").unwrap();
    mate.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    SockRef::from(&mate).set_recv_buffer_size(4 << 20).unwrap();
    let bytes = pattern((STEPS * CHUNKS) as usize * usize::from(chunk));
    let (writer, ring) = Ring::new(RING, 1, 0).unwrap();
    let mut team = Team {
        writer,
        reader: ring.reader(0),
        bytes: Arc::clone(&bytes),
        chunk,
        peer: mate.local_addr().unwrap(),
        opened: false,
        step: 0,
        out: VecDeque::new(),
        bell: setup.bell.clone(),
        stop: Arc::clone(&stage.stop),
    };
    thread::scope(|scope| {
        let curtain = Curtain(setup.bell.clone(), Arc::clone(&stage.stop));
        let driver = scope.spawn(move || run(backend, setup, &mut team).unwrap());
        for run in bytes.chunks(CHUNKS as usize * usize::from(chunk)) {
            let mut from = None;
            for expected in run.chunks(chunk.into()) {
                let mut got = [0; 4096];
                let (n, who) = mate.recv_from(&mut got).unwrap();
                assert_same(&got[..n], expected);
                from = Some(who);
            }
            mate.send_to(b"next", from.unwrap()).unwrap();
        }
        drop(curtain);
        driver.join().unwrap()
    })
}

fn runs_come_whole_while_the_ring_is_lapped(backend: Backend) {
    let stats = play(backend, 1316);
    assert_eq!(stats.datagrams_sent, STEPS * CHUNKS);
    assert_eq!((stats.trains, stats.trains_refused), (STEPS, 0));
    // Where the kernel refuses to register the ring (locked memory, before 6.12), all is copied.
    let without = if backend == Backend::Uring && stats.zero_copy_refused == 0 {
        STEPS
    } else {
        0
    };
    assert_eq!(stats.zero_copy_sends, without, "{stats:?}");
}

fn runs_that_do_not_fit_the_way_come_all_the_same(backend: Backend) {
    in_a_namespace(|| {
        ip("link set lo mtu 1280");
        let stats = play(backend, 1300);
        assert_eq!(stats.datagrams_sent, STEPS * CHUNKS);
        assert_eq!(stats.trains, 0);
        // After so many nobody tries any more.
        assert_eq!(stats.trains_refused, 4, "{stats:?}");
    });
}
