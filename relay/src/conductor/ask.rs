//! Asking workers: an order into the mailbox, the answers out of a channel, never waiting on either.

use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError, unbounded};
use relay_station::{ListenerInfo, Order};

use super::desk::Desk;

/// A worker that has not answered after so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A sign of life is good for so long: `/readyz` cannot be used to wear out the workers.
const PULSE_GOOD_FOR: Duration = Duration::from_secs(1);

impl Desk {
    /// The listeners of a mount (None: all), by id. A worker that does not answer is left out, and counted.
    pub(super) async fn listeners(&self, mount: Option<&str>) -> Vec<ListenerInfo> {
        let answers = self
            .ask(|reply| Order::List {
                mount: mount.map(str::to_owned),
                reply,
            })
            .await;
        let mut all: Vec<ListenerInfo> = answers.into_iter().flatten().flatten().collect();
        all.sort_by_key(|listener| listener.id);
        all
    }

    /// Lets a listener go. Whether it was here.
    pub(super) async fn kill(&self, id: u64) -> bool {
        let answers = self.ask(|reply| Order::Kill { id, reply }).await;
        answers.into_iter().flatten().flatten().any(|was_here| was_here)
    }

    /// Moves the listeners of a mount to another. How many.
    pub(super) async fn move_clients(&self, from: &str, to: &str) -> usize {
        let order = |reply| Order::Move {
            from: from.to_owned(),
            to: to.to_owned(),
            reply,
        };
        self.ask(order).await.into_iter().flatten().flatten().sum()
    }

    /// Which workers turn: each is asked to move nobody to nowhere, which costs it nothing.
    pub(super) async fn pulse(&self) -> Vec<bool> {
        let mut known = self.pulse.lock().await;
        if let Some((at, turning)) = &*known
            && at.elapsed() < PULSE_GOOD_FOR
        {
            return turning.clone();
        }
        let order = |reply| Order::Move {
            from: String::new(),
            to: String::new(),
            reply,
        };
        let turning: Vec<bool> = self
            .ask(order)
            .await
            .into_iter()
            .map(|answer| answer.is_some())
            .collect();
        *known = Some((Instant::now(), turning.clone()));
        turning
    }

    /// Gives every worker an order and collects what each answers; `None` from one that is silent or overwhelmed.
    async fn ask<T>(&self, order: impl Fn(Sender<T>) -> Order) -> Vec<Option<Vec<T>>> {
        let until = Instant::now() + PATIENCE;
        let house = self.house();
        let posted: Vec<_> = (0..house.config.workers)
            .map(|worker| {
                // Unbounded, but it holds at most an answer per listener, and those are limited.
                let (reply, answers) = unbounded();
                house
                    .mailbox(worker)
                    .post(order(reply))
                    .is_ok()
                    .then_some(answers)
            })
            .collect();
        let mut all = Vec::with_capacity(posted.len());
        for answers in posted {
            let answer = match answers {
                Some(answers) => collect(&answers, until).await,
                None => None,
            };
            if answer.is_none() {
                self.tallies.orders_unanswered.up();
            }
            all.push(answer);
        }
        all
    }
}

/// Everything until the worker hangs up.
async fn collect<T>(answers: &Receiver<T>, until: Instant) -> Option<Vec<T>> {
    let mut all = Vec::new();
    let mut nap = Duration::from_millis(1);
    loop {
        match answers.try_recv() {
            Ok(answer) => all.push(answer),
            Err(TryRecvError::Disconnected) => return Some(all),
            Err(TryRecvError::Empty) if Instant::now() >= until => return None,
            Err(TryRecvError::Empty) => {
                tokio::time::sleep(nap).await;
                nap = (nap * 2).min(Duration::from_millis(20));
            }
        }
    }
}
