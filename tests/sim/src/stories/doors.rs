//! Heads in pieces, and connections that close while bytes are under way.

use super::{conclude, listener, one_node, source};
use crate::listener::{Ending, Leave};
use crate::pipe::Way;
use crate::tape::Packing;
use crate::world::World;

#[test]
fn a_head_in_two_pieces_is_a_head_wherever_it_is_cut() {
    let mut world = one_node(2, |_| {});
    world.add_source(source(&world, "/a", Packing::Lines, 5_000, (0, 4_000)), Way::LAN);
    for cut in 1..48 {
        let mut l = listener(&world, 0, "/a", Packing::Lines, 1_000 + cut as u64);
        l.pieces = vec![cut];
        l.half_closes = cut % 2 == 0;
        world.add_listener(l, Way::LAN);
    }
    let mut bytes = listener(&world, 0, "/a", Packing::Lines, 1_000);
    bytes.pieces = vec![1; 200];
    world.add_listener(bytes, Way::LAN);
    let world = conclude(world, 5_000);
    assert!(world.listeners.iter().all(|l| l.status == Some(200)));
}

#[test]
fn leaving_at_any_moment_leaves_nothing_behind() {
    let mut world = one_node(3, |_| {});
    world.add_source(
        source(&world, "/a.ts", Packing::Ts, 150_000, (0, 4_000)),
        Way::LAN,
    );
    let way = Way {
        latency_ns: 2_000_000,
        jitter_ns: 3_000_000,
        bandwidth: 400_000,
    };
    for i in 0..90u64 {
        let how = [Leave::Close, Leave::Reset, Leave::Close][i as usize % 3];
        let mut l = listener(&world, 0, "/a.ts", Packing::Ts, 900 + i);
        (l.served, l.patience_ns, l.window) = (false, 0, 8 << 10);
        l.leave = Some((World::ms(900 + i) + i * i * 150_000, how));
        world.add_listener(l, way);
    }
    let mut steady = listener(&world, 0, "/a.ts", Packing::Ts, 800);
    steady.whole = true;
    world.add_listener(steady, Way::LAN);
    conclude(world, 5_000);
}

#[test]
fn stopping_in_the_middle_lets_everybody_go() {
    for at_ms in [300, 1_000, 1_777] {
        let mut world = one_node(2, |_| {});
        world.add_source(
            source(&world, "/a.mp3", Packing::Mp3, 100_000, (0, 2_000)),
            Way::LAN,
        );
        for i in 0..6 {
            let mut l = listener(&world, 0, "/a.mp3", Packing::Mp3, 200 + 50 * i);
            (l.icy, l.served) = (i % 2 == 0, false);
            world.add_listener(l, Way::LAN);
        }
        conclude(world, at_ms);
    }
}

#[test]
fn mounts_that_are_not_there_are_404_and_leave_nothing_behind() {
    let mut world = one_node(2, |_| {});
    for i in 0..20 {
        let mut l = listener(&world, 0, "/nobody.ts", Packing::Ts, i * 10);
        l.served = false;
        world.add_listener(l, Way::LAN);
    }
    let world = conclude(world, 3_000);
    assert!(world.listeners.iter().all(|l| l.status == Some(404)));
}

#[test]
fn what_is_not_the_data_planes_is_handed_over() {
    let mut world = one_node(2, |_| {});
    for i in 0..6 {
        let mut l = listener(&world, 0, "/status-json.xsl", Packing::Lines, 10 * i);
        l.served = false;
        l.pieces = vec![1 + 9 * i as usize];
        world.add_listener(l, Way::LAN);
    }
    let world = conclude(world, 2_000);
    // So answers the control plane of this world.
    assert!(world.listeners.iter().all(|l| l.status == Some(501)));
}

#[test]
fn a_head_that_does_not_end_is_cut_off() {
    let mut world = one_node(1, |c| c.head_timeout = std::time::Duration::from_secs(2));
    let mut l = listener(&world, 0, "/a", Packing::Lines, 0);
    l.served = false;
    // One byte every three milliseconds, and then none for ever.
    l.pieces = vec![1; 20];
    l.stops_asking = true;
    world.add_listener(l, Way::LAN);
    world.run_until(World::ms(3_000));
    assert_eq!(
        (world.listeners[0].ending, world.nodes[0].count("heads_timed_out")),
        (Ending::Reset, 1)
    );
    conclude(world, 4_000);
}
