//! The team that a node is to lead: what its keys must be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use relay_station::TeamSpec;
use splitter::Dialect;

use super::error::Error;
use super::{Reader, keys, upstream};

impl Reader<'_> {
    pub(super) fn team(&self) -> Result<Option<TeamSpec>, Error> {
        let Some(mount) = self.0.text("team", "mount") else {
            return self.stray_team().map(|()| None);
        };
        let spec = TeamSpec {
            mount: mount.read(upstream::A_MOUNT, upstream::mount)?,
            listen: self.team_listen()?,
            http: self.team_http()?,
            rules: self.team_rules()?,
        };
        let expected = spec.check().err();
        match expected {
            None => Ok(Some(spec)),
            Some(why) => Err(mount.wrong(&format!("a team that can be led ({why})"))),
        }
    }

    fn team_rules(&self) -> Result<splitter::Config, Error> {
        let dialect = self.need("team", "wire", "b or c", |text| match text {
            "b" => Some(Dialect::B),
            "c" => Some(Dialect::C),
            _ => None,
        })?;
        let buffer_chunks = self.count("team", "buffer", 8, 65_535)? as u16;
        let mut monitor_hosts = Vec::new();
        for field in self.0.list("team", "monitors") {
            monitor_hosts.push(field.read("an IPv4 address", |text| text.parse().ok())?);
        }
        let defaults = splitter::Config::default();
        Ok(splitter::Config {
            dialect,
            buffer_chunks,
            max_peers: self.count("team", "peers", 1, buffer_chunks.into())? as u16,
            // Generation C has no other way.
            send_header: dialect == Dialect::C,
            monitor_hosts: if monitor_hosts.is_empty() {
                defaults.monitor_hosts
            } else {
                monitor_hosts
            },
            ..defaults
        })
    }

    fn team_listen(&self) -> Result<SocketAddrV4, Error> {
        let open = self.switch("team", "open")?;
        let expected = "an IPv4 address on loopback or in a private network, such as 192.168.1.10:8001, \
                        because this wire authenticates nobody (--i-know-this-wire-is-open takes any)";
        self.need("team", "listen", expected, |text| {
            let at: SocketAddrV4 = text.parse().ok()?;
            (open || is_near(*at.ip())).then_some(at)
        })
    }

    /// Where this node's HTTP is for those who know where its team is.
    fn team_http(&self) -> Result<SocketAddrV4, Error> {
        let http: SocketAddr = self.need("server", "listen", "an address", |t| t.parse().ok())?;
        let ip = match http.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => ip,
            _ => *self.team_listen()?.ip(),
        };
        Ok(SocketAddrV4::new(ip, http.port()))
    }

    /// Flags of a team without a channel are a mistake that would go unnoticed.
    fn stray_team(&self) -> Result<(), Error> {
        let names = ["listen", "wire", "peers", "buffer", "open"];
        // What was written out of what is shown anyway is no mistake.
        let stray_at = |name: &&str| {
            let usual = keys::find("team", name).map_or("", |key| key.default);
            self.0.text("team", name).filter(|field| field.text != usual)
        };
        let stray = names
            .iter()
            .find_map(stray_at)
            .or_else(|| self.0.list("team", "monitors").into_iter().next());
        match stray {
            Some(field) => Err(field.wrong("a team.mount (--team /MOUNT) to go with it")),
            None => Ok(()),
        }
    }
}

fn is_near(ip: Ipv4Addr) -> bool {
    ip.is_loopback() || ip.is_private() || ip.is_link_local()
}
