//! Who is on the air for one mount: its source, the wait for it, or the fallback.
//!
//! | from | source up | source gone | hold is over | fallback comes | fallback goes |
//! |---|---|---|---|---|---|
//! | Off | OnAir | | | Fallback | |
//! | OnAir | | Holding | | | |
//! | Holding | OnAir | | Fallback or Off | | |
//! | Fallback | OnAir | | | | Off |

use std::time::Duration;

use relay_seam::Now;

/// What the listeners of a mount hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The mount's own source.
    OnAir,
    /// Nothing for a moment; they are kept, because the source may be back at once.
    Holding {
        /// Until then.
        until: Now,
    },
    /// The fallback mount.
    Fallback,
    /// Nothing: there is no stream.
    Off,
}

/// What is to be done when the state changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The stream begins.
    Start,
    /// The source is gone: keep the listeners and wait.
    Hold {
        /// Until then.
        until: Now,
    },
    /// The source came back in time: the listeners go on.
    Resume,
    /// Move the listeners to the fallback mount.
    ToFallback,
    /// The source came back: move the listeners home from the fallback mount.
    Return,
    /// The stream is over: let the listeners go.
    End,
}

/// The rule for one mount.
#[derive(Clone, Debug)]
pub struct OnAir {
    hold: Duration,
    fallback_available: bool,
    state: State,
}

impl OnAir {
    /// A mount that is off; a source that goes is waited for during `hold`.
    pub fn new(hold: Duration) -> Self {
        Self {
            hold,
            fallback_available: false,
            state: State::Off,
        }
    }

    /// What listeners hear.
    pub fn state(&self) -> State {
        self.state
    }

    /// A source delivers. From a second one while the first is on the air nothing follows: the mount is taken, and
    /// the caller has refused it.
    pub fn source_up(&mut self) -> Option<Transition> {
        let transition = match self.state {
            State::OnAir => return None,
            State::Holding { .. } => Transition::Resume,
            State::Fallback => Transition::Return,
            State::Off => Transition::Start,
        };
        self.state = State::OnAir;
        Some(transition)
    }

    /// The source is gone, for whatever reason.
    pub fn source_gone(&mut self, now: Now) -> Option<Transition> {
        if self.state != State::OnAir {
            return None;
        }
        let until = now + self.hold;
        self.state = State::Holding { until };
        // A hold of nothing is over at once.
        self.on_time(now).or(Some(Transition::Hold { until }))
    }

    /// The fallback mount has, or no longer has, something to hear. `false` as well where none is configured.
    pub fn fallback(&mut self, available: bool) -> Option<Transition> {
        self.fallback_available = available;
        match self.state {
            State::Off | State::Fallback => self.rest(),
            State::OnAir | State::Holding { .. } => None,
        }
    }

    /// When to call [`OnAir::on_time`].
    pub fn deadline(&self) -> Option<Now> {
        match self.state {
            State::Holding { until } => Some(until),
            _ => None,
        }
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Now) -> Option<Transition> {
        match self.state {
            State::Holding { until } if now >= until => self.rest(),
            _ => None,
        }
    }

    /// There is no source and nothing to wait for: the fallback, or nothing.
    fn rest(&mut self) -> Option<Transition> {
        let rest = if self.fallback_available {
            State::Fallback
        } else {
            State::Off
        };
        let transition = if self.fallback_available {
            Transition::ToFallback
        } else {
            Transition::End
        };
        (std::mem::replace(&mut self.state, rest) != rest).then_some(transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOLD: Duration = Duration::from_secs(10);

    fn at(s: u64) -> Now {
        Now::new(s * 1_000_000_000, 0)
    }

    fn on_air() -> OnAir {
        let mut rule = OnAir::new(HOLD);
        assert_eq!(rule.source_up(), Some(Transition::Start));
        rule
    }

    #[test]
    fn a_blink_keeps_the_listeners() {
        let mut rule = on_air();
        assert_eq!(rule.source_gone(at(5)), Some(Transition::Hold { until: at(15) }));
        assert_eq!((rule.deadline(), rule.on_time(at(14))), (Some(at(15)), None));
        assert_eq!(rule.source_up(), Some(Transition::Resume));
        assert_eq!((rule.state(), rule.deadline()), (State::OnAir, None));
    }

    #[test]
    fn after_the_hold_it_ends_or_falls_back_and_returns() {
        let mut rule = on_air();
        rule.source_gone(at(0));
        assert_eq!(rule.on_time(at(10)), Some(Transition::End));

        let mut rule = on_air();
        assert_eq!(rule.fallback(true), None);
        rule.source_gone(at(0));
        assert_eq!(rule.on_time(at(10)), Some(Transition::ToFallback));
        assert_eq!(rule.source_up(), Some(Transition::Return));
        assert_eq!(rule.state(), State::OnAir);
    }

    #[test]
    fn a_fallback_serves_a_mount_that_never_had_a_source() {
        let mut rule = OnAir::new(HOLD);
        assert_eq!(rule.fallback(false), None);
        assert_eq!(rule.fallback(true), Some(Transition::ToFallback));
        assert_eq!(rule.fallback(true), None);
        assert_eq!(rule.fallback(false), Some(Transition::End));
        assert_eq!(rule.state(), State::Off);
    }

    #[test]
    fn no_hold_means_at_once() {
        let mut rule = OnAir::new(Duration::ZERO);
        rule.source_up();
        assert_eq!(rule.source_gone(at(3)), Some(Transition::End));
        assert_eq!((rule.source_gone(at(3)), rule.state()), (None, State::Off));
    }

    proptest! {
        /// Transitions say exactly what changed, and nobody is held for longer than the hold.
        #[test]
        fn states_and_transitions_agree(events in prop::collection::vec((0u8..5, 0u64..8), 0..60)) {
            let (mut rule, mut now) = (OnAir::new(HOLD), 0);
            for (event, wait) in events {
                now += wait;
                let before = rule.state();
                let transition = match event {
                    0 => rule.source_up(),
                    1 => rule.source_gone(at(now)),
                    2 => rule.fallback(true),
                    3 => rule.fallback(false),
                    _ => rule.on_time(at(now)),
                };
                prop_assert_eq!(transition.is_some(), rule.state() != before);
                let expected = match transition {
                    None => before,
                    Some(Transition::Start | Transition::Resume | Transition::Return) => State::OnAir,
                    Some(Transition::Hold { until }) => State::Holding { until },
                    Some(Transition::ToFallback) => State::Fallback,
                    Some(Transition::End) => State::Off,
                };
                prop_assert_eq!(rule.state(), expected);
                if let State::Holding { until } = rule.state() {
                    prop_assert!(until <= at(now) + HOLD);
                }
            }
        }
    }
}
