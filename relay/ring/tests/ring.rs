//! The ring over real memory: contents, laps, holes, and a writer that meets a pin.

use relay_ring::{ChunkInfo, Index, Lapped, NO_JOIN, Ring};

const CAP: usize = Ring::CAPACITY_MIN;

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn stretch(at: u64, len: usize) -> Vec<u8> {
    (at..at + len as u64).map(byte).collect()
}

#[test]
fn what_is_written_is_read_across_the_seam() {
    let (mut writer, ring) = Ring::new(CAP, 1, 0).expect("memory");
    let mut reader = ring.reader(0);
    let rounds = if cfg!(miri) { 12 } else { 400 };
    for _ in 0..rounds {
        let at = writer.head();
        assert_eq!(writer.append(&stretch(at, 5_777)), 5_777);
        let from = at.saturating_sub(20_000).max(ring.floor());
        let head = reader.pin(from).expect("within the window");
        assert_eq!(head, at + 5_777);
        let len = (head - from) as usize;
        assert_eq!(reader.bytes(from, len), stretch(from, len));
        reader.unpin();
    }
}

#[test]
fn a_position_behind_the_window_is_lapped() {
    let (mut writer, ring) = Ring::new(CAP, 1, 0).expect("memory");
    let mut reader = ring.reader(0);
    writer.append(&stretch(0, CAP));
    let Err(Lapped { floor }) = reader.pin(0) else {
        panic!("position 0 is a window and more behind")
    };
    assert_eq!(floor, ring.floor());
    assert!(ring.head() - floor <= ring.window());
    assert!(reader.pin(floor).is_ok());
}

#[test]
fn the_writer_stays_clear_of_a_pin_and_does_not_wait() {
    let (mut writer, ring) = Ring::new(CAP, 2, 0).expect("memory");
    let mut reader = ring.reader(1);
    writer.append(&stretch(0, 1000));
    reader.pin(500).expect("just written");
    let long = stretch(1000, 2 * CAP);
    let taken = writer.append(&long);
    assert_eq!(taken as u64, 500 + CAP as u64 - 1000, "up to the pin, one lap on");
    assert_eq!(writer.append(&long[taken..]), 0);
    assert_eq!(
        reader.bytes(500, 500),
        stretch(500, 500),
        "what is pinned is as it was"
    );
    reader.unpin();
    assert_eq!(writer.append(&long[taken..]), long.len() - taken);
}

#[test]
fn a_hole_laps_everybody() {
    let (mut writer, ring) = Ring::new(CAP, 1, 1 << 40).expect("memory");
    let mut reader = ring.reader(0);
    writer.append(&[1; 100]);
    writer.skip_to((1 << 40) + 5000);
    assert!(reader.pin(1 << 40).is_err());
    writer.append(&[2; 100]);
    reader.pin((1 << 40) + 5000).expect("after the hole");
    assert_eq!(reader.bytes((1 << 40) + 5000, 100), [2; 100]);
}

#[test]
#[should_panic(expected = "is not within the pinned")]
fn unpinned_bytes_are_refused() {
    let (mut writer, ring) = Ring::new(CAP, 1, 0).expect("memory");
    writer.append(&[1; 100]);
    let _ = ring.reader(0).bytes(0, 1);
}

#[test]
fn the_index_forgets_what_it_must() {
    let index = Index::new(8);
    let info = |number| ChunkInfo {
        number,
        capture_us: 1000 + number,
        link_at: number * 7,
        join: if number % 3 == 0 { 5 } else { NO_JOIN },
        len: 1316,
    };
    (0..20).for_each(|n| index.set(info(n)));
    assert_eq!(index.get(11), None);
    assert_eq!(index.get(12), Some(info(12)));
    assert_eq!(index.get(20), None);
    assert_eq!(index.newest_join(19, 0).map(|i| i.number), Some(18));
    assert_eq!(index.newest_join(17, 16).map(|i| i.number), None);
}

#[cfg(not(miri))]
mod threads {
    use super::*;

    #[test]
    fn readers_on_other_threads_see_only_what_was_written() {
        let (mut writer, ring) = Ring::new(CAP, 3, 0).expect("memory");
        let total = 64 * CAP as u64;
        std::thread::scope(|scope| {
            for slot in 0..3 {
                let ring = ring.clone();
                scope.spawn(move || {
                    let mut reader = ring.reader(slot);
                    let (mut cursor, mut jumps) = (0, 0u64);
                    while cursor < total {
                        match reader.pin(cursor) {
                            Err(Lapped { floor }) => (cursor, jumps) = (floor.max(cursor), jumps + 1),
                            Ok(head) => {
                                let len = (head - cursor).min(9_000) as usize;
                                let bytes = reader.bytes(cursor, len);
                                assert!(bytes.iter().zip(cursor..).all(|(b, at)| *b == byte(at)));
                                cursor += len as u64;
                            }
                        }
                        reader.unpin();
                    }
                    jumps
                });
            }
            let mut at = 0;
            while at < total {
                let bytes = stretch(at, 1_316.min((total - at) as usize));
                let mut taken = 0;
                while taken < bytes.len() {
                    taken += writer.append(&bytes[taken..]);
                }
                at += bytes.len() as u64;
            }
        });
    }
}

/// Looks at memory as nobody should: without a pin.
#[cfg(feature = "poison")]
#[test]
fn what_nobody_may_read_is_spoiled() {
    let (mut writer, ring) = Ring::new(CAP, 2, 0).expect("memory");
    let mut reader = ring.reader(1);
    let late = |at: u64| {
        let there = ring.mapping().0.as_ptr().wrapping_add(ring.offset(at));
        // SAFETY: inside the mapping, and no other thread is about.
        unsafe { there.read() }
    };
    writer.append(&stretch(0, CAP / 2));
    reader.pin(1_000).expect("in the window");
    writer.append(&stretch(CAP as u64 / 2, CAP / 2));
    assert!(ring.floor() > 1_000);
    assert_eq!((late(0), late(999)), (relay_ring::POISON, relay_ring::POISON));
    assert_eq!(
        reader.bytes(1_000, 5_000),
        stretch(1_000, 5_000),
        "what is pinned is not"
    );
    reader.unpin();
    // The floor is raised by steps, ahead of what is written.
    writer.append(&stretch(CAP as u64, 8 * 1024));
    assert_eq!(late(ring.floor() - 1), relay_ring::POISON);
    assert_eq!(late(ring.floor()), byte(ring.floor()));
}
