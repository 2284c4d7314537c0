//! A story from a seed: who is there, what they do, what befalls them.

use std::time::Duration;

use relay_link::Token;
use relay_source::Secret;
use relay_station::{Config, UpstreamSpec};

use crate::dice::Dice;
use crate::listener::{Leave, Listener};
use crate::pipe::Way;
use crate::source::{Act, Exit, Source, Turn};
use crate::tape::Packing;
use crate::world::{Fate, World};

/// Bytes per chunk at nodes of the world.
pub(crate) const CHUNK: u64 = 1316;
/// What O4 allows a listener to wait, beside batching and the way.
const GAP_NS: u64 = 250_000_000;

/// A node as the defaults would have it, small enough to be filled.
pub(crate) fn config(name: &str, workers: usize) -> Config {
    let password = Secret::new("hackme").ok();
    Config {
        node_id: name.to_owned(),
        software: "totality".to_owned(),
        workers,
        max_batch_delay: Duration::from_millis(100),
        connections_max: 1000,
        reserved: 10,
        head_timeout: Duration::from_secs(15),
        channels_max: 16,
        ring_bytes: 1 << 20,
        ring_seconds: 16,
        ring_max_bytes: 32 << 20,
        chunk_size: CHUNK as u16,
        listener: relay_listener::Config::default(),
        source: relay_source::Config {
            password,
            ..relay_source::Config::default()
        },
        mounts: std::collections::BTreeMap::new(),
        node_token: Token::new("node").ok(),
        upstream_timing: relay_link::UpstreamsConfig::default(),
        root_mount: None,
        upstreams: Vec::new(),
        on_demand: false,
        cast: None,
        team: None,
    }
}

/// A link to a mount at a node of the world.
pub(crate) fn upstream(host: &str, mount: Option<&str>) -> UpstreamSpec {
    UpstreamSpec {
        host: host.to_owned(),
        port: 8000,
        mount: mount.map(str::to_owned),
        plain_url: None,
    }
}

/// What a listener that reads as bytes come may have to wait at a node.
pub(crate) fn patience_ns(world: &World, node: usize, hops: u64, way: Way) -> u64 {
    let batch = world.nodes[node].config.max_batch_delay.as_nanos() as u64;
    GAP_NS + (batch + 2 * Way::LAN.longest_ns()) * (1 + hops) + 2 * way.longest_ns()
}

/// The mounts of a random story.
const MOUNTS: [(&str, Packing); 3] = [
    ("/picture.ts", Packing::Ts),
    ("/sound.mp3", Packing::Mp3),
    ("/lines", Packing::Lines),
];

