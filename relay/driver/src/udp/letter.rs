//! A batch of datagrams, laid out for the kernel: what goes out in one call is one letter.
//!
//! Datagrams to one address that stand next to each other and are equally long make a train: the kernel cuts it at the
//! end of its way (`UDP_SEGMENT`), so that one pass through UDP and IP serves up to 64 of them.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::RawFd;

use relay_ring::Reader;
use relay_seam::{Conn, Datagram};

/// Most datagrams of one train: what every kernel with `UDP_SEGMENT` takes (4.18; newer ones take 128).
pub(crate) const TRAIN_MAX: usize = 64;

/// How somebody is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) fd: RawFd,
    /// The socket's place in the table of sockets.
    pub(crate) place: Conn,
    /// The address, as the socket takes it.
    pub(crate) to: SocketAddr,
    /// The socket is connected to it.
    pub(crate) connected: bool,
    /// From where: our own address; meaningful where connected.
    pub(crate) local: IpAddr,
    /// Trains are worth trying.
    pub(crate) gso: bool,
    /// `UDP_SEGMENT` as set on the socket.
    pub(crate) set: u16,
}

/// Head and body of a datagram output, and where in which ring the body lies, if it does.
#[derive(Clone, Copy, Default)]
pub(crate) struct Parts<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) from: Option<(&'a Reader, u64)>,
}

impl Parts<'_> {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Bytes `at..end` of head and body together.
    fn part(&self, at: usize, end: usize) -> Self {
        let head = self.head.len();
        let skipped = at.saturating_sub(head);
        Self {
            head: &self.head[at.min(head)..end.min(head)],
            body: &self.body[skipped..end.saturating_sub(head)],
            from: self.from.map(|(reader, from)| (reader, from + skipped as u64)),
        }
    }
}

/// One send.
pub(crate) struct Letter<'a> {
    pub(crate) route: Route,
    /// Which slices of the mail.
    pub(crate) slices: Range<usize>,
    /// Bytes.
    pub(crate) len: usize,
    /// Datagrams.
    pub(crate) count: usize,
    /// Bytes of each of them but the last.
    pub(crate) segment: usize,
    /// Which of the batch's datagram outputs are in it.
    pub(crate) outputs: Range<usize>,
    /// Where in which ring all its bytes lie, if they do.
    pub(crate) from: Option<(&'a Reader, u64)>,
    /// Another datagram may join.
    open: bool,
}

