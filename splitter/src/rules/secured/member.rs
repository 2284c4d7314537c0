//! Members of a secured team: known by serial, found by their pass, served in turn.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use relay_seam::Now;

use crate::limit::Allowance;
use crate::rules::acs::PERIOD_MAX;
use crate::secret::Secret;
use crate::wire::t::Token;

/// What one member may want in a second, all kinds together.
const ANSWERS_PER_SECOND: u32 = 50;

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    /// Where it has shown that it is.
    pub(super) at: SocketAddrV4,
    pub(super) monitor: bool,
    /// What we say to it begins with this.
    pub(super) call: Token,
    /// What it shares with us alone.
    pub(super) secret: Secret,
    /// When it said something last.
    pub(super) heard: Now,
    pub(super) answers: Allowance,
    /// How many mates it says it can reach.
    pub(super) mates: Option<u64>,
    given: u64,
    losses: u32,
    lost: Option<u64>,
    row: u32,
    accusers: Vec<u64>,
    /// Accused, so that it gets no chunks to relay.
    suspect: bool,
}

impl Member {
    pub(super) fn new(at: SocketAddrV4, monitor: bool, call: Token, secret: Secret, now: Now) -> Self {
        Self {
            at,
            monitor,
            call,
            secret,
            heard: now,
            answers: Allowance::per_second(ANSWERS_PER_SECOND, now),
            mates: None,
            given: 0,
            losses: 0,
            lost: None,
            row: 0,
            accusers: Vec::new(),
            suspect: false,
        }
    }

    /// The `nth` of its chunks was lost: its losses now, and how many in a row.
    pub(super) fn lose(&mut self, nth: u64) -> (u32, u32) {
        let follows = self.lost.is_some_and(|lost| lost + 1 == nth);
        self.row = if follows { self.row + 1 } else { 1 };
        self.lost = Some(nth);
        self.losses += 1;
        (self.losses, self.row)
    }

    /// Somebody accuses it without proof; `enough` of them, and it is passed over.
    pub(super) fn accuse(&mut self, by: u64, enough: usize) {
        if !self.accusers.contains(&by) && self.accusers.len() < enough {
            self.accusers.push(by);
        }
        self.suspect = self.accusers.len() >= enough;
    }
}

impl Member {
    /// Whether a chunk would not get far through it, in a team of so many.
    fn is_passed_over(&self, team: usize) -> bool {
        let lonely = |mates: u64| mates.saturating_mul(2).saturating_add(1) < team as u64;
        self.suspect || self.mates.is_some_and(lonely)
    }
}

