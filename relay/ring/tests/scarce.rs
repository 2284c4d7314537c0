//! A host that has nothing left when memory is to be renewed. Alone in its process: the limit is the process's.
#![cfg(not(any(miri, feature = "loom")))]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relay_ring::Ring;

const CAP: usize = Ring::CAPACITY_MIN;

/// Without a descriptor there is no fresh memory.
fn scarce(run: impl FnOnce()) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("a limit of nothing");
    run();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("the old limit");
}

#[test]
fn what_cannot_be_renewed_is_not_overwritten() {
    let (mut writer, ring) = Ring::new(CAP, 1, 0).expect("memory");
    let (mut reader, mut holder) = (ring.reader(0), ring.holder(0));
    let segment = ring.segment();
    writer.append(&vec![1; CAP / 2]);
    reader.pin(0).expect("all there");
    holder.hold(segment as u64 + 5, 10);
    reader.unpin();
    let more = vec![2; CAP];
    let mut taken = 0;
    scarce(|| {
        taken = writer.append(&more);
        assert_eq!(writer.append(&more[taken..]), 0, "it is refused again");
    });
    assert_eq!(taken, CAP / 2 + segment, "up to the segment that is held");
    assert_eq!(ring.version(), 0);
    assert!(writer.ready(CAP - taken), "as soon as there is memory");
    assert_eq!(
        writer.append(&more[taken..]),
        CAP - taken,
        "as soon as there is memory"
    );
    assert_eq!(ring.version(), 1);
}
