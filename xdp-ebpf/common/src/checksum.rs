//! The Internet checksum, changed incrementally (RFC 1624): `new = ~(~old + ~before + after)`.
//!
//! Sums are of native 16-bit words in memory order: the ones-complement sum does not care about byte order as long as
//! the bytes' places do not move. A difference is a `u64` that may be added to others and is folded once at the end.

use crate::addr::Address;

/// Difference that replacing the 16-bit word `before` by `after` makes.
#[inline(always)]
#[must_use]
pub fn replaced16(before: u16, after: u16) -> u64 {
    u64::from(!before) + u64::from(after)
}

/// Difference that replacing an address makes. An IPv4-mapped one differs in its last four bytes only, so the same sum
/// serves both families.
#[inline(always)]
#[must_use]
pub fn replaced_address(before: &Address, after: &Address) -> u64 {
    let (before, after) = (before.words(), after.words());
    halves(!before[0]) + halves(!before[1]) + halves(after[0]) + halves(after[1])
}

/// The two 32-bit halves of a word, added; 2^16 is 1 in this arithmetic, so halves may be as wide as one likes.
#[inline(always)]
#[must_use]
pub fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// A sum folded to 16 bits.
#[inline(always)]
#[must_use]
pub fn folded(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field `old` after a change by `difference`.
#[inline(always)]
#[must_use]
pub fn updated(old: u16, difference: u64) -> u16 {
    !folded(u64::from(!old) + difference)
}

/// The same for TCP and UDP: `None` when the field is to stay (UDP without checksum), and never 0 for UDP.
#[inline(always)]
#[must_use]
pub fn updated_l4(old: u16, difference: u64, udp: bool) -> Option<u16> {
    if udp && old == 0 {
        return None;
    }
    let new = updated(old, difference);
    Some(if udp && new == 0 { 0xffff } else { new })
}

/// A sum folded to 32 bits, as the kernel's checksum helpers take it.
#[inline(always)]
#[must_use]
pub fn folded32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}
