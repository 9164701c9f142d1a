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

#[cfg(test)]
mod tests;
