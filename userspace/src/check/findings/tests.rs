//! What is said of hosts, each with one thing that is not well.

use super::*;
use crate::{
    check::{
        ethtool::Offloads,
        tc::{Hooked, Hooks},
    },
    source::netlink::XdpFeatures,
};

const ALL: u64 = 0x7f;

fn well() -> Facts {
    let interface = Interface {
        device: "eth0".into(),
        mtu: 1500,
        device_mtu: 1500,
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
        global_v6: true,
        interfaces: vec![("eth0".into(), Some(interface))],
        proxy: Some("nftables".into()),
        strict_arp: false,
        ..Facts::default()
    }
}

/// What is not well when `change` is made to a host on which all is.
fn found(change: impl Fn(&mut Facts)) -> Vec<(Level, String, String)> {
    found_for(ModePolicy::Auto, change)
}

fn found_for(mode: ModePolicy, change: impl Fn(&mut Facts)) -> Vec<(Level, String, String)> {
    let mut facts = well();
    change(&mut facts);
    let findings = judge(&facts, mode)
        .into_iter()
        .filter(|finding| finding.level != Level::Ok);
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
    let program = |name: &'static str| move |interface: &mut Interface| interface.program = Some(name.into());
    one(
        &on_interface(program("cil_xdp_entry")),
        Problem,
        "eth0",
        "cil_xdp_entry",
    );
    assert_eq!(on_interface(program("weir_ingress")), []);
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

/// An agent in mode auto starts all the same, more slowly.
#[test]
fn what_the_driver_cannot_do_is_a_problem_only_where_nothing_else_is_to_run_xdp() {
    use Level::{Problem, Warning};
    use ModePolicy::{Auto, Generic, Native};
    let with = |mode, bits, mtu| {
        found_for(mode, |facts| {
            let interface = facts.interfaces[0].1.as_mut().unwrap();
            // A VLAN with the usual MTU: what counts is what the driver has to take.
            interface.vlan = true;
            interface.device_mtu = mtu;
            interface.xdp = Some(XdpFeatures::from_bits(bits));
        })
    };
    // Without sending for others, too: what keeps it from starting comes first.
    for bits in [7, 1] {
        one(&with(Auto, bits, 9000), Warning, "eth0", "multi-buffer");
        one(&with(Native, bits, 9000), Problem, "eth0", "multi-buffer");
        assert_eq!(with(Generic, bits, 9000), []);
    }
    one(&with(Native, 7, 9000), Problem, "eth0", "--xdp-mode auto");
    one(&with(Native, 0, 1500), Problem, "eth0", "ice runs no XDP");
    one(&with(Native, 1, 1500), Warning, "eth0", "other interfaces");
    for mode in [Auto, Native, Generic] {
        assert_eq!(with(mode, ALL, 9000), []);
        assert_eq!(with(mode, 7, 3498), []);
    }
}

#[test]
fn too_little_room_for_ipv6_is_a_problem_where_there_is_ipv6() {
    let small = |global_v6, mtu| {
        found(|facts| {
            facts.global_v6 = global_v6;
            facts.interfaces[0].1.as_mut().unwrap().mtu = mtu;
        })
    };
    one(&small(true, 1395), Level::Problem, "eth0", "IPv6 needs 1280");
    one(&small(false, 1395), Level::Warning, "eth0", "IPv6 needs 1280");
    assert_eq!(small(true, 1396), []);
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

fn tcx(name: &str) -> Hooked {
    Hooked {
        name: name.into(),
        priority: None,
    }
}

fn filter(name: &str, priority: u16) -> Hooked {
    Hooked {
        name: name.into(),
        priority: Some(priority),
    }
}

/// What is said of what leaves by these, in this order; `by_tcx` when weir's would be attached by that.
fn on_the_way_out(by_tcx: bool, egress: &[Hooked]) -> Vec<(Level, String, String)> {
    found(|facts| {
        facts.tcx = by_tcx;
        let hooks = Hooks {
            egress: egress.to_vec(),
            ..Hooks::default()
        };
        facts.interfaces[0]
            .1
            .iter_mut()
            .for_each(|interface| interface.hooks = hooks.clone());
    })
}

#[test]
fn programs_of_others_at_tc_are_told_with_their_place() {
    use Level::{Problem, Warning};
    let (ours, our_filter) = (tcx("weir_egress"), filter("weir_egress", 50));
    // Where weir's is not attached yet, it will be the first by tcx, and behind filters of no greater number. Where it is, it
    // serves as well as it did.
    for (by_tcx, egress, level, text) in [
        (true, vec![tcx("shape")], Warning, "behind weir's: shape (tcx);"),
        (
            true,
            vec![filter("u32", 1)],
            Warning,
            "behind weir's: u32 (filter, priority 1);",
        ),
        (
            true,
            vec![ours.clone(), tcx("shape"), filter("u32", 7)],
            Warning,
            "shape (tcx), u32 (filter, priority 7)",
        ),
        (
            true,
            vec![tcx("head"), ours.clone()],
            Warning,
            "before weir's: head (tcx);",
        ),
        (
            true,
            vec![tcx("head"), ours.clone()],
            Warning,
            "weir's runs there already, and sees what they let pass -> if clients of this host's pods have no answers, stop what it belongs to, or have weir's attached anew",
        ),
        // By a clsact filter, as it was told to.
        (
            true,
            vec![tcx("head"), our_filter.clone()],
            Warning,
            "before weir's: head (tcx);",
        ),
        (
            false,
            vec![filter("cil_to_netdev", 1)],
            Problem,
            "before weir's: cil_to_netdev (filter, priority 1);",
        ),
        (
            false,
            vec![filter("cil_to_netdev", 1)],
            Problem,
            "-> give it a priority above 50",
        ),
        (
            false,
            vec![filter("flower", 50)],
            Problem,
            "before weir's: flower (filter, priority 50);",
        ),
        (
            false,
            vec![filter("flower", 51)],
            Warning,
            "behind weir's: flower (filter, priority 51);",
        ),
        (
            false,
            vec![our_filter.clone(), filter("flower", 51)],
            Warning,
            "behind weir's: flower",
        ),
        (
            false,
            vec![filter("matchall", 49), our_filter.clone()],
            Warning,
            "before weir's: matchall",
        ),
        (
            false,
            vec![filter("matchall", 49), our_filter.clone()],
            Warning,
            "no answers, give it a priority above 50, or stop what it belongs to",
        ),
    ] {
        one(&on_the_way_out(by_tcx, &egress), level, "eth0", text);
    }
    let both = on_the_way_out(false, &[filter("matchall", 1), filter("u32", 60)]);
    assert!(
        matches!(&both[..], [(Problem, _, before), (Warning, _, behind)]
        if before.contains("matchall") && !before.contains("u32") && behind.contains("u32")),
        "{both:?}"
    );
    for (by_tcx, egress) in [(true, vec![ours.clone(), ours]), (false, vec![our_filter])] {
        assert_eq!(
            on_the_way_out(by_tcx, &egress),
            [],
            "weir's own, and the former one beside it"
        );
    }

    let ingress = |interface: &mut Interface| interface.hooks.ingress = vec![tcx("look"), filter("u32", 9)];
    one(
        &on_interface(ingress),
        Warning,
        "eth0",
        "on the way into eth0: look (tcx), u32 (filter, priority 9);",
    );
    let unread = |interface: &mut Interface| interface.hooks.unread = Some("netlink is silent".into());
    one(
        &on_interface(unread),
        Warning,
        "eth0",
        "netlink is silent -> see `tc filter show dev eth0 egress`",
    );
}
