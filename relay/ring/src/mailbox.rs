//! A mailbox: orders from other threads to the thread behind a bell.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::Bell;

/// A bounded queue whose owner is woken by its bell. Many may post, one takes.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Arc<ArrayQueue<T>>,
    bell: Bell,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            bell: self.bell.clone(),
        }
    }
}

impl<T> Mailbox<T> {
    /// A mailbox for `orders` orders, in front of `bell`.
    pub fn new(orders: usize, bell: Bell) -> Self {
        Self {
            queue: Arc::new(ArrayQueue::new(orders)),
            bell,
        }
    }

    /// Posts an order and rings.
    ///
    /// # Errors
    ///
    /// The order itself when the box is full.
    pub fn post(&self, order: T) -> Result<(), T> {
        self.queue.push(order)?;
        self.bell.ring();
        Ok(())
    }

    /// The oldest order.
    pub fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The bell in front of it.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}
