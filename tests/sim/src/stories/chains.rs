//! Nodes behind nodes: what arrives far away is what was sent, once.

use std::time::Duration;

use super::{conclude, listener, source};
use crate::pipe::Way;
use crate::plan::{CHUNK, config, upstream};
use crate::source::{Act, Exit, Turn};
use crate::tape::Packing;
use crate::world::{Fate, World};

/// A root, a repeater behind it and one behind that, all carrying one mount.
fn chain(workers: usize) -> World {
    let mut world = World::new(5, false);
    for (i, name) in ["root", "near", "far"].iter().enumerate() {
        let mut config = config(name, workers);
        config.max_batch_delay = Duration::from_millis(20);
        if i > 0 {
            config.upstreams = vec![upstream(["root", "near"][i - 1], Some("/a.ts"))];
        }
        world.add_node(name, Way::LAN, config);
    }
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 60_000, (0, 15_000)),
        Way::LAN,
    );
    for node in 0..3 {
        for i in 0..2 {
            let mut l = listener(&world, node, "/a.ts", Packing::Ts, 2_000 + 100 * i);
            (l.whole, l.chunk) = (true, if node > 0 { CHUNK } else { 1 });
            world.add_listener(l, Way::LAN);
        }
    }
    world
}

/// Everybody has heard the same life to its end.
fn to_the_end(world: &World, life: u64) {
    let end = world.lives[&life].written.last().unwrap().1;
    for (i, l) in world.listeners.iter().enumerate() {
        let place = l.order.next().unwrap();
        assert_eq!((place.life, place.at), (life, end), "listener {i}");
    }
}

#[test]
fn every_byte_arrives_once_behind_two_repeaters() {
    let world = chain(2);
    to_the_end(&conclude(world, 17_000), 1);
}

#[test]
fn a_cut_link_and_a_severed_one_lose_nothing() {
    let mut world = chain(2);
    let [root, near, far] = [0, 1, 2].map(|n| world.nodes[n].host);
    world.fate(World::ms(4_000), Fate::Cut(root, near));
    world.fate(World::ms(7_000), Fate::Heal(root, near));
    world.fate(World::ms(10_000), Fate::Sever(near, far));
    world.troubles.push((World::ms(4_000), World::ms(15_000)));
    to_the_end(&conclude(world, 17_000), 1);
}

#[test]
fn a_long_cut_is_noticed_and_made_good_from_the_ring() {
    let mut world = chain(1);
    let [root, near] = [0, 1].map(|n| world.nodes[n].host);
    world.fate(World::ms(4_000), Fate::Cut(root, near));
    world.fate(World::ms(11_500), Fate::Heal(root, near));
    world.troubles.push((World::ms(4_000), World::ms(15_000)));
    to_the_end(&conclude(world, 18_000), 1);
}

#[test]
fn a_repeater_that_is_killed_loses_nothing_for_the_one_behind_it() {
    let mut world = chain(2);
    world
        .listeners
        .iter_mut()
        .filter(|l| l.chunk > 1)
        .for_each(|l| l.served = false);
    for l in [2, 3] {
        world.listeners[l].whole = false;
    }
    world.fate(World::ms(5_000), Fate::Kill(1));
    world.fate(World::ms(6_500), Fate::Start(1));
    world.troubles.push((World::ms(5_000), World::ms(15_000)));
    let world = conclude(world, 17_000);
    let end = world.lives[&1].written.last().unwrap().1;
    for l in [4, 5] {
        assert_eq!(world.listeners[l].order.next().unwrap().at, end);
    }
}

#[test]
fn a_root_that_starts_again_is_a_new_epoch_for_everybody() {
    let mut world = chain(2);
    for l in &mut world.listeners {
        l.whole = false;
    }
    world.fate(World::ms(5_000), Fate::Kill(0));
    world.fate(World::ms(6_000), Fate::Start(0));
    world.troubles.push((World::ms(5_000), World::ms(15_000)));
    let world = conclude(world, 17_000);
    for l in [2, 3, 4, 5] {
        assert_eq!(
            (
                world.listeners[l].order.lives.as_slice(),
                world.listeners[l].order.jumps
            ),
            ([1, 2].as_slice(), 0)
        );
    }
    assert!(
        world.nodes[2]
            .log
            .iter()
            .any(|e| format!("{e:?}").contains("/a.ts"))
    );
}

#[test]
fn a_source_that_blinks_is_followed_down_the_chain() {
    let mut world = chain(2);
    let turn = |at_ms, back_ms: u64| Turn {
        at_ns: World::ms(at_ms),
        act: Act::Go(Exit::Finish, Some(back_ms * 1_000_000)),
    };
    world.sources[0].script = vec![turn(5_000, 500), turn(8_000, 2_000)];
    let world = conclude(world, 17_000);
    for l in &world.listeners {
        assert_eq!(
            (l.order.lives.as_slice(), l.order.jumps),
            ([1, 2, 3].as_slice(), 0)
        );
    }
    to_the_end(&world, 3);
}
