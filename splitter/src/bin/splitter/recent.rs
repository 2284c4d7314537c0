//! The newest chunks and their numbers: what the rules may want sent, or sent again.

/// As many as the peers' buffers hold; each has one owner, and is copied into its datagram.
pub(crate) struct Recent {
    slots: Vec<Vec<u8>>,
    next: u64,
}

impl Recent {
    pub(crate) fn new(chunks: u16) -> Self {
        Self {
            slots: vec![Vec::new(); usize::from(chunks)],
            next: 0,
        }
    }

    /// The chunk's number, from 0.
    pub(crate) fn push(&mut self, data: Vec<u8>) -> u64 {
        let number = self.next;
        let slot = self.slot(number);
        self.slots[slot] = data;
        self.next += 1;
        number
    }

    pub(crate) fn get(&self, number: u64) -> Option<&[u8]> {
        let recent = number < self.next && number + self.slots.len() as u64 >= self.next;
        recent.then(|| self.slots[self.slot(number)].as_slice())
    }

    fn slot(&self, number: u64) -> usize {
        // The remainder is below a `u16`.
        (number % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_there_by_number() {
        let mut recent = Recent::new(3);
        assert_eq!(recent.get(0), None);
        for n in 0..5u8 {
            assert_eq!(recent.push(vec![n]), u64::from(n));
        }
        let there: Vec<_> = (0..6).filter_map(|n| recent.get(n)).collect();
        assert_eq!(there, [[2], [3], [4]]);
    }
}
