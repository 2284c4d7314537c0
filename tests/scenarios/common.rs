//! What several stories begin with.

use std::time::Duration;

use totality_tests::{Backend, Form, Host, Listener, Opts, Relay, Source, Witness, World};

/// A root with a source on the air, and somebody who listens throughout and must notice nothing.
pub(crate) struct Stage {
    pub(crate) witness: Witness,
    pub(crate) control: Listener,
    pub(crate) source: Source,
    pub(crate) relay: Relay,
    /// Descriptors of the relay in this state.
    pub(crate) fds: usize,
    pub(crate) audience: Host,
    pub(crate) studio: Host,
    pub(crate) root: Host,
    pub(crate) world: World,
}

pub(crate) const MOUNT: &str = "/numbered.ts";
pub(crate) const KBPS: u64 = 1000;

impl Stage {
    pub(crate) fn set(name: &str, backend: Backend, change: impl FnOnce(Opts) -> Opts) -> Self {
        let world = World::new(name);
        let (root, studio, audience) = (world.host("root"), world.host("studio"), world.host("audience"));
        let relay = Relay::start(&root, change(Opts::on(backend)));
        let source = Source::push(&studio, &relay, MOUNT, Form::Ts, 0, KBPS);
        let control = Listener::tune_in(&audience, relay.at(), MOUNT, Form::Ts);
        control.expect_sound();
        totality_tests::pass(300);
        let witness = Witness::watch();
        control.mark();
        let fds = relay.fds();
        Self {
            witness,
            control,
            source,
            relay,
            fds,
            audience,
            studio,
            root,
            world,
        }
    }

    /// The oracles, after whatever has happened.
    pub(crate) fn expect_unharmed(&mut self) {
        self.relay.expect_alive();
        self.relay.expect_fds_back(self.fds);
        let due = self.source.next();
        assert!(
            self.control.reaches(due, Duration::from_secs(10)),
            "the control listener was left behind"
        );
        self.control.expect_undisturbed(&self.witness);
    }
}
