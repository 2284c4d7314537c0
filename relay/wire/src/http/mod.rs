//! HTTP/1.x as a live relay needs it: one request head, one body framing, one answer for each connection.
//!
//! Built on `httparse` for header fields; the request line, the framing rules and the limits are our own and
//! stricter, because between lenient readings live smuggled requests. A connection serves one request: what
//! follows a served head is never read as a second one.

mod auth;
mod body;
mod chunked;
mod head;
mod headers;
mod refusal;
mod request;
mod response;
mod status;
mod target;
mod uri;

pub use auth::Basic;
pub use body::Body;
pub use chunked::Chunked;
pub use headers::Headers;
pub use refusal::Refusal;
pub use request::{Method, RequestBuilder, RequestHead};
pub use response::{ResponseBuilder, ResponseHead};
pub use status::reason;
pub use target::query_param;
pub use uri::HttpUrl;

/// A whole head (request or status line, fields, empty line) is at most this many bytes; more is 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A head has at most this many fields; more is 431.
pub const HEADERS_MAX: usize = 100;

/// A request target is at most this many bytes; more is 414.
pub const TARGET_MAX: usize = 8 * 1024;

/// What a first line may have beside its target: a method, a version, two spaces.
const LINE_MAX: usize = TARGET_MAX + 64;

/// The version word of a first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`
    Http10,
    /// `HTTP/1.1`
    Http11,
    /// `ICE/1.0`, said by old Icecast source clients in requests.
    Ice10,
    /// `ICY`, said by SHOUTcast servers in responses.
    Icy,
}

impl Version {
    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Ice10 => "ICE/1.0",
            Version::Icy => "ICY",
        }
    }
}
