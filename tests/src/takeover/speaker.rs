//! OpenELB's speaker, as far as packets know it: who answers that it has an address. OpenELB's own image is not to be had here.
//!
//! In layer-2 mode it answers by ARP and NDP with its node's own MAC, which is what the kernel does for a proxied neighbour.
//! In VIP mode it runs keepalived, and so does this one, configured as OpenELB does.

use crate::lab::{Lab, Node, process::Process, wait};
use anyhow::Result;
use std::{fmt::Write, fs, net::IpAddr};

/// Answers on one node until it is dropped.
#[derive(Debug)]
pub enum Speaker {
    /// For one address, in layer-2 mode.
    Proxy {
        /// Where.
        node: Node,
        /// For what.
        address: IpAddr,
    },
    /// For all, as long as no other node of a higher number does.
    Keepalived(Process),
}

impl Speaker {
    /// Begins to answer for `address`, in layer-2 mode.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn proxy(node: &Node, address: IpAddr) -> Result<Self> {
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
        Ok(Self::Proxy {
            node: node.clone(),
            address,
        })
    }

    /// Starts keepalived, which takes `addresses` onto its interface when it is the master.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn keepalived(lab: &Lab, node: &Node, addresses: &[IpAddr]) -> Result<Self> {
        let directory = lab.directory().join(&node.name);
        fs::create_dir_all(&directory)?;
        let configuration = directory.join("keepalived.conf");
        fs::write(&configuration, instance(node, addresses))?;
        let mut command = node.namespace.command("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--no-syslog", "--use-file"]);
        command.arg(&configuration);
        command.arg("--pid").arg(directory.join("keepalived.pid"));
        command.arg("--vrrp_pid").arg(directory.join("vrrp.pid"));
        Process::start(command, "keepalived", &directory.join("keepalived.log")).map(Self::Keepalived)
    }
}

/// One instance for all addresses, with defaults where OpenELB sets nothing. Its advertisements are of IPv4, so it can carry
/// addresses of IPv6 only as excluded from them, which are taken and given up with the others.
fn instance(node: &Node, addresses: &[IpAddr]) -> String {
    let block = |name: &str, ipv4: bool| {
        let of_family = addresses.iter().filter(|address| address.is_ipv4() == ipv4);
        let lines = of_family.fold(String::new(), |mut text, address| {
            let _ = writeln!(text, "    {address}/{}", if ipv4 { 32 } else { 128 });
            text
        });
        format!("  {name} {{\n{lines}  }}\n")
    };
    format!(
        "global_defs {{\n  router_id {}\n}}\nvrrp_instance openelb {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 50\n  \
         priority {}\n  advert_int 1\n{}{}}}\n",
        node.name,
        100 + node.number,
        block("virtual_ipaddress", true),
        block("virtual_ipaddress_excluded", false)
    )
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let result = match self {
            Self::Proxy { node, address } => {
                let lines = format!("neigh del proxy {address} dev eth0\nroute del {address} dev pod-1\n");
                node.namespace.ip_batch(&lines)
            }
            // It takes its addresses away, as in a pod that is deleted.
            Self::Keepalived(process) => process.stop(wait::PATIENCE).map(drop),
        };
        if let Err(problem) = result {
            eprintln!("a speaker goes on answering: {problem:#}");
        }
    }
}
