//! Chains: root → repeater → repeater → peer, every byte, whatever breaks in between.

use std::time::Duration;

use totality_tests::{
    Backend, Form, Listener, Opts, PeerLite, Relay, Source, World, eventually, lacks, pass,
};

use crate::common::{KBPS, MOUNT};

on_both_backends! {
    all_bytes_reach_the_far_end
    a_killed_repeater_costs_no_byte
    a_restarted_root_begins_a_new_epoch
    a_cut_link_costs_no_byte
    the_next_upstream_takes_over
    loops_are_refused
}

const PATIENCE: Duration = Duration::from_secs(20);

fn all_bytes_reach_the_far_end(backend: Backend) {
    let world = World::new("chain");
    let [a, b, c, d] = ["root", "middle", "far", "home"].map(|name| world.host(name));
    let root = Relay::start_as(&a, "root", Opts::on(backend));
    let middle = Relay::start_as(&b, "middle", Opts::on(backend).upstream(root.at()));
    let far = Relay::start_as(&c, "far", Opts::on(backend).upstream(middle.at()));
    let source = Source::push(&a, &root, MOUNT, Form::Ts, 0, KBPS);
    let peer = PeerLite::start(&d, &far.url(MOUNT));
    let at_root = Listener::tune_in(&d, root.at(), MOUNT, Form::Ts);
    let at_far = Listener::tune_in(&d, far.at(), MOUNT, Form::Ts);
    let at_home = Listener::tune_in(&d, peer.at(), "/", Form::Ts);
    for listener in [&at_root, &at_far, &at_home] {
        listener.expect_sound();
    }
    pass(3000);
    let due = source.next();
    for listener in [&at_root, &at_far, &at_home] {
        assert!(
            listener.reaches(due, PATIENCE),
            "{due} units sent, {:?} came",
            listener.next()
        );
        listener.judge(totality_tests::Checker::expect_whole);
    }
}

