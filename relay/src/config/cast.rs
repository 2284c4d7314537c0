//! Multicast, as it is configured.

use std::net::SocketAddr;

use relay_cast::fec::Shape;
use relay_cast::sdp::PARITY_PORT;
use relay_driver::Lan;
use relay_station::CastSpec;

use super::error::{Error, Origin};
use super::values::Field;
use super::{Reader, upstream};

/// A channel for the whole LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// The group and its port.
    pub to: SocketAddr,
    /// The interface, by name or address.
    pub interface: Option<String>,
    /// Which channel; none: the first that can be cast.
    pub mount: Option<String>,
    /// Behind RTP headers.
    pub rtp: bool,
    /// How many routers it may pass.
    pub ttl: u8,
    /// Parity.
    pub fec: Option<Shape>,
}

impl Multicast {
    /// What the data plane is told, once the way to the group is known.
    pub fn spec(&self, lan: &Lan) -> CastSpec {
        CastSpec {
            to: self.to,
            interface: lan.interface,
            from: Some(lan.from),
            mount: self.mount.clone(),
            rtp: self.rtp,
            ttl: self.ttl,
            fec: self.fec,
        }
    }

    /// What somebody needs to know who has just started a node that casts.
    pub fn welcome(&self) -> String {
        let (scheme, to) = (if self.rtp { "rtp" } else { "udp" }, self.to);
        let fec = self
            .fec
            .map_or_else(String::new, |shape| format!(", parity {shape}"));
        format!(
            "LAN       {scheme}://@{to}   (vlc, ffplay, or peer-lite --lan {to}; TTL {}{fec})\n",
            self.ttl
        )
    }
}

impl Reader<'_> {
    pub(super) fn multicast(&self) -> Result<Option<Multicast>, Error> {
        let Some(group) = self.0.text("multicast", "group") else {
            return self.stray_multicast().map(|()| None);
        };
        let to = group.read(
            "a multicast group and its port, such as 239.255.42.1:5004",
            read_group,
        )?;
        let rtp = self.need("multicast", "format", "rtp or ts", |text| match text {
            "rtp" => Some(true),
            "ts" => Some(false),
            _ => None,
        })?;
        let mount = self.0.text("multicast", "mount");
        Ok(Some(Multicast {
            to,
            interface: self.words("multicast", "interface")?,
            mount: mount
                .map(|field| field.read(upstream::A_MOUNT, upstream::mount))
                .transpose()?,
            rtp,
            ttl: self.count("multicast", "ttl", 0, 255)? as u8,
            fec: self
                .0
                .text("multicast", "fec")
                .map(|field| read_fec(&field, to, rtp))
                .transpose()?,
        }))
    }

    /// What says how to cast, without what to cast to, is a mistake that would go unnoticed.
    fn stray_multicast(&self) -> Result<(), Error> {
        let names = ["interface", "mount", "fec"];
        let is_stray = |field: &Field| field.origin != Origin::Default;
        let stray = names
            .iter()
            .find_map(|name| self.0.text("multicast", name).filter(is_stray));
        match stray {
            Some(field) => Err(field.wrong("a multicast.group (--multicast GROUP:PORT) to go with it")),
            None => Ok(()),
        }
    }
}

/// A group outside 224.0.0.0/4 and ff00::/8 is none, and port 0 is nobody's.
fn read_group(text: &str) -> Option<SocketAddr> {
    let to: SocketAddr = text.parse().ok()?;
    (to.ip().is_multicast() && to.port() > 0).then_some(to)
}

fn read_fec(field: &Field, to: SocketAddr, rtp: bool) -> Result<Shape, Error> {
    if !rtp {
        return Err(field.wrong("multicast.format rtp, because parity counts by its sequence numbers"));
    }
    if to.port().checked_add(PARITY_PORT).is_none() {
        return Err(field.wrong("a port of the group with room for parity two above it"));
    }
    field.read("DATA+PARITY, each from 1 to 64, such as 8+4", |text| {
        text.parse().ok()
    })
}
