//! The judgement: what of the facts is well, what costs something, and what would not work. Pure.

use super::{
    facts::{Facts, Interface},
    tc,
};
use crate::apply::bpf::{
    attach::{INGRESS, ModePolicy},
    preflight,
};
use serde::Serialize;
use weir_common::tunnel;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and costs something or is to be known.
    Warning,
    /// It would not work.
    Problem,
}

impl Level {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub says: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Largest frame that fits one page with what the kernel needs around it; larger ones need multi-buffer XDP.
const ONE_PAGE_MTU: u16 = 3498;
/// IPv6 has no smaller MTU (RFC 8200 §5).
const LEAST_MTU: u16 = 1280;

/// Judges everything that was read, in the order in which it matters, for an agent that is to run XDP in this mode.
#[must_use]
pub fn judge(facts: &Facts, mode: ModePolicy) -> Vec<Finding> {
    let mut findings = Findings::default();
    host(facts, &mut findings);
    for (name, interface) in &facts.interfaces {
        match interface {
            Some(interface) => {
                attaching(name, interface, mode, &mut findings);
                tc::judge(name, &interface.device, &interface.hooks, facts.tcx, &mut findings);
                passing(name, interface, facts, &mut findings);
            }
            None => findings.problem(
                name,
                "there is no such interface",
                "name one that `ip link` shows; weir would wait for it",
            ),
        }
    }
    neighbours(facts, &mut findings);
    findings.0
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: &str, says: impl Into<String>) {
        self.add(Level::Ok, subject, says.into(), None);
    }

    pub(super) fn warning(&mut self, subject: &str, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, subject, says.into(), Some(remedy.into()));
    }

    pub(super) fn problem(&mut self, subject: &str, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Problem, subject, says.into(), Some(remedy.into()));
    }

    fn add(&mut self, level: Level, subject: &str, says: String, remedy: Option<String>) {
        self.0.push(Finding {
            level,
            subject: subject.to_owned(),
            says,
            remedy,
        });
    }
}

/// The kernel and this process.
fn host(facts: &Facts, findings: &mut Findings) {
    match preflight::check_release(&facts.release) {
        Ok(()) => findings.ok("kernel", &facts.release),
        Err(error) => findings.problem("kernel", error.to_string(), "boot a newer one"),
    }
    if facts.btf {
        findings.ok("BTF", "the kernel describes its types");
    } else {
        findings.problem(
            "BTF",
            "/sys/kernel/btf/vmlinux is missing",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels are",
        );
    }
    if facts.missing_capabilities.is_empty() {
        findings.ok("capabilities", "all that are needed");
    } else {
        let missing = facts.missing_capabilities.join(", ");
        findings.problem(
            "capabilities",
            format!("{missing} missing"),
            "run as root, or add them to securityContext.capabilities of the pod",
        );
    }
    match &facts.pins {
        None => findings.ok("pins", "on a BPF file system"),
        Some(why) => findings.problem(
            "pins",
            why,
            "mount it (`mount -t bpf bpf /sys/fs/bpf`); in a pod, as a hostPath",
        ),
    }
    match &facts.state {
        None => findings.ok("state", "can be kept"),
        Some(why) => findings.problem("state", why, "name another folder by --state-dir"),
    }
    for (family, forwards, name) in [
        ("IPv4", facts.forwards_v4, "net.ipv4.ip_forward"),
        ("IPv6", facts.forwards_v6, "net.ipv6.conf.all.forwarding"),
    ] {
        if forwards {
            findings.ok("forwarding", format!("{family} packets reach pods"));
        } else {
            findings.warning(
                "forwarding",
                format!("this host forwards no {family} packets, so pods that the CNI routes to get none from VIPs"),
                format!("`sysctl -w {name}=1`, if pods have {family} addresses"),
            );
        }
    }
}

/// Whether programs can run on an interface.
fn attaching(name: &str, interface: &Interface, mode: ModePolicy, findings: &mut Findings) {
    let device = &interface.device;
    match &interface.program {
        None => findings.ok(name, "no XDP program yet"),
        Some(ours) if ours == INGRESS => findings.ok(name, "runs weir's XDP program"),
        Some(other) => findings.problem(
            name,
            format!("{device} runs the XDP program {other}, and an interface runs only one"),
            format!("stop what installed it, or `ip link set dev {device} xdp off`"),
        ),
    }
    running(name, interface, mode, findings);
}

