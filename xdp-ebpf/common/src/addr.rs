//! The one address type: 16 bytes, network order, IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2).

use bytemuck::{Pod, Zeroable, must_cast, must_cast_mut, must_cast_ref};
use core::net::IpAddr;

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d`, in network byte order.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Address {
    /// The bytes as they stand in an IPv6 header.
    pub octets: [u8; 16],
}

impl Address {
    /// The address `::`, which stands for "none" in map values.
    pub const UNSPECIFIED: Self = Self { octets: [0; 16] };

    /// From two words whose memory holds the 16 bytes (so: network order in memory, not as a number).
    #[inline(always)]
    #[must_use]
    pub fn from_words(words: [u64; 2]) -> Self {
        must_cast(words)
    }

    /// The 16 bytes as two words in memory order; comparing and hashing words keeps the compiler from calling `memcmp`,
    /// which does not exist in the kernel.
    #[inline(always)]
    #[must_use]
    pub fn words(&self) -> [u64; 2] {
        must_cast(*self)
    }

    /// Copies this address to `to`, a word at a time: what reads all before it writes becomes a call of `memmove`, which
    /// in the kernel goes byte by byte.
    #[inline(always)]
    pub fn copy_to(&self, to: &mut Self) {
        let (from, to): (&[u64; 2], &mut [u64; 2]) = (must_cast_ref(self), must_cast_mut(to));
        to[0] = from[0];
        to[1] = from[1];
    }

    /// From the four bytes of an IPv4 address, as a word in memory order.
    #[inline(always)]
    #[must_use]
    pub fn from_v4_word(word: u32) -> Self {
        let [a, b, c, d] = word.to_ne_bytes();
        Self::from_words([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])])
    }

    /// From the four bytes of an IPv4 address.
    #[must_use]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        Self {
            octets: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]],
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self { octets: v6.octets() },
        }
    }
}

/// An IPv4-mapped address is the IPv4 address.
impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Self::from(address.octets).to_canonical()
    }
}
