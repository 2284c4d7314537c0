//! The beginning of the stream: some containers cannot be played without it, and a team's chunks begin anywhere.
//!
//! A splitter of generation B says where the source is, and each newcomer asks there. The splitter could name any
//! server, so one that is out in the open is not followed to servers that are not.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use relay_media::Kind;
use relay_wire::http::ResponseHead;

use crate::SOFTWARE;

/// How long the source may take to be reached, and to go on.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a source's answer begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) content_type: Option<String>,
    /// For the player, before the first chunk. Empty where the container needs none.
    pub(super) bytes: Vec<u8>,
}

/// Whether a splitter may send us to a source.
pub(super) fn may_ask(splitter: SocketAddrV4, source: SocketAddrV4) -> bool {
    splitter.ip() == source.ip() || is_near(*splitter.ip()) == is_near(*source.ip())
}

fn is_near(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
}

/// Asks a source for the first `bytes` of its answer.
///
/// # Errors
///
/// The source cannot be reached, or does not answer in HTTP.
pub(super) fn ask(source: SocketAddrV4, channel: &[u8], bytes: u16) -> io::Result<Beginning> {
    let mut stream = TcpStream::connect_timeout(&source.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&request(source, channel)?)?;
    let mut answer = Vec::new();
    // A source that goes on too slowly has given what it has given.
    let _ = stream.take(bytes.into()).read_to_end(&mut answer);
    Ok(read(&answer))
}

/// The channel comes from the network: nothing but a path may be in it.
fn request(source: SocketAddrV4, channel: &[u8]) -> io::Result<Vec<u8>> {
    let path = std::str::from_utf8(channel).ok();
    let path = path.filter(|path| path.bytes().all(|b| b.is_ascii_graphic()));
    let path = path.ok_or_else(|| io::Error::other("expected a channel of visible ASCII characters"))?;
    let head = format!("GET /{path} HTTP/1.0\r\nHost: {source}\r\nUser-Agent: {SOFTWARE}\r\n\r\n");
    Ok(head.into_bytes())
}

/// Takes an answer, or the header that a splitter has kept, apart. It may begin with a head of HTTP.
pub(super) fn read(answer: &[u8]) -> Beginning {
    let (content_type, body) = match ResponseHead::parse(answer) {
        Ok(Some((head, at))) if head.status == 200 => {
            (head.header("content-type").map(str::to_owned), &answer[at..])
        }
        Ok(_) => return Beginning::default(),
        Err(_) => (None, answer),
    };
    // In these a player may begin anywhere: it is spared a jump.
    let anywhere = matches!(Kind::sniff(body), Some(Kind::MpegTs | Kind::Mp3 | Kind::Adts));
    Beginning {
        content_type,
        bytes: if anywhere { Vec::new() } else { body.to_vec() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_player_needs_first_is_kept() {
        let ogg = b"HTTP/1.0 200 OK\r\nContent-Type: application/ogg\r\n\r\nOggS\0\x02rest";
        let found = read(ogg);
        assert_eq!(found.content_type.as_deref(), Some("application/ogg"));
        assert_eq!(found.bytes, b"OggS\0\x02rest");
        assert_eq!(read(b"OggS\0\x02rest").bytes, b"OggS\0\x02rest");
        let mut ts = vec![0xff; 188 * 4];
        (0..4).for_each(|n| ts[n * 188] = 0x47);
        assert_eq!(read(&ts).bytes, b"");
        assert_eq!(read(b"HTTP/1.0 404 Not Found\r\n\r\nno"), Beginning::default());
        assert_eq!(read(b"HTTP/1.0 200 OK\r\nContent-"), Beginning::default());
    }

    #[test]
    fn a_splitter_in_the_open_leads_nobody_into_the_house() {
        let at = |text: &str| text.parse().unwrap();
        assert!(may_ask(at("127.0.0.1:8001"), at("127.0.0.1:8000")));
        assert!(may_ask(at("10.0.0.1:8001"), at("192.168.1.1:8000")));
        assert!(may_ask(at("8.8.8.8:8001"), at("9.9.9.9:80")));
        assert!(!may_ask(at("8.8.8.8:8001"), at("127.0.0.1:22")));
        assert!(!may_ask(at("8.8.8.8:8001"), at("10.0.0.1:80")));
    }

    #[test]
    fn no_channel_smuggles_a_second_request() {
        let at = "127.0.0.1:1".parse().unwrap();
        for bad in [&b"a b"[..], b"a\r\nHost: x", b"\xff", b"a\0"] {
            assert!(request(at, bad).is_err(), "{bad:?}");
        }
        assert!(
            request(at, b"eclipse.ts?x=1")
                .unwrap()
                .starts_with(b"GET /eclipse.ts?x=1 HTTP/1.0\r\n")
        );
    }
}
