//! A listener: takes a stream, judges every byte, and remembers its longest gap (oracles O1 and O4).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::numbered::{Checker, Form};
use crate::witness::Witness;
use crate::world::Host;

/// What an unaffected listener may go without (oracle O4).
const GAP_MAX: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(20);

/// Somebody who listens to a mount.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    stream: TcpStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    heard: Mutex<Heard>,
    stalled: AtomicBool,
    /// Bytes a second that it reads at most; 0: as they come.
    pace: AtomicU64,
    /// It reads them one by one.
    sips: AtomicBool,
    done: AtomicBool,
}

#[derive(Debug)]
struct Heard {
    head: Vec<u8>,
    head_done: bool,
    icy: Option<Icy>,
    checker: Checker,
    bytes: u64,
    last: Instant,
    gap: Duration,
    titles: Vec<String>,
    closed: bool,
}

/// Where in the metadata framing the next byte is.
#[derive(Debug)]
struct Icy {
    interval: usize,
    left: usize,
    block: Vec<u8>,
}

impl Listener {
    /// Asks for a mount, and listens on a thread of its own.
    ///
    /// # Panics
    ///
    /// When nobody listens there.
    pub fn tune_in(host: &Host, to: SocketAddr, mount: &str, form: Form) -> Self {
        Self::tune_in_with(host.connect(to).unwrap(), mount, form, "")
    }

    /// Asks over a connection that is there, with more header fields.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub fn tune_in_with(mut stream: TcpStream, mount: &str, form: Form, fields: &str) -> Self {
        let request = format!("GET {mount} HTTP/1.1\r\nHost: relay\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.set_read_timeout(Some(POLL)).unwrap();
        let heard = Heard {
            head: Vec::new(),
            head_done: false,
            icy: None,
            checker: Checker::new(form),
            bytes: 0,
            last: Instant::now(),
            gap: Duration::ZERO,
            titles: Vec::new(),
            closed: false,
        };
        let shared = Arc::new(Shared {
            heard: Mutex::new(heard),
            stalled: AtomicBool::new(false),
            pace: AtomicU64::new(0),
            sips: AtomicBool::new(false),
            done: AtomicBool::new(false),
        });
        let (reader, theirs) = (stream.try_clone().unwrap(), shared.clone());
        let thread = Some(std::thread::spawn(move || theirs.listen(reader)));
        Self {
            shared,
            stream,
            thread,
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.shared.heard)
    }

    /// Reads no more, as a player in the background does.
    pub fn stall(&self) {
        self.shared.stalled.store(true, Ordering::Relaxed);
    }

    /// Reads again.
    pub fn resume(&self) {
        self.shared.stalled.store(false, Ordering::Relaxed);
    }

