//! One core's worth of relay, without I/O. Open turn.rs first.