/// What a random story consists of.
struct Cast {
    nodes: Vec<usize>,
    mounts: Vec<(&'static str, Packing)>,
    /// How long the story is.
    ms: u64,
    /// Nodes may lose bytes that they have not passed on.
    lossy: bool,
}

/// The world of a seed, ready to run, and when its actors have all gone.
pub(crate) fn random(seed: u64, print: bool) -> (World, u64) {
    let mut world = World::new(seed, print);
    let mut dice = Dice::new(seed ^ 0x5eed);
    let ms = dice.range(8_000, 25_000);
    let count = dice.range(1, 3) as usize;
    let first = dice.range(0, 2) as usize;
    let mounts: Vec<_> = (0..count).map(|i| MOUNTS[(first + i) % 3]).collect();
    let nodes = add_nodes(&mut world, &mut dice, &mounts);
    let mut cast = Cast {
        nodes,
        mounts,
        ms,
        lossy: false,
    };
    add_sources(&mut world, &mut dice, &mut cast);
    add_troubles(&mut world, &mut dice, &mut cast);
    add_listeners(&mut world, &mut dice, &cast);
    (world, World::ms(ms + 500))
}

fn add_nodes(world: &mut World, dice: &mut Dice, mounts: &[(&'static str, Packing)]) -> Vec<usize> {
    let mut nodes = Vec::new();
    let on_demand = dice.one_in(2);
    let depth = dice.range(0, 2);
    for (i, name) in ["root", "near", "far"]
        .iter()
        .enumerate()
        .take(1 + depth as usize)
    {
        let mut config = config(name, dice.range(1, 3) as usize);
        config.max_batch_delay = Duration::from_millis(*dice.pick(&[0, 20, 100]));
        config.ring_bytes = *dice.pick(&[64 << 10, 128 << 10, 512 << 10, 1 << 20]);
        // Half of the nodes let their rings grow with the rate.
        config.ring_max_bytes = *dice.pick(&[config.ring_bytes, 8 << 20]);
        config.listener.send_buffer = *dice.pick(&[4 << 10, 16 << 10, 64 << 10]);
        config.source.hold = Duration::from_millis(dice.range(500, 6_000));
        config.source.timeout = Duration::from_secs(3);
        config.on_demand = on_demand;
        if i > 0 {
            let above = ["root", "near"][i - 1];
            let mounts: Vec<_> = if on_demand {
                vec![None]
            } else {
                mounts.iter().map(|(m, _)| Some(*m)).collect()
            };
            config.upstreams = mounts.iter().map(|mount| upstream(above, *mount)).collect();
            if i > 1 && dice.one_in(2) {
                config
                    .upstreams
                    .extend(mounts.iter().map(|mount| upstream("root", *mount)));
            }
        }
        nodes.push(world.add_node(name, Way::LAN, config));
    }
    nodes
}

fn add_sources(world: &mut World, dice: &mut Dice, cast: &mut Cast) {
    for (mount, packing) in cast.mounts.clone() {
        let rate = dice.range(10_000, 200_000);
        let root = world.nodes[cast.nodes[0]].host;
        let (from, until) = (
            World::ms(dice.range(0, 800)),
            World::ms(cast.ms - dice.range(0, 3_000)),
        );
        let mut source = Source::new(root, mount, packing, rate, from, until);
        source.chunked = dice.one_in(2);
        source.every_ns = dice.range(3, 50) * 1_000_000;
        let mut at = dice.range(2_000, 6_000);
        while dice.one_in(2) && at < cast.ms {
            let act = match dice.range(0, 5) {
                0 => Act::Rate(dice.range(10_000, 200_000)),
                1 => {
                    // More than a small ring holds: links may lose their place, and come back.
                    world.troubles.push((World::ms(at), World::ms(at + 5_000)));
                    Act::Burst(dice.range(10_000, 200_000))
                }
                n => {
                    let exit = [Exit::Finish, Exit::Reset, Exit::Silence, Exit::Finish][n as usize - 2];
                    Act::Go(exit, Some(dice.range(100, 8_000) * 1_000_000))
                }
            };
            source.script.push(Turn {
                at_ns: World::ms(at),
                act,
            });
            at += dice.range(1_000, 6_000);
        }
        world.add_source(source, Way::LAN);
    }
}

fn add_troubles(world: &mut World, dice: &mut Dice, cast: &mut Cast) {
    while dice.one_in(2) && cast.nodes.len() > 1 {
        let below = dice.range(1, cast.nodes.len() as u64 - 1) as usize;
        let (a, b) = (
            world.nodes[cast.nodes[below - 1]].host,
            world.nodes[cast.nodes[below]].host,
        );
        let from = dice.range(2_000, cast.ms);
        let to = from + dice.range(50, 4_000);
        let (begin, end) = (World::ms(from), World::ms(to));
        let fates = match dice.range(0, 3) {
            0 => vec![(begin, Fate::Sever(a, b))],
            1 => {
                let node = cast.nodes[dice.range(0, cast.nodes.len() as u64 - 1) as usize];
                cast.lossy = true;
                vec![(begin, Fate::Kill(node)), (end, Fate::Start(node))]
            }
            _ => vec![(begin, Fate::Cut(a, b)), (end, Fate::Heal(a, b))],
        };
        // Links find out after their silence, and come back after their back-off.
        world.troubles.push((begin, end + 20_000_000_000));
        fates.into_iter().for_each(|(at, fate)| world.fate(at, fate));
    }
    if dice.one_in(3) {
        for i in 0..dice.range(1, 5) {
            let (mount, at) = (cast.mounts[0].0.to_owned(), World::ms(dice.range(500, cast.ms)));
            world.fate(
                at,
                Fate::Title(cast.nodes[0], mount, format!("Title {i} — it's “the one”;")),
            );
        }
    }
}

fn add_listeners(world: &mut World, dice: &mut Dice, cast: &Cast) {
    for _ in 0..dice.range(1, 12) {
        let hops = dice.range(0, cast.nodes.len() as u64 - 1);
        let node = cast.nodes[hops as usize];
        let (mount, packing) = *dice.pick(&cast.mounts);
        let from = dice.range(0, cast.ms - 1000);
        let mut l = Listener::new(world.nodes[node].host, mount, packing, World::ms(from));
        l.chunk = if hops > 0 { CHUNK } else { 1 };
        l.http10 = dice.one_in(3);
        l.icy = dice.one_in(2);
        l.half_closes = dice.one_in(5);
        if dice.one_in(3) {
            l.pieces = (0..dice.range(1, 30)).map(|_| dice.size(20)).collect();
        }
        let way = Way {
            latency_ns: dice.range(100_000, 60_000_000),
            ..Way::LAN
        };
        match dice.range(0, 5) {
            0 => l.rate = dice.range(2_000, 100_000),
            1 => {
                let at = from + dice.range(0, 5_000);
                l.stalls
                    .push((World::ms(at), World::ms(at + dice.range(100, 20_000))));
            }
            _ => {}
        }
        l.window = *dice.pick(&[4 << 10, 64 << 10, 256 << 10]);
        // A small window carries no more than itself in a round trip.
        let fits = l.window as u64 * 1_000_000_000 / (2 * way.longest_ns()) > 1_000_000;
        l.patience_ns = if fits {
            patience_ns(world, node, hops, way)
        } else {
            0
        };
        let how = *dice.pick(&[Leave::Close, Leave::Reset, Leave::Vanish]);
        let until = if dice.one_in(2) {
            cast.ms
        } else {
            dice.range(from + 10, cast.ms)
        };
        l.leave = Some((World::ms(until), how));
        world.add_listener(l, way);
    }
}
