//! Source sessions and the rule that says who is on the air.
