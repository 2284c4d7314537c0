//! From the team to the players: chunks in order become the bytes of a channel of the peer's own station.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use relay_media::Kind;
use relay_station::{House, Order};

/// Bytes that may wait for a station that does not keep up.
const WAITING_MAX: usize = 4 << 20;
/// Of these, bytes that wait behind something that is missing.
const LATER_MAX: usize = WAITING_MAX / 2;
/// Bytes of one order: a few turns of the socket.
const ORDER_BYTES: usize = 64 << 10;

/// What is next, behind something that is missing.
#[derive(Debug)]
enum Piece {
    Chunk {
        number: u64,
        data: Vec<u8>,
        follows: bool,
    },
    /// From this number on; it is waited for until then.
    Hole { from: u64, until: Instant },
}

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
    /// In order; the first is a hole.
    later: VecDeque<Piece>,
    later_bytes: usize,
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
            later: VecDeque::new(),
            later_bytes: 0,
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
        if self.later_bytes + data.len() > LATER_MAX {
            self.give_up();
        }
        if self.later.is_empty() {
            return self.play(number, data, follows);
        }
        self.later_bytes += data.len();
        let data = data.to_vec();
        self.later.push_back(Piece::Chunk {
            number,
            data,
            follows,
        });
    }

    /// Chunks from this number on are missing; what follows waits until then for them.
    pub(super) fn hole(&mut self, from: u64, until: Instant) {
        if self.next.is_some() {
            self.later.push_back(Piece::Hole { from, until });
        }
    }

    /// What was missing, in order, as far as it was to be had; how many of them were still waited for.
    pub(super) fn fill(&mut self, missing: u64, chunks: Vec<(u64, Vec<u8>)>) -> u64 {
        let is_it = |piece: &Piece| matches!(piece, Piece::Hole { from, .. } if *from == missing);
        let Some(at) = self.later.iter().position(is_it) else {
            return 0;
        };
        let behind = self.later.split_off(at + 1);
        self.later.pop_back();
        let count = chunks.len() as u64;
        for (number, data) in chunks {
            self.later_bytes += data.len();
            let follows = true;
            self.later.push_back(Piece::Chunk {
                number,
                data,
                follows,
            });
        }
        self.later.extend(behind);
        self.play_later();
        count
    }

    /// What has been waited for long enough is waited for no more.
    pub(super) fn on_time(&mut self, now: Instant) {
        while matches!(self.later.front(), Some(Piece::Hole { until, .. }) if *until <= now) {
            self.later.pop_front();
            self.play_later();
        }
    }

    /// Nothing is waited for.
    fn give_up(&mut self) {
        self.later.retain(|piece| matches!(piece, Piece::Chunk { .. }));
        self.play_later();
    }

    /// Up to the next hole.
    fn play_later(&mut self) {
        while let Some(Piece::Chunk { .. }) = self.later.front() {
            if let Some(Piece::Chunk {
                number,
                data,
                follows,
            }) = self.later.pop_front()
            {
                self.later_bytes -= data.len();
                self.play(number, &data, follows);
            }
        }
    }

    fn play(&mut self, number: u64, data: &[u8], follows: bool) {
        if self.begun && !follows && self.next.is_some_and(|next| next != number) {
            self.wind_up();
        }
        self.begin();
        self.next = Some(number + 1);
        self.push(data);
    }

    /// What comes next has nothing to do with what was.
    pub(super) fn end(&mut self) {
        self.give_up();
        self.wind_up();
    }

    fn wind_up(&mut self) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Options;
    use crate::options::Channel;

    fn player() -> Player {
        let options = Options::new("p2psp://sun");
        let channel = Channel::of_team(&options.url).unwrap().unwrap();
        let config = crate::peer::config(&options, &channel.mount, None).unwrap();
        let (house, _events) = House::new(config).unwrap();
        Player::new(house, channel.mount, "a test".into())
    }

    /// What came to the station: bytes, `<` where a channel begins, `>` where it ends.
    fn played(player: &mut Player) -> String {
        assert!(player.flush());
        let mut bytes = Vec::new();
        while let Some(order) = player.house.mailbox(0).take() {
            match order {
                Order::Begin { .. } => bytes.push(b'<'),
                Order::Feed { bytes: more, .. } => bytes.extend(more),
                Order::End { .. } => bytes.push(b'>'),
                other => panic!("{other:?}"),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    fn chunks(player: &mut Player, text: &str, first: u64) {
        for (number, byte) in (first..).zip(text.bytes()) {
            player.chunk(number, &[byte], true);
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn what_is_missing_is_waited_for_and_comes_in_its_place() {
        let mut player = player();
        player.open();
        chunks(&mut player, "ab", 10);
        player.hole(12, soon());
        chunks(&mut player, "ef", 14);
        player.hole(16, soon());
        chunks(&mut player, "h", 17);
        assert_eq!(played(&mut player), "<ab");
        let piece = |number, byte: u8| (number, vec![byte]);
        assert_eq!(player.fill(16, vec![piece(16, b'g')]), 1);
        assert_eq!(played(&mut player), "", "something before it is missing, too");
        assert_eq!(player.fill(12, vec![piece(12, b'c'), piece(13, b'd')]), 2);
        assert_eq!(played(&mut player), "cdefgh");
        assert_eq!(
            player.fill(12, vec![piece(12, b'c')]),
            0,
            "it is not waited for any more"
        );
        assert_eq!((played(&mut player).as_str(), player.later_bytes), ("", 0));
    }

    #[test]
    fn nothing_is_waited_for_for_ever() {
        let mut player = player();
        chunks(&mut player, "a", 0);
        let until = soon();
        player.hole(1, until);
        chunks(&mut player, "c", 2);
        player.on_time(until - Duration::from_millis(1));
        assert_eq!(played(&mut player), "<a");
        player.on_time(until);
        assert_eq!(played(&mut player), "c");
        // What was found nowhere.
        player.hole(3, until);
        chunks(&mut player, "e", 4);
        assert_eq!(player.fill(3, Vec::new()), 0);
        assert_eq!(played(&mut player), "e");
        // Nor is there room for everything.
        player.hole(5, until);
        player.chunk(6, &vec![b'.'; LATER_MAX], true);
        assert_eq!(played(&mut player), "");
        player.chunk(7, b"g", true);
        assert!(played(&mut player).ends_with('g'));
    }

    #[test]
    fn other_numbers_are_another_stream() {
        let mut player = player();
        chunks(&mut player, "ab", 0);
        player.chunk(2, b"c", false);
        assert_eq!(played(&mut player), "<abc", "it has come back to the same place");
        player.chunk(9, b"x", false);
        player.hole(10, soon());
        chunks(&mut player, "z", 11);
        player.end();
        player.header(b"H");
        player.chunk(0, b"a", true);
        assert_eq!(played(&mut player), "><xz><Ha");
    }
}
