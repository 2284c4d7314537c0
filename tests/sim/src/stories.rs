//! Stories told on purpose, and a few by chance.

mod chains;
mod doors;
mod laggards;
mod sources;

use relay_station::Config;

use crate::listener::Listener;
use crate::pipe::Way;
use crate::plan::{config, patience_ns};
use crate::source::Source;
use crate::tape::Packing;
use crate::world::World;

/// A story with one node.
fn one_node(workers: usize, change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::new(1, false);
    let mut config = config("root", workers);
    change(&mut config);
    world.add_node("root", Way::LAN, config);
    world
}

/// A source at the first node, `rate` in bytes per second, its life in milliseconds.
fn source(world: &World, mount: &str, packing: Packing, rate: u64, life_ms: (u64, u64)) -> Source {
    Source::new(
        world.nodes[0].host,
        mount,
        packing,
        rate,
        World::ms(life_ms.0),
        World::ms(life_ms.1),
    )
}

/// A listener at a node that must be served, and not kept waiting.
fn listener(world: &World, node: usize, mount: &str, packing: Packing, from_ms: u64) -> Listener {
    let mut listener = Listener::new(world.nodes[node].host, mount, packing, World::ms(from_ms));
    listener.patience_ns = patience_ns(world, node, node as u64, Way::LAN);
    listener.served = true;
    listener
}

/// Lets a story end, judges it, and fails the test with what was wrong.
fn conclude(mut world: World, end_ms: u64) -> World {
    world.run_until(World::ms(end_ms));
    world.judge();
    assert!(world.wrongs.is_empty(), "{:#?}", world.wrongs);
    world
}

#[test]
fn a_source_and_its_listeners() {
    let mut world = one_node(2, |_| {});
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 100_000, (0, 5_000)),
        Way::LAN,
    );
    for i in 0..4 {
        let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 500 + 300 * i);
        l.whole = true;
        world.add_listener(l, Way::LAN);
    }
    conclude(world, 6_000);
}

#[test]
fn one_seed_is_one_story() {
    let first = crate::play(9, false);
    assert_eq!(first, crate::play(9, false));
    assert_ne!(first.hash, crate::play(10, false).hash);
}

#[test]
fn a_few_stories_by_chance() {
    for seed in [3, 7, 11, 14, 18, 19, 23, 26, 27, 34, 38] {
        let outcome = crate::play(seed, false);
        assert!(outcome.wrongs.is_empty(), "seed {seed}: {:#?}", outcome.wrongs);
    }
}

#[test]
fn idle_mounts_beside_a_hot_one_wait_no_longer() {
    beside_a_hot_one(4, 6_000);
}

#[test]
fn two_hundred_idle_mounts_beside_a_hot_one_wait_no_longer() {
    beside_a_hot_one(200, 2_500);
}

/// Mounts with little to say, and one with much; its listeners are to be alike, and theirs whole and not kept waiting.
fn beside_a_hot_one(quiet: usize, life_ms: u64) {
    let mut world = one_node(2, |c| {
        c.channels_max = quiet + 1;
        (c.ring_bytes, c.ring_max_bytes) = (64 << 10, 64 << 10);
    });
    world.add_source(
        source(&world, "/hot", Packing::Lines, 1_500_000, (0, life_ms)),
        Way::LAN,
    );
    for i in 0..quiet as u64 {
        let mount = format!("/quiet-{i}");
        let mut s = source(&world, &mount, Packing::Lines, 2_000, (0, life_ms));
        s.every_ns = 100_000_000;
        world.add_source(s, Way::LAN);
        let mut l = listener(&world, 0, &mount, Packing::Lines, 1_000 + i);
        l.whole = true;
        world.add_listener(l, Way::LAN);
    }
    for i in 0..12 {
        let mut l = listener(&world, 0, "/hot", Packing::Lines, 800 + i);
        l.window = 256 << 10;
        world.add_listener(l, Way::LAN);
    }
    let world = conclude(world, life_ms + 1_000);
    let hot: Vec<u64> = world.listeners[quiet..].iter().map(|l| l.order.matched).collect();
    let (least, most) = (hot.iter().min().unwrap(), hot.iter().max().unwrap());
    assert!(
        least * 10 > most * 9,
        "the same for all who came together: {hot:?}"
    );
}

#[test]
fn workers_with_sources_of_each_others_listeners_sleep() {
    for seed in 1..6 {
        let mut world = World::new(seed, false);
        world.add_node("root", Way::LAN, config("root", 3));
        for mount in ["/a", "/b", "/c"] {
            world.add_source(
                source(&world, mount, Packing::Lines, 20_000, (0, 3_000)),
                Way::LAN,
            );
            for i in 0..3 {
                world.add_listener(listener(&world, 0, mount, Packing::Lines, 700 + i), Way::LAN);
            }
        }
        conclude(world, 4_000);
    }
}
