//! The host under the house: what to check, what it costs to leave it.
