//! Listeners that do not keep up.

use std::time::Duration;

use super::{conclude, listener, one_node, source};
use crate::listener::{Ending, Leave};
use crate::pipe::Way;
use crate::tape::Packing;
use crate::world::{Fate, World};

/// A ring of 256 KiB, and a kernel that takes little: at 200 kB/s, who stalls for a second and a half has lost the
/// place once. (Who takes nothing is judged all the same: one window, one jump.)
fn small(c: &mut relay_station::Config) {
    (c.ring_bytes, c.ring_max_bytes) = (256 << 10, 256 << 10);
    c.listener.send_buffer = 16 << 10;
}

#[test]
fn a_laggard_jumps_and_the_third_jump_closes() {
    let mut world = one_node(2, small);
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 200_000, (0, 16_000)),
        Way::LAN,
    );
    let mut lag = listener(&world, 0, "/a.ts", Packing::Ts, 1_000);
    lag.window = 16 << 10;
    lag.stalls = [2_000, 6_000, 10_000]
        .map(|ms| (World::ms(ms), World::ms(ms + 1_600)))
        .to_vec();
    world.add_listener(lag, Way::LAN);
    let mut steady = listener(&world, 0, "/a.ts", Packing::Ts, 1_000);
    steady.whole = true;
    world.add_listener(steady, Way::LAN);
    let world = conclude(world, 17_000);
    assert_eq!(
        (world.listeners[0].order.jumps, world.listeners[0].ending),
        (2, Ending::Reset)
    );
    assert_eq!(world.listeners[0].order.torn, 0);
}

#[test]
fn a_stall_shorter_than_the_window_loses_nothing() {
    let mut world = one_node(1, small);
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 100_000, (0, 12_000)),
        Way::LAN,
    );
    let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 1_000);
    (l.whole, l.window) = (true, 16 << 10);
    l.stalls = (1..6)
        .map(|i| (World::ms(i * 2_000), World::ms(i * 2_000 + 900)))
        .collect();
    world.add_listener(l, Way::LAN);
    conclude(world, 13_000);
}

#[test]
fn a_laggard_with_metadata_stays_in_phase() {
    let mut world = one_node(2, small);
    world.add_source(
        source(&world, "/a.mp3", Packing::Mp3, 200_000, (0, 20_000)),
        Way::LAN,
    );
    for i in 0..4 {
        world.fate(
            World::ms(1_500 + 3_000 * i),
            Fate::Title(0, "/a.mp3".to_owned(), format!("it's no. {i};")),
        );
    }
    let mut l = listener(&world, 0, "/a.mp3", Packing::Mp3, 1_000);
    (l.icy, l.window) = (true, 16 << 10);
    l.stalls = [3_000, 8_000]
        .map(|ms| (World::ms(ms), World::ms(ms + 1_600)))
        .to_vec();
    world.add_listener(l, Way::LAN);
    let world = conclude(world, 21_000);
    let l = &world.listeners[0];
    let unlace = l.unlace.as_ref().unwrap();
    assert_eq!(l.order.jumps, 2);
    assert!(
        l.order.matched > 2_000_000 && unlace.blocks > 120,
        "{} bytes, {} blocks",
        l.order.matched,
        unlace.blocks
    );
    assert_eq!(unlace.titles.last().map(String::as_str), Some("it's no. 3;"));
}

#[test]
fn metadata_stays_in_phase_when_the_source_blinks() {
    let mut world = one_node(2, |_| {});
    let mut s = source(&world, "/a.mp3", Packing::Mp3, 50_000, (0, 9_000));
    s.script = [2_000, 4_100, 6_300]
        .map(|ms| crate::source::Turn {
            at_ns: World::ms(ms),
            act: crate::source::Act::Go(crate::source::Exit::Finish, Some(700_000_000)),
        })
        .to_vec();
    world.add_source(s, Way::LAN);
    for i in 0..4 {
        let mut l = listener(&world, 0, "/a.mp3", Packing::Mp3, 600 + 333 * i);
        l.icy = true;
        world.add_listener(l, Way::LAN);
    }
    world.run_until(World::ms(8_900));
    assert!(world.listeners.iter().all(|l| l.order.lives == [1, 2, 3, 4]));
    conclude(world, 9_500);
}

#[test]
fn who_takes_nothing_is_dead_after_a_while() {
    let mut world = one_node(2, |c| c.listener.dead_after = Duration::from_secs(3));
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 50_000, (0, 10_000)),
        Way::LAN,
    );
    let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 1_000);
    l.window = 4 << 10;
    l.leave = Some((World::ms(2_000), Leave::Vanish));
    world.add_listener(l, Way::LAN);
    world.run_until(World::ms(9_000));
    assert_eq!(world.nodes[0].count("listeners"), 0);
    conclude(world, 11_000);
}