fn a_killed_repeater_costs_no_byte(backend: Backend) {
    let world = World::new("killed");
    let [a, b, c, d] = ["root", "middle", "far", "home"].map(|name| world.host(name));
    let root = Relay::start_as(&a, "root", Opts::on(backend));
    let mut middle = Relay::start_as(&b, "middle", Opts::on(backend).upstream(root.at()));
    let far = Relay::start_as(&c, "far", Opts::on(backend).upstream(middle.at()));
    let source = Source::push(&a, &root, MOUNT, Form::Ts, 0, KBPS);
    let listener = Listener::tune_in(&d, far.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(2000);
    middle.kill9();
    pass(500);
    middle.start_again();
    pass(1000);
    let due = source.next();
    assert!(
        listener.reaches(due, PATIENCE),
        "{due} units sent, {:?} came",
        listener.next()
    );
    listener.judge(totality_tests::Checker::expect_whole);
}

fn a_restarted_root_begins_a_new_epoch(backend: Backend) {
    let world = World::new("epoch");
    let [a, b, d] = ["root", "far", "home"].map(|name| world.host(name));
    let mut root = Relay::start_as(&a, "root", Opts::on(backend));
    let far = Relay::start_as(&b, "far", Opts::on(backend).upstream(root.at()));
    let source = Source::push(&a, &root, MOUNT, Form::Ts, 0, KBPS);
    let listener = Listener::tune_in(&d, far.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(1500);
    root.kill9();
    let lost = source.stop();
    root.start_again();
    // The source goes on a little later in its stream, at a join point.
    let group = Form::Ts.group();
    let first = (lost / group + 10) * group;
    let source = Source::push(&a, &root, MOUNT, Form::Ts, first, KBPS);
    assert!(
        listener.reaches(first + 100, PATIENCE),
        "{} sent, {:?} came",
        source.next(),
        listener.next()
    );
    assert!(!listener.is_closed());
    listener.judge(|heard| {
        heard.expect_jumps(1);
        assert!(heard.jumps()[0].came >= first, "{:?}", heard.jumps());
    });
}

fn a_cut_link_costs_no_byte(backend: Backend) {
    if lacks("a cut link", true, &["ip"]) {
        return;
    }
    let world = World::new("cut");
    let [a, b, d] = ["root", "far", "home"].map(|name| world.host(name));
    let root = Relay::start_as(&a, "root", Opts::on(backend));
    let far = Relay::start_as(&b, "far", Opts::on(backend).upstream(root.at()));
    let source = Source::push(&a, &root, MOUNT, Form::Ts, 0, KBPS);
    let listener = Listener::tune_in(&d, far.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(1500);
    // The root's own cable: its source is on the same host.
    a.cut_link(3000);
    pass(1000);
    let due = source.next();
    assert!(
        listener.reaches(due, PATIENCE),
        "{due} units sent, {:?} came",
        listener.next()
    );
    listener.judge(totality_tests::Checker::expect_whole);
}

/// Chunk numbers are the same everywhere: the second in order goes on exactly where the first one was lost.
fn the_next_upstream_takes_over(backend: Backend) {
    let world = World::new("order");
    let [a, b, c, d, e] = ["root", "first", "second", "far", "home"].map(|name| world.host(name));
    let root = Relay::start_as(&a, "root", Opts::on(backend));
    let mut first = Relay::start_as(&b, "first", Opts::on(backend).upstream(root.at()));
    let mut second = Relay::start_as(&c, "second", Opts::on(backend).upstream(root.at()));
    let both = Opts::on(backend).upstream(first.at()).upstream(second.at());
    let far = Relay::start_as(&d, "far", both);
    let source = Source::push(&a, &root, MOUNT, Form::Ts, 0, KBPS);
    let listener = Listener::tune_in(&e, far.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(1500);
    assert_eq!(
        first.metric("totality_links"),
        1,
        "expected the first in order to be followed"
    );
    first.kill9();
    pass(1000);
    let due = source.next();
    assert!(
        listener.reaches(due, PATIENCE),
        "{due} units sent, {:?} came",
        listener.next()
    );
    assert_eq!(second.metric("totality_links"), 1);
    listener.judge(totality_tests::Checker::expect_whole);
    second.expect_alive();
}

fn loops_are_refused(backend: Backend) {
    let world = World::new("loop");
    let [a, b, home] = ["a", "b", "home"].map(|name| world.host(name));
    let (pa, pb) = (a.free_port(), b.free_port());
    let at_b = std::net::SocketAddr::new(b.ip(), pb);
    let mut relay_a = Relay::start_as(
        &a,
        "a",
        Opts::on(backend)
            .port(pa)
            .upstream(at_b)
            .set("limits.patience", "2s"),
    );
    let mut relay_b = Relay::start_as(
        &b,
        "b",
        Opts::on(backend)
            .port(pb)
            .upstream(relay_a.at())
            .set("limits.patience", "2s"),
    );
    let asking = Listener::tune_in(&home, relay_a.at(), MOUNT, Form::Ts);
    let let_go = eventually(PATIENCE, || asking.is_closed());
    assert!(
        let_go && asking.units() == 0,
        "expected no stream from a loop, got {:?}",
        asking.head()
    );
    relay_a.expect_alive();
    relay_b.expect_alive();
    // The loop does no harm to a mount that one of them has, once it is asked for anew.
    let source = Source::push(&a, &relay_a, MOUNT, Form::Ts, 0, KBPS);
    let mut listener = Listener::tune_in(&home, relay_b.at(), MOUNT, Form::Ts);
    let served = eventually(PATIENCE, || {
        if listener.is_closed() {
            listener = Listener::tune_in(&home, relay_b.at(), MOUNT, Form::Ts);
        }
        listener.units() > 0
    });
    assert!(served, "{:?}", listener.head());
    let due = source.next() + 50;
    assert!(listener.reaches(due, PATIENCE), "{:?}", listener.next());
    listener.judge(totality_tests::Checker::expect_whole);
}
