//! Errors of `io_uring_enter` on demand, for tests.

use std::cell::RefCell;
use std::io;

/// Every `every`-th call fails with the next of `errnos`, before the kernel sees anything.
#[derive(Default)]
pub(crate) struct Faults {
    /// Which calls fail; zero: none.
    pub(crate) every: usize,
    /// With what, in turn.
    pub(crate) errnos: Vec<i32>,
    calls: usize,
}

thread_local! {
    static FAULTS: RefCell<Faults> = RefCell::default();
}

/// From now on, on this thread.
pub(crate) fn inject(every: usize, errnos: &[i32]) {
    FAULTS.set(Faults {
        every,
        errnos: errnos.to_vec(),
        calls: 0,
    });
}

/// Is it this call's turn to fail?
pub(super) fn check() -> io::Result<()> {
    FAULTS.with_borrow_mut(|faults| {
        faults.calls += 1;
        if faults.every == 0 || !faults.calls.is_multiple_of(faults.every) {
            return Ok(());
        }
        let turn = faults.calls / faults.every;
        Err(io::Error::from_raw_os_error(
            faults.errnos[turn % faults.errnos.len()],
        ))
    })
}
