//! Credentials in a head (RFC 7617, RFC 6750). They are carried, never printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// Everything before the first colon.
    pub user: String,
    /// Everything after it.
    pub password: String,
}

impl Basic {
    /// Read the value of an `Authorization` field. `None` for another scheme and for anything malformed: not
    /// base64, not UTF-8, no colon.
    pub(super) fn parse(value: &str) -> Option<Basic> {
        let bytes = STANDARD.decode(scheme(value, "basic")?).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some(Basic {
            user: user.into(),
            password: password.into(),
        })
    }

    /// The value of an `Authorization` field.
    pub fn header(&self) -> String {
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", self.user, self.password))
        )
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic")
            .field("user", &self.user)
            .field("password", &"***")
            .finish()
    }
}

/// What follows the scheme's name, which has any case.
pub(super) fn scheme<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let (first, rest) = value.split_once(' ')?;
    first.eq_ignore_ascii_case(name).then_some(rest.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_hold_colons_and_utf8() {
        let basic = Basic {
            user: "source".into(),
            password: "a:b:ü".into(),
        };
        assert_eq!(Basic::parse(&basic.header()), Some(basic));
        assert_eq!(Basic::parse("bAsIc   c291cmNlOng=").unwrap().password, "x");
    }

    #[test]
    fn malformed_credentials_are_none() {
        // Row A9.
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic ???",
            "Basic c291cmNl",
            "Basic c291cmNlOng",
            "Basic /w==",
            "Bearer c291cmNlOng=",
        ] {
            assert_eq!(Basic::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let text = format!(
            "{:?}",
            Basic {
                user: "u".into(),
                password: "hackme".into()
            }
        );
        assert!(!text.contains("hackme"), "{text}");
    }
}
