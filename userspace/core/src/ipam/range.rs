//! The addresses of an Eip, as `spec.address` writes them: one address, a prefix, or `first-last`.

use crate::model::Family;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A non-empty run of unicast addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// Nothing is written.
    Empty,
    /// A part is not an IP address.
    NotAnAddress(String),
    /// What follows the `/` is not a prefix length of that family.
    PrefixLength {
        /// What follows.
        text: String,
        /// The longest prefix of the family.
        longest: u8,
    },
    /// The two ends are of different families.
    MixedFamilies,
    /// The last address is before the first.
    Reversed,
    /// Some of the addresses cannot be given to anybody; says which block they are in.
    Reserved(&'static str),
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::NotAnAddress(text) => write!(f, "`{text}` is not an IP address"),
            Self::PrefixLength { text, longest } => {
                write!(f, "`/{text}` is not a prefix length from 0 to {longest}")
            }
            Self::MixedFamilies => write!(f, "it goes from one address family to the other"),
            Self::Reversed => write!(f, "its last address is before its first"),
            Self::Reserved(block) => write!(f, "it has addresses of {block}, which cannot be given to a Service"),
        }
    }
}

impl std::error::Error for RangeError {}

/// Blocks no address of a range may be in: first, last, name.
const RESERVED_V4: [(u128, u128, &str); 4] = [
    (0, 0x00ff_ffff, "0.0.0.0/8 (this network)"),
    (0x7f00_0000, 0x7fff_ffff, "127.0.0.0/8 (loopback)"),
    (0xe000_0000, 0xefff_ffff, "224.0.0.0/4 (multicast)"),
    (0xffff_ffff, 0xffff_ffff, "255.255.255.255/32 (broadcast)"),
];
/// The same for IPv6. IPv4-mapped addresses mean the IPv4 address everywhere in Weir.
const RESERVED_V6: [(u128, u128, &str); 3] = [
    (0, 1, "::/127 (unspecified and loopback)"),
    (0xffff_0000_0000, 0xffff_ffff_ffff, "::ffff:0:0/96 (IPv4-mapped)"),
    (0xff << 120, u128::MAX, "ff00::/8 (multicast)"),
];

