//! Text that leaves the house: log lines, HTML, playlists, dates. A stranger's bytes are escaped here and only here.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::http::Version;

/// UTF-8 where it is valid, else Latin-1: how names and titles of stream clients are meant.
pub fn latin1_or_utf8(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&b| b as char).collect()),
    }
}

/// `text` without anything a terminal or a log reader could take for a command: control characters, both C0 and
/// C1, DEL, line separators and characters that reorder text become `\x1b` or `\u{202e}`, and a backslash is doubled.
pub fn escape_log(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe_in_log) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            c if is_unsafe_in_log(c) && u32::from(c) < 0x100 => _ = write!(out, "\\x{:02x}", u32::from(c)),
            c if is_unsafe_in_log(c) => _ = write!(out, "\\u{{{:x}}}", u32::from(c)),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

fn is_unsafe_in_log(c: char) -> bool {
    let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || c == '\\' || reorders
}

/// `text` for HTML, in elements and in quoted attributes. Control characters but tab and line ends become U+FFFD.
pub fn escape_html(text: &str) -> Cow<'_, str> {
    let special =
        |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'') || (c.is_control() && !"\t\r\n".contains(c));
    if !text.chars().any(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if special(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A playlist of one stream, as players open it. `name` is shown by them.
pub fn m3u(url: &str, name: &str) -> String {
    let line = |text: &str| {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
    };
    format!("#EXTM3U\r\n#EXTINF:-1,{}\r\n{}\r\n", line(name), line(url))
}

/// One served request, as it is written to the access log.
#[derive(Clone, Debug)]
pub struct AccessLine<'a> {
    /// The client's address.
    pub host: &'a str,
    /// The user who was authenticated, if any.
    pub user: Option<&'a str>,
    /// When the request ended, in seconds since 1970.
    pub unix_seconds: u64,
    /// The method.
    pub method: &'a str,
    /// The target as it came.
    pub target: &'a str,
    /// The version of the request.
    pub version: Version,
    /// The status that was sent.
    pub status: u16,
    /// Body bytes that were sent.
    pub bytes: u64,
    /// The `Referer` field, if any.
    pub referer: Option<&'a str>,
    /// The `User-Agent` field, if any.
    pub agent: Option<&'a str>,
    /// How long the client was connected, in whole seconds.
    pub seconds: u64,
}

impl AccessLine<'_> {
    /// Icecast's combined format: Apache's, with the seconds connected at the end. No line end.
    pub fn combined(&self) -> String {
        format!(
            "{} - {} [{}] \"{} {} {}\" {} {} \"{}\" \"{}\" {}",
            log_word(self.host),
            log_word(self.user.unwrap_or("-")),
            log_date(self.unix_seconds),
            log_word(self.method),
            log_word(self.target),
            self.version.as_str(),
            self.status,
            self.bytes,
            log_quoted(self.referer.unwrap_or("-")),
            log_quoted(self.agent.unwrap_or("-")),
            self.seconds,
        )
    }
}

/// For inside quotes: escaped, and a quote cannot end the field.
fn log_quoted(text: &str) -> String {
    escape_log(text).replace('"', "\\\"")
}

/// For between spaces: the same, and a space cannot end it either.
fn log_word(text: &str) -> String {
    log_quoted(text).replace(' ', "\\x20")
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A moment in UTC, taken apart.
struct Civil {
    year: u64,
    /// 0 is January.
    month: usize,
    day: u64,
    /// 0 is Sunday.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    fn from_unix(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date_of(days);
        // 1 January 1970 was a Thursday.
        let weekday = (days + 4) % 7;
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        Self {
            year,
            month,
            day,
            weekday: weekday as usize,
            hour,
            minute,
            second,
        }
    }
}

/// Year, month from 0, day from 1, of a day counted from 1 January 1970. Years are counted from March, so that
/// the leap day is a year's last, and in groups of 400, after which the calendar repeats.
fn date_of(days: u64) -> (u64, usize, u64) {
    // From 1 March 0000 on.
    let days = days + 719_468;
    let (group, day_of_group) = (days / 146_097, days % 146_097);
    let leaps = day_of_group / 1460 + day_of_group / 146_096 - day_of_group / 36_524;
    let year_of_group = (day_of_group - leaps) / 365;
    let day_of_year = day_of_group - (365 * year_of_group + year_of_group / 4 - year_of_group / 100);
    // Months from March on have 153 days in every five.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = ((from_march + 2) % 12) as usize;
    (group * 400 + year_of_group + u64::from(month < 2), month, day)
}

