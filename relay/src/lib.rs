//! Totality: the live relay. What its program is made of: configuration, crew, control plane, demo.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod check;
pub mod cli;
pub mod conductor;
pub mod config;
pub mod demo;
pub mod keygen;
pub mod local;
pub mod logging;
pub mod node;
pub mod run;
pub mod signals;
pub mod start;
pub mod status;
pub mod steer;
pub mod team;
pub mod watchdog;
