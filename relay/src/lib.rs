//! Totality: the live relay. What its program is made of: configuration, crew, control plane, demo.

pub mod conductor;
pub mod run;
