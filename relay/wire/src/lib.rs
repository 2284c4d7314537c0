//! Byte layouts that several rooms speak: HTTP heads, ICY, the link.
//!
//! Nothing here keeps a session, reads a clock or opens a socket. The parsers are given what came so far and say
//! what it is; the incremental decoders ([`http::Chunked`], [`icy::Deinterleaver`]) hold a few words of state and
//! never allocate by a length that came from the network. Everything that is refused is refused by one type,
//! [`http::Refusal`], which says what was expected and what came.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod http;
pub mod icy;
pub mod link;
pub mod text;