impl AddressRange {
    /// The family of its addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        address(self.family, self.first)
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        address(self.family, self.last)
    }

    /// The number of addresses; `u128::MAX` if there are more.
    #[must_use]
    pub const fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// The address `offset` after the first, `None` past the last.
    #[must_use]
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let number = self.first.checked_add(offset)?;
        (number <= self.last).then(|| address(self.family, number))
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, wanted: IpAddr) -> bool {
        let number = number(wanted);
        self.family == Family::of(wanted) && self.first <= number && number <= self.last
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RangeError::Empty);
        }
        let (family, first, last) = if let Some((base, length)) = text.split_once('/') {
            prefix(base, length)?
        } else if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (parse(first)?, parse(last)?);
            if Family::of(first) != Family::of(last) {
                return Err(RangeError::MixedFamilies);
            }
            (Family::of(first), number(first), number(last))
        } else {
            let single = parse(text)?;
            (Family::of(single), number(single), number(single))
        };
        if last < first {
            return Err(RangeError::Reversed);
        }
        let reserved: &[_] = match family {
            Family::V4 => &RESERVED_V4,
            Family::V6 => &RESERVED_V6,
        };
        match reserved.iter().find(|(from, to, _)| first <= *to && *from <= last) {
            Some((_, _, block)) => Err(RangeError::Reserved(block)),
            None => Ok(Self { family, first, last }),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

/// The first and last address of a prefix, whatever its host bits.
fn prefix(base: &str, length: &str) -> Result<(Family, u128, u128), RangeError> {
    let base = parse(base)?;
    let family = Family::of(base);
    let longest: u8 = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let length = length.trim();
    let bits = length
        .parse::<u8>()
        .ok()
        .filter(|bits| *bits <= longest && !length.starts_with('+'));
    let Some(bits) = bits else {
        return Err(RangeError::PrefixLength {
            text: length.into(),
            longest,
        });
    };
    // A shift by all 128 bits has no defined result, so it is spelled out.
    let hosts = 1_u128
        .checked_shl(u32::from(longest - bits))
        .map_or(u128::MAX, |size| size - 1);
    let first = number(base) & !hosts;
    Ok((family, first, first | hosts))
}

fn parse(text: &str) -> Result<IpAddr, RangeError> {
    let text = text.trim();
    text.parse().map_err(|_| RangeError::NotAnAddress(text.into()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // Ranges are made by `from_str` only, so an IPv4 number has 32 bits.
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A05, A07.
    #[test]
    fn every_form_of_address_is_read() {
        for (text, first, last, size) in [
            ("10.1.0.5", "10.1.0.5", "10.1.0.5", 1),
            ("10.1.0.10/24", "10.1.0.0", "10.1.0.255", 256),
            ("10.1.0.7/32", "10.1.0.7", "10.1.0.7", 1),
            ("10.1.0.10-10.1.1.9", "10.1.0.10", "10.1.1.9", 256),
            (" 10.1.0.1 - 10.1.0.1 ", "10.1.0.1", "10.1.0.1", 1),
            ("fd00::2", "fd00::2", "fd00::2", 1),
            ("fd00::1:5/120", "fd00::1:0", "fd00::1:ff", 256),
            (
                "fd00:1:2:3::9/64",
                "fd00:1:2:3::",
                "fd00:1:2:3:ffff:ffff:ffff:ffff",
                1 << 64,
            ),
            ("fd00::5-fd00::7", "fd00::5", "fd00::7", 3),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(
                (range.first().to_string(), range.last().to_string()),
                (first.into(), last.into()),
                "{text}"
            );
            assert_eq!(range.size(), size, "{text}");
            assert!(range.contains(range.first()) && range.contains(range.last()), "{text}");
            assert_eq!(range.nth(range.size()), None, "{text}");
        }
    }

    /// A06.
    #[test]
    fn everything_else_is_refused() {
        let refused = |text: &str| text.parse::<AddressRange>().unwrap_err();
        assert_eq!(refused("  "), RangeError::Empty);
        for text in [
            "ten",
            "10.1.0",
            "10.1.0.1-",
            "10.1.0.1-5",
            "/24",
            "10.1.0.1,10.1.0.2",
            "fe80::1%eth0",
        ] {
            assert!(matches!(refused(text), RangeError::NotAnAddress(_)), "{text}");
        }
        for text in [
            "10.1.0.0/33",
            "10.1.0.0/",
            "10.1.0.0/255.255.255.0",
            "fd00::/129",
            "10.1.0.0/-1",
            "10.1.0.0/+8",
        ] {
            assert!(matches!(refused(text), RangeError::PrefixLength { .. }), "{text}");
        }
        assert_eq!(refused("10.1.0.1-fd00::1"), RangeError::MixedFamilies);
        assert_eq!(refused("10.1.0.9-10.1.0.1"), RangeError::Reversed);
        for text in [
            "0.0.0.0/0",
            "127.0.0.1",
            "224.0.0.0/24",
            "255.255.255.255",
            "::/0",
            "::1",
            "::ffff:10.0.0.1",
            "ff02::1",
        ] {
            assert!(matches!(refused(text), RangeError::Reserved(_)), "{text}");
        }
    }

    #[test]
    fn overlap_is_mutual_and_within_a_family() {
        let range = |text: &str| text.parse::<AddressRange>().unwrap();
        for (a, b, expected) in [
            ("10.1.0.0/24", "10.1.0.255", true),
            ("10.1.0.0/24", "10.1.1.0/24", false),
            ("10.1.0.1-10.1.0.5", "10.1.0.5-10.1.0.9", true),
            ("fd00::/64", "fd00::1", true),
            ("10.1.0.1", "::a01:1", false),
        ] {
            assert_eq!(range(a).overlaps(&range(b)), expected, "{a} {b}");
            assert_eq!(range(b).overlaps(&range(a)), expected, "{b} {a}");
        }
    }
}
