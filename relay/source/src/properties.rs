//! What a source says about its stream, in `ice-*` and `icy-*` fields.

/// A value is cut to this many bytes.
pub const VALUE_MAX: usize = 512;

/// A stream's description. Every text is at most [`VALUE_MAX`] bytes and free of control characters; it is still a
/// stranger's and is escaped where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The media type, without surrounding space, as it was sent. `None`: look at the bytes.
    pub content_type: Option<String>,
    /// `ice-name`
    pub name: Option<String>,
    /// `ice-genre`
    pub genre: Option<String>,
    /// `ice-description`
    pub description: Option<String>,
    /// `ice-url`: a page about the stream.
    pub url: Option<String>,
    /// `ice-public`: whether directories may list it.
    pub public: bool,
    /// `ice-bitrate`, in kb/s.
    pub bitrate: Option<u32>,
    /// `ice-audio-info`: `key=value` pairs with semicolons, as it was sent.
    pub audio_info: Option<String>,
}

impl Properties {
    /// Read from the fields of a head: `get` answers with the first value of a name in any case. `ice-` goes before
    /// `icy-`, the older spelling.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let ice = |key: &str| {
            let either = get(&format!("ice-{key}")).or_else(|| get(&format!("icy-{key}")));
            either.and_then(clean)
        };
        let number = |text: &str| text.split(',').next().and_then(|n| n.trim().parse().ok());
        Self {
            content_type: get("content-type").and_then(clean),
            name: ice("name"),
            genre: ice("genre"),
            description: ice("description"),
            url: ice("url"),
            // SHOUTcast's own name for it is `icy-pub`.
            public: ice("public").or_else(|| ice("pub")).is_some_and(|v| v == "1"),
            bitrate: ice("bitrate").or_else(|| ice("br")).as_deref().and_then(number),
            audio_info: ice("audio-info"),
        }
    }
}

/// Control characters become spaces, ends are trimmed, the rest is cut between characters; nothing left is `None`.
fn clean(value: &str) -> Option<String> {
    let spaced = value.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut left = VALUE_MAX;
    let fits = spaced.take_while(|c| match left.checked_sub(c.len_utf8()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    let text = fits.collect::<String>();
    Some(text.trim()).filter(|t| !t.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(fields: &[(&str, &str)]) -> Properties {
        Properties::read(|name| {
            fields
                .iter()
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| *v)
        })
    }

    #[test]
    fn both_spellings_are_read_and_ice_goes_first() {
        let p = read(&[
            ("Content-Type", "video/mp2t"),
            ("icy-name", "old"),
            ("Ice-Name", "new"),
            ("icy-genre", "sky"),
            ("icy-pub", "1"),
            ("icy-br", "128, 128"),
            ("ice-audio-info", "bitrate=128;channels=2"),
        ]);
        assert_eq!(p.content_type.as_deref(), Some("video/mp2t"));
        assert_eq!(
            (p.name.as_deref(), p.genre.as_deref()),
            (Some("new"), Some("sky"))
        );
        assert_eq!((p.public, p.bitrate), (true, Some(128)));
        assert_eq!(p.audio_info.as_deref(), Some("bitrate=128;channels=2"));
        assert_eq!(read(&[]), Properties::default());
    }

    #[test]
    fn nonsense_is_left_out() {
        let p = read(&[
            ("ice-bitrate", "-1"),
            ("ice-public", "yes"),
            ("ice-name", " \t "),
            ("ice-url", ""),
        ]);
        assert_eq!(p, Properties::default());
    }

    proptest! {
        #[test]
        fn values_are_bounded_and_printable(value in "\\PC{0,300}|[\0-\u{9f}é☀]{0,600}") {
            if let Some(name) = read(&[("ice-name", &value)]).name {
                prop_assert!(name.len() <= VALUE_MAX && !name.is_empty());
                prop_assert!(name.chars().all(|c| !c.is_control()));
            }
        }
    }
}
