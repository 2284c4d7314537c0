//! Chunk addressing (RFC 7574 §4, §7.8): how a swarm writes down which chunks it means.
//!
//! A signature covers these bytes but not the method's number: a swarm has one method, and a munro cannot be translated
//! into another. Byte ranges (method 1) are not spoken: they need the chunk size to mean anything.

use crate::bin::Bin;

/// A chunk addressing method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Addressing {
    /// One 32-bit bin number.
    Bin32,
    /// First and last chunk, 32 bits each: the protocol's default.
    #[default]
    Range32,
    /// One 64-bit bin number.
    Bin64,
    /// First and last chunk, 64 bits each.
    Range64,
}

impl Addressing {
    /// Its number in the protocol option "Chunk Addressing Method".
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Bin32 => 0,
            Self::Range32 => 2,
            Self::Bin64 => 3,
            Self::Range64 => 4,
        }
    }

    /// The method with this number, if it is one of ours.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Bin32),
            2 => Some(Self::Range32),
            3 => Some(Self::Bin64),
            4 => Some(Self::Range64),
            _ => None,
        }
    }

    /// Bytes of a chunk specification: 4 to 16.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a field's width, never zero")]
    pub const fn len(self) -> usize {
        match self {
            Self::Bin32 => 4,
            Self::Range32 | Self::Bin64 => 8,
            Self::Range64 => 16,
        }
    }

    /// Appends the chunk specification of `bin`, big-endian. `None`, and nothing appended, where this method cannot
    /// name it.
    pub fn put(self, bin: Bin, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Bin32 => out.extend(bin.number_32()?.to_be_bytes()),
            Self::Bin64 => out.extend(bin.number().to_be_bytes()),
            Self::Range32 => {
                let (first, last) = (u32::try_from(bin.first()).ok()?, u32::try_from(bin.last()).ok()?);
                out.extend(first.to_be_bytes());
                out.extend(last.to_be_bytes());
            }
            Self::Range64 => {
                out.extend(bin.first().to_be_bytes());
                out.extend(bin.last().to_be_bytes());
            }
        }
        Some(())
    }

    /// The tree node that a chunk specification names. `None` where it has another length, or names no chunk, or a
    /// range that is not one node of the tree: INTEGRITY and SIGNED_INTEGRITY name exactly one.
    #[must_use]
    pub fn node(self, spec: &[u8]) -> Option<Bin> {
        match self {
            Self::Bin32 => Bin::from_number_32(u32::from_be_bytes(spec.try_into().ok()?)),
            Self::Bin64 => Bin::from_number(u64::from_be_bytes(spec.try_into().ok()?)),
            Self::Range32 => {
                let (first, last) = spec.split_at_checked(4)?;
                let first = u32::from_be_bytes(first.try_into().ok()?);
                let last = u32::from_be_bytes(last.try_into().ok()?);
                Bin::from_range(first.into(), last.into())
            }
            Self::Range64 => {
                let (first, last) = spec.split_at_checked(8)?;
                let first = u64::from_be_bytes(first.try_into().ok()?);
                let last = u64::from_be_bytes(last.try_into().ok()?);
                Bin::from_range(first, last)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METHODS: [Addressing; 4] = [
        Addressing::Bin32,
        Addressing::Range32,
        Addressing::Bin64,
        Addressing::Range64,
    ];

    fn spec(method: Addressing, bin: Bin) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let put = method.put(bin, &mut out);
        assert!(
            put.is_some() || out.is_empty(),
            "nothing is appended where nothing can be said"
        );
        put.map(|()| out)
    }

    #[test]
    fn layouts() {
        let bin = Bin::from_range(4, 7).unwrap();
        assert_eq!(spec(Addressing::Bin32, bin).unwrap(), [0, 0, 0, 11]);
        assert_eq!(spec(Addressing::Range32, bin).unwrap(), [0, 0, 0, 4, 0, 0, 0, 7]);
        assert_eq!(spec(Addressing::Bin64, bin).unwrap(), [0, 0, 0, 0, 0, 0, 0, 11]);
        let wide = [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(spec(Addressing::Range64, bin).unwrap(), wide);
    }

    #[test]
    fn codes_and_lengths() {
        for method in METHODS {
            assert_eq!(Addressing::from_code(method.code()), Some(method));
            assert_eq!(spec(method, Bin::leaf(1).unwrap()).unwrap().len(), method.len());
        }
        assert_eq!((Addressing::from_code(1), Addressing::from_code(5)), (None, None));
    }

    #[test]
    fn what_is_too_far_for_32_bits() {
        let last = |chunk| Bin::leaf(chunk).unwrap();
        assert!(spec(Addressing::Range32, last(u32::MAX.into())).is_some());
        assert!(spec(Addressing::Range32, last(1 << 32)).is_none());
        assert!(spec(Addressing::Bin32, last((1 << 31) - 1)).is_some());
        assert!(spec(Addressing::Bin32, last(1 << 31)).is_none());
    }

    #[test]
    fn what_is_no_node() {
        assert_eq!(Addressing::Bin32.node(&[0xFF; 4]), None);
        assert_eq!(Addressing::Bin64.node(&[0xFF; 8]), None);
        assert_eq!(Addressing::Range32.node(&[0, 0, 0, 1, 0, 0, 0, 2]), None);
        assert_eq!(Addressing::Range64.node(&[0xFF; 16]), None);
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(layer in 0_u32..20, offset in 0_u64..1 << 11) {
            let bin = Bin::new(layer, offset).unwrap();
            for method in METHODS {
                prop_assert_eq!(method.node(&spec(method, bin).unwrap()), Some(bin));
            }
        }

        #[test]
        fn any_bytes_are_a_node_or_none(spec in proptest::collection::vec(any::<u8>(), 0..20)) {
            for method in METHODS {
                prop_assert!(method.node(&spec).is_none() || spec.len() == method.len());
            }
        }
    }
}
