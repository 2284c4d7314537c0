//! From the team to the players: chunks in order become the bytes of a channel of the peer's own station.

use std::collections::VecDeque;
use std::sync::Arc;

use relay_media::Kind;
use relay_station::{House, Order};

/// Bytes that may wait for a station that does not keep up.
const WAITING_MAX: usize = 4 << 20;
/// Bytes of one order: a few turns of the socket.
const ORDER_BYTES: usize = 64 << 10;

/// The way to the players.
#[derive(Debug)]
pub(super) struct Player {
    house: Arc<House>,
    mount: String,
    from: String,
    content_type: Option<String>,
    /// Whether the channel has begun.
    begun: bool,
    /// The number that would go on where the last one ended.
    next: Option<u64>,
    /// Bytes that are not in an order yet.
    fresh: Vec<u8>,
    waiting: VecDeque<Order>,
    waiting_bytes: usize,
    pub(super) overrun_bytes: u64,
}

impl Player {
    pub(super) fn new(house: Arc<House>, mount: String, from: String) -> Self {
        Self {
            house,
            mount,
            from,
            content_type: None,
            begun: false,
            next: None,
            fresh: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            overrun_bytes: 0,
        }
    }

    /// The channel is there before its first byte, so that players wait for it.
    pub(super) fn open(&mut self) {
        self.begin();
    }

    /// What the source says that the stream is. Of containers that show it themselves nobody needs to be told.
    pub(super) fn is_said_to_be(&mut self, content_type: Option<String>) {
        let news = content_type.filter(|said| Kind::from_content_type(said).is_none());
        if news.is_some() && news != self.content_type {
            self.content_type = news;
            if self.begun && self.next.is_none() {
                self.end();
                self.begin();
            }
        }
    }

    /// The beginning of the stream, for a player that has had nothing yet.
    pub(super) fn header(&mut self, bytes: &[u8]) {
        if self.next.is_none() {
            self.begin();
            self.push(bytes);
        }
    }

    /// The next chunk. `follows`: it goes on within the same membership, with or without a hole before it.
    pub(super) fn chunk(&mut self, number: u64, data: &[u8], follows: bool) {
        if self.begun && !follows && self.next.is_some_and(|next| next != number) {
            self.end();
        }
        self.begin();
        self.next = Some(number + 1);
        self.push(data);
    }

    /// What comes next has nothing to do with what was.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.wrap();
            self.waiting.push_back(Order::End {
                mount: self.mount.clone(),
            });
            self.next = None;
        }
    }

    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.waiting.push_back(Order::Begin {
                mount: self.mount.clone(),
                content_type: self.content_type.clone(),
                properties: Vec::new(),
                from: self.from.clone(),
            });
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.waiting_bytes + bytes.len() > WAITING_MAX {
            self.overrun_bytes += bytes.len() as u64;
            return;
        }
        self.waiting_bytes += bytes.len();
        self.fresh.extend_from_slice(bytes);
        if self.fresh.len() >= ORDER_BYTES {
            self.wrap();
        }
    }

    fn wrap(&mut self) {
        if !self.fresh.is_empty() {
            self.waiting.push_back(Order::Feed {
                mount: self.mount.clone(),
                bytes: std::mem::take(&mut self.fresh),
            });
        }
    }

    /// Hands over what there is; `false` when the station has no room for all of it now.
    pub(super) fn flush(&mut self) -> bool {
        self.wrap();
        while let Some(order) = self.waiting.pop_front() {
            let bytes = match &order {
                Order::Feed { bytes, .. } => bytes.len(),
                _ => 0,
            };
            if let Err(order) = self.house.mailbox(0).post(order) {
                self.waiting.push_front(order);
                return false;
            }
            self.waiting_bytes -= bytes;
        }
        true
    }
}
