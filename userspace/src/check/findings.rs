//! The judgement: what of the facts is well, what costs something, and what would not work. Pure.

use super::facts::{Facts, Interface};
use crate::apply::bpf::{attach::INGRESS, preflight};
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

/// Judges everything that was read, in the order in which it matters.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::default();
    host(facts, &mut findings);
    for (name, interface) in &facts.interfaces {
        match interface {
            Some(interface) => {
                attaching(name, interface, &mut findings);
                passing(name, interface, facts.interfaces.len() > 1, &mut findings);
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

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: &str, says: impl Into<String>) {
        self.add(Level::Ok, subject, says.into(), None);
    }

    fn warning(&mut self, subject: &str, says: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, subject, says.into(), Some(remedy.into()));
    }

    fn problem(&mut self, subject: &str, says: impl Into<String>, remedy: impl Into<String>) {
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
fn attaching(name: &str, interface: &Interface, findings: &mut Findings) {
    let device = &interface.device;
    let driver = interface.driver.as_deref().unwrap_or("its driver");
    match &interface.program {
        None => findings.ok(name, "no XDP program yet"),
        Some(ours) if ours == INGRESS => findings.ok(name, "runs weir's XDP program"),
        Some(other) => findings.problem(
            name,
            format!("{device} runs the XDP program {other}, and an interface runs only one"),
            format!("stop what installed it, or `ip link set dev {device} xdp off`"),
        ),
    }
    match interface.xdp {
        Some(features) if !features.native() => findings.warning(
            name,
            format!("{driver} runs no XDP programs, so the kernel does, at a fraction of the speed"),
            "use a card whose driver does, or accept it",
        ),
        Some(features) if !features.redirects() => findings.warning(
            name,
            format!("{driver} runs XDP programs, and does not send for other interfaces"),
            "take VIP traffic and reach the other nodes by one and the same interface",
        ),
        Some(features) if interface.mtu > ONE_PAGE_MTU && !features.multi_buffer() => findings.problem(
            name,
            format!("MTU {} needs multi-buffer XDP, which {driver} has not", interface.mtu),
            format!("set the MTU of {device} to {ONE_PAGE_MTU} or less, or run with --xdp-mode generic"),
        ),
        Some(_) => findings.ok(name, format!("{driver} runs XDP programs")),
        None => findings.warning(
            name,
            format!("this kernel does not tell what {driver} can do for XDP"),
            "`weir status` says after the start which mode it got",
        ),
    }
    let others: Vec<&str> = interface
        .egress
        .iter()
        .map(String::as_str)
        .filter(|program| *program != "weir_egress")
        .collect();
    if !others.is_empty() {
        findings.warning(
            name,
            format!("others' tc programs on the way out of {device}: {}", others.join(", ")),
            "if one of them rewrites or redirects what pods send, replies may leave without the VIP; see what they belong to",
        );
    }
}

/// Whether packets pass an interface as they should.
fn passing(name: &str, interface: &Interface, several: bool, findings: &mut Findings) {
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
        findings.problem(
            name,
            format!(
                "MTU {} leaves {room} bytes inside the tunnel, and IPv6 needs {LEAST_MTU}",
                interface.mtu
            ),
            format!("raise the MTU of {name}"),
        );
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
        1 if several => findings.problem(
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
mod tests {
    use super::*;
    use crate::{check::ethtool::Offloads, source::netlink::XdpFeatures};

    const ALL: u64 = 0x7f;

    fn well() -> Facts {
        let interface = Interface {
            device: "eth0".into(),
            mtu: 1500,
            driver: Some("ice".into()),
            offloads: Some(Offloads::default()),
            xdp: Some(XdpFeatures::from_bits(ALL)),
            ..Interface::default()
        };
        Facts {
            release: "6.12.1".into(),
            btf: true,
            forwards_v4: true,
            forwards_v6: true,
            interfaces: vec![("eth0".into(), Some(interface))],
            proxy: Some("nftables".into()),
            strict_arp: false,
            ..Facts::default()
        }
    }

    /// What is not well when `change` is made to a host on which all is.
    fn found(change: impl Fn(&mut Facts)) -> Vec<(Level, String, String)> {
        let mut facts = well();
        change(&mut facts);
        let findings = judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok);
        findings
            .map(|finding| {
                let remedy = finding.remedy.expect("what is not well has a remedy");
                (finding.level, finding.subject, format!("{} -> {remedy}", finding.says))
            })
            .collect()
    }

    fn on_interface(change: impl Fn(&mut Interface)) -> Vec<(Level, String, String)> {
        found(|facts| facts.interfaces[0].1.iter_mut().for_each(&change))
    }

    #[track_caller]
    fn one(found: &[(Level, String, String)], level: Level, subject: &str, text: &str) {
        let [(its_level, its_subject, says)] = found else {
            panic!("{found:?}");
        };
        assert!(
            *its_level == level && its_subject == subject && says.contains(text),
            "{found:?}"
        );
    }

    #[test]
    fn a_host_on_which_all_is_well_has_nothing_to_do() {
        assert_eq!(found(|_| ()), []);
    }

    #[test]
    fn what_the_host_lacks_is_named_with_its_remedy() {
        use Level::{Problem, Warning};
        one(
            &found(|facts| facts.release = "5.15.0".into()),
            Problem,
            "kernel",
            "5.15.0",
        );
        one(
            &found(|facts| facts.btf = false),
            Problem,
            "BTF",
            "CONFIG_DEBUG_INFO_BTF",
        );
        one(
            &found(|facts| facts.missing_capabilities = vec!["CAP_BPF"]),
            Problem,
            "capabilities",
            "CAP_BPF missing",
        );
        one(
            &found(|facts| facts.pins = Some("/x is no".into())),
            Problem,
            "pins",
            "mount",
        );
        one(
            &found(|facts| facts.state = Some("/x is full".into())),
            Problem,
            "state",
            "--state-dir",
        );
        one(
            &found(|facts| facts.forwards_v6 = false),
            Warning,
            "forwarding",
            "net.ipv6.conf.all",
        );
        one(
            &found(|facts| facts.interfaces[0].1 = None),
            Problem,
            "eth0",
            "no such interface",
        );
    }

    #[test]
    fn what_an_interface_cannot_do_is_named_with_its_remedy() {
        use Level::{Problem, Warning};
        let xdp = |bits| move |interface: &mut Interface| interface.xdp = bits;
        one(
            &on_interface(xdp(Some(XdpFeatures::from_bits(0)))),
            Warning,
            "eth0",
            "ice runs no XDP",
        );
        one(
            &on_interface(xdp(Some(XdpFeatures::from_bits(1)))),
            Warning,
            "eth0",
            "other interfaces",
        );
        one(&on_interface(xdp(None)), Warning, "eth0", "does not tell");
        let jumbo = |interface: &mut Interface| {
            interface.mtu = 9000;
            interface.xdp = Some(XdpFeatures::from_bits(7));
        };
        one(&on_interface(jumbo), Problem, "eth0", "multi-buffer");
        assert_eq!(on_interface(|interface| interface.mtu = 9000), []);
        one(
            &on_interface(|interface| interface.mtu = 1350),
            Problem,
            "eth0",
            "IPv6 needs 1280",
        );
        let program = |name: &'static str| move |interface: &mut Interface| interface.program = Some(name.into());
        one(
            &on_interface(program("cil_xdp_entry")),
            Problem,
            "eth0",
            "cil_xdp_entry",
        );
        assert_eq!(on_interface(program("weir_ingress")), []);
        one(
            &on_interface(|interface| interface.egress = vec!["weir_egress".into(), "shape".into()]),
            Warning,
            "eth0",
            "shape",
        );
        let offloads = |lro, rx_vlan| Some(Offloads { lro, rx_vlan });
        one(
            &on_interface(|interface| interface.offloads = offloads(true, false)),
            Problem,
            "eth0",
            "lro off",
        );
        assert_eq!(on_interface(|interface| interface.offloads = offloads(false, true)), []);
        let vlan = |interface: &mut Interface| {
            interface.offloads = offloads(false, true);
            interface.vlan = true;
        };
        one(&on_interface(vlan), Problem, "eth0", "rxvlan off");
    }

    #[test]
    fn a_strict_reverse_path_filter_is_worse_with_several_interfaces() {
        one(
            &on_interface(|interface| interface.rp_filter = 1),
            Level::Warning,
            "eth0",
            "rp_filter=2",
        );
        assert_eq!(on_interface(|interface| interface.rp_filter = 2), []);
        let several = found(|facts| {
            let mut other = facts.interfaces[0].clone();
            other.1.iter_mut().for_each(|interface| interface.rp_filter = 1);
            facts.interfaces.push(other);
        });
        one(&several, Level::Problem, "eth0", "several interfaces");
    }

    #[test]
    fn others_that_handle_services_are_named() {
        let proxy = |mode: Option<&'static str>| move |facts: &mut Facts| facts.proxy = mode.map(str::to_owned);
        one(&found(proxy(Some("ipvs"))), Level::Problem, "kube-proxy", "strictARP");
        let as_told = |facts: &mut Facts| {
            proxy(Some("ipvs"))(facts);
            facts.strict_arp = true;
        };
        assert_eq!(found(as_told), [], "what was to be done is done");
        one(&found(proxy(None)), Level::Warning, "kube-proxy", "10249");
        for (name, subject, text) in [
            ("cilium_host", "CNI", "kubeProxyReplacement"),
            ("bpfin.cali", "CNI", "Calico"),
            ("kube-ipvs0", "kube-proxy", "ip link del"),
        ] {
            let with = |facts: &mut Facts| {
                facts.names.insert(name.to_owned());
            };
            one(&found(with), Level::Warning, subject, text);
        }
    }
}
