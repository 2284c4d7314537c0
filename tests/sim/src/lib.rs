//! The third driver: a seeded simulator for the rules.
