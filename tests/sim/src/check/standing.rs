//! What must hold at any moment: gauges, limits, and that nobody turns for nothing (O2, O3, O8).

use crate::listener::Ending;
use crate::turn::{ALARMS_PER_NOTE, EMPTY_TURNS_MAX};
use crate::world::World;

impl World {
    /// Looks at every node.
    pub(crate) fn look(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].watch();
            if let Some(what) = self.look_at(node) {
                self.wrong(format!("node {node}: {what}"));
            }
            self.look_at_turns(node);
        }
        for id in 0..self.listeners.len() {
            if self.listeners[id].ending == Ending::Open {
                self.check_wait(id);
            }
        }
    }

    fn look_at(&self, node: usize) -> Option<String> {
        let n = &self.nodes[node];
        let running = n.running.as_ref()?;
        let (gauge, seats) = (n.count("connections"), n.open_seats() as u64);
        // Who is awake may have notes to read, or outputs to carry out.
        let asleep = running
            .workers
            .iter()
            .all(|w| w.parked && w.notes.is_empty() && w.calls.is_empty());
        if asleep && gauge != seats {
            return Some(format!("it counts {gauge} connections, its drivers hold {seats}"));
        }
        let admitted = running.house.admission().connections() as u64;
        if admitted != gauge {
            return Some(format!(
                "admission counts {admitted} connections, the gauges {gauge}"
            ));
        }
        let (listeners, links) = (n.count("listeners"), n.count("links"));
        let waiting = n.count("waiting");
        let admitted = running.house.admission().listeners() as u64;
        if admitted < listeners || admitted > listeners + waiting {
            return Some(format!(
                "admission counts {admitted} listeners; {listeners} hear and {waiting} wait"
            ));
        }
        let channels = running.house.directory.all();
        let hearing: u64 = channels
            .iter()
            .map(|c| c.listeners.load(std::sync::atomic::Ordering::Relaxed) as u64)
            .sum();
        if hearing > listeners + links {
            return Some(format!(
                "channels count {hearing} listeners; {listeners} hear and {links} are links"
            ));
        }
        let config = &running.house.config;
        if channels.len() > config.channels_max {
            return Some(format!(
                "{} channels, expected at most {}",
                channels.len(),
                config.channels_max
            ));
        }
        let rings: u64 = n
            .runs
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .map(|r| 3 * r.raw.capacity() as u64)
            .sum();
        let most = config.budget().channels;
        (rings > most).then(|| format!("its rings may take {rings} bytes, its budget says {most}"))
    }

    fn look_at_turns(&mut self, node: usize) {
        let Some(running) = &mut self.nodes[node].running else {
            return;
        };
        let mut found = None;
        let take = |w: &mut crate::node::Worker| {
            (
                std::mem::take(&mut w.false_alarms),
                std::mem::take(&mut w.real_notes),
            )
        };
        let (alarms, notes) = running
            .workers
            .iter_mut()
            .map(take)
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        if alarms > EMPTY_TURNS_MAX + ALARMS_PER_NOTE * notes {
            found = Some(format!(
                "its workers woke each other {alarms} times for nothing while {notes} things happened"
            ));
        }
        for (i, w) in running.workers.iter_mut().enumerate() {
            let (empty, stale) = (
                std::mem::take(&mut w.empty_turns),
                std::mem::take(&mut w.stale_deadlines),
            );
            if empty > EMPTY_TURNS_MAX || stale > EMPTY_TURNS_MAX {
                found = Some(format!(
                    "worker {i} turned {empty} times for nothing, {stale} times late, in half a second"
                ));
            }
        }
        if let Some(what) = found {
            self.wrong(format!("node {node}: {what}"));
        }
    }
}
