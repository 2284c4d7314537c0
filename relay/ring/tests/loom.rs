//! Models of the pin protocol, every interleaving of them: `cargo test -p relay-ring --features loom
//! --release --test loom`.
//!
//! Two cells stand for two laps of the ring's memory; the writer overwrites cell 0 for position 2 while a reader
//! may still be reading it as position 0. Two of the models weaken one ordering each and must find the race.
#![cfg(feature = "loom")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use relay_ring::{Gate, UNPINNED};

struct Slots([UnsafeCell<u64>; 2]);

// SAFETY: the model is about this very claim: loom's cells panic when two threads touch one at once.
unsafe impl Sync for Slots {}
// SAFETY: plain integers inside.
unsafe impl Send for Slots {}

fn slots() -> Arc<Slots> {
    Arc::new(Slots([UnsafeCell::new(0), UnsafeCell::new(1)]))
}

#[test]
fn a_pinned_slot_is_never_overwritten() {
    loom::model(|| {
        let (gate, slots) = (Arc::new(Gate::new(2, 0)), slots());
        gate.publish(2);
        let readers: Vec<_> = (0..2)
            .map(|slot| {
                let (gate, slots) = (gate.clone(), slots.clone());
                thread::spawn(move || {
                    if gate.pin(slot, 0).is_ok() {
                        slots.0[0].with(|p| {
                            // SAFETY: the pin holds; loom checks that nobody writes meanwhile.
                            assert_eq!(unsafe { *p }, 0);
                        });
                        gate.unpin(slot);
                    }
                })
            })
            .collect();
        // Position 2 reuses the memory of position 0: the floor goes above 0 first.
        if gate.raise_floor(1) >= 1 {
            slots.0[0].with_mut(|p| {
                // SAFETY: no pin below 1 was seen after the floor went up.
                unsafe { *p = 2 };
            });
            gate.publish(3);
        }
        for reader in readers {
            reader.join().expect("reader");
        }
    });
}

#[test]
fn what_is_published_is_there() {
    loom::model(|| {
        let (gate, slots) = (
            Arc::new(Gate::new(1, 0)),
            Arc::new(Slots([UnsafeCell::new(9), UnsafeCell::new(9)])),
        );
        let reader = {
            let (gate, slots) = (gate.clone(), slots.clone());
            thread::spawn(move || {
                if gate.pin(0, 0).is_ok() && gate.head() > 0 {
                    slots.0[0].with(|p| {
                        // SAFETY: below the head, pinned.
                        assert_eq!(unsafe { *p }, 7);
                    });
                }
                gate.unpin(0);
            })
        };
        slots.0[0].with_mut(|p| {
            // SAFETY: position 0 is at the head, not below it: nobody reads it yet.
            unsafe { *p = 7 };
        });
        gate.publish(1);
        reader.join().expect("reader");
    });
}

/// The gate's protocol again, with its orderings as parameters, so that they can be weakened.
fn weakened(fences: bool, pin_order: Ordering) {
    loom::model(move || {
        let (pin, floor, slots) = (
            Arc::new(AtomicU64::new(UNPINNED)),
            Arc::new(AtomicU64::new(0)),
            slots(),
        );
        let reader = {
            let (pin, floor, slots) = (pin.clone(), floor.clone(), slots.clone());
            thread::spawn(move || {
                for at in [0, 1] {
                    pin.store(at, pin_order);
                    if fences {
                        fence(Ordering::SeqCst);
                    }
                    if floor.load(Ordering::Acquire) <= at {
                        slots.0[at as usize].with(|p| {
                            // SAFETY: this is what the model tries to refute.
                            let _ = unsafe { *p };
                        });
                    }
                }
                pin.store(UNPINNED, Ordering::Release);
            })
        };
        floor.store(1, Ordering::Relaxed);
        if fences {
            fence(Ordering::SeqCst);
        }
        if pin.load(Ordering::Acquire) >= 1 {
            slots.0[0].with_mut(|p| {
                // SAFETY: this is what the model tries to refute.
                unsafe { *p = 2 };
            });
        }
        reader.join().expect("reader");
    });
}

fn races(fences: bool, pin_order: Ordering) -> bool {
    catch_unwind(AssertUnwindSafe(|| weakened(fences, pin_order))).is_err()
}

#[test]
fn as_it_is_it_holds() {
    assert!(!races(true, Ordering::Release));
}

#[test]
fn without_the_fences_it_races() {
    assert!(races(false, Ordering::Release));
}

#[test]
fn with_a_relaxed_pin_it_races() {
    assert!(races(true, Ordering::Relaxed));
}
