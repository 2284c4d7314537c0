//! Totality: the live relay.
