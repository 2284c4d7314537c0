//! The least HTTP that asks a question byte by byte and reads the answer, with a patience.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::world::Host;

/// More of an answer is not kept.
const KEPT: usize = 1 << 20;

/// An answer, or what there is of one.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// All that came.
    pub bytes: Vec<u8>,
    /// The other side has closed (or reset) the connection.
    pub closed: bool,
    /// It was a reset.
    pub reset: bool,
    /// How long it took, to the end or to the end of patience.
    pub took: Duration,
}

impl Answer {
    /// The status, if the answer begins as HTTP does.
    pub fn status(&self) -> Option<u16> {
        let text = self
            .bytes
            .get(..12)
            .and_then(|head| std::str::from_utf8(head).ok())?;
        text.strip_prefix("HTTP/1.")
            .and_then(|rest| rest[2..].parse().ok())
    }

    /// All that came, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let head = text.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }

    /// What follows the head.
    pub fn body(&self) -> &[u8] {
        let end = self.bytes.windows(4).position(|w| w == b"\r\n\r\n");
        end.map_or(&[], |end| &self.bytes[end + 4..])
    }
}

/// A connection on which bytes are said as they are.
#[derive(Debug)]
pub struct Talk {
    stream: TcpStream,
}

impl Talk {
    /// Connects from a host.
    ///
    /// # Panics
    ///
    /// When nobody listens.
    pub fn open(host: &Host, to: SocketAddr) -> Self {
        let stream = host
            .connect(to)
            .unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
        Self::over(stream)
    }

    /// Over a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { stream }
    }

    /// Says bytes; it is no fault if nobody listens any more.
    pub fn say(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.write_all(bytes);
        self
    }

    /// Says bytes, and whether they could be said.
    ///
    /// # Errors
    ///
    /// As the kernel says.
    pub fn try_say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads until the other side closes, or for so long.
    pub fn hear(&mut self, patience: Duration) -> Answer {
        self.hear_until(patience, |_| false)
    }

    /// Reads until the head of an answer is complete.
    pub fn hear_head(&mut self, patience: Duration) -> Answer {
        self.hear_until(patience, |bytes| bytes.windows(4).any(|w| w == b"\r\n\r\n"))
    }

    /// Reads until it is enough.
    pub fn hear_until(&mut self, patience: Duration, enough: impl Fn(&[u8]) -> bool) -> Answer {
        let began = Instant::now();
        let mut answer = Answer::default();
        let mut buffer = [0; 16 * 1024];
        while !enough(&answer.bytes) && answer.bytes.len() < KEPT {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => answer.closed = true,
                Ok(n) => answer.bytes.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => (answer.closed, answer.reset) = (true, true),
            }
            if answer.closed {
                break;
            }
        }
        answer.took = began.elapsed();
        answer
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// Asks for a path and reads the whole answer, or what comes of it in a while.
pub fn get(host: &Host, to: SocketAddr, path: &str, fields: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{fields}\r\n");
    Talk::open(host, to)
        .say(request.as_bytes())
        .hear(Duration::from_secs(5))
}

/// An `Authorization` line for a user.
pub fn basic(user: &str, password: &str) -> String {
    format!(
        "Authorization: Basic {}\r\n",
        base64(format!("{user}:{password}").as_bytes())
    )
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let word =
            three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let letter = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}
