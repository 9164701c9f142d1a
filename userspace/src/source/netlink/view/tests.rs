use super::*;

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn link(name: &str, ifindex: u32, vlan: Option<(u32, u16)>) -> Link {
    Link {
        name: name.into(),
        ifindex,
        mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
        mtu: 1500,
        vlan,
        bond: None,
        xdp: None,
    }
}

fn slave(name: &str, ifindex: u32, bond: u32) -> Link {
    Link {
        bond: Some(bond),
        ..link(name, ifindex, None)
    }
}

fn neighbour(ifindex: u32, resolution: Resolution) -> Neighbour {
    Neighbour {
        ifindex,
        address: GATEWAY,
        resolution,
    }
}

fn wanted() -> Wanted {
    Wanted {
        nodes: [NODE].into(),
        ..Wanted::default()
    }
}

fn view(links: Vec<Link>, over: u32, resolution: Resolution) -> View {
    let mut view = View::default();
    view.replace(links, vec![neighbour(over, resolution)]);
    view.set_routes(vec![(
        NODE,
        Route {
            ifindex: over,
            neighbour: GATEWAY,
            source: SOURCE,
            mtu: None,
        },
    )]);
    view
}

#[test]
fn a_next_hop_has_the_gateways_mac() {
    let network = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6])).network(&wanted());
    let hop = &network.links.next_hops[&NODE];
    assert_eq!(
        (hop.ifindex, hop.vlan, hop.destination_mac, hop.source),
        (2, 0, [9; 6], SOURCE)
    );
    assert!(network.reaches_all());
}

#[test]
fn a_vlan_device_leads_to_its_parent() {
    let links = vec![link("eth0", 2, None), link("eth0.7", 3, Some((2, 7)))];
    let network = view(links, 3, Resolution::Confirmed([9; 6])).network(&wanted());
    let hop = &network.links.next_hops[&NODE];
    assert_eq!((hop.ifindex, hop.vlan, hop.source_mac), (2, 7, [2, 0, 0, 0, 0, 3]));
    assert_eq!(
        network.device_of("eth0.7").map(|device| device.name.as_str()),
        Some("eth0")
    );
    assert!(!network.devices.contains_key("eth0.7"));
}

#[test]
fn vlan_devices_on_vlan_devices_are_not_taken() {
    let links = vec![
        link("eth0", 2, None),
        link("eth0.7", 3, Some((2, 7))),
        link("eth0.7.8", 4, Some((3, 8))),
    ];
    let network = view(links, 2, Resolution::None).network(&wanted());
    assert!(network.device_of("eth0.7.8").is_none() && network.device_of("eth0.7").is_some());
}

#[test]
fn a_bond_stands_for_its_slaves_and_its_packets_may_show_up_on_them() {
    let mut links = vec![link("bond0", 5, None), slave("eth0", 2, 5), slave("eth1", 3, 5)];
    links.push(link("bond0.7", 6, Some((5, 7))));
    let mut view = view(links, 6, Resolution::Confirmed([9; 6]));
    let network = view.network(&wanted());
    for name in ["bond0", "bond0.7", "eth0", "eth1"] {
        assert_eq!(
            network.device_of(name).map(|device| &*device.name),
            Some("bond0"),
            "{name}"
        );
        assert_eq!(network.links.interfaces[name].slaves, [2, 3].into(), "{name}");
    }
    assert!(!network.devices.contains_key("eth0"));
    let hop = &network.links.next_hops[&NODE];
    assert_eq!((hop.ifindex, hop.vlan), (5, 7));

    assert!(view.set_link(link("eth1", 3, None)), "it was let go");
    assert!(view.set_link(slave("eth9", 9, 5)), "and another one taken");
    let network = view.network(&wanted());
    assert_eq!(network.links.interfaces["bond0"].slaves, [2, 9].into());
    assert_eq!(network.device_of("eth1").map(|device| &*device.name), Some("eth1"));
    assert!(view.remove_link(9));
    assert_eq!(view.network(&wanted()).links.interfaces["bond0"].slaves, [2].into());
}

