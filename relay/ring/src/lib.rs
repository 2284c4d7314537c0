//! Chunk memory: one writer, many cursors, pins, parking and mailboxes.

mod bell;
pub use bell::Bell;
