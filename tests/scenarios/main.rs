//! Stories that real binaries live through on a real kernel, each on both backends.

#![allow(clippy::unwrap_used, missing_docs)]

/// Makes of each `fn story(backend: Backend)` two tests, one on each backend.
macro_rules! on_both_backends {
    ($($story:ident)*) => {
        mod uring {
            $(#[test] fn $story() { super::$story(totality_tests::Backend::Uring) })*
        }
        mod mio {
            $(#[test] fn $story() { super::$story(totality_tests::Backend::Mio) })*
        }
    };
}

mod bad_weather;
mod bench;
mod chain;
mod common;
mod configuration;
mod cores;
mod first_light;
mod hostile_crowds;
mod hostile_heads;
mod hostile_sources;
mod kernel;
mod lan;
mod neighbours;
mod page;
mod slow_listeners;
mod source_blinks;
mod starved;
mod teams;
