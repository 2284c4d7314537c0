//! The story as a hash (two runs of one seed must agree) and, on request, as text.

/// What has happened, in order.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            print,
        }
    }

    /// One event: what, and three numbers that identify it.
    pub(crate) fn note(&mut self, at_ns: u64, what: &'static str, numbers: [u64; 3]) {
        self.events += 1;
        self.mix(at_ns);
        what.bytes().for_each(|b| self.mix(u64::from(b)));
        numbers.into_iter().for_each(|n| self.mix(n));
        if self.print {
            let [a, b, c] = numbers;
            println!("{:>13.6}s {what:<12} {a} {b} {c}", at_ns as f64 / 1e9);
        }
    }

    /// A sentence for readers; not hashed.
    pub(crate) fn say(&self, at_ns: u64, text: impl FnOnce() -> String) {
        if self.print {
            println!("{:>13.6}s # {}", at_ns as f64 / 1e9, text());
        }
    }

    fn mix(&mut self, n: u64) {
        self.hash = (self.hash ^ n)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    /// The hash so far, and how many events it covers.
    pub(crate) fn sum(&self) -> (u64, u64) {
        (self.hash, self.events)
    }
}
