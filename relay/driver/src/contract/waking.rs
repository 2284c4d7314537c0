//! Sleep: not too long, not too short, and never through a ring of the bell.

use std::sync::mpsc;

use relay_seam::Input;

use super::*;

on_both_shores!(
    a_deadline_wakes_and_not_before,
    every_ring_is_heard,
    an_idle_driver_sleeps
);

fn a_deadline_wakes_and_not_before(backend: Backend) {
    const ROUNDS: usize = 20;
    let (tell, told) = mpsc::channel();
    let mut fired = 0;
    let stats = Stage::new(backend).play(
        move |desk, now, input| {
            let None = input else { return };
            match desk.deadline {
                Some(deadline) if now < deadline => return,
                Some(_) => fired += 1,
                None => {}
            }
            desk.deadline = Some(now + Duration::from_micros(2500));
            if fired == ROUNDS {
                desk.deadline = None;
                tell.send(()).unwrap();
                fired = 0;
                desk.done = true;
            }
        },
        |_| told.recv_timeout(Duration::from_secs(20)).unwrap(),
    );
    // One sleep for each, and a few for beginning and end: it did not spin.
    assert!(
        (ROUNDS as u64..3 * ROUNDS as u64).contains(&stats.sleeps),
        "{stats:?}"
    );
    assert!(stats.turns < 4 * ROUNDS as u64, "{stats:?}");
}

fn every_ring_is_heard(backend: Backend) {
    const MESSAGES: usize = 2000;
    let stage = Stage::new(backend);
    let bell = stage.setup.bell.clone();
    let mailbox = Arc::clone(&stage.mail);
    let (answer, answers) = mpsc::channel();
    stage.play(
        move |desk, _, input| {
            if matches!(input, Some(Input::Woken) | None) {
                let now = desk.mail.load(Ordering::SeqCst);
                if now != desk.seen {
                    desk.seen = now;
                    answer.send(now).unwrap();
                }
            }
        },
        |_| {
            for i in 1..=MESSAGES {
                mailbox.store(i, Ordering::SeqCst);
                bell.ring();
                // A lost ring is a hang, not a late answer.
                assert_eq!(answers.recv_timeout(Duration::from_secs(20)), Ok(i));
            }
        },
    );
}

fn an_idle_driver_sleeps(backend: Backend) {
    let stats = Stage::new(backend).play(|_, _, _| {}, |_| thread::sleep(Duration::from_millis(100)));
    assert!(stats.turns < 10, "{stats:?}");
}