/// The date of HTTP fields (IMF-fixdate, RFC 9110 section 5.6.7), from seconds since 1970.
pub fn http_date(unix_seconds: u64) -> String {
    let c = Civil::from_unix(unix_seconds);
    let (weekday, month) = (DAYS[c.weekday], MONTHS[c.month]);
    format!(
        "{weekday}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT",
        c.day, c.year, c.hour, c.minute, c.second
    )
}

/// The date of access logs, from seconds since 1970, in UTC.
pub fn log_date(unix_seconds: u64) -> String {
    let c = Civil::from_unix(unix_seconds);
    let month = MONTHS[c.month];
    format!(
        "{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000",
        c.day, c.year, c.hour, c.minute, c.second
    )
}

/// ISO 8601 with a zone, as Icecast's statistics have it, from seconds since 1970.
pub fn iso_date(unix_seconds: u64) -> String {
    let c = Civil::from_unix(unix_seconds);
    let month = c.month + 1;
    format!(
        "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}+0000",
        c.year, c.day, c.hour, c.minute, c.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn logs_are_escaped() {
        // Row A8.
        assert_eq!(escape_log("plain ☀"), "plain ☀");
        assert_eq!(
            escape_log("\x1b[31m\r\n\0\x7f\u{9b}\\\u{202e}"),
            "\\x1b[31m\\x0d\\x0a\\x00\\x7f\\x9b\\\\\\u{202e}"
        );
    }

    #[test]
    fn html_is_escaped() {
        assert_eq!(
            escape_html("<script>\"a\" & 'b'\x1b"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{fffd}"
        );
        assert!(matches!(escape_html("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_playlist_has_one_entry() {
        assert_eq!(
            m3u("http://h/a", "Sun\r\nhttp://evil"),
            "#EXTM3U\r\n#EXTINF:-1,Sun  http://evil\r\nhttp://h/a\r\n"
        );
    }

    #[test]
    fn known_dates() {
        // The example of RFC 9110 section 5.6.7, leap days, and the ends of years and centuries.
        for (unix, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_786_557_600, "Wed, 12 Aug 2026 18:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix), date);
        }
        assert_eq!(log_date(784_111_777), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(iso_date(784_111_777), "1994-11-06T08:49:37+0000");
    }

    #[test]
    fn days_follow_each_other() {
        let (mut before, lengths) = ((1969, 11, 31), [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]);
        for days in 0..200_000 {
            let (y, m, d) = date_of(days);
            let leap = before.0 % 4 == 0 && (before.0 % 100 != 0 || before.0 % 400 == 0);
            let length = lengths[before.1] + u64::from(leap && before.1 == 1);
            let expected = match before {
                (y, 11, 31) => (y + 1, 0, 1),
                (y, m, d) if d == length => (y, m + 1, 1),
                (y, m, d) => (y, m, d + 1),
            };
            assert_eq!((y, m, d), expected);
            before = expected;
        }
    }

    fn line<'a>(target: &'a str, agent: &'a str) -> AccessLine<'a> {
        AccessLine {
            host: "127.0.0.1",
            user: None,
            unix_seconds: 784_111_777,
            method: "GET",
            target,
            version: Version::Http11,
            status: 200,
            bytes: 1234,
            referer: None,
            agent: Some(agent),
            seconds: 7,
        }
    }

    #[test]
    fn the_combined_format() {
        assert_eq!(
            line("/a.ts", "VLC/3.0 LibVLC").combined(),
            "127.0.0.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a.ts HTTP/1.1\" 200 1234 \"-\" \"VLC/3.0 LibVLC\" 7"
        );
    }

    #[test]
    fn no_field_ends_early() {
        let text = line("/a b\"c", "x\" 0 \"y\r\n127.0.0.1 - forged").combined();
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains("/a\\x20b\\\"c") && text.contains("x\\\" 0 \\\"y\\x0d\\x0a"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn nothing_unescaped_remains(text in any::<String>()) {
            let log = escape_log(&text);
            prop_assert!(log.bytes().all(|b| b >= 0x20 && b != 0x7f));
            let html = escape_html(&text);
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
        }

        #[test]
        fn any_second_has_a_date(unix in any::<u64>()) {
            prop_assert!(http_date(unix).ends_with(" GMT"));
        }
    }
}
