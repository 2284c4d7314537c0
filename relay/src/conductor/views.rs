//! What strangers are shown of channels and listeners: one shape for the page, the API and Icecast's pages.
//!
//! Nothing here names a listener's or a source's address, but [`ListenerView`], which only an administrator sees.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use relay_media::Kind;
use relay_station::{About, Channel, ListenerInfo, State};
use serde::Serialize;

use super::desk::unix_s;

/// A channel, for anybody.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ChannelView {
    /// Its mount path.
    pub(super) mount: String,
    /// The same, as it stands in a URL.
    pub(super) href: String,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) genre: Option<String>,
    pub(super) url: Option<String>,
    /// What is playing; empty: nobody has said.
    pub(super) title: String,
    /// `idle`, `on-air`, `holding`, `fallback` or `ended`.
    pub(super) state: &'static str,
    /// The mount that its listeners hear instead.
    pub(super) fallback: Option<String>,
    pub(super) content_type: Option<String>,
    /// The container: `mpegts`, `flv`, `ogg`, `webm`, `mp4`, `mp3`, `adts` or `other`.
    pub(super) kind: Option<&'static str>,
    /// The element with which browsers play it by themselves: `video`, `audio`, or none.
    pub(super) plays: Option<&'static str>,
    pub(super) listeners: usize,
    pub(super) listeners_peak: usize,
    /// Measured over the last seconds, bits per second.
    pub(super) bitrate: u64,
    /// As its source declared it, kilobits per second.
    pub(super) declared_kbps: Option<u64>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    /// Unix seconds at which the present source began.
    pub(super) since: u64,
    /// How many seconds ago.
    pub(super) seconds: u64,
    /// Which life of the channel this is; the same on every node.
    pub(super) epoch: Option<u64>,
    pub(super) chunk_size: Option<u16>,
    /// Node ids from the root to here, this one excluded.
    pub(super) path: Vec<String>,
}

impl ChannelView {
    pub(super) fn of(channel: &Channel) -> Self {
        let (about, run) = (channel.about(), channel.run());
        let run = run.as_ref();
        let on = !matches!(about.state, State::Idle | State::Ended);
        let fallback = match &about.state {
            State::Fallback(mount) => Some(mount.clone()),
            _ => None,
        };
        Self {
            mount: channel.mount.clone(),
            href: href(&channel.mount),
            name: property(&about, "name"),
            description: property(&about, "description"),
            genre: property(&about, "genre"),
            url: property(&about, "url"),
            state: about.state.name(),
            fallback,
            content_type: run.map(|run| run.content_type.clone()),
            kind: run.map(|run| run.kind.name()),
            plays: run.and_then(|run| plays(run.kind, &run.content_type)),
            listeners: channel.listeners.load(Ordering::Relaxed),
            listeners_peak: channel.listeners_peak.load(Ordering::Relaxed),
            bitrate: run
                .filter(|_| about.state == State::OnAir)
                .map_or(0, |run| run.bitrate.load(Ordering::Relaxed)),
            declared_kbps: property(&about, "br").and_then(|br| br.parse().ok()),
            bytes_in: channel.bytes_in.load(Ordering::Relaxed),
            bytes_out: channel.bytes_out(),
            since: about.since_s,
            seconds: if on {
                unix_s().saturating_sub(about.since_s)
            } else {
                0
            },
            epoch: run.map(|run| run.epoch),
            chunk_size: run.map(|run| run.chunk_size),
            path: run.map(|run| run.path.clone()).unwrap_or_default(),
            title: about.title,
        }
    }
}

/// All of them, by mount.
pub(super) fn all(channels: &[Arc<Channel>]) -> Vec<ChannelView> {
    channels.iter().map(|channel| ChannelView::of(channel)).collect()
}

/// One of a channel's properties.
pub(super) fn property(about: &About, key: &str) -> Option<String> {
    about
        .properties
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.clone())
}

/// The element with which browsers play a container by themselves.
fn plays(kind: Kind, content_type: &str) -> Option<&'static str> {
    match kind {
        Kind::Mp3 | Kind::Adts => Some("audio"),
        Kind::WebM | Kind::Mp4 | Kind::Ogg if content_type.starts_with("audio/") => Some("audio"),
        Kind::WebM | Kind::Mp4 | Kind::Ogg => Some("video"),
        Kind::MpegTs | Kind::Flv | Kind::Other => None,
    }
}

/// A mount path as it stands in a URL.
pub(super) fn href(mount: &str) -> String {
    const PATH: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(mount, PATH).to_string()
}

/// A listener, for an administrator.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ListenerView {
    pub(super) id: u64,
    pub(super) mount: String,
    pub(super) ip: String,
    pub(super) port: u16,
    pub(super) agent: String,
    /// Seconds connected.
    pub(super) seconds: u64,
    /// Bytes sent.
    pub(super) bytes: u64,
    /// Bytes that wait for it.
    pub(super) lag: u64,
    /// Whether it is another node.
    pub(super) link: bool,
}

impl From<ListenerInfo> for ListenerView {
    fn from(info: ListenerInfo) -> Self {
        Self {
            id: info.id,
            mount: info.mount,
            ip: info.peer.ip().to_canonical().to_string(),
            port: info.peer.port(),
            agent: info.agent,
            seconds: info.seconds,
            bytes: info.bytes,
            lag: info.lag,
            link: info.link,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_in_a_url_holds_nothing_that_ends_it() {
        assert_eq!(href("/sky/eclipse-1.ts"), "/sky/eclipse-1.ts");
        assert_eq!(href("/a b\"<?#é%"), "/a%20b%22%3C%3F%23%C3%A9%25");
    }
}
