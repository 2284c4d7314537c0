//! HTTP listener session: ask, greet, hear, be let go.
