//! As much RTMP as a player and a source need, to stand beside servers that speak nothing else (Adobe's specification
//! 1.0, 2012): the simple handshake, `connect`, `createStream`, `play` or `publish`, acknowledgements and pings.
//!
//! Sans-IO: [`Client`] is given what came and says what to send. Everything from the server is hostile: a command has a
//! length that is believed, media are handed on in the pieces in which they came, and what does not follow the
//! specification is an error in words.

mod amf;
mod chunk;
mod client;
mod video;

pub(crate) use client::{Client, Role};
pub(crate) use video::{Camera, FRAME, JoinWatch, Stamps};

/// What the server did that the specification, or the wish, does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// It is no RTMP, or broken RTMP.
    #[error("no RTMP: {0}")]
    Wire(String),
    /// It understood, and said no.
    #[error("refused: {0}")]
    Refused(String),
}

/// A piece of an audio or video message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Media<'a> {
    pub(crate) is_video: bool,
    /// The message begins with these bytes.
    pub(crate) first: bool,
    pub(crate) bytes: &'a [u8],
}
