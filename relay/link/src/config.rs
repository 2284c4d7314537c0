//! What an operator may set about links, with the defaults, and the checks that make the rest safe to write out.

use std::fmt;
use std::time::Duration;

use relay_wire::link::NODE_ID_MAX;
use subtle::ConstantTimeEq;

/// Longest mount path, in bytes, percent-decoded.
pub const MOUNT_MAX: usize = 255;
/// Longest node token, in bytes.
pub const TOKEN_MAX: usize = 256;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The node id would not survive a header field.
    #[error("node id: expected 1 to {NODE_ID_MAX} visible ASCII characters without a comma, got {got:?}")]
    NodeId {
        /// What was set.
        got: String,
    },
    /// Not a mount path.
    #[error(
        "mount: expected `/` and a name, at most {MOUNT_MAX} bytes without control characters, got {got:?}"
    )]
    Mount {
        /// What was set.
        got: String,
    },
    /// The token would not survive a header field. What it is, is not said.
    #[error("node token: expected 1 to {TOKEN_MAX} visible ASCII characters, got {len} bytes that are not")]
    Token {
        /// How long it is.
        len: usize,
    },
}

/// The secret that nodes of one tree share. Never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Token`] when it is empty, too long, or not visible ASCII.
    pub fn new(text: &str) -> Result<Self, ConfigError> {
        let good = (1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            return Err(ConfigError::Token { len: text.len() });
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether this is the token. Takes the same time wherever the first difference lies; the length is no secret.
    pub fn matches(&self, got: &str) -> bool {
        self.0.as_bytes().ct_eq(got.as_bytes()).into()
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// How this node serves links.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub(crate) node_id: String,
    pub(crate) token: Option<Token>,
}

impl ServeConfig {
    /// Serve as `node_id`; with no token, to loopback only.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NodeId`].
    pub fn new(node_id: &str, token: Option<Token>) -> Result<Self, ConfigError> {
        Ok(Self {
            node_id: checked_node_id(node_id)?,
            token,
        })
    }
}

/// How one channel is followed from an upstream.
#[derive(Clone, Debug)]
pub struct FollowConfig {
    pub(crate) mount: String,
    pub(crate) node_id: String,
    pub(crate) token: Option<Token>,
    /// An upstream that sends no whole frame for so long is dead. Default 5 s; a server pings every second.
    pub silence: Duration,
    /// How many chunks behind what we have an upstream may start and still be worth waiting for; what it
    /// repeats is dropped. Default 16,384 chunks (21 MB at 1,316 bytes).
    pub behind_max: u64,
}

impl FollowConfig {
    /// Default [`FollowConfig::silence`].
    pub const SILENCE: Duration = Duration::from_secs(5);
    /// Default [`FollowConfig::behind_max`].
    pub const BEHIND_MAX: u64 = 16_384;

    /// Follow `mount` (percent-decoded, with its slash) as `node_id`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Mount`], [`ConfigError::NodeId`].
    pub fn new(mount: &str, node_id: &str, token: Option<Token>) -> Result<Self, ConfigError> {
        let (mount, node_id) = (checked_mount(mount)?, checked_node_id(node_id)?);
        Ok(Self {
            mount,
            node_id,
            token,
            silence: Self::SILENCE,
            behind_max: Self::BEHIND_MAX,
        })
    }
}

/// When upstreams are tried.
#[derive(Clone, Debug)]
pub struct UpstreamsConfig {
    /// The longest first wait after a failure; each further one doubles it. The wait itself is drawn from the
    /// upper half. Default 250 ms.
    pub backoff_min: Duration,
    /// The longest wait. Default 10 s.
    pub backoff_max: Duration,
    /// While on a less preferred upstream, how often each better one is tried. Default 30 s.
    pub probe_every: Duration,
    /// How long an upstream that would make a loop is left alone. Default 60 s.
    pub loop_aside: Duration,
    /// A link that has lasted so long clears its upstream's failures. Default 10 s.
    pub stable_after: Duration,
    /// While nothing is heard, the next upstream is tried beside one that has not answered for so long. Default 500 ms.
    pub hedge_after: Duration,
}

impl Default for UpstreamsConfig {
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(10),
            probe_every: Duration::from_secs(30),
            loop_aside: Duration::from_secs(60),
            stable_after: Duration::from_secs(10),
            hedge_after: Duration::from_millis(500),
        }
    }
}

fn checked_node_id(id: &str) -> Result<String, ConfigError> {
    if is_node_id(id) {
        Ok(id.to_owned())
    } else {
        Err(ConfigError::NodeId { got: id.to_owned() })
    }
}

/// Ids travel in a comma-separated header field, so they hold nothing that would need quoting there.
pub(crate) fn is_node_id(id: &str) -> bool {
    (1..=NODE_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

fn checked_mount(mount: &str) -> Result<String, ConfigError> {
    if is_mount(mount) {
        Ok(mount.to_owned())
    } else {
        Err(ConfigError::Mount {
            got: mount.to_owned(),
        })
    }
}

pub(crate) fn is_mount(mount: &str) -> bool {
    mount.len() > 1
        && mount.len() <= MOUNT_MAX
        && mount.starts_with('/')
        && !mount.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_compared_whole_and_never_printed() {
        let token = Token::new("s3cret-token").unwrap();
        assert!(token.matches("s3cret-token"));
        for wrong in ["", "s3cret", "s3cret-tokem", "S3cret-token", "s3cret-token2"] {
            assert!(!token.matches(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn what_could_break_a_header_field_is_refused() {
        for bad in ["", "a b", "a\r\nb", "é", &"x".repeat(TOKEN_MAX + 1)] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a,b", "a b", "a\nb", &"x".repeat(NODE_ID_MAX + 1)] {
            assert!(ServeConfig::new(bad, None).is_err(), "{bad:?}");
        }
        for bad in [
            "",
            "/",
            "eclipse.ts",
            "/a\r\nb",
            &format!("/{}", "x".repeat(MOUNT_MAX)),
        ] {
            assert!(FollowConfig::new(bad, "node", None).is_err(), "{bad:?}");
        }
        assert!(FollowConfig::new("/héllo world.ts", "node", None).is_ok());
    }
}