#[test]
fn what_is_taken_is_the_device_that_sees_the_packets() {
    let links = vec![
        link("eth0", 2, None),
        link("eth0.7", 3, Some((2, 7))),
        link("bond0", 5, None),
        slave("eth5", 6, 5),
        link("eth9", 9, None),
    ];
    let view = view(links, 2, Resolution::None);
    for (names, expected) in [
        (&["eth0"][..], &[2][..]),
        (&["eth0.7"], &[2]),
        (&["eth5"], &[5]),
        (&["bond0", "eth9", "eth7"], &[5, 9]),
        (&[], &[]),
    ] {
        let wanted = Wanted {
            interfaces: names.iter().map(|name| (*name).to_owned()).collect(),
            ..wanted()
        };
        let taken = view.network(&wanted).links.taken;
        assert_eq!(taken, expected.iter().copied().collect(), "{names:?}");
    }
}

#[test]
fn a_bond_that_is_not_known_yet_gives_nothing_to_attach_to() {
    let network = view(vec![slave("eth0", 2, 5)], 2, Resolution::None).network(&wanted());
    assert!(network.device_of("eth0").is_none() && network.devices.is_empty());
}

#[test]
fn without_a_mac_there_is_no_next_hop_and_it_is_asked_for() {
    let view = view(vec![link("eth0", 2, None)], 2, Resolution::None);
    assert!(view.network(&wanted()).links.next_hops.is_empty());
    assert_eq!(view.to_resolve(false), [(2, GATEWAY)].into());
}

#[test]
fn a_stale_mac_is_used_and_confirmed_now_and_then() {
    let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6]));
    assert!(view.to_resolve(false).is_empty());
    assert_eq!(view.to_resolve(true), [(2, GATEWAY)].into());
    assert!(
        !view.set_neighbour(neighbour(2, Resolution::Confirmed([9; 6]))),
        "the MAC is the same"
    );
    assert!(view.set_neighbour(neighbour(2, Resolution::Confirmed([8; 6]))));
    assert!(view.to_resolve(true).is_empty());
}

#[test]
fn a_mac_is_used_until_the_kernel_knows_better() {
    let mac = |view: &View| {
        let network = view.network(&wanted());
        network.links.next_hops.get(&NODE).map(|hop| hop.destination_mac)
    };
    let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Confirmed([9; 6]));
    assert!(
        view.remove_neighbour(&neighbour(2, Resolution::None)),
        "it is to be asked for"
    );
    assert_eq!(
        (mac(&view), view.to_resolve(false)),
        (Some([9; 6]), [(2, GATEWAY)].into())
    );
    assert!(!view.set_neighbour(neighbour(2, Resolution::Pending)));
    assert_eq!(mac(&view), Some([9; 6]));
    assert!(view.set_neighbour(neighbour(2, Resolution::Confirmed([8; 6]))));
    assert_eq!(mac(&view), Some([8; 6]));
    assert!(view.set_neighbour(neighbour(2, Resolution::None)));
    assert_eq!(mac(&view), None);
    assert!(
        !view.set_neighbour(neighbour(2, Resolution::Pending)),
        "nothing is known to go on with"
    );
    assert_eq!(mac(&view), None);
}

#[test]
fn neighbours_that_are_no_next_hop_change_nothing() {
    let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6]));
    let other = Neighbour {
        ifindex: 2,
        address: SOURCE,
        resolution: Resolution::Confirmed([7; 6]),
    };
    assert!(!view.set_neighbour(other));
}

#[test]
fn a_removed_interface_takes_its_next_hops_along() {
    let mut view = view(vec![link("eth0", 2, None)], 2, Resolution::Stale([9; 6]));
    assert!(view.remove_link(2));
    let network = view.network(&wanted());
    assert!(network.links.next_hops.is_empty() && network.devices.is_empty());
}

#[test]
fn can_reach_names_the_interface_that_leads_there() {
    let reach = Wanted {
        reach: [("can_reach: 192.0.2.9".into(), NODE)].into(),
        ..Wanted::default()
    };
    let network = view(vec![link("eth0", 2, None)], 2, Resolution::None).network(&reach);
    assert_eq!(network.links.interfaces["can_reach: 192.0.2.9"].ifindex, 2);
    assert_eq!(Wanted::parse_reach("can_reach: 192.0.2.9"), Some(NODE));
    assert_eq!(Wanted::parse_reach("eth0"), None);
}
