//! One pull of the source by HTTP: connect, ask, follow redirects, take the framing off.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use relay_wire::http::{Body, Chunked, HttpUrl, RequestBuilder, ResponseHead};

use crate::args::resolve;

/// A source that does not answer, or stops sending, for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// For each address of the source.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A chain of redirects is followed this far.
const REDIRECTS_MAX: u8 = 5;
/// A server may say so many interim responses (1xx) before the real one.
const INTERIM_MAX: u8 = 8;
/// Read at a time.
const READ_BYTES: usize = 16 * 1024;

/// A stream that has begun.
pub(crate) struct Pull {
    /// Where it was found, after redirects.
    pub(crate) url: HttpUrl,
    /// Its server.
    pub(crate) endpoint: SocketAddrV4,
    /// As declared; empty when it is not.
    pub(crate) content_type: String,
    connection: TcpStream,
    framing: Framing,
    /// Read with the head.
    early: Vec<u8>,
}

enum Framing {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Pull {
    /// # Errors
    ///
    /// A sentence for the log.
    pub(crate) fn open(url: &HttpUrl) -> Result<Self, String> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let (mut connection, endpoint) = connect(&url)?;
            connection
                .write_all(&request(&url))
                .map_err(|error| sentence(&error))?;
            let (head, early) = read_head(&mut connection)?;
            match head.status {
                200 => return Self::begun(url, endpoint, &head, connection, early),
                301 | 302 | 303 | 307 | 308 => url = redirected(&url, &head)?,
                status => return Err(format!("expected status 200 from the source, got {status}")),
            }
        }
        Err(format!(
            "expected at most {REDIRECTS_MAX} redirects, got another one"
        ))
    }

    fn begun(
        url: HttpUrl,
        endpoint: SocketAddrV4,
        head: &ResponseHead,
        connection: TcpStream,
        early: Vec<u8>,
    ) -> Result<Self, String> {
        let framing = match head.body() {
            Body::None => return Err("expected a stream from the source, got an empty answer".into()),
            Body::Length(bytes) => Framing::Length(bytes),
            Body::Chunked => Framing::Chunked(Chunked::new()),
            Body::UntilClose => Framing::UntilClose,
        };
        let content_type = head.header("content-type").unwrap_or_default().to_owned();
        Ok(Self {
            url,
            endpoint,
            content_type,
            connection,
            framing,
            early,
        })
    }

    /// Hand the stream to `out`, piece by piece, until it ends, in good order or not. `out` says whether to go on.
    ///
    /// # Errors
    ///
    /// A sentence for the log when it did not end in good order.
    pub(crate) fn read(mut self, out: &mut impl FnMut(&[u8]) -> bool) -> Result<(), String> {
        let early = std::mem::take(&mut self.early);
        let mut go_on = self.framing.feed(&early, out)?;
        let mut buffer = vec![0; READ_BYTES];
        while go_on {
            match self.connection.read(&mut buffer) {
                Ok(0) => return self.framing.closed(),
                Ok(n) => go_on = self.framing.feed(&buffer[..n], out)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(sentence(&error)),
            }
        }
        Ok(())
    }
}

impl Framing {
    /// Whether more may come.
    fn feed(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8]) -> bool) -> Result<bool, String> {
        match self {
            Framing::UntilClose => Ok(out(bytes)),
            Framing::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= take as u64;
                Ok(out(&bytes[..take]) && *left > 0)
            }
            Framing::Chunked(chunked) => {
                let mut go_on = true;
                let mut each = |piece: &[u8]| go_on &= out(piece);
                let (_, over) = chunked
                    .decode(bytes, &mut each)
                    .map_err(|error| error.to_string())?;
                Ok(go_on && !over)
            }
        }
    }

    fn closed(&self) -> Result<(), String> {
        match self {
            Framing::UntilClose => Ok(()),
            _ => {
                Err("expected the source's answer to its declared end, got the end of the connection".into())
            }
        }
    }
}

fn connect(url: &HttpUrl) -> Result<(TcpStream, SocketAddrV4), String> {
    let mut last = String::new();
    for endpoint in resolve(url)? {
        match TcpStream::connect_timeout(&SocketAddr::V4(endpoint), CONNECT_TIMEOUT) {
            Ok(connection) => {
                let patient = connection
                    .set_read_timeout(Some(SILENCE_MAX))
                    .and_then(|()| connection.set_write_timeout(Some(SILENCE_MAX)));
                return patient
                    .map(|()| (connection, endpoint))
                    .map_err(|error| sentence(&error));
            }
            Err(error) => last = format!("cannot connect to {endpoint}: {error}"),
        }
    }
    Err(last)
}

