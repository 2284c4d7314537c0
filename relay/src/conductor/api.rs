//! `/healthz`, `/readyz` and `/api/v1`: the shapes are those of `relay/openapi.yaml`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use relay_station::{CATALOGUE, House, UpstreamSpec};
use relay_wire::http::query_param;
use serde::Serialize;
use splitter::Dialect;

use super::answer::{json, problem, text};
use super::desk::{Desk, unix_s};
use super::guard;
use super::serve::User;
use super::views::{ChannelView, ListenerView, all};

/// The process turns: it has answered.
pub(super) async fn healthz() -> Response {
    text(StatusCode::OK, "ok\n")
}

/// Whether listeners should be sent here.
pub(super) async fn readyz(State(desk): State<Arc<Desk>>) -> Response {
    match Health::of(&desk).await.reason {
        None => text(StatusCode::OK, "ready\n"),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[derive(Debug, Serialize)]
struct Health {
    ready: bool,
    /// Why not.
    reason: Option<String>,
    draining: bool,
    /// Whether each worker has answered within a second.
    workers: Vec<bool>,
    uptime_s: u64,
}

impl Health {
    async fn of(desk: &Desk) -> Health {
        let (workers, draining) = (desk.pulse().await, desk.house().is_draining());
        let stuck: Vec<String> = workers
            .iter()
            .enumerate()
            .filter(|(_, turns)| !**turns)
            .map(|(n, _)| n.to_string())
            .collect();
        let reason = if draining {
            Some("draining: no new listener is taken".to_owned())
        } else if !stuck.is_empty() {
            Some(format!(
                "no sign of life within a second from worker {}",
                stuck.join(", ")
            ))
        } else {
            None
        };
        Health {
            ready: reason.is_none(),
            reason,
            draining,
            workers,
            uptime_s: desk.uptime_s(),
        }
    }
}

pub(super) async fn health(State(desk): State<Arc<Desk>>) -> Response {
    let health = Health::of(&desk).await;
    json(
        if health.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        &health,
    )
}

#[derive(Debug, Serialize)]
struct Node<'a> {
    id: &'a str,
    software: &'a str,
    version: &'a str,
    backend: &'a str,
    workers: usize,
    /// Unix seconds.
    started: u64,
    now: u64,
    uptime_s: u64,
    hostname: &'a str,
    port: u16,
    draining: bool,
    listeners: usize,
    listeners_max: usize,
    connections: usize,
    connections_max: usize,
    channels: usize,
    channels_max: usize,
    /// Links to other nodes that are served.
    links: u64,
    max_batch_delay_ms: u128,
    upstreams: Vec<Upstream<'a>>,
    multicast: Option<Multicast>,
    team: Option<Team>,
    /// Every number of the catalogue, over all workers.
    totals: BTreeMap<&'static str, u64>,
}

/// An upstream, without what its URL may hold of a user and a password.
#[derive(Debug, Serialize)]
struct Upstream<'a> {
    host: &'a str,
    port: u16,
    mount: Option<&'a str>,
    /// `link`, or `pull` for a plain HTTP stream.
    kind: &'static str,
}

impl<'a> From<&'a UpstreamSpec> for Upstream<'a> {
    fn from(spec: &'a UpstreamSpec) -> Self {
        let kind = if spec.plain_url.is_some() { "pull" } else { "link" };
        Self {
            host: &spec.host,
            port: spec.port,
            mount: spec.mount.as_deref(),
            kind,
        }
    }
}

/// What goes out to the whole LAN.
#[derive(Debug, Serialize)]
struct Multicast {
    /// The channel; none: no transport stream has come yet.
    mount: Option<String>,
    /// Its group and port.
    to: String,
    /// `rtp` or `ts`.
    format: &'static str,
    ttl: u8,
    /// Parity, as DATA+PARITY.
    fec: Option<String>,
}

fn multicast(house: &House) -> Option<Multicast> {
    let spec = house.config.cast.as_ref()?;
    Some(Multicast {
        mount: house.cast_mount().map(str::to_owned),
        to: spec.to.to_string(),
        format: if spec.rtp { "rtp" } else { "ts" },
        ttl: spec.ttl,
        fec: spec.fec.map(|shape| shape.to_string()),
    })
}

/// The team that peers may join.
#[derive(Debug, Serialize)]
struct Team {
    /// Its channel.
    mount: String,
    /// Where they join.
    at: String,
    /// `b` or `c`.
    wire: &'static str,
}

fn team(house: &House) -> Option<Team> {
    let spec = house.config.team.as_ref()?;
    Some(Team {
        mount: spec.mount.clone(),
        at: spec.listen.to_string(),
        wire: match spec.rules.dialect {
            Dialect::B => "b",
            Dialect::C => "c",
        },
    })
}

pub(super) async fn node(State(desk): State<Arc<Desk>>) -> Response {
    let (house, settings) = (desk.house(), &desk.settings);
    let config = &house.config;
    json(
        StatusCode::OK,
        &Node {
            id: &config.node_id,
            software: &config.software,
            version: settings.version,
            backend: &settings.backend,
            workers: config.workers,
            started: desk.started_s(),
            now: unix_s(),
            uptime_s: desk.uptime_s(),
            hostname: &settings.hostname,
            port: desk.stage().listen.port(),
            draining: house.is_draining(),
            listeners: house.admission().listeners(),
            listeners_max: config.listener.max,
            connections: house.admission().connections(),
            connections_max: config.connections_max,
            channels: house.directory.all().len(),
            channels_max: config.channels_max,
            links: desk.total("links"),
            max_batch_delay_ms: config.max_batch_delay.as_millis(),
            upstreams: config.upstreams.iter().map(Upstream::from).collect(),
            multicast: multicast(house),
            team: team(house),
            totals: CATALOGUE
                .iter()
                .map(|entry| entry.name)
                .zip(house.totals())
                .collect(),
        },
    )
}

#[derive(Debug, Serialize)]
struct Channels {
    node: String,
    /// Unix seconds.
    now: u64,
    channels: Vec<ChannelView>,
}

pub(super) async fn channels(State(desk): State<Arc<Desk>>) -> Response {
    let house = desk.house();
    let channels = all(&house.directory.all());
    json(
        StatusCode::OK,
        &Channels {
            node: house.config.node_id.clone(),
            now: unix_s(),
            channels,
        },
    )
}

pub(super) async fn channel(State(desk): State<Arc<Desk>>, Path(mount): Path<String>) -> Response {
    match desk.house().directory.get(&format!("/{mount}")) {
        Some(channel) => json(StatusCode::OK, &ChannelView::of(&channel)),
        None => problem(StatusCode::NOT_FOUND, "there is no such mount here"),
    }
}

#[derive(Debug, Serialize)]
struct Listeners {
    listeners: Vec<ListenerView>,
}

/// People's addresses: for the administrator only.
pub(super) async fn listeners(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let who = match guard::admit(&desk, &request, None) {
        Ok(who) => who,
        Err(refused) => return *refused,
    };
    let mount = request
        .uri()
        .query()
        .and_then(|query| query_param(query, "mount"));
    let listeners = desk
        .listeners(mount.as_deref())
        .await
        .into_iter()
        .map(ListenerView::from)
        .collect();
    let mut answer = json(StatusCode::OK, &Listeners { listeners });
    answer.extensions_mut().insert(User(who.name()));
    answer
}