    /// Reads so many bytes a second from now on, as somebody at the end of a thin line does; 0: as they come.
    pub fn pace(&self, bytes_per_second: u64) {
        self.shared.pace.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Reads byte by byte from now on.
    pub fn sip(&self) {
        self.shared.sips.store(true, Ordering::Relaxed);
    }

    /// Payload bytes that came.
    pub fn bytes(&self) -> u64 {
        self.heard().bytes
    }

    /// The head of the answer.
    pub fn head(&self) -> String {
        String::from_utf8_lossy(&self.heard().head).into_owned()
    }

    /// Titles that came between the bytes.
    pub fn titles(&self) -> Vec<String> {
        self.heard().titles.clone()
    }

    /// Whether the relay has let it go.
    pub fn is_closed(&self) -> bool {
        self.heard().closed
    }

    /// The unit that is due.
    pub fn next(&self) -> Option<u64> {
        self.heard().checker.next()
    }

    /// Units that came.
    pub fn units(&self) -> u64 {
        self.heard().checker.units()
    }

    /// Asks the judge of its bytes.
    pub fn judge<T>(&self, ask: impl FnOnce(&Checker) -> T) -> T {
        ask(&self.heard().checker)
    }

    /// The longest time without a byte, up to now.
    pub fn gap_max(&self) -> Duration {
        let heard = self.heard();
        if heard.closed {
            heard.gap
        } else {
            heard.gap.max(heard.last.elapsed())
        }
    }

    /// Forgets the gaps so far.
    pub fn mark(&self) {
        let mut heard = self.heard();
        (heard.gap, heard.last) = (Duration::ZERO, Instant::now());
    }

    /// Waits until a unit has come; whether it did.
    pub fn reaches(&self, unit: u64, patience: Duration) -> bool {
        crate::relay::eventually(patience, || self.next().is_some_and(|next| next > unit))
    }

    /// Waits until something comes.
    ///
    /// # Panics
    ///
    /// When nothing does.
    pub fn expect_sound(&self) {
        let came = crate::relay::eventually(Duration::from_secs(15), || self.units() > 0);
        assert!(
            came,
            "expected a stream, got {:?} and {} bytes",
            self.head(),
            self.bytes()
        );
    }

    /// O1 and O4 for a listener that nothing has happened to: all bytes, and no gap beyond what the machine itself
    /// was late.
    ///
    /// # Panics
    ///
    /// When it noticed something.
    pub fn expect_undisturbed(&self, witness: &Witness) {
        let (gap, late) = (self.gap_max(), witness.worst());
        assert!(
            !self.is_closed(),
            "expected the control listener to be served, it was closed"
        );
        self.judge(Checker::expect_whole);
        assert!(
            gap <= GAP_MAX + late,
            "expected no gap over {GAP_MAX:?} at the control listener, got {gap:?} (the machine was {late:?} late)"
        );
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A test that failed while it looked at this is the one to be told of.
fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn listen(&self, mut stream: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while !self.done.load(Ordering::Relaxed) {
            if self.stalled.load(Ordering::Relaxed) {
                std::thread::sleep(POLL);
                continue;
            }
            let pace = self.pace.load(Ordering::Relaxed);
            let most = match pace {
                0 => buffer.len(),
                pace => (pace * POLL.as_millis() as u64 / 1000).clamp(1, buffer.len() as u64) as usize,
            };
            let read = self.read(&mut stream, &mut buffer[..most]);
            if pace > 0 {
                std::thread::sleep(POLL);
            }
            match read {
                Ok(0) => break,
                Ok(n) => lock(&self.heard).take(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        lock(&self.heard).closed = true;
    }

    fn read(&self, stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.sips.load(Ordering::Relaxed) {
            return stream.read(buffer);
        }
        for (n, byte) in buffer.iter_mut().enumerate() {
            match stream.read(std::slice::from_mut(byte)) {
                Ok(1) => {}
                Ok(_) => return Ok(n),
                Err(error) if n == 0 => return Err(error),
                Err(_) => return Ok(n),
            }
        }
        Ok(buffer.len())
    }
}

impl Heard {
    fn take(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        if self.bytes > 0 {
            self.gap = self.gap.max(now.duration_since(self.last));
        }
        self.last = now;
        let body = self.past_head(bytes);
        self.bytes += body.len() as u64;
        self.payload(&body);
    }

    fn past_head(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.head_done {
            return bytes.to_vec();
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n") else {
            return Vec::new();
        };
        self.head_done = true;
        let body = self.head.split_off(end + 4);
        let text = String::from_utf8_lossy(&self.head).to_lowercase();
        let interval = text
            .lines()
            .find_map(|l| l.strip_prefix("icy-metaint:")?.trim().parse().ok());
        self.icy = interval.map(|interval| Icy {
            interval,
            left: interval,
            block: Vec::new(),
        });
        // What follows a refusal is no stream.
        if text.split(' ').nth(1) == Some("200") {
            body
        } else {
            Vec::new()
        }
    }

    fn payload(&mut self, mut bytes: &[u8]) {
        let Some(icy) = &mut self.icy else {
            return self.checker.feed(bytes);
        };
        while !bytes.is_empty() {
            if icy.left > 0 {
                let n = icy.left.min(bytes.len());
                self.checker.feed(&bytes[..n]);
                icy.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            icy.block.push(bytes[0]);
            bytes = &bytes[1..];
            if icy.block.len() == 1 + 16 * usize::from(icy.block[0]) {
                let text = String::from_utf8_lossy(&icy.block[1..])
                    .trim_end_matches('\0')
                    .to_owned();
                self.titles.extend((!text.is_empty()).then_some(text));
                icy.block.clear();
                icy.left = icy.interval;
            }
        }
    }
}