fn request(url: &HttpUrl) -> Vec<u8> {
    let request = RequestBuilder::get(&url.host_header(), &url.path_and_query)
        .header(
            "User-Agent",
            concat!("totality-splitter/", env!("CARGO_PKG_VERSION")),
        )
        .header("Accept", "*/*")
        .header("Connection", "close");
    match &url.basic {
        Some(basic) => request.header("Authorization", &basic.header()).finish(),
        None => request.finish(),
    }
}

/// The final response's head, and what came with it of the body. The parser bounds the bytes.
fn read_head(connection: &mut TcpStream) -> Result<(ResponseHead, Vec<u8>), String> {
    let (mut bytes, mut scanned, mut interim) = (Vec::new(), 0, 0);
    let mut buffer = [0; 4096];
    loop {
        match ResponseHead::parse_from(&bytes, &mut scanned).map_err(|error| error.to_string())? {
            Some((head, end)) if head.status >= 200 => return Ok((head, bytes.split_off(end))),
            Some(_) if interim == INTERIM_MAX => {
                return Err("expected a final response from the source".into());
            }
            Some((_, end)) => {
                bytes.drain(..end);
                (scanned, interim) = (0, interim + 1);
            }
            None => match connection.read(&mut buffer) {
                Ok(0) => return Err("expected a response head, got the end of the connection".into()),
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(sentence(&error)),
            },
        }
    }
}

fn redirected(url: &HttpUrl, head: &ResponseHead) -> Result<HttpUrl, String> {
    let location = head
        .header("location")
        .ok_or("expected a redirect with Location, got none")?;
    url.resolve(location).map_err(|error| error.to_string())
}

fn sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!(
                "expected bytes from the source, got none for {} s",
                SILENCE_MAX.as_secs()
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What a client gets of these answers, one for each connection, and the requests that it made.
    fn pull(answers: &[&str]) -> (Result<Vec<u8>, String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = HttpUrl::parse(&format!("http://u:p@{}/a.ts", listener.local_addr().unwrap())).unwrap();
        let client = std::thread::spawn(move || {
            let mut got = Vec::new();
            Pull::open(&url)?.read(&mut |piece| {
                got.extend_from_slice(piece);
                true
            })?;
            Ok(got)
        });
        let mut asked = Vec::new();
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = connection.read(&mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..n]).into_owned());
            connection.write_all(answer.as_bytes()).unwrap();
        }
        (client.join().unwrap(), asked)
    }

    #[test]
    fn each_framing_gives_the_stream() {
        for answer in [
            "HTTP/1.0 200 OK\r\n\r\nabcde",
            "ICY 200 OK\r\nicy-name: x\r\n\r\nabcde",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcdeX",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabcde",
        ] {
            let (got, asked) = pull(&[answer]);
            assert_eq!(got.unwrap(), b"abcde", "{answer}");
            assert!(
                asked[0].starts_with("GET /a.ts HTTP/1.1\r\nHost: 127.0.0.1:"),
                "{asked:?}"
            );
            assert!(asked[0].contains("Authorization: Basic dTpw\r\n"), "{asked:?}");
        }
    }

    #[test]
    fn what_is_no_stream_is_told() {
        for (answer, why) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "204"),
            ("HTTP/1.1 302 Found\r\n\r\n", "Location"),
            ("SSH-2.0-x\r\n", "HTTP"),
            ("HTTP/1.1 200 OK\r\n", "end of the connection"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd", "declared end"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
                "hexadecimal",
            ),
        ] {
            let said = pull(&[answer]).0.unwrap_err();
            assert!(said.contains(why), "{answer}: {said}");
        }
    }

    #[test]
    fn redirects_are_followed_so_far() {
        let there = "HTTP/1.1 302 Found\r\nLocation: /b.ts\r\n\r\n";
        let (got, asked) = pull(&[there, "HTTP/1.0 200 OK\r\n\r\nx"]);
        assert_eq!(got.unwrap(), b"x");
        assert!(asked[1].starts_with("GET /b.ts"), "{asked:?}");
        assert!(pull(&[there; 6]).0.unwrap_err().contains("redirects"));
    }
}
