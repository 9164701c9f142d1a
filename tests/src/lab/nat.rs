//! The same Service done the usual way, for comparison: one node owns the VIP and nftables rewrites destination and
//! source of every packet, so that replies come back through it.

use super::{Family, Namespace, Node, Pod, address::host_length, namespace};
use anyhow::{Context, Result};
use std::net::IpAddr;

/// A Service served by a node's nftables; dropping it removes the rules and the address.
#[derive(Debug)]
pub struct Nat {
    namespace: Namespace,
    vip: IpAddr,
}

impl Nat {
    /// Serves `vip`:`port` over TCP from `node`, spread over `pods` at `target`.
    ///
    /// # Errors
    /// When rules or address are refused.
    pub fn start(node: &Node, vip: IpAddr, port: u16, pods: &[&Pod], target: u16) -> Result<Self> {
        let family = Family::of(vip);
        let nat = Self {
            namespace: node.namespace.clone(),
            vip,
        };
        nat.namespace
            .output(&format!("ip address add {vip}/{} dev eth0", host_length(family)))?;
        let ip = if vip.is_ipv4() { "ip" } else { "ip6" };
        let choices = pods
            .iter()
            .enumerate()
            .map(|(number, pod)| format!("{number} : {}", pod.address(family)));
        let rules = format!(
            "table {ip} lab {{\n\
               chain incoming {{ type nat hook prerouting priority dstnat;\n\
                 {ip} daddr {vip} tcp dport {port} dnat to numgen inc mod {count} map {{ {map} }} : {target}\n }}\n\
               chain outgoing {{ type nat hook postrouting priority srcnat; ct status dnat masquerade\n }}\n\
             }}\n",
            count = pods.len(),
            map = choices.collect::<Vec<_>>().join(", "),
        );
        let mut nft = nat.namespace.command("nft");
        namespace::feed(nft.args(["-f", "-"]), &rules).with_context(|| format!("of these rules:\n{rules}"))?;
        Ok(nat)
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        let length = host_length(Family::of(self.vip));
        let table = if self.vip.is_ipv4() { "ip" } else { "ip6" };
        let lines = [
            format!("nft delete table {table} lab"),
            format!("ip address del {}/{length} dev eth0", self.vip),
        ];
        for line in lines {
            if let Err(error) = self.namespace.output(&line) {
                eprintln!("{error:#}");
            }
        }
    }
}