/// Who would run the program of an interface: the driver, or the kernel for it, more slowly.
fn running(name: &str, interface: &Interface, mode: ModePolicy, findings: &mut Findings) {
    let Interface { device, device_mtu, .. } = interface;
    let driver = interface.driver.as_deref().unwrap_or("its driver");
    if mode == ModePolicy::Generic {
        return findings.ok(name, "the kernel runs the XDP program, as --xdp-mode generic says");
    }
    let Some(features) = interface.xdp else {
        return findings.warning(
            name,
            format!("this kernel does not tell what {driver} can do for XDP"),
            "`weir status` says after the start which mode it got",
        );
    };
    let (lack, remedy) = if !features.native() {
        let lack = format!("{driver} runs no XDP programs");
        (lack, "use a card whose driver does".to_owned())
    } else if *device_mtu > ONE_PAGE_MTU && !features.multi_buffer() {
        let lack = format!("MTU {device_mtu} needs multi-buffer XDP, which {driver} has not");
        (lack, format!("set the MTU of {device} to {ONE_PAGE_MTU} or less"))
    } else if !features.redirects() {
        return findings.warning(
            name,
            format!("{driver} runs XDP programs, and does not send for other interfaces"),
            "take VIP traffic and reach the other nodes by one and the same interface",
        );
    } else {
        return findings.ok(name, format!("{driver} runs XDP programs"));
    };
    if mode == ModePolicy::Native {
        findings.problem(
            name,
            format!("{lack}, and --xdp-mode native takes nothing else"),
            format!("{remedy}, or leave the choice to --xdp-mode auto (agent.xdpMode)"),
        );
    } else {
        findings.warning(
            name,
            format!("{lack}, so the kernel runs it, at a fraction of the speed"),
            format!("{remedy}, or accept it"),
        );
    }
}

/// Whether packets pass an interface as they should.
fn passing(name: &str, interface: &Interface, facts: &Facts, findings: &mut Findings) {
    let device = &interface.device;
    let offloads = interface.offloads.unwrap_or_default();
    if offloads.lro {
        findings.problem(
            name,
            format!("{device} merges segments (LRO) before XDP sees them"),
            format!("`ethtool -K {device} lro off`"),
        );
    }
    if interface.vlan && offloads.rx_vlan {
        findings.problem(
            name,
            format!("{device} takes VLAN tags out of frames, and XDP does not see them"),
            format!("`ethtool -K {device} rxvlan off`"),
        );
    }
    let room = usize::from(interface.mtu).saturating_sub(tunnel::overhead(true, true));
    if room < usize::from(LEAST_MTU) {
        let says = format!(
            "MTU {} leaves {room} bytes inside the tunnel, and IPv6 needs {LEAST_MTU}",
            interface.mtu
        );
        let remedy = format!("raise the MTU of {name}");
        if facts.global_v6 {
            findings.problem(name, says, remedy);
        } else {
            let says = format!("{says}; this host has no IPv6 address, and IPv4 is clamped to that");
            findings.warning(
                name,
                says,
                format!("{remedy} before the host, or pods, get IPv6 addresses"),
            );
        }
    } else {
        findings.ok(
            name,
            format!(
                "MTU {}: packets of up to {room} bytes fit the tunnel, TCP is clamped to that",
                interface.mtu
            ),
        );
    }
    match interface.rp_filter {
        1 if facts.interfaces.len() > 1 => findings.problem(
            name,
            "strict reverse-path filter, on a host with several interfaces",
            format!("`sysctl -w net.ipv4.conf.{name}.rp_filter=2 net.ipv4.conf.all.rp_filter=2`"),
        ),
        1 => findings.warning(
            name,
            "strict reverse-path filter: packets of clients whom this host reaches by another interface are lost",
            format!("`sysctl -w net.ipv4.conf.{name}.rp_filter=2 net.ipv4.conf.all.rp_filter=2`, unless there is only one way"),
        ),
        _ => findings.ok(name, "no strict reverse-path filter"),
    }
}

/// Who else handles Services or packets here.
fn neighbours(facts: &Facts, findings: &mut Findings) {
    match facts.proxy.as_deref() {
        Some("ipvs") if !facts.strict_arp => findings.problem(
            "kube-proxy",
            "mode ipvs puts VIPs on this host's own kube-ipvs0, and every host answers for them",
            "set ipvs.strictARP: true in its configuration, or better its mode to nftables",
        ),
        Some(mode) => findings.ok("kube-proxy", format!("mode {mode}")),
        None => findings.warning(
            "kube-proxy",
            "none answers at 127.0.0.1:10249",
            "without one, what weir leaves to it (pods as clients of VIPs, SCTP) is not served",
        ),
    }
    let has = |prefix: &str| facts.names.iter().any(|name| name.starts_with(prefix));
    if has("cilium_") {
        findings.warning(
            "CNI",
            "Cilium is here; its kube-proxy replacement and its XDP acceleration would handle the same Services",
            "set kubeProxyReplacement: false, loadBalancer.acceleration: disabled and l2announcements.enabled: false",
        );
    }
    if has("bpfin.cali") {
        findings.warning(
            "CNI",
            "Calico's eBPF data plane is here; it handles LoadBalancer Services itself",
            "use Calico's nftables or iptables data plane",
        );
    }
    if facts.names.contains("kube-ipvs0") && facts.proxy.as_deref() != Some("ipvs") {
        findings.warning(
            "kube-proxy",
            "kube-ipvs0 is left over from its mode ipvs, and may hold VIPs",
            "`ip link del kube-ipvs0`",
        );
    }
}

#[cfg(test)]
mod tests;
