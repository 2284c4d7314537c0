//! NTP time stamps (RFC 5905 §6), as munros carry them: 32 bits of seconds since 1900, UTC, and 32 bits of fraction.
//!
//! The seconds start again in February 2036. Two stamps are therefore compared by their distance, which is right as
//! long as they are less than 68 years apart, and never as plain numbers.

/// Seconds from 1900 to 1970.
const UNIX_EPOCH: u64 = 2_208_988_800;
const MICROS: u64 = 1_000_000;

/// A moment, to 2^-32 seconds, in an era that the reader has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The moment this many microseconds after the beginning of 1970, UTC.
    #[must_use]
    pub const fn from_unix_us(us: u64) -> Self {
        let seconds = us / MICROS + UNIX_EPOCH;
        let fraction = ((us % MICROS) << 32) / MICROS;
        // The era is cut off.
        Self((seconds << 32) | fraction)
    }

    /// Microseconds from `earlier` to this moment; negative where `earlier` is the later one.
    #[must_use]
    pub const fn us_since(self, earlier: Self) -> i64 {
        let ticks = self.0.wrapping_sub(earlier.0).cast_signed() as i128;
        ((ticks * MICROS as i128) >> 32) as i64
    }

    /// Whether this moment is before `other`.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The last second before the seconds start again: 2036-02-07 06:28:15 UTC.
    const ERA_END: u64 = (1 << 32) - 1 - UNIX_EPOCH;

    #[test]
    fn known_moments() {
        assert_eq!(NtpTime::from_unix_us(0), NtpTime(2_208_988_800 << 32));
        assert_eq!(
            NtpTime::from_unix_us(500_000).0,
            (2_208_988_800 << 32) + (1 << 31)
        );
    }

    #[test]
    fn the_new_era_is_later() {
        let last = NtpTime::from_unix_us(ERA_END * MICROS);
        let first = NtpTime::from_unix_us((ERA_END + 1) * MICROS);
        assert_eq!(first, NtpTime(0));
        assert!(last.is_before(first) && !first.is_before(last));
        assert_eq!(
            (first.us_since(last), last.us_since(first)),
            (1_000_000, -1_000_000)
        );
    }

    proptest! {
        #[test]
        fn distances_survive(us in 0..4_000_000_000 * MICROS, later in 0..1_000_000_000 * MICROS) {
            let (a, b) = (NtpTime::from_unix_us(us), NtpTime::from_unix_us(us + later));
            // Each stamp is cut to 2^-32 s.
            prop_assert!((b.us_since(a) - later.cast_signed()).abs() <= 1);
        }

        #[test]
        fn any_stamps_have_a_distance(a: u64, b: u64) {
            prop_assert!(NtpTime(a).us_since(NtpTime(b)).unsigned_abs() <= (1 << 31) * MICROS);
        }
    }
}
