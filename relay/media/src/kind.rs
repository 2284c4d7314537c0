//! Which container a stream is in: by its declared type, by its name, or by its first bytes.

use crate::frames::{ADTS_HEAD, Head, MPEG_HEAD, adts_head, mpeg_head};

/// How many first bytes [`Kind::sniff`] may need to be sure; it looks at no more.
pub const SNIFF_BYTES: usize = 4096;

/// A container (or, for MP3 and ADTS, the lack of one).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// MPEG-2 transport stream (ISO/IEC 13818-1).
    MpegTs,
    /// Flash video, also with the enhanced codec headers.
    Flv,
    /// Ogg (RFC 3533): Vorbis, Opus, Theora, FLAC, Speex.
    Ogg,
    /// WebM and Matroska (RFC 9559).
    WebM,
    /// Fragmented MP4 (ISO/IEC 14496-12).
    Mp4,
    /// MPEG audio frames, layers I to III.
    Mp3,
    /// AAC in ADTS frames.
    Adts,
    /// Anything else: passed on without header and joins.
    Other,
}

impl Kind {
    /// The container a media type names (RFC 9110, 8.3); parameters are ignored. `None` when the type leaves it open.
    pub fn from_content_type(ct: &str) -> Option<Kind> {
        let essence = ct
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let (top, sub) = essence.split_once('/')?;
        if !matches!(top, "video" | "audio" | "application") {
            return None;
        }
        match sub {
            "mp2t" | "mpegts" | "x-mpegts" | "vnd.dlna.mpeg-tts" => Some(Kind::MpegTs),
            "x-flv" | "flv" => Some(Kind::Flv),
            "ogg" | "x-ogg" | "opus" => Some(Kind::Ogg),
            "webm" | "x-matroska" | "matroska" => Some(Kind::WebM),
            "mp4" | "m4a" | "x-m4a" | "iso.segment" => Some(Kind::Mp4),
            "mpeg" if top == "audio" => Some(Kind::Mp3),
            "mp3" | "x-mp3" | "mpeg3" | "x-mpeg" if top == "audio" => Some(Kind::Mp3),
            "aac" | "aacp" | "x-aac" if top == "audio" => Some(Kind::Adts),
            _ => None,
        }
    }

    /// The container that the end of a path names (`/eclipse.ts`); a query is ignored.
    pub fn from_extension(path: &str) -> Option<Kind> {
        let name = path.split(['?', '#']).next()?.rsplit('/').next()?;
        match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "ts" | "m2ts" | "mts" => Some(Kind::MpegTs),
            "flv" => Some(Kind::Flv),
            "ogg" | "oga" | "ogv" | "ogx" | "opus" | "spx" => Some(Kind::Ogg),
            "webm" | "mkv" | "mka" => Some(Kind::WebM),
            "mp4" | "m4a" | "m4v" | "m4s" | "fmp4" => Some(Kind::Mp4),
            "mp3" | "mp2" => Some(Kind::Mp3),
            "aac" | "adts" => Some(Kind::Adts),
            _ => None,
        }
    }

    /// The container that the first bytes show. `None` when they show none, or (with fewer than [`SNIFF_BYTES`])
    /// not yet. A stream that begins in the middle is recognised where its frames or packets repeat a sync word.
    pub fn sniff(first: &[u8]) -> Option<Kind> {
        let first = &first[..first.len().min(SNIFF_BYTES)];
        by_magic(first)
            .or_else(|| is_ts(first).then_some(Kind::MpegTs))
            .or_else(|| has_frames(first, ADTS_HEAD, adts_head).then_some(Kind::Adts))
            .or_else(|| has_frames(first, MPEG_HEAD, mpeg_head).then_some(Kind::Mp3))
    }

    /// The media type to declare for it.
    pub fn content_type(self) -> &'static str {
        match self {
            Kind::MpegTs => "video/mp2t",
            Kind::Flv => "video/x-flv",
            Kind::Ogg => "application/ogg",
            Kind::WebM => "video/webm",
            Kind::Mp4 => "video/mp4",
            Kind::Mp3 => "audio/mpeg",
            Kind::Adts => "audio/aac",
            Kind::Other => "application/octet-stream",
        }
    }

    /// A short name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::MpegTs => "mpegts",
            Kind::Flv => "flv",
            Kind::Ogg => "ogg",
            Kind::WebM => "webm",
            Kind::Mp4 => "mp4",
            Kind::Mp3 => "mp3",
            Kind::Adts => "adts",
            Kind::Other => "other",
        }
    }
}

