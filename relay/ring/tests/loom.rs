//! Models of pins, holds, publication and parking, every interleaving of them: `cargo test -p relay-ring
//! --features loom --release --test loom`.
//!
//! Two cells stand for two laps of the ring's memory; the writer overwrites cell 0 for position 2 while a reader
//! may still be reading it as position 0. Each protocol has models that weaken one ordering, or take two steps in the
//! wrong order, and these must find what goes wrong.
#![cfg(feature = "loom")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::thread;
use relay_ring::{Gate, Parking, UNPINNED};

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

/// Whether some interleaving of a model fails.
fn fails(model: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(model)).is_err()
}

fn races(fences: bool, pin_order: Ordering) -> bool {
    fails(|| weakened(fences, pin_order))
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

/// Publication with its orderings as parameters.
fn published(store: Ordering, load: Ordering) {
    loom::model(move || {
        let (head, slots) = (Arc::new(AtomicU64::new(0)), slots());
        let reader = {
            let (head, slots) = (head.clone(), slots.clone());
            thread::spawn(move || {
                if head.load(load) > 0 {
                    slots.0[0].with(|p| {
                        // SAFETY: this is what the model tries to refute.
                        assert_eq!(unsafe { *p }, 7);
                    });
                }
            })
        };
        slots.0[0].with_mut(|p| {
            // SAFETY: this is what the model tries to refute.
            unsafe { *p = 7 };
        });
        head.store(1, store);
        reader.join().expect("reader");
    });
}

#[test]
fn publication_needs_both_its_orderings() {
    assert!(!fails(|| published(Ordering::Release, Ordering::Acquire)));
    assert!(fails(|| published(Ordering::Relaxed, Ordering::Acquire)));
    assert!(fails(|| published(Ordering::Release, Ordering::Relaxed)));
}

/// When a reader tells of a hold, and when the writer looks.
#[derive(Clone, Copy, PartialEq)]
enum Hold {
    /// Under the pin; the writer looks at the pins, then at the holds.
    Right,
    /// The writer looks at the holds first.
    LookedAtFirst,
    /// The reader lets the pin go first.
    MadeTooLate,
}

/// Segment 0 and segment 1 share place 0. The kernel reads cell 0 after the pin is gone; the writer wants the place
/// for segment 1, and takes cell 1 in its stead where it finds that cell 0 is held.
fn held(how: Hold) {
    loom::model(move || {
        let (gate, slots) = (Arc::new(Gate::new(1, 0)), slots());
        gate.publish(1);
        let reader = {
            let (gate, slots) = (gate.clone(), slots.clone());
            thread::spawn(move || {
                if gate.pin(0, 0).is_err() {
                    return;
                }
                if how == Hold::MadeTooLate {
                    gate.unpin(0);
                }
                gate.hold(0, 0, 1);
                gate.unpin(0);
                slots.0[0].with(|p| {
                    // SAFETY: held; loom checks that nobody writes meanwhile.
                    assert_eq!(unsafe { *p }, 0);
                });
                gate.hold(0, 0, 0);
            })
        };
        let early = gate.held(0);
        if gate.raise_floor(1) >= 1 {
            let held = if how == Hold::LookedAtFirst {
                early
            } else {
                gate.held(0)
            };
            slots.0[usize::from(held)].with_mut(|p| {
                // SAFETY: neither pinned nor held, or other memory.
                unsafe { *p = 2 };
            });
            if held {
                gate.renewed(0, 1);
                assert!(!gate.held(0), "what was held is out of the way");
            }
            gate.publish(2);
        }
        reader.join().expect("reader");
    });
}

#[test]
fn what_is_held_is_never_overwritten() {
    assert!(!fails(|| held(Hold::Right)));
}

#[test]
fn holds_looked_at_before_the_pins_race() {
    assert!(fails(|| held(Hold::LookedAtFirst)));
}

#[test]
fn holds_made_after_the_pin_race() {
    assert!(fails(|| held(Hold::MadeTooLate)));
}

/// Who sees the head sees the version of the memory below it, if the writer renews first and publishes then.
fn versioned(renew_first: bool) {
    loom::model(move || {
        let gate = Arc::new(Gate::new(1, 0));
        let reader = {
            let gate = gate.clone();
            thread::spawn(move || {
                if gate.pin(0, 0).is_ok() && gate.head() > 0 {
                    assert_eq!(gate.version(), 1);
                    assert_eq!(gate.since(0), 1);
                }
                gate.unpin(0);
            })
        };
        if renew_first {
            gate.renewed(0, 1);
        }
        gate.publish(1);
        if !renew_first {
            gate.renewed(0, 1);
        }
        reader.join().expect("reader");
    });
}

#[test]
fn the_version_comes_before_the_head() {
    assert!(!fails(|| versioned(true)));
    assert!(fails(|| versioned(false)));
}

/// What a bell is made of: the flag as it is, or the same with a fence taken away.
enum Flag {
    Real(Parking),
    Weak {
        parked: AtomicBool,
        sleeper: bool,
        ringer: bool,
    },
}

impl Flag {
    fn park(&self) {
        match self {
            Flag::Real(parking) => parking.park(),
            Flag::Weak { parked, sleeper, .. } => {
                parked.swap(true, Ordering::AcqRel);
                if *sleeper {
                    fence(Ordering::SeqCst);
                }
            }
        }
    }

    fn unpark(&self) {
        match self {
            Flag::Real(parking) => parking.unpark(),
            Flag::Weak { parked, .. } => parked.store(false, Ordering::Release),
        }
    }

    fn rouse(&self) -> bool {
        match self {
            Flag::Real(parking) => parking.rouse(),
            Flag::Weak { parked, ringer, .. } => {
                if *ringer {
                    fence(Ordering::SeqCst);
                }
                parked.load(Ordering::Relaxed) && parked.swap(false, Ordering::AcqRel)
            }
        }
    }
}

/// What there is to be told: so many ringers, so many changes each.
#[derive(Clone, Copy)]
struct Told {
    ringers: usize,
    each: usize,
}

/// Ringers change something and ring; the sleeper sleeps only when it has seen nothing new after parking. If it
/// sleeps before it has seen everything, its descriptor must be readable in the end. An `eventfd` counts under a lock.
fn parked(told: Told, flag: impl Fn() -> Flag + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    // Three threads have too many interleavings to try all of them: those with up to two preemptions.
    model.preemption_bound = (told.ringers > 1).then_some(2);
    model.check(move || {
        let flag = Arc::new(flag());
        let descriptor = Arc::new(AtomicU64::new(0));
        let changes: Vec<_> = (0..told.ringers).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let threads: Vec<_> = changes
            .iter()
            .map(|change| {
                let (flag, descriptor, change) = (flag.clone(), descriptor.clone(), change.clone());
                thread::spawn(move || {
                    for n in 1..=told.each {
                        change.store(n as u64, Ordering::Relaxed);
                        if flag.rouse() {
                            descriptor.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                })
            })
            .collect();
        let all = (told.ringers * told.each) as u64;
        let mut seen = 0;
        while seen < all {
            flag.park();
            let now = changes.iter().map(|change| change.load(Ordering::Relaxed)).sum();
            if now == seen {
                break;
            }
            flag.unpark();
            descriptor.swap(0, Ordering::AcqRel);
            seen = now;
        }
        for thread in threads {
            thread.join().expect("ringer");
        }
        let readable = descriptor.load(Ordering::Acquire) > 0;
        assert!(seen == all || readable, "a wake-up is lost");
    });
}

#[test]
fn no_wake_up_is_lost() {
    for (ringers, each) in [(1, 2), (2, 1)] {
        parked(Told { ringers, each }, || Flag::Real(Parking::new()));
    }
}

fn loses(sleeper: bool, ringer: bool) -> bool {
    fails(|| {
        parked(Told { ringers: 1, each: 1 }, move || Flag::Weak {
            parked: AtomicBool::new(false),
            sleeper,
            ringer,
        })
    })
}

#[test]
fn parking_needs_both_its_fences() {
    assert!(!loses(true, true));
    assert!(loses(false, true));
    assert!(loses(true, false));
}
