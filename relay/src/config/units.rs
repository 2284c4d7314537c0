//! Values as people write them: sizes, times, rates.

use std::time::Duration;

/// `64KiB`, `4MiB`, `1316`: bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    scaled(
        text,
        &[
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("kB", 1000),
            ("MB", 1_000_000),
            ("B", 1),
        ],
    )
}

/// `500kbit/s`, `8Mbit/s`, `512bit/s`: bytes per second.
pub(super) fn rate(text: &str) -> Option<u64> {
    let units = [
        ("kbit/s", 1000),
        ("Mbit/s", 1_000_000),
        ("Gbit/s", 1_000_000_000),
        ("bit/s", 1),
    ];
    let has_unit = text.ends_with("bit/s");
    scaled(text, &units).filter(|_| has_unit).map(|bits| bits / 8)
}

/// `100ms`, `10s`, `2m`, `0`.
pub(super) fn time(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A whole number within limits.
pub(super) fn number(text: &str, min: u64, max: u64) -> Option<u64> {
    text.parse().ok().filter(|n| (min..=max).contains(n))
}

/// The longest matching unit stands last in no list: each is tried, and only one leaves a number.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = units
        .iter()
        .find_map(|(unit, factor)| {
            Some((text.strip_suffix(unit)?.trim_end(), *factor)).filter(|(d, _)| is_number(d))
        })
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Bytes, for people: at most four digits and a unit.
pub fn show_bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 10.0 && value.fract() > 0.04);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, n) in [
            ("0", 0),
            ("1316", 1316),
            ("64KiB", 65536),
            ("4 MiB", 4 << 20),
            ("2kB", 2000),
            ("9B", 9),
        ] {
            assert_eq!(bytes(text), Some(n), "{text}");
        }
        for bad in ["", "KiB", "-1", "1.5MiB", "4 megabytes", "99999999999GiB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn rates_need_a_unit() {
        assert_eq!(rate("512bit/s"), Some(64));
        assert_eq!(rate("8Mbit/s"), Some(1_000_000));
        assert_eq!(rate("1000"), None);
    }

    #[test]
    fn bytes_for_people() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (4 << 20, "4 MiB"),
            (3_221_225_472, "3 GiB"),
        ] {
            assert_eq!(show_bytes(n), text);
        }
    }
}
