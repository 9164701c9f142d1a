//! OpenELB's speaker, as far as packets know it: it answers by ARP and NDP who has an address, with its node's own MAC. OpenELB's
//! own image is not to be had here. What it answers is what the kernel does for a proxied neighbour.

use crate::lab::Node;
use anyhow::Result;
use std::{fs, net::IpAddr};

/// Answers for one address on one node until it is dropped.
#[derive(Debug)]
pub struct Speaker {
    node: Node,
    address: IpAddr,
}

impl Speaker {
    /// Begins to answer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(node: &Node, address: IpAddr) -> Result<Self> {
        node.namespace.run(|| {
            // Else answers are put off by up to 0.8 s, so that the address's own host can be first; there is none.
            for family in ["ipv4", "ipv6"] {
                fs::write(format!("/proc/sys/net/{family}/neigh/eth0/proxy_delay"), "0")?;
            }
            fs::write("/proc/sys/net/ipv6/conf/eth0/proxy_ndp", "1")?;
            Ok(())
        })?;
        // Over ARP it answers only for what it would send elsewhere than where the question came from. No packet takes this
        // way: kube-proxy has translated it before.
        node.namespace.ip_batch(&format!(
            "route add {address} dev pod-1\nneigh add proxy {address} dev eth0\n"
        ))?;
        Ok(Self {
            node: node.clone(),
            address,
        })
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let address = self.address;
        let lines = format!("neigh del proxy {address} dev eth0\nroute del {address} dev pod-1\n");
        if let Err(problem) = self.node.namespace.ip_batch(&lines) {
            eprintln!("a speaker goes on answering for {address}: {problem:#}");
        }
    }
}
