//! Sources that blink, vanish, crawl, or burst.

use std::time::Duration;

use super::{conclude, listener, one_node, source};
use crate::listener::Ending;
use crate::pipe::Way;
use crate::source::{Act, Exit, Turn};
use crate::tape::Packing;
use crate::world::World;

fn go(at_ms: u64, exit: Exit, back_ms: Option<u64>) -> Turn {
    Turn {
        at_ns: World::ms(at_ms),
        act: Act::Go(exit, back_ms.map(|ms| ms * 1_000_000)),
    }
}

#[test]
fn a_source_that_blinks_keeps_its_listeners() {
    for (exit, chunked) in [
        (Exit::Finish, false),
        (Exit::Finish, true),
        (Exit::Reset, false),
        (Exit::Reset, true),
    ] {
        let mut world = one_node(2, |_| {});
        let mut s = source(&world, "/a.ts", Packing::Ts, 100_000, (0, 8_000));
        s.chunked = chunked;
        s.script = vec![go(2_000, exit, Some(1_500)), go(5_000, exit, Some(10))];
        world.add_source(s, Way::LAN);
        for i in 0..3 {
            world.add_listener(listener(&world, 0, "/a.ts", Packing::Ts, 500 + 100 * i), Way::LAN);
        }
        world.run_until(World::ms(7_900));
        for l in &world.listeners {
            assert_eq!(
                (l.order.lives.as_slice(), l.order.jumps, l.ending),
                ([1, 2, 3].as_slice(), 0, Ending::Open)
            );
        }
        conclude(world, 8_500);
    }
}

#[test]
fn a_source_that_falls_silent_is_cut_and_may_come_back() {
    let mut world = one_node(2, |c| c.source.timeout = Duration::from_secs(2));
    let mut s = source(&world, "/a.ts", Packing::Ts, 100_000, (0, 9_000));
    s.script = vec![go(2_000, Exit::Silence, Some(3_000))];
    world.add_source(s, Way::LAN);
    world.add_listener(listener(&world, 0, "/a.ts", Packing::Ts, 500), Way::LAN);
    world.run_until(World::ms(8_900));
    assert_eq!(world.nodes[0].count("source_timeouts"), 1);
    assert_eq!(world.listeners[0].order.lives, [1, 2]);
    conclude(world, 9_500);
}

#[test]
fn when_the_hold_is_over_the_fallback_is_heard_and_left_again() {
    let mut world = one_node(2, |c| {
        c.source.hold = Duration::from_secs(1);
        let fallback = Some("/fallback.ts".to_owned());
        let source = relay_source::Config {
            fallback,
            ..c.source.clone()
        };
        c.mounts.insert("/a.ts".to_owned(), source);
    });
    let mut s = source(&world, "/a.ts", Packing::Ts, 60_000, (0, 12_000));
    s.script = vec![go(3_000, Exit::Finish, Some(4_000))];
    world.add_source(s, Way::LAN);
    world.add_source(
        source(&world, "/fallback.ts", Packing::Ts, 60_000, (0, 12_000)),
        Way::LAN,
    );
    for i in 0..3 {
        world.add_listener(listener(&world, 0, "/a.ts", Packing::Ts, 500 + 100 * i), Way::LAN);
    }
    world.run_until(World::ms(11_900));
    let fallback = (1 << 32) + 1;
    for l in &world.listeners {
        assert_eq!(
            (l.order.lives.as_slice(), l.ending),
            ([1, fallback, 2].as_slice(), Ending::Open)
        );
    }
    conclude(world, 13_000);
}

#[test]
fn when_the_hold_is_over_and_there_is_no_fallback_listeners_are_let_go() {
    let mut world = one_node(2, |c| c.source.hold = Duration::from_secs(1));
    world.add_source(source(&world, "/a.ts", Packing::Ts, 60_000, (0, 3_000)), Way::LAN);
    for icy in [false, true] {
        let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 500);
        (l.icy, l.whole) = (icy, true);
        world.add_listener(l, Way::LAN);
    }
    let world = conclude(world, 6_000);
    assert!(world.listeners.iter().all(|l| l.ending == Ending::Finished));
}

#[test]
fn a_trickle_is_cut_and_a_burst_reaches_everybody() {
    let mut world = one_node(2, |c| {
        c.source.min_rate = 500;
        c.source.rate_window = Duration::from_secs(4);
    });
    let mut s = source(&world, "/a.ts", Packing::Ts, 60_000, (0, 6_000));
    s.script = vec![Turn {
        at_ns: World::ms(2_000),
        act: Act::Burst(400_000),
    }];
    world.add_source(s, Way::LAN);
    let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 500);
    l.whole = true;
    world.add_listener(l, Way::LAN);
    let mut trickle = source(&world, "/b", Packing::Lines, 60, (0, 20_000));
    (trickle.every_ns, trickle.retry_ns) = (200_000_000, u64::MAX / 4);
    world.add_source(trickle, Way::LAN);
    let world = conclude(world, 21_000);
    assert_eq!(world.sources[1].lives, 1);
}

#[test]
fn a_second_source_is_refused_and_disturbs_nobody() {
    let mut world = one_node(2, |_| {});
    world.add_source(source(&world, "/a.ts", Packing::Ts, 60_000, (0, 5_000)), Way::LAN);
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 60_000, (1_000, 4_000)),
        Way::LAN,
    );
    let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 500);
    l.whole = true;
    world.add_listener(l, Way::LAN);
    let world = conclude(world, 6_000);
    assert!(!world.sources[1].statuses.is_empty());
    assert!(
        world.sources[1].statuses.iter().all(|status| *status == 409),
        "{:?}",
        world.sources[1].statuses
    );
    assert_eq!(world.listeners[0].order.lives, [1]);
}
