//! Secured teams in the small world: a channel that is signed, and peers that check it.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

use relay_merkle::{
    ChannelId, Context, Digest, Form, LiveTree, Munro, NtpTime, PublicKey, Signer, TreeConfig,
};
use relay_seam::Now;
use splitter::Config;
use splitter::peer::{SecuredPeer, SecuredPeerConfig};
use splitter::rules::{self, Secured, SecuredConfig, SecuredInput};

use super::world::{Lead, Net, World, data, small, splitter_at, start};

pub const TICKET: [u8; 16] = [42; 16];

/// A splitter with its channel's tree and key.
pub struct Channel {
    pub rules: Secured,
    tree: LiveTree,
    signer: Signer,
    form: Form,
    leaves: Vec<Digest>,
}

pub type Team = World<Channel, SecuredPeer>;

pub fn tree() -> TreeConfig {
    TreeConfig {
        chunks_per_munro: 16,
        ..TreeConfig::default()
    }
}

pub fn config() -> Config {
    Config {
        max_peers: 500,
        max_arrivals: 500,
        buffer_chunks: 512,
        ..small()
    }
}

impl Channel {
    /// The channel goes on at `next`, a multiple of 16.
    pub fn new(team: Config, signer: Signer, epoch: u64, next: u64, now: Now) -> Self {
        let channel = ChannelId::of_mount("/eclipse.ts");
        let context = Context { channel, epoch };
        let key: PublicKey = signer.public_key().clone();
        let mut config = SecuredConfig::new(team, key, context, tree(), [epoch as u8 + 1; 32]);
        config.tickets = vec![TICKET];
        Self {
            rules: Secured::new(config, next, now).unwrap(),
            tree: LiveTree::starting_at(tree(), next).unwrap(),
            signer,
            form: Form::Bound(context),
            leaves: Vec::new(),
        }
    }
}

impl Lead for Channel {
    fn handle(&mut self, now: Now, input: rules::Input<'_>) {
        self.rules.handle(now, SecuredInput::Team(input));
    }

    fn poll(&mut self) -> Option<rules::Action> {
        self.rules.poll()
    }

    fn deadline(&self) -> Option<Now> {
        self.rules.deadline()
    }

    fn chunk(&mut self, now: Now, number: u64) {
        let leaf = tree().kind.leaf(&data(number));
        self.rules.handle(now, SecuredInput::Chunk(number, leaf));
        self.leaves.push(leaf);
        if let Some(node) = self.tree.append(leaf).unwrap() {
            let munro = Munro {
                bin: node.bin,
                hash: node.hash,
                time: NtpTime::from_unix_us(now.wall_us()),
            };
            let signed = self.signer.sign_munro(&self.form, munro).unwrap();
            let leaves = std::mem::take(&mut self.leaves);
            self.rules.handle(now, SecuredInput::Sealed(&signed, &leaves));
        }
    }
}

pub fn empty(team: Config, net: Net, seed: u64) -> Team {
    let channel = Channel::new(team.clone(), Signer::generate().unwrap(), 1, 0, start());
    World::with(channel, team, net, seed)
}

pub fn peer_config(port: u16, monitor: bool) -> SecuredPeerConfig {
    let mut secret = [9; 32];
    secret[..2].copy_from_slice(&port.to_be_bytes());
    SecuredPeerConfig {
        ticket: monitor.then_some(TICKET),
        ..SecuredPeerConfig::new(secret)
    }
}

pub fn join(world: &mut Team, port: u16, monitor: bool) {
    let peer = SecuredPeer::new(peer_config(port, monitor), splitter_at(), world.now);
    world.enter(port, peer);
}

/// A team of `n` that has settled, without a monitor.
pub fn team(n: u16, net: Net, seed: u64) -> Team {
    let mut world = empty(config(), net, seed);
    (1..=n).for_each(|port| join(&mut world, port, false));
    world.pass(1500);
    world
}
