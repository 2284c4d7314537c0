//! What is true in every story, one oracle a file.

pub(crate) mod icy;
pub(crate) mod order;
pub(crate) mod standing;
pub(crate) mod verdict;