/// In the order of joining, which is that of the serials.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: BTreeMap<u64, Member>,
    passes: HashMap<Token, u64>,
    /// Whose turn was last, of the chunks and of the munros.
    last: u64,
    last_told: u64,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Member)> + '_ {
        self.all.iter().map(|(&serial, member)| (serial, member))
    }

    pub(super) fn at_address(&self, ip: Ipv4Addr) -> usize {
        self.all.values().filter(|member| *member.at.ip() == ip).count()
    }

    pub(super) fn add(&mut self, serial: u64, pass: Token, member: Member) {
        self.all.insert(serial, member);
        self.passes.insert(pass, serial);
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Member> {
        self.passes.retain(|_, other| *other != serial);
        self.all.remove(&serial)
    }

    pub(super) fn get(&self, serial: u64) -> Option<&Member> {
        self.all.get(&serial)
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut Member> {
        self.all.get_mut(&serial)
    }

    pub(super) fn with_pass(&self, token: Token) -> Option<u64> {
        self.passes.get(&token).copied()
    }

    /// The serial behind this one, going round.
    fn after(&self, serial: u64) -> Option<u64> {
        let behind = self.all.range(serial + 1..).next();
        behind
            .or_else(|| self.all.iter().next())
            .map(|(&serial, _)| serial)
    }

    /// Whose turn it is: serial, endpoint, and how many chunks it got before. Those who are passed over are, unless
    /// they are more than half: then somebody is lying, and nobody is passed over.
    pub(super) fn turn(&mut self, mut takes: impl FnMut(u64) -> bool) -> Option<(u64, SocketAddrV4, u64)> {
        let team = self.all.len();
        let passed = self.all.values().filter(|member| member.is_passed_over(team));
        let many = 2 * passed.count() > team;
        for _ in 0..team * PERIOD_MAX as usize {
            let serial = self.after(self.last)?;
            self.last = serial;
            let member = self.all.get_mut(&serial)?;
            if (many || !member.is_passed_over(team)) && takes(serial) {
                member.given += 1;
                return Some((serial, member.at, member.given - 1));
            }
        }
        None
    }

    /// The next `n` members, or all, for something that each of them passes on.
    pub(super) fn some(&mut self, n: usize) -> Vec<(u64, SocketAddrV4)> {
        let mut some = Vec::new();
        for _ in 0..n.min(self.all.len()) {
            let Some(serial) = self.after(self.last_told) else {
                break;
            };
            self.last_told = serial;
            some.extend(self.all.get(&serial).map(|member| (serial, member.at)));
        }
        some
    }

    /// How many monitors must complain about a chunk before that counts: half of them.
    pub(super) fn quorum(&self) -> usize {
        let monitors = self.all.values().filter(|member| member.monitor).count();
        monitors.div_ceil(2).max(1)
    }

    pub(super) fn halve(&mut self, times: u64) {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        for member in self.all.values_mut() {
            member.losses = member.losses.checked_shr(times).unwrap_or(0);
        }
    }

    /// One that has said nothing for so long.
    pub(super) fn silent(&self, now: Now, silence: Duration) -> Option<u64> {
        let silent = |member: &Member| member.heard + silence <= now;
        self.all
            .iter()
            .find(|(_, member)| silent(member))
            .map(|(&serial, _)| serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn members(n: u64) -> Members {
        let mut members = Members::default();
        for serial in 1..=n {
            let (call, secret) = (Token(serial), Secret::new(&[1; 16]));
            let member = Member::new(at(serial as u16), serial == 1, call, secret, Now::new(0, 0));
            members.add(serial, Token(serial * 7), member);
        }
        members
    }

    fn turns(members: &mut Members, n: usize) -> Vec<u64> {
        (0..n)
            .filter_map(|_| members.turn(|_| true))
            .map(|(serial, ..)| serial)
            .collect()
    }

    #[test]
    fn turns_go_round_whoever_leaves() {
        let mut members = members(4);
        assert_eq!(turns(&mut members, 2), [1, 2]);
        members.remove(3);
        assert_eq!(turns(&mut members, 4), [4, 1, 2, 4]);
        assert_eq!(
            (members.with_pass(Token(21)), members.with_pass(Token(28))),
            (None, Some(4))
        );
        assert_eq!(members.some(9).len(), 3);
        assert_eq!(turns(&mut self::members(0), 3), []);
    }

    #[test]
    fn who_reaches_few_is_passed_over() {
        let mut members = members(4);
        for (serial, mates) in [(1, 3), (2, 1), (3, 2), (4, u64::MAX)] {
            members.get_mut(serial).unwrap().mates = Some(mates);
        }
        assert_eq!(turns(&mut members, 4), [1, 3, 4, 1]);
        (1..=4).for_each(|serial| members.get_mut(serial).unwrap().mates = Some(0));
        assert_eq!(turns(&mut members, 3), [2, 3, 4], "a team that has just met");
    }

    #[test]
    fn the_accused_are_passed_over_unless_nearly_all_are() {
        let mut members = members(3);
        for by in [2, 2, 3] {
            members.get_mut(1).unwrap().accuse(by, 2);
        }
        assert_eq!(turns(&mut members, 4), [2, 3, 2, 3]);
        for accused in [2, 3] {
            (8..=9).for_each(|by| members.get_mut(accused).unwrap().accuse(by, 2));
        }
        assert_eq!(turns(&mut members, 3), [1, 2, 3]);
    }
}
