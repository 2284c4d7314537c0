//! Byte layouts that several rooms speak: HTTP heads, ICY, the link.
