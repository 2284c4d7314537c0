//! What must be true at the end of a story: counters add up, jumps were declared, nothing is left behind (O1, O3, O7).

use relay_seam::Machine;

use crate::listener::{Ending, Listener};
use crate::world::{Fate, World};

impl World {
    /// The end: everything is judged, then every node is stopped and judged again.
    pub(crate) fn judge(&mut self) {
        if !self.wrongs.is_empty() {
            return;
        }
        for id in 0..self.listeners.len() {
            let what = self.judge_listener(&self.listeners[id]);
            if let Some(what) = what {
                self.wrong(format!("listener {id} at {}: {what}", self.listeners[id].mount));
            }
        }
        for node in 0..self.nodes.len() {
            if let Some(what) = self.judge_counts(node) {
                self.wrong(format!("node {node}: {what}"));
            }
        }
        self.stop_all();
    }

    fn judge_listener(&self, listener: &Listener) -> Option<String> {
        let order = &listener.order;
        if listener.served && order.matched == 0 {
            return Some(format!(
                "expected to be served, got {:?} and {:?}",
                listener.status, listener.ending
            ));
        }
        if listener.whole && (order.jumps > 0 || listener.ending == Ending::Reset) {
            return Some(format!(
                "expected every byte, got {} jumps and {:?}",
                order.jumps, listener.ending
            ));
        }
        None
    }

    fn judge_counts(&self, node: usize) -> Option<String> {
        let n = &self.nodes[node];
        let running = n.running.as_ref()?;
        let (told, counted) = (
            running.workers.iter().map(|w| w.told).sum::<u64>(),
            n.count("bytes_told"),
        );
        if told != counted {
            return Some(format!(
                "kernels took {told} stream bytes, it counts {counted} told"
            ));
        }
        if n.incarnation > 1 {
            return None;
        }
        let here = || self.listeners.iter().filter(|l| l.target == n.host);
        let (jumps, declared) = (here().map(|l| l.order.jumps).sum::<u64>(), n.count("lag_jumps"));
        if jumps > declared {
            return Some(format!("listeners saw {jumps} jumps, it declares {declared}"));
        }
        let (torn, declared) = (
            here().map(|l| l.order.torn).sum::<u64>(),
            n.count("lag_jumps_torn"),
        );
        if torn > declared {
            return Some(format!("{torn} jumps tore a packet, it declares {declared}"));
        }
        let sources = self.sources.iter().filter(|s| s.target == n.host);
        let sent = sources.flat_map(|s| &s.sent);
        let heard: u64 = sent
            .map(|s| s.stream_bytes(self.heard.get(&s.wire).copied().unwrap_or(0)))
            .sum();
        let counted = n.count("bytes_heard");
        let exact = n.config.upstreams.is_empty()
            && n.count("refused_sources") == 0
            && n.count("source_timeouts") == 0;
        if exact && heard != counted {
            return Some(format!(
                "sources brought {heard} stream bytes, it counts {counted} heard"
            ));
        }
        None
    }

    fn stop_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.fate(self.now_ns, Fate::Stop(node));
        }
        self.run_until(self.now_ns + 8_000_000_000);
        for node in 0..self.nodes.len() {
            if let Some(what) = self.left_behind(node) {
                self.wrong(format!("node {node}, stopped: {what}"));
            }
            self.nodes[node].running = None;
            let alive = self.nodes[node]
                .runs
                .iter()
                .filter(|run| run.strong_count() > 0)
                .count();
            if alive > 0 {
                self.wrong(format!("node {node}, gone: {alive} runs are still held"));
            }
        }
    }

    fn left_behind(&self, node: usize) -> Option<String> {
        let n = &self.nodes[node];
        let running = n.running.as_ref()?;
        for gauge in ["connections", "listeners", "waiting", "links", "sources"] {
            if n.count(gauge) != 0 {
                return Some(format!("{gauge} is {}, expected 0", n.count(gauge)));
            }
        }
        let admission = running.house.admission();
        if admission.connections() + admission.listeners() > 0 {
            return Some(format!("{admission:?}, expected nobody"));
        }
        // Who comes to a stopped node is let go, and may be leaving at this very moment.
        let seats = n.open_seats();
        if seats > 0 {
            return Some(format!("{seats} connections are open"));
        }
        let unfinished = running.workers.iter().filter(|w| !w.station.finished()).count();
        (unfinished > 0).then(|| format!("{unfinished} workers have not finished"))
    }
}
