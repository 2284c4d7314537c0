//! The connections of one driver: slots and their generations.

use relay_seam::Conn;

/// Holds a `T` for each connection and gives out the names ([`Conn`]).
///
/// A slot that is taken again has a new generation, so that a name outlives its connection safely. Slots are reused
/// last out, first in: the table stays dense and warm.
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    max: u32,
}

struct Slot<T> {
    generation: u32,
    held: Option<T>,
}

impl<T> Table<T> {
    /// A table for at most `max` connections; it grows as they come.
    pub(crate) fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max: max.min(Conn::SLOTS_MAX),
        }
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a connection in and names it; gives it back when the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Conn, T> {
        let Some(slot) = self.free.pop().or_else(|| self.grow()) else {
            return Err(value);
        };
        let place = &mut self.slots[slot as usize];
        place.held = Some(value);
        Ok(Conn::new(slot, place.generation))
    }

    fn grow(&mut self) -> Option<u32> {
        let slot = u32::try_from(self.slots.len())
            .ok()
            .filter(|slot| *slot < self.max)?;
        self.slots.push(Slot {
            generation: 0,
            held: None,
        });
        Some(slot)
    }

    pub(crate) fn get(&self, conn: Conn) -> Option<&T> {
        let slot = self.slots.get(conn.slot())?;
        slot.held
            .as_ref()
            .filter(|_| slot.generation == conn.generation())
    }

    pub(crate) fn get_mut(&mut self, conn: Conn) -> Option<&mut T> {
        let slot = self.slots.get_mut(conn.slot())?;
        slot.held
            .as_mut()
            .filter(|_| slot.generation == conn.generation())
    }

    /// Lets a connection go; its name means nothing from now on.
    pub(crate) fn remove(&mut self, conn: Conn) -> Option<T> {
        let slot = self
            .slots
            .get_mut(conn.slot())
            .filter(|slot| slot.generation == conn.generation())?;
        let value = slot.held.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(conn.slot() as u32);
        Some(value)
    }

    /// Every connection there is.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Conn, &T)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| {
            let held = slot.held.as_ref()?;
            Some((Conn::new(i as u32, slot.generation), held))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_taken_again_has_a_new_name() {
        let mut table = Table::new(4);
        let first = table.insert('a').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b').unwrap();
        assert_eq!(second.slot(), first.slot());
        assert_ne!(second, first);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'b'));
    }

    #[test]
    fn a_full_table_gives_the_newcomer_back() {
        let mut table = Table::new(2);
        let first = table.insert(1).unwrap();
        table.insert(2).unwrap();
        assert_eq!(table.insert(3), Err(3));
        table.remove(first);
        assert!(table.insert(3).is_ok());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn names_from_outside_the_table_mean_nothing() {
        let mut table = Table::<u8>::new(2);
        let stranger = Conn::new(77, 3);
        assert!(table.get(stranger).is_none() && table.remove(stranger).is_none() && table.is_empty());
    }

    #[test]
    fn a_generation_wraps_without_harm() {
        let mut table = Table::new(1);
        let conn = table.insert(0).unwrap();
        table.remove(conn);
        table.slots[0].generation = u32::MAX;
        let last = table.insert(1).unwrap();
        table.remove(last);
        let next = table.insert(2).unwrap();
        assert_eq!((last.generation(), next.generation()), (u32::MAX, 0));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(next, &2)]);
    }
}
