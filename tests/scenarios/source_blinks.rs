//! Sources that go and come back, and what their listeners hear meanwhile.

use std::time::Duration;

use totality_tests::{
    Backend, Checker, Form, Framing, Listener, Opts, Relay, Source, World, eventually, pass,
};

use crate::common::{KBPS, MOUNT};

on_both_backends! {
    listeners_survive_a_blink
    the_hold_runs_out
    a_fallback_takes_over_and_gives_back
    every_framing_is_taken
}

const PATIENCE: Duration = Duration::from_secs(15);

fn listeners_survive_a_blink(backend: Backend) {
    let world = World::new("blink");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend));
    let source = Source::push(&host, &relay, MOUNT, Form::Ts, 0, KBPS);
    let listener = Listener::tune_in(&host, relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(800);
    let last = source.stop();
    pass(1000);
    assert!(
        !listener.is_closed(),
        "expected the listener to be kept while the source is waited for"
    );
    // It returns in the middle of a group: listeners go on at the next join point.
    let group = Form::Ts.group();
    let back = (last / group + 5) * group + 17;
    let source = Source::push(&host, &relay, MOUNT, Form::Ts, back, KBPS);
    assert!(
        listener.reaches(back + 3 * group, PATIENCE),
        "{} sent, {:?} came",
        source.next(),
        listener.next()
    );
    assert!(!listener.is_closed());
    listener.judge(|heard| {
        heard.expect_jumps(1);
        let jump = heard.jumps()[0];
        assert_eq!(jump.due, last, "the first source's last units were lost");
        assert_eq!(
            jump.came % group,
            2,
            "expected to go on at a random access point, got unit {}",
            jump.came
        );
    });
}

fn the_hold_runs_out(backend: Backend) {
    let world = World::new("hold");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend).set("source.hold", "1s"));
    let source = Source::push(&host, &relay, MOUNT, Form::Ts, 0, KBPS);
    let listener = Listener::tune_in(&host, relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    let last = source.stop();
    assert!(
        eventually(PATIENCE, || listener.is_closed()),
        "expected the listener to be let go after the hold"
    );
    assert_eq!(
        listener.next(),
        Some(last),
        "expected all that there was before the end"
    );
    listener.judge(Checker::expect_whole);
}

fn a_fallback_takes_over_and_gives_back(backend: Backend) {
    let world = World::new("fallback");
    let host = world.host("root");
    let file =
        format!("[source]\nhold = \"1s\"\n[mounts.\"{MOUNT}\"]\nfallback = \"/spare.ts\"\nhold = \"1s\"\n");
    let relay = Relay::start(&host, Opts::on(backend).file(&file));
    let source = Source::push(&host, &relay, MOUNT, Form::Ts, 0, KBPS);
    let group = Form::Ts.group();
    // Far away in its numbers, so that it is seen which one is heard.
    let far = group << 20;
    let spare = Source::push(&host, &relay, "/spare.ts", Form::Ts, far, KBPS);
    let listener = Listener::tune_in(&host, relay.at(), MOUNT, Form::Ts);
    listener.expect_sound();
    pass(500);
    source.stop();
    assert!(
        listener.reaches(far, PATIENCE),
        "expected the fallback to be heard, {:?} is due",
        listener.next()
    );
    assert!(spare.next() > far);
    let home = Source::push(&host, &relay, MOUNT, Form::Ts, far << 1, KBPS);
    assert!(
        listener.reaches(far << 1, PATIENCE),
        "expected to be moved home, {:?} is due",
        listener.next()
    );
    assert!(home.next() > far << 1 && !listener.is_closed());
    listener.judge(|heard| heard.expect_jumps(2));
}

fn every_framing_is_taken(backend: Backend) {
    let world = World::new("framing");
    let host = world.host("root");
    let relay = Relay::start(&host, Opts::on(backend));
    for (i, framing) in [Framing::Put, Framing::Chunked, Framing::Source]
        .into_iter()
        .enumerate()
    {
        for form in [Form::Ts, Form::Mp3] {
            let mount = format!("/{form:?}-{i}");
            let source = Source::push_as(&host, relay.at(), &mount, form, 0, KBPS, framing);
            let listener = Listener::tune_in(&host, relay.at(), &mount, form);
            listener.expect_sound();
            let due = source.next();
            assert!(
                listener.reaches(due, PATIENCE),
                "{framing:?}: {due} sent, {:?} came",
                listener.next()
            );
            listener.judge(Checker::expect_whole);
        }
    }
}
