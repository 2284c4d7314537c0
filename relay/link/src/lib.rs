//! The chunk-exact stream between nodes: both ends, upstream order and back-off.
//!
//! * [`serve`]: who may have a link, and at which chunk it starts.
//! * [`follow`]: one link as its receiver sees it; what it lets through is in order, whole, and never twice.
//! * [`merge`]: one channel out of two links while one takes over from the other.
//! * [`upstreams`]: which node to ask, when to ask again, and when to go back to a better one.
//!
//! Rules only: nothing here opens a connection or reads a clock. The frames themselves are
//! [`relay_wire::link`]'s.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
mod dice;
pub mod follow;
pub mod merge;
pub mod serve;
pub mod stats;
pub mod upstreams;

pub use config::{ConfigError, FollowConfig, ServeConfig, Token, UpstreamsConfig};
pub use follow::{Follow, LinkError, LinkEvent, Position};
pub use merge::{Merge, Taken};
pub use serve::{Ask, Denied, From, Heartbeat, Request, Serve, Start, StartReason, Window};
pub use stats::{FollowStats, MergeStats, ServeStats, UpstreamsStats};
pub use upstreams::{Action, Connected, Failure, Kind, Upstream, Upstreams};

/// The media type of a link's body.
pub const CONTENT_TYPE: &str = "application/x-totality-link";

/// The request field that names the nodes below the asker, and the asker itself: a node that finds itself there
/// would feed itself.
pub const PATH_FIELD: &str = "x-totality-path";

/// The response header field by which a refusal is known to come from a node that has links: a 404 with it
/// means that the channel may yet come, without it that there are no links at all.
pub const LINK_FIELD: &str = "x-totality-link";
