//! Stories told on purpose.

use crate::listener::Listener;
use crate::pipe::Way;
use crate::plan::{config, patience_ns};
use crate::source::Source;
use crate::tape::Packing;
use crate::world::World;

/// Lets a story end, judges it, and fails the test with what was wrong.
fn conclude(mut world: World, end_ns: u64) -> World {
    world.run_until(end_ns);
    world.judge();
    assert!(world.wrongs.is_empty(), "{:#?}", world.wrongs);
    world
}

#[test]
fn a_source_and_its_listeners() {
    let mut world = World::new(1, false);
    let root = world.add_node("root", Way::LAN, config("root", 2));
    let host = world.nodes[root].host;
    world.add_source(
        Source::new(
            host,
            "/a.ts",
            Packing::Ts,
            100_000,
            World::ms(0),
            World::ms(5_000),
        ),
        Way::LAN,
    );
    for i in 0..4 {
        let mut listener = Listener::new(host, "/a.ts", Packing::Ts, World::ms(500 + 300 * i));
        listener.patience_ns = patience_ns(&world, root, 0, Way::LAN);
        (listener.served, listener.whole) = (true, true);
        world.add_listener(listener, Way::LAN);
    }
    conclude(world, World::ms(6_000));
}

#[test]
fn one_seed_is_one_story() {
    for seed in [1, 2] {
        assert_eq!(crate::play(seed, false), crate::play(seed, false));
    }
    assert_ne!(crate::play(1, false).hash, crate::play(2, false).hash);
}
