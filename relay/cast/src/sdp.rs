//! The announcement of a multicast stream (SDP, RFC 8866): what a player opens, and what a peer reads.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::fec::Shape;
use crate::rtp::{CLOCK_HZ, PAYLOAD_PARITY, PAYLOAD_TS, PLACE_ID};

/// Parity goes to the group at this many ports above the stream's, as SMPTE ST 2022-1 has it: players that know nothing
/// of it never see it.
pub const PARITY_PORT: u16 = 2;

/// Longest announcement that is read, in bytes.
pub const BYTES_MAX: usize = 4096;

/// What an announcement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The name of the stream.
    pub name: String,
    /// The sender, where it is known: a source-specific group needs it.
    pub from: Option<IpAddr>,
    /// The group and port.
    pub to: SocketAddr,
    /// How many routers it passes.
    pub ttl: u8,
    /// Behind RTP headers; otherwise bare packets.
    pub rtp: bool,
    /// Parity, if there is any.
    pub fec: Option<Shape>,
}

/// Why an announcement is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SDP: expected a line `{0}` with a multicast stream, got none")]
pub struct Unreadable(&'static str);

impl Announcement {
    /// As text.
    pub fn text(&self) -> String {
        let (kind, ip, port) = (family(self.to.ip()), self.to.ip(), self.to.port());
        let from = self.from.unwrap_or(unspecified(ip));
        // A line ends where the name says; names are free of control bytes, but who knows.
        let name: String = self.name.chars().filter(|c| !c.is_control()).collect();
        let ttl = match ip {
            IpAddr::V4(_) => format!("/{}", self.ttl),
            IpAddr::V6(_) => String::new(),
        };
        let profile = if self.rtp { "RTP/AVP 33" } else { "udp 33" };
        let mut out = format!(
            "v=0\r\no=- 0 0 IN {kind} {from}\r\ns={name}\r\nc=IN {kind} {ip}{ttl}\r\nt=0 0\r\n\
             m=video {port} {profile}\r\na=rtpmap:{PAYLOAD_TS} MP2T/{CLOCK_HZ}\r\na=recvonly\r\n"
        );
        if let Some(from) = self.from {
            let _ = write!(out, "a=source-filter: incl IN {kind} {ip} {from}\r\n");
        }
        if self.rtp {
            let _ = write!(out, "a=extmap:{PLACE_ID} urn:x-totality:place\r\n");
        }
        if let Some(shape) = self.fec {
            let at = port.saturating_add(PARITY_PORT);
            let _ = write!(out, "a=x-totality-fec:{shape} port={at} pt={PAYLOAD_PARITY}\r\n");
        }
        out
    }

    /// Reads what [`Announcement::text`] has written, and as much of others' as we need.
    ///
    /// # Errors
    ///
    /// [`Unreadable`], with the line that is missing.
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let lines = || text.lines().map(str::trim_end);
        let line = |start: &'static str| lines().find_map(|line| line.strip_prefix(start));
        let connection = line("c=IN IP4 ")
            .or_else(|| line("c=IN IP6 "))
            .ok_or(Unreadable("c="))?;
        let mut parts = connection.split('/');
        let ip: Option<IpAddr> = parts.next().and_then(|ip| ip.parse().ok());
        let ip = ip.filter(IpAddr::is_multicast).ok_or(Unreadable("c="))?;
        let ttl = parts.next().and_then(|ttl| ttl.parse().ok()).unwrap_or(1);
        let media = line("m=video ").ok_or(Unreadable("m=video"))?;
        let (port, profile) = media.split_once(' ').ok_or(Unreadable("m=video"))?;
        let port = port.parse().map_err(|_| Unreadable("m=video"))?;
        let from = line("a=source-filter:").and_then(|filter| filter.split(' ').next_back()?.parse().ok());
        let fec = line("a=x-totality-fec:").and_then(|fec| fec.split(' ').next()?.parse().ok());
        Ok(Self {
            name: line("s=").unwrap_or_default().to_owned(),
            from,
            to: SocketAddr::new(ip, port),
            ttl,
            rtp: profile.starts_with("RTP/"),
            fec,
        })
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IP4" } else { "IP6" }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_announced_is_read() {
        for (to, from, rtp, fec) in [
            ("239.255.42.1:5004", None, true, Some("8+4")),
            ("232.1.2.3:6000", Some("10.0.0.1"), false, None),
            ("[ff15::1]:5004", None, true, None),
        ] {
            let said = Announcement {
                name: "Sun & moon".into(),
                from: from.map(|ip| ip.parse().unwrap()),
                to: to.parse().unwrap(),
                ttl: 1,
                rtp,
                fec: fec.map(|fec| fec.parse().unwrap()),
            };
            let text = said.text();
            assert_eq!(Announcement::read(&text), Ok(said), "{text}");
            assert!(
                text.split_terminator("\r\n")
                    .all(|line| line.as_bytes()[1] == b'='),
                "{text}"
            );
        }
    }

    #[test]
    fn a_name_cannot_begin_a_line() {
        let said = Announcement {
            name: "a\r\nc=IN IP4 224.0.0.9".into(),
            from: None,
            to: "239.255.42.1:5004".parse().unwrap(),
            ttl: 1,
            rtp: true,
            fec: None,
        };
        assert_eq!(Announcement::read(&said.text()).unwrap().to, said.to);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(text in "\\PC*", cut in 0usize..400) {
            let _ = Announcement::read(&text);
            let ours = "v=0\r\nc=IN IP4 239.1.1.1/1\r\nm=video 5004 RTP/AVP 33\r\na=x-totality-fec:8+4 port=1";
            let _ = Announcement::read(&ours[..cut.min(ours.len())]);
        }
    }
}
