//! An independent builder of frames: what the golden table feeds to the packet path and what it expects back.
//!
//! Every layer is a plain struct whose `Default` or constructor gives an ordinary header, so a case names only what is
//! special about it. Lengths and checksums are computed here, over whole headers; nothing comes from `weir-common`.
//! Wrong values are made on purpose by the fields that say so. This module does not parse.

mod geneve;
mod ip;
mod link;
mod neighbor;
mod transport;

pub use geneve::{Geneve, Previous, Steering};
pub use ip::{Ip, Upper};
pub use link::{Link, Mac, Tag};
pub use neighbor::{Arp, advertisement, solicitation};
pub use transport::{Icmp, Raw, Tcp, Udp, flag};

/// The Internet checksum of `bytes` (RFC 1071), as it stands in a header: complemented, as a number.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) * 256 + pair.get(1).map_or(0, |&low| u64::from(low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The 16-bit word for which a packet's checksum field, at `at`, is `target`. `packet` puts the word at an even offset of
/// what the checksum covers. `None` if there is no such word (a checksum that never takes that value).
pub fn word_for(target: u16, at: usize, packet: impl Fn(u16) -> Vec<u8>) -> Option<u16> {
    let field = |word| {
        let packet = packet(word);
        u16::from_be_bytes([packet[at], packet[at + 1]])
    };
    // The sum without the word plus the word is to be the complement of the target, all modulo 0xffff.
    let (wanted, without) = (u32::from(!target), u32::from(!field(0)));
    let word = ((wanted + 0xffff - without) % 0xffff) as u16;
    // Zero and all ones add the same, but not to nothing.
    [word, if word == 0 { 0xffff } else { word }]
        .into_iter()
        .find(|&word| field(word) == target)
}

#[cfg(test)]
mod tests;
