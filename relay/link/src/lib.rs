//! The chunk-exact stream between nodes: both ends, upstream order and back-off.
