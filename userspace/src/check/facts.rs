//! What is read of the host: the kernel, this process, interfaces, and who else is there. Nothing is changed.

use super::{
    ethtool::{self, Offloads},
    proxy,
    tc::{self, Hooks},
};
use crate::{
    apply::bpf::{
        attach::{EgressPolicy, INGRESS, program_name},
        pins::PinDir,
        preflight, sys,
    },
    source::netlink::{Link, Queries, XdpFeatures, xdp_features},
};
use anyhow::Context;
use nix::unistd::{AccessFlags, access};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Everything that is judged.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Whether the kernel describes its own types.
    pub btf: bool,
    /// Capabilities that this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Why pins cannot be made.
    pub pins: Option<String>,
    /// Why files cannot be kept.
    pub state: Option<String>,
    /// `net.ipv4.ip_forward`.
    pub forwards_v4: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwards_v6: bool,
    /// Whether an interface of the host has an IPv6 address that others may reach it by (scope global, which unique local ones
    /// have, too).
    pub global_v6: bool,
    /// Whether programs on the way out are attached by tcx.
    pub tcx: bool,
    /// The interfaces asked for.
    pub interfaces: Vec<(String, Option<Interface>)>,
    /// Names of all interfaces.
    pub names: BTreeSet<String>,
    /// Mode of kube-proxy, if one answers.
    pub proxy: Option<String>,
    /// Whether an address is answered for by the interface that has it, alone (`net.ipv4.conf.all.arp_ignore` above 0), as
    /// kube-proxy sets it with `ipvs.strictARP`.
    pub strict_arp: bool,
}

/// One of the interfaces asked for, with what programs are attached to: its parent, if it is a VLAN.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Name of the interface that programs are attached to.
    pub device: String,
    /// Whether it is a VLAN of that.
    pub vlan: bool,
    /// Bytes.
    pub mtu: u16,
    /// That of what programs are attached to, in bytes.
    pub device_mtu: u16,
    /// `net.ipv4.conf.IF.rp_filter`, or that of all interfaces if it is stricter: 0 off, 1 strict, 2 loose.
    pub rp_filter: u8,
    /// The driver.
    pub driver: Option<String>,
    /// Its offloads.
    pub offloads: Option<Offloads>,
    /// What it can do for XDP.
    pub xdp: Option<XdpFeatures>,
    /// The XDP program it runs.
    pub program: Option<String>,
    /// Programs and filters of tc.
    pub hooks: Hooks,
}

/// Reads the host.
///
/// # Errors
///
/// When netlink does not answer.
pub fn read(interfaces: &[String], pin_dir: &Path, state_dir: &Path) -> anyhow::Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let pins = PinDir::new(pin_dir);
    let (links, mut hooks) = runtime.block_on(async {
        let queries = Queries::open().context("cannot open a netlink socket")?;
        let links = queries.links().await?;
        let mut hooks = BTreeMap::new();
        for name in interfaces {
            if let Some((_, device)) = found(name, &links) {
                let read = tc::read(&queries, &device.name, device.ifindex, &pins).await;
                hooks.insert(name.clone(), read);
            }
        }
        Ok::<_, anyhow::Error>((links, hooks))
    })?;
    Ok(Facts {
        release: preflight::release(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        missing_capabilities: preflight::missing()?,
        pins: preflight::check_bpffs(pin_dir).err().map(|error| error.to_string()),
        state: unwritable(state_dir),
        forwards_v4: setting("net/ipv4/ip_forward") == 1,
        forwards_v6: setting("net/ipv6/conf/all/forwarding") == 1,
        global_v6: has_global(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default()),
        tcx: EgressPolicy::Auto.is_tcx(),
        interfaces: interfaces
            .iter()
            .map(|name| {
                let hooks = hooks.remove(name).unwrap_or_default();
                (name.clone(), interface(name, &links, hooks, &pins))
            })
            .collect(),
        names: links.into_iter().map(|link| link.name).collect(),
        proxy: proxy::mode(),
        strict_arp: setting("net/ipv4/conf/all/arp_ignore") > 0,
    })
}

/// An interface, and the one that programs are attached to for it.
fn found<'a>(name: &str, links: &'a [Link]) -> Option<(&'a Link, &'a Link)> {
    let link = links.iter().find(|link| link.name == name)?;
    let parent = link
        .vlan
        .and_then(|(parent, _)| links.iter().find(|other| other.ifindex == parent));
    Some((link, parent.unwrap_or(link)))
}

fn interface(name: &str, links: &[Link], hooks: Hooks, pins: &PinDir) -> Option<Interface> {
    let (link, device) = found(name, links)?;
    Some(Interface {
        device: device.name.clone(),
        vlan: link.vlan.is_some(),
        mtu: link.mtu,
        device_mtu: device.mtu,
        rp_filter: setting("net/ipv4/conf/all/rp_filter").max(setting(&format!("net/ipv4/conf/{name}/rp_filter"))),
        driver: ethtool::driver(&device.name),
        offloads: ethtool::offloads(&device.name),
        xdp: xdp_features(device.ifindex).unwrap_or_default(),
        program: device
            .xdp
            .map(|xdp| match sys::pinned_link(&pins.link("xdp", &device.name)) {
                // Names of programs are told only to CAP_SYS_ADMIN, which an agent in a pod has not.
                Ok(link) if link.program == xdp.program => INGRESS.to_owned(),
                _ => program_name(xdp.program),
            }),
        hooks,
    })
}

/// A number below `/proc/sys`; 0 if it cannot be read.
fn setting(path: &str) -> u8 {
    let text = fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whether one of the addresses of `/proc/net/if_inet6` (address, index, prefix, scope, flags and name, in hexadecimal) is global.
fn has_global(addresses: &str) -> bool {
    let mut scopes = addresses.lines().filter_map(|line| line.split_whitespace().nth(3));
    scopes.any(|scope| scope == "00")
}

/// Why no files can be made in `folder`, or in the nearest one above it that exists.
fn unwritable(folder: &Path) -> Option<String> {
    let existing = folder.ancestors().find(|path| path.exists())?;
    let refusal = access(existing, AccessFlags::W_OK).err()?;
    Some(format!("{} cannot be written to: {refusal}", existing.display()))
}

#[cfg(test)]
mod tests {
    use super::has_global;

    #[test]
    fn an_address_of_a_link_or_of_the_host_alone_is_not_global() {
        let own = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                   00000000000000000000000000000001 01 80 10 80       lo\n";
        assert!(!has_global("") && !has_global(own));
        assert!(has_global(&format!(
            "{own}fd000000000000000000000000000002 04 40 00 82     eth0\n"
        )));
    }
}
