//! Who answers for a VIP on its segment: one owner per address, the same on every node, without talking to anybody.
//!
//! The owner is the eligible node with the smallest SHA-256 of `<node>#<address>` (the address in its RFC 5952 form), which
//! is OpenELB's rule, so VIPs stay where they are when Weir takes over. Who is eligible is the planner's business.

use sha2::{Digest, Sha256};
use std::net::IpAddr;

/// The owner of `address` among `eligible`; `None` if there is nobody.
pub fn owner<'a>(eligible: impl IntoIterator<Item = &'a str>, address: IpAddr) -> Option<&'a str> {
    let suffix = format!("#{address}");
    eligible.into_iter().min_by_key(|node| {
        let digest: [u8; 32] = Sha256::new().chain_update(node).chain_update(&suffix).finalize().into();
        // Names differ within a cluster, so the name only makes the rule total.
        (digest, *node)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: [(&str, &str); 3] = [
        ("10.10.1.2", "node-a"),
        ("10.10.1.3", "node-a"),
        ("fd00:10:10::2", "node-b"),
    ];

    /// E02: orders as computed by `printf '%s' "$node#$ip" | sha256sum`.
    #[test]
    fn the_smallest_digest_wins() {
        let nodes = ["node-a", "node-b", "node-c"];
        for (address, expected) in EXPECTED {
            assert_eq!(owner(nodes, address.parse().unwrap()), Some(expected), "{address}");
        }
        assert_eq!(owner([], "10.10.1.2".parse().unwrap()), None);
    }

    #[test]
    fn only_the_vips_of_a_lost_node_move() {
        for last in 0..=255 {
            let vip = IpAddr::from([10, 10, 1, last]);
            let before = owner(["node-a", "node-b", "node-c"], vip).unwrap();
            let after = owner(["node-a", "node-c"], vip).unwrap();
            assert!(before == "node-b" || before == after);
        }
    }
}