/// Containers that begin with a name.
fn by_magic(first: &[u8]) -> Option<Kind> {
    let boxed = first.get(4..8).unwrap_or_default();
    match first {
        [b'F', b'L', b'V', ..] => Some(Kind::Flv),
        [b'O', b'g', b'g', b'S', ..] => Some(Kind::Ogg),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Some(Kind::WebM),
        [b'I', b'D', b'3', ..] => Some(Kind::Mp3),
        _ => matches!(boxed, b"ftyp" | b"styp" | b"moov" | b"moof" | b"sidx").then_some(Kind::Mp4),
    }
}

/// Four sync bytes in a row, one packet apart (188 bytes, or 192 and 204 with a time stamp or parity).
fn is_ts(first: &[u8]) -> bool {
    let synced = |from: usize, unit: usize| (0..4).all(|i| first.get(from + i * unit) == Some(&0x47));
    [188, 192, 204]
        .into_iter()
        .any(|unit| (0..unit).any(|from| synced(from, unit)))
}

/// A frame whose header is confirmed by the next two; by the next one when the frame is the very beginning.
fn has_frames(first: &[u8], head_len: usize, head: fn(&[u8]) -> Option<Head>) -> bool {
    let follows = |from: usize| {
        let this = head(first.get(from..)?)?;
        head(first.get(from + this.len..)?)
            .filter(|next| next.fixed == this.fixed)
            .map(|_| from + this.len)
    };
    let last = first.len().saturating_sub(head_len);
    follows(0).is_some() || (1..last).any(|from| follows(from).and_then(follows).and_then(follows).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let kind = Kind::from_content_type;
        assert_eq!(kind("video/MP2T"), Some(Kind::MpegTs));
        assert_eq!(kind("video/x-flv"), Some(Kind::Flv));
        assert_eq!(kind("audio/ogg; codecs=opus"), Some(Kind::Ogg));
        assert_eq!(kind("application/ogg"), Some(Kind::Ogg));
        assert_eq!(kind(" video/webm "), Some(Kind::WebM));
        assert_eq!(kind("video/x-matroska"), Some(Kind::WebM));
        assert_eq!(kind("audio/mp4"), Some(Kind::Mp4));
        assert_eq!(kind("audio/mpeg"), Some(Kind::Mp3));
        assert_eq!(kind("video/mpeg"), None);
        assert_eq!(kind("audio/aacp"), Some(Kind::Adts));
        assert_eq!(kind("application/octet-stream"), None);
        assert_eq!(kind("text/ogg"), None);
        assert_eq!(kind(""), None);
        for each in [
            Kind::MpegTs,
            Kind::Flv,
            Kind::Ogg,
            Kind::WebM,
            Kind::Mp4,
            Kind::Mp3,
            Kind::Adts,
        ] {
            assert_eq!(kind(each.content_type()), Some(each));
        }
    }

    #[test]
    fn extensions() {
        let kind = Kind::from_extension;
        assert_eq!(kind("/eclipse.ts"), Some(Kind::MpegTs));
        assert_eq!(kind("/live/a.b.WEBM?x=.mp3"), Some(Kind::WebM));
        assert_eq!(kind("/dir.mp3/eclipse"), None);
        assert_eq!(kind("/eclipse.txt"), None);
    }

    #[test]
    fn sniffing_nothing_and_noise() {
        assert_eq!(Kind::sniff(b""), None);
        assert_eq!(Kind::sniff(&[0; SNIFF_BYTES]), None);
        assert_eq!(Kind::sniff(&[0xFF; SNIFF_BYTES]), None);
        assert_eq!(Kind::sniff(b"<html><body>hello</body></html>"), None);
    }
}
