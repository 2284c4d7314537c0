//! The program from outside: against servers in the test that behave, and against some that do not.

#![allow(clippy::unwrap_used)]

mod bad_servers;
mod compare;
mod decode;
mod join;
mod listeners;
mod loads;
mod rtmp;
mod source;
mod world;
