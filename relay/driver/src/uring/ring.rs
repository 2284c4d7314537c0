//! Submission and completion: `io_uring_enter` and its moods.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, types};

#[cfg(test)]
use super::faults;
use super::ops::{Kind, Plain, Tag};
use crate::stats::SharedStats;

/// How often in a row `io_uring_enter` may refuse before the driver gives up: about ten seconds of EAGAIN.
const PATIENCE: u32 = 10_000;
/// The pause after EAGAIN: the kernel has no memory for requests.
const BREATH: Duration = Duration::from_millis(1);

/// Calls of one look: enough for the notifications of two full batches.
const LOOKS: usize = 32;

/// A completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) tag: Tag,
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Done {
    /// The operation goes on: more completions come.
    pub(super) fn more(self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// It is the second completion of a send without a copy: the kernel has let go of the memory.
    pub(super) fn notifies(self) -> bool {
        io_uring::cqueue::notif(self.flags)
    }

    /// What it notifies of was copied after all (`IORING_NOTIF_USAGE_ZC_COPIED`).
    pub(super) fn copied(self) -> bool {
        self.result.cast_unsigned() & (1 << 31) != 0
    }

    /// The receive buffer that it used.
    pub(super) fn buffer(self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// The ring; completions of sends are kept apart from all others.
pub(super) struct Ring {
    pub(super) io: IoUring,
    inbox: VecDeque<Done>,
    sent: Vec<Done>,
    /// Operations given to the ring whose last completion has not come.
    in_flight: usize,
    /// Those among them that only await the notification of a send without a copy. They name no memory of this ring's.
    awaited: usize,
    /// The interface itself is broken: nothing may be submitted any more.
    poisoned: bool,
    stats: Arc<SharedStats>,
}

impl Ring {
    pub(super) fn new(io: IoUring, stats: Arc<SharedStats>) -> Self {
        Self {
            io,
            inbox: VecDeque::new(),
            sent: Vec::new(),
            in_flight: 0,
            awaited: 0,
            poisoned: false,
            stats,
        }
    }

    /// Queues an operation; it is submitted with the next call into the kernel.
    pub(super) fn push(&mut self, op: &Plain) -> io::Result<()> {
        // SAFETY: a `Plain` names no memory that could go away.
        unsafe { self.push_entry(op.entry()) }
    }

    /// # Safety
    ///
    /// The memory that the entry names stays until its completion, or until this ring is poisoned.
    pub(super) unsafe fn push_entry(&mut self, entry: &Entry) -> io::Result<()> {
        loop {
            // SAFETY: the caller's promise.
            let pushed = unsafe { self.io.submission().push(entry) };
            if pushed.is_ok() {
                self.in_flight += 1;
                return Ok(());
            }
            self.flush()?;
        }
    }

    /// Submits everything that is queued.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut patience = PATIENCE;
        while !self.nothing_queued() {
            let entered = self.enter(0, None);
            self.reap();
            self.excuse(entered, &mut patience)?;
        }
        Ok(())
    }

    /// Waits for a completion, at most `timeout`. What is queued is submitted; that alone may be left undone when
    /// the kernel refuses: the next call does it.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut patience = PATIENCE;
        let entered = self.enter(1, timeout);
        self.reap();
        self.excuse(entered, &mut patience)
    }

    /// Submits, and takes what has completed, without waiting. No system call where there is nothing to do.
    pub(super) fn look(&mut self) -> io::Result<()> {
        // A call runs some twenty pieces of deferred work and says when there are more: a batch of notifications takes
        // several. What was received is told before more is taken: the machine may want to hear no more of it.
        for _ in 0..LOOKS {
            if !self.kernel_has_work() {
                break;
            }
            let mut patience = PATIENCE;
            let entered = self.enter(0, None);
            self.excuse(entered, &mut patience)?;
            let known = self.inbox.len();
            self.reap();
            if self.inbox.range(known..).any(|done| done.tag.kind != Kind::Zero) {
                break;
            }
        }
        self.reap();
        self.flush()
    }

    /// Collects the completions of `n` sends that have been pushed.
    pub(super) fn collect(&mut self, n: usize, mut each: impl FnMut(Done)) -> io::Result<()> {
        self.flush()?;
        let mut left = n;
        loop {
            self.reap();
            left -= self.sent.len();
            self.sent.drain(..).for_each(&mut each);
            if left == 0 {
                return Ok(());
            }
            self.wait(None)?;
        }
    }

    pub(super) fn nothing_queued(&mut self) -> bool {
        self.io.submission().is_empty()
    }

    /// Completions wait in the kernel for a call: deferred work, or an overflowed queue.
    fn kernel_has_work(&mut self) -> bool {
        let queue = self.io.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Something can be had without waiting.
    pub(super) fn pending(&mut self) -> bool {
        let waiting = { self.io.submission().taskrun() || self.io.submission().cq_overflow() };
        waiting || !self.inbox.is_empty() || !self.io.completion().is_empty()
    }

    /// The next completion that is not a send's.
    pub(super) fn next(&mut self) -> Option<Done> {
        self.inbox.pop_front()
    }

    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        #[cfg(test)]
        faults::check()?;
        let submitter = self.io.submitter();
        let entered = match timeout {
            Some(timeout) if want > 0 => {
                let timespec = types::Timespec::from(timeout);
                submitter.submit_with_args(want, &types::SubmitArgs::new().timespec(&timespec))
            }
            _ => submitter.submit_and_wait(want),
        };
        entered.map(drop)
    }

    /// Takes the answers of the kernel that ask for patience; the caller has reaped and calls again.
    fn excuse(&mut self, entered: io::Result<()>, patience: &mut u32) -> io::Result<()> {
        let Err(error) = entered else { return Ok(()) };
        match error.raw_os_error() {
            Some(libc::ETIME) => return Ok(()),
            Some(libc::EINTR) => self.stats.enter_eintr.one(),
            Some(libc::EBUSY) => self.stats.enter_ebusy.one(),
            Some(libc::EAGAIN) => {
                self.stats.enter_eagain.one();
                thread::sleep(BREATH);
            }
            _ => return Err(self.poison(error)),
        }
        *patience -= 1;
        if *patience == 0 {
            Err(self.poison(error))
        } else {
            Ok(())
        }
    }

    fn poison(&mut self, error: io::Error) -> io::Error {
        self.poisoned = true;
        io::Error::new(error.kind(), format!("io_uring_enter failed: {error}"))
    }

    /// Moves completions out of the shared queue, so that the kernel has room.
    fn reap(&mut self) {
        if self.io.submission().cq_overflow() {
            self.stats.cq_overflows.one();
        }
        for entry in self.io.completion() {
            let (result, flags) = (entry.result(), entry.flags());
            let Some(tag) = Tag::unpack(entry.user_data()) else {
                continue;
            };
            let done = Done { tag, result, flags };
            if !done.more() {
                self.in_flight -= 1;
            }
            if tag.kind == Kind::Zero {
                self.awaited += usize::from(done.more());
                self.awaited -= usize::from(done.notifies());
            }
            match tag.kind {
                Kind::Send => self.sent.push(done),
                Kind::Zero if !done.notifies() => self.sent.push(done),
                _ => self.inbox.push_back(done),
            }
        }
    }

    /// Cancels everything and waits for the last completions, which `each` gets; `true` when nothing is in flight that
    /// could touch our buffers. Notifications are not waited for: a peer that does not acknowledge could delay them
    /// for long, and the kernel keeps the pages by itself.
    pub(super) fn wind_down(&mut self, mut each: impl FnMut(Done)) -> bool {
        /// Rounds of waiting; each is at most this long.
        const ROUNDS: u32 = 50;
        const ROUND: Duration = Duration::from_millis(100);
        if self.poisoned || self.push(&Plain::cancel_everything()).is_err() {
            return false;
        }
        for _ in 0..ROUNDS {
            self.inbox.drain(..).for_each(&mut each);
            if self.in_flight == self.awaited {
                return true;
            }
            if self.flush().is_err() || (self.in_flight > self.awaited && self.wait(Some(ROUND)).is_err()) {
                return false;
            }
        }
        false
    }
}
