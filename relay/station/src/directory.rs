//! The directory: which mounts there are. Shared by all workers; looked into when somebody arrives.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::channel::Channel;

/// Mounts and their channels.
#[derive(Debug)]
pub struct Directory {
    channels: RwLock<BTreeMap<String, Arc<Channel>>>,
    channels_max: usize,
    workers: usize,
}

/// There are as many channels as the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this relay carries {max} channels already, which is its limit (limits.channels)")]
pub struct Full {
    /// The limit.
    pub max: usize,
}

impl Directory {
    pub(crate) fn new(channels_max: usize, workers: usize) -> Self {
        Self {
            channels: RwLock::new(BTreeMap::new()),
            channels_max,
            workers,
        }
    }

    /// The channel at a mount.
    pub fn get(&self, mount: &str) -> Option<Arc<Channel>> {
        self.channels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(mount)
            .cloned()
    }

    /// All of them, by mount.
    pub fn all(&self) -> Vec<Arc<Channel>> {
        self.channels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The channel at a mount, made if need be.
    pub(crate) fn get_or_make(&self, mount: &str, hold: Duration) -> Result<Arc<Channel>, Full> {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(mount) {
            return Ok(channel.clone());
        }
        if channels.len() >= self.channels_max {
            return Err(Full {
                max: self.channels_max,
            });
        }
        let channel = Arc::new(Channel::new(mount, hold, self.workers));
        channels.insert(mount.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Forgets a channel, if it is still this one.
    pub(crate) fn remove(&self, channel: &Arc<Channel>) {
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if channels
            .get(&channel.mount)
            .is_some_and(|c| Arc::ptr_eq(c, channel))
        {
            channels.remove(&channel.mount);
        }
    }
}
