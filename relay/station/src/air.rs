//! *Choose*: who is on the air. What `relay-source`'s rule says of a mount, done to its channel.

use std::sync::Arc;

use relay_seam::Now;
use relay_source::{OnAir, Transition};

use crate::channel::{Channel, State};
use crate::house::House;
use crate::orders::{Event, Level};

/// A channel is fed (again).
pub(crate) fn up(house: &House, worker: usize, channel: &Arc<Channel>) {
    if let Some(transition) = channel.on_air(|rule| rule.source_up()) {
        turn(house, worker, channel, transition, None);
    }
    // A source that took over while the former one was still on the air changes nothing for the rule.
    channel.change(|about| about.state = State::OnAir);
    house.ring_all();
}

/// Whatever fed a channel has gone.
pub(crate) fn gone(house: &House, worker: usize, now: Now, channel: &Arc<Channel>) {
    turns(house, worker, channel, |rule| rule.source_gone(now));
    if channel.run().is_none() {
        // It never said a byte: there is nobody to hold.
        house.directory.remove(channel);
    }
    house.ring_all();
}

/// Time has passed for a channel that is not fed. Answers whether there is anything to wait for.
pub(crate) fn on_time(house: &House, worker: usize, now: Now, channel: &Arc<Channel>) -> bool {
    turns(house, worker, channel, |rule| rule.on_time(now));
    match channel.state() {
        State::Holding => true,
        State::Fallback(_) => !channel.is_claimed(),
        State::Idle | State::OnAir | State::Ended => false,
    }
}

/// Tells the rule whether there is a fallback, asks it, and does what it says.
fn turns(
    house: &House,
    worker: usize,
    channel: &Arc<Channel>,
    ask: impl FnOnce(&mut OnAir) -> Option<Transition>,
) {
    let fallback = house.config.source_at(&channel.mount).fallback.as_deref();
    let other = fallback.and_then(|mount| house.directory.get(mount));
    // A fallback that blinks itself is waited for like any other mount.
    let available = other.is_some_and(|c| matches!(c.state(), State::OnAir | State::Holding));
    let transitions = channel.on_air(|rule| [rule.fallback(available), ask(rule)]);
    for transition in transitions.into_iter().flatten() {
        turn(house, worker, channel, transition, fallback);
    }
}

fn turn(
    house: &House,
    worker: usize,
    channel: &Arc<Channel>,
    transition: Transition,
    fallback: Option<&str>,
) {
    let mount = &channel.mount;
    let (state, text) = match (transition, fallback) {
        (Transition::Hold { .. }, _) => (State::Holding, format!("{mount}: its listeners are held")),
        (Transition::ToFallback, Some(other)) => (
            State::Fallback(other.to_owned()),
            format!("{mount}: nobody is back; its listeners hear {other}"),
        ),
        (Transition::End | Transition::ToFallback, _) => {
            (State::Ended, format!("{mount}: nobody is back; it is over"))
        }
        (Transition::Start, _) => (
            State::OnAir,
            format!("{mount} is on the air, from {}", channel.about().from),
        ),
        (Transition::Resume, _) => (
            State::OnAir,
            format!("{mount} is back on the air, from {}", channel.about().from),
        ),
        (Transition::Return, _) => (
            State::OnAir,
            format!("{mount} is back on the air; its listeners come home from the fallback"),
        ),
    };
    let over = state == State::Ended;
    channel.change(|about| about.state = state);
    if over && !channel.is_claimed() {
        house.directory.remove(channel);
    }
    house.tell(
        worker,
        Event::Note {
            level: Level::Info,
            text,
        },
    );
    house.ring_all();
}
