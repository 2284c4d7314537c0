//! What a child of the harness tells its parent: one JSON object a line on stdout, so that CPU is read at the
//! right moment.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// A line of the conversation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A source is through the server's door.
    Publishing,
    /// All listeners are served or have failed.
    Connected { served: usize },
    /// The measured window opens now.
    Start,
    /// The measured window closes now.
    End,
    /// A crowd's result.
    Crowd { report: Box<crate::crowd::Report> },
    /// The result of those who come and go.
    Churn { report: Box<crate::churn::Report> },
    /// A source's result.
    Source { report: crate::source::Report },
}

/// Where events go: to a parent, or nowhere when a person is watching.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teller(pub(crate) bool);

impl Teller {
    /// A parent that went away is no reason to fail: the signal that follows ends us.
    pub(crate) fn tell(self, event: &Event) {
        if !self.0 {
            return;
        }
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&line).and_then(|()| out.flush());
        }
    }
}