impl Letter<'_> {
    /// What the kernel must be told of segments: nothing, their size, or (zero) that this is one datagram although it
    /// is longer than those of which the socket makes trains.
    pub(crate) fn control(&self) -> Option<u16> {
        let set = usize::from(self.route.set);
        match self.count {
            1 if set == 0 || self.len <= set => None,
            1 => Some(0),
            _ if self.segment == set => None,
            _ => Some(self.segment as u16),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Mail<'a> {
    pub(crate) slices: Vec<IoSlice<'a>>,
    pub(crate) letters: Vec<Letter<'a>>,
}

impl<'a> Mail<'a> {
    /// Room for so many datagrams without growing.
    pub(crate) fn with_room(datagrams: usize) -> Self {
        Self {
            slices: Vec::with_capacity(2 * datagrams),
            letters: Vec::with_capacity(datagrams),
        }
    }

    /// Adds the `output`-th datagram output of the batch: `head` and `body`, cut at `segment` where that is not zero.
    /// `false`: it is longer than any datagram.
    pub(crate) fn add(&mut self, route: Route, output: usize, parts: Parts<'a>, segment: u16) -> bool {
        let len = parts.len();
        let segment = usize::from(segment);
        if segment > 0 && len > segment {
            self.add_run(route, output, parts, segment);
            return segment <= Datagram::BYTES_MAX;
        }
        if len > Datagram::BYTES_MAX {
            return false;
        }
        if self.joins(&route, len) {
            self.join(output, parts, len);
        } else {
            self.begin(route, output, parts, (1, len));
        }
        true
    }

    /// A datagram so long may ride in the last letter.
    fn joins(&self, route: &Route, len: usize) -> bool {
        self.letters.last().is_some_and(|last| {
            last.open
                && len > 0
                && len <= last.segment
                && last.count < TRAIN_MAX
                && last.len + len <= Datagram::BYTES_MAX
                && last.route.place == route.place
                && last.route.to == route.to
        })
    }

    fn join(&mut self, output: usize, parts: Parts<'a>, len: usize) {
        self.put(parts);
        let end = self.slices.len();
        if let Some(last) = self.letters.last_mut() {
            last.slices.end = end;
            last.len += len;
            last.count += 1;
            last.outputs.end = output + 1;
            last.from = None;
            last.open = len == last.segment;
        }
    }

    /// A letter of `count` datagrams.
    fn begin(&mut self, route: Route, output: usize, parts: Parts<'a>, (count, segment): (usize, usize)) {
        let start = self.slices.len();
        self.put(parts);
        self.letters.push(Letter {
            route,
            slices: start..self.slices.len(),
            len: parts.len(),
            count,
            segment,
            outputs: output..output + 1,
            from: parts.from.filter(|_| parts.head.is_empty()),
            // Behind a short one nothing can follow: the kernel would take both for one.
            open: route.gso && count == 1 && parts.len() == segment,
        });
    }

    fn put(&mut self, parts: Parts<'a>) {
        let some = [parts.head, parts.body]
            .into_iter()
            .filter(|part| !part.is_empty());
        self.slices.extend(some.map(IoSlice::new));
    }

    /// A run of datagrams of `segment` bytes, in as many letters as it takes.
    fn add_run(&mut self, route: Route, output: usize, parts: Parts<'a>, segment: usize) {
        let most = if route.gso {
            TRAIN_MAX.min(Datagram::BYTES_MAX / segment).max(1) * segment
        } else {
            segment
        };
        let len = parts.len();
        for at in (0..len).step_by(most) {
            let end = len.min(at + most);
            let count = (end - at).div_ceil(segment);
            self.begin(route, output, parts.part(at, end), (count, segment));
        }
    }

    /// The datagrams of a letter, each in a letter of its own.
    pub(crate) fn singles(&self, letter: &Letter<'_>) -> Mail<'_> {
        let mut single = Mail::default();
        let route = Route {
            gso: false,
            ..letter.route
        };
        let mut left = letter.segment;
        let mut begun = false;
        for slice in &self.slices[letter.slices.clone()] {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(left.min(rest.len()));
                left -= part.len();
                let parts = Parts {
                    body: part,
                    ..Parts::default()
                };
                if begun {
                    single.lengthen(parts);
                } else {
                    single.begin(route, letter.outputs.start, parts, (1, letter.segment));
                }
                begun = left > 0;
                left = if begun { left } else { letter.segment };
                rest = behind;
            }
        }
        single
            .letters
            .iter_mut()
            .for_each(|one| one.outputs = letter.outputs.clone());
        single
    }

    fn lengthen(&mut self, parts: Parts<'a>) {
        self.put(parts);
        let end = self.slices.len();
        if let Some(last) = self.letters.last_mut() {
            last.slices.end = end;
            last.len += parts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> Route {
        Route {
            fd: 3,
            place: Conn::new(1, 0),
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            connected: false,
            local: IpAddr::from([0; 4]),
            gso: true,
            set: 0,
        }
    }

    fn parts<'a>(head: &'a [u8], body: &'a [u8]) -> Parts<'a> {
        Parts {
            head,
            body,
            from: None,
        }
    }

    fn shapes(mail: &Mail<'_>) -> Vec<(usize, usize)> {
        mail.letters
            .iter()
            .map(|letter| (letter.count, letter.len))
            .collect()
    }

    /// The datagrams that a letter stands for.
    fn datagrams(mail: &Mail<'_>, letter: &Letter<'_>) -> Vec<Vec<u8>> {
        let all: Vec<u8> = mail.slices[letter.slices.clone()]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        assert_eq!(all.len(), letter.len);
        all.chunks(letter.segment.max(1)).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn equal_neighbours_ride_together_and_a_shorter_one_is_the_last() {
        let bytes = [5; 2000];
        let mut mail = Mail::default();
        for (i, len) in [1000, 1000, 1000, 999, 1000, 1001, 0, 0].into_iter().enumerate() {
            assert!(mail.add(
                route(1),
                i,
                parts(&bytes[..10.min(len)], &bytes[..len - 10.min(len)]),
                0
            ));
        }
        assert_eq!(shapes(&mail), [(4, 3999), (1, 1000), (1, 1001), (1, 0), (1, 0)]);
        assert_eq!(mail.letters[0].outputs, 0..4);
    }

    #[test]
    fn others_and_the_wary_ride_alone() {
        let bytes = [5; 100];
        let mut mail = Mail::default();
        let wary = Route {
            gso: false,
            ..route(3)
        };
        for (i, route) in [route(1), route(2), route(1), wary, wary].into_iter().enumerate() {
            assert!(mail.add(route, i, parts(&[], &bytes), 0));
        }
        assert_eq!(shapes(&mail), [(1, 100); 5]);
    }

    #[test]
    fn a_train_ends_at_its_limits() {
        let bytes = vec![1; 70_000];
        let mut mail = Mail::default();
        for i in 0..TRAIN_MAX + 1 {
            assert!(mail.add(route(1), i, parts(&[], &bytes[..10]), 0));
        }
        assert_eq!(shapes(&mail), [(64, 640), (1, 10)]);
        let mut mail = Mail::default();
        for i in 0..3 {
            assert!(mail.add(route(1), i, parts(&[], &bytes[..32_000]), 0));
        }
        assert_eq!(shapes(&mail), [(2, 64_000), (1, 32_000)]);
        assert!(mail.add(route(1), 9, parts(&[], &bytes[..Datagram::BYTES_MAX]), 0));
        assert!(!mail.add(route(1), 9, parts(&bytes[..1], &bytes[..Datagram::BYTES_MAX]), 0));
    }

    #[test]
    fn a_run_is_cut_into_trains_and_trains_into_datagrams() {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
        let mut mail = Mail::default();
        assert!(mail.add(route(1), 0, parts(&bytes[..50], &bytes[50..]), 1316));
        assert_eq!(shapes(&mail), [(49, 64_484), (5, 5516)]);
        let whole: Vec<_> = mail
            .letters
            .iter()
            .flat_map(|letter| datagrams(&mail, letter))
            .collect();
        let expected: Vec<_> = bytes.chunks(1316).map(<[u8]>::to_vec).collect();
        assert_eq!(whole, expected);
        let mut cut = Vec::new();
        for letter in &mail.letters {
            let singles = mail.singles(letter);
            assert!(
                singles
                    .letters
                    .iter()
                    .all(|one| one.count == 1 && one.control().is_none())
            );
            cut.extend(singles.letters.iter().flat_map(|one| datagrams(&singles, one)));
        }
        assert_eq!(cut, expected);
    }

    #[test]
    fn the_kernel_is_told_of_segments_where_it_does_not_know() {
        let bytes = [1; 300];
        let control = |set, len, segment| {
            let mut mail = Mail::default();
            mail.add(Route { set, ..route(1) }, 0, parts(&[], &bytes[..len]), segment);
            mail.letters[0].control()
        };
        assert_eq!((control(0, 300, 0), control(0, 300, 100)), (None, Some(100)));
        assert_eq!((control(100, 100, 0), control(100, 101, 0)), (None, Some(0)));
        assert_eq!((control(100, 300, 100), control(100, 300, 99)), (None, Some(99)));
    }

    #[test]
    fn a_letter_knows_where_in_the_ring_it_lies() {
        let (mut writer, ring) = relay_ring::Ring::new(1 << 18, 1, 0).unwrap();
        writer.append(&[7; 100_000]);
        let mut reader = ring.reader(0);
        reader.pin(0).unwrap();
        let whole = Parts {
            head: &[],
            body: reader.bytes(1000, 70_000),
            from: Some((&reader, 1000)),
        };
        let places = |parts: Parts<'_>, segment, twice: bool| {
            let mut mail = Mail::default();
            mail.add(route(1), 0, parts, segment);
            if twice {
                mail.add(route(1), 1, parts, segment);
            }
            let place = |letter: &Letter<'_>| letter.from.map(|(_, at)| at);
            mail.letters.iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(places(whole, 1000, false), [Some(1000), Some(65_000)]);
        assert_eq!(
            places(Parts { head: b"h", ..whole }, 1000, false),
            [None, Some(64_999)]
        );
        let single = whole.part(0, 1000);
        assert_eq!(places(single, 0, false), [Some(1000)]);
        assert_eq!(places(single, 0, true), [None], "two stretches are none");
    }
}
