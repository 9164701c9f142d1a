//! Growth, shrinking, crowding and maps that are full.

use super::{
    SETTINGS,
    image::Image,
    settle,
    world::{add_frontend, backend, empty_frontend, links, node_address},
};
use crate::{
    links::{Interface, Links},
    model::Protocol,
    plan::{BackendKey, FrontendKey, Plan, Vip},
    tables::{Step, Tables, Write, key::Key},
};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};
use weir_common::abi::{DIRECTORY_SLOTS, Row, kind};

fn frontend(index: u32) -> FrontendKey {
    let [_, a, b, c] = index.to_be_bytes();
    FrontendKey {
        address: IpAddr::from([10, a, b, c]),
        port: 80,
        protocol: Protocol::Tcp,
    }
}

fn pods(range: std::ops::Range<u8>) -> Vec<BackendKey> {
    let pod = |last| BackendKey {
        address: IpAddr::from([10, 244, 1, last]),
        port: 8080,
        protocol: Protocol::Tcp,
        node: "node-b".into(),
        local: false,
    };
    range.map(pod).collect()
}

fn plan<'a>(frontends: impl IntoIterator<Item = (u32, &'a [BackendKey])>) -> Plan {
    let mut plan = Plan::default();
    plan.nodes.insert("node-b".into(), node_address("node-b"));
    for (index, backends) in frontends {
        let key = frontend(index);
        let mut wanted = empty_frontend(&key);
        wanted.backends = backends.iter().map(|backend| (backend.clone(), 1)).collect();
        add_frontend(&mut plan, key, wanted);
    }
    plan
}

fn rows(image: &Image, index: u32) -> &[Row] {
    image.range(
        image
            .entry(&Key::from(&frontend(index)))
            .expect("the frontend is found")
            .rows,
    )
}

fn reasons(step: &Step) -> BTreeSet<&str> {
    step.conditions
        .iter()
        .map(|condition| condition.reason.as_str())
        .collect()
}

#[test]
fn thousands_of_keys_come_and_go_one_by_one() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 13, 16, 16);
    let mut tables = image.adopt();
    let mut there: BTreeSet<u32> = BTreeSet::new();
    let mut moved = 0;
    for round in 0..30_u32 {
        there.extend((0..150).map(|index| round * 150 + index));
        there.retain(|index| index % 97 != round);
        let plan = plan(there.iter().map(|&index| (index, &[][..])));
        let step = tables.step(&plan, &links(), &SETTINGS);
        step.writes.iter().for_each(|write| image.write(write));
        moved += step
            .writes
            .iter()
            .filter(|write| matches!(write, Write::Displacement { .. }))
            .count();
        assert!(step.conditions.is_empty());
    }
    assert!(moved > 50, "slots were taken: {moved}");
    for index in 0..30 * 150 {
        let found = image.entry(&Key::from(&frontend(index))).is_some();
        assert_eq!(found, there.contains(&index), "frontend {index}");
    }
}

#[test]
fn one_more_frontend_is_one_directory_write_for_itself_and_one_for_its_vip() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 13, 16, 16);
    let mut tables = image.adopt();
    settle(&mut tables, &mut image, &plan([(1, &[][..])]));
    let writes = tables.step(&plan([(1, &[][..]), (2, &[])]), &links(), &SETTINGS).writes;
    let directory: Vec<&Write> = writes
        .iter()
        .filter(|write| matches!(write, Write::Directory { .. }))
        .collect();
    assert_eq!(directory.len(), 2);
    assert!(!writes.iter().any(|write| matches!(write, Write::Displacement { .. })));
}

#[test]
fn a_flapping_endpoint_is_remembered_and_so_is_who_stood_in() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 16, 16);
    let mut tables = image.adopt();
    let (a, b) = (pods(0..1), pods(1..2));
    let id = |tables: &Tables, pods: &[BackendKey]| tables.programmed().backend_id(&pods[0]).unwrap();
    settle(&mut tables, &mut image, &plan([(1, &a[..])]));
    let a_id = id(&tables, &a);
    settle(&mut tables, &mut image, &plan([(1, &b[..])]));
    let b_id = id(&tables, &b);
    assert!(rows(&image, 1).iter().all(|row| *row
        == Row {
            current: b_id,
            previous: a_id
        }));
    settle(&mut tables, &mut image, &plan([(1, &[][..])]));
    assert!(rows(&image, 1).iter().all(|row| *row
        == Row {
            current: 0,
            previous: b_id
        }));
    settle(&mut tables, &mut image, &plan([(1, &a[..])]));
    assert_eq!(id(&tables, &a), a_id, "its rows remembered it");
    assert!(rows(&image, 1).iter().all(|row| *row
        == Row {
            current: a_id,
            previous: b_id
        }));
}

#[test]
fn growing_and_shrinking_forget_no_owner() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 12, 64, 16);
    let mut tables = image.adopt();
    let (few, many) = (pods(0..6), pods(0..20));
    settle(&mut tables, &mut image, &plan([(1, &few[..])]));
    let before = rows(&image, 1).to_vec();
    settle(&mut tables, &mut image, &plan([(1, &many[..])]));
    let grown = rows(&image, 1).to_vec();
    assert_eq!((before.len(), grown.len()), (128, 512));
    for (index, row) in grown.iter().enumerate() {
        let owner = before[index & 127].current;
        assert!(row.current == owner || row.previous == owner, "row {index}");
    }
    settle(&mut tables, &mut image, &plan([(1, &few[..])]));
    let shrunk = rows(&image, 1);
    assert_eq!(shrunk.len(), 512, "spare rows stay while there is room");
    for (index, row) in shrunk.iter().enumerate() {
        assert_eq!(
            row.current,
            before[index & 127].current,
            "the choice is that of the small table"
        );
        assert!(
            row.current == grown[index].current || row.previous == grown[index].current,
            "row {index}"
        );
    }
}

#[test]
fn spare_rows_are_given_up_for_new_frontends() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1000, 64, 16);
    let mut tables = image.adopt();
    let (few, many) = (pods(0..2), pods(0..20));
    settle(&mut tables, &mut image, &plan([(1, &many[..])]));
    settle(&mut tables, &mut image, &plan([(1, &few[..])]));
    assert_eq!(rows(&image, 1).len(), 512);
    let wanted: Vec<(u32, &[BackendKey])> = (1..6).map(|index| (index, &few[..])).collect();
    let step = settle(&mut tables, &mut image, &plan(wanted));
    assert!(step.conditions.is_empty());
    assert!((1..6).all(|index| rows(&image, index).len() == 128));
}

#[test]
fn tables_are_halved_alike_when_the_whole_does_not_fit() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 64, 16);
    let mut tables = image.adopt();
    let few = pods(0..2);
    let step = settle(&mut tables, &mut image, &plan((0..6).map(|index| (index, &few[..]))));
    assert!(step.conditions.is_empty());
    assert!((0..6).all(|index| rows(&image, index).len() == 64));
    let step = settle(&mut tables, &mut image, &plan((0..3).map(|index| (index, &few[..]))));
    assert!(step.conditions.is_empty());
    assert!((0..3).all(|index| rows(&image, index).len() == 128));
}

#[test]
fn frontends_that_find_no_rows_are_named_and_the_others_served() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 4, 64, 16);
    let mut tables = image.adopt();
    let step = settle(&mut tables, &mut image, &plan((0..6).map(|index| (index, &[][..]))));
    assert_eq!(reasons(&step), ["RowsFull"].into());
    assert_eq!(step.conditions.len(), 2);
    assert_eq!(
        (0..6)
            .filter_map(|index| tables.programmed().frontend_id(&frontend(index)))
            .count(),
        4
    );
    let found = |index: &u32| image.entry(&Key::from(&frontend(*index))).is_some();
    assert_eq!((0..6).filter(found).count(), 4);
    assert_eq!(
        image.directory.iter().filter(|entry| entry.kind == kind::VIP).count(),
        4
    );
    assert_eq!(
        image.responders.len(),
        4,
        "an address without anything behind it is not answered for"
    );
}

fn with_id(tables: &Tables, pods: &[BackendKey]) -> usize {
    pods.iter()
        .filter_map(|pod| tables.programmed().backend_id(pod))
        .count()
}

#[test]
fn backends_without_id_are_left_out_and_named() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 5, 16);
    let mut tables = image.adopt();
    let all = pods(0..6);
    let step = settle(&mut tables, &mut image, &plan([(1, &all[..])]));
    assert_eq!(reasons(&step), ["BackendsFull"].into());
    assert_eq!(with_id(&tables, &all), 4);
    assert!(rows(&image, 1).iter().all(|row| row.current != 0));
    let step = settle(&mut tables, &mut image, &plan([(1, &all[2..6])]));
    assert!(
        step.conditions.is_empty(),
        "those that are gone make room: {:?}",
        step.conditions
    );
    assert_eq!(with_id(&tables, &all[2..6]), 4);
}

#[test]
fn dead_backends_are_forgotten_before_ids_run_out() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 12, 16);
    let mut tables = image.adopt();
    for round in 0..20 {
        let step = settle(
            &mut tables,
            &mut image,
            &plan([(1, &pods(round * 5..round * 5 + 5)[..])]),
        );
        assert!(step.conditions.is_empty(), "round {round}: {:?}", step.conditions);
    }
}

#[test]
fn nodes_without_id_are_named_and_their_backends_unreachable() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 64, 3);
    let mut tables = image.adopt();
    let pods = pods(0..1);
    let mut plan = plan([(1, &pods[..])]);
    for name in ["node-1", "node-2", "node-3"] {
        plan.nodes.insert(name.into(), node_address(name));
    }
    let step = settle(&mut tables, &mut image, &plan);
    assert_eq!(reasons(&step), ["NodesFull"].into());
    assert_eq!(step.conditions.len(), 2);
    assert_eq!(
        plan.nodes
            .values()
            .filter_map(|node| tables.programmed().node_id(*node))
            .count(),
        2
    );
    assert_eq!(image.backends[rows(&image, 1)[0].current as usize].node, 0);
}

#[test]
fn what_finds_no_slot_is_named() {
    let mut image = Image::new(0, 1 << 10, 64, 16);
    let mut tables = image.adopt();
    let pods = [backend(0, 0)];
    let mut plan = plan([(1, &pods[..])]);
    plan.tunnel_address = Some(node_address("node-a"));
    let step = settle(&mut tables, &mut image, &plan);
    assert_eq!(reasons(&step), ["DirectoryFull"].into());
    let objects: BTreeSet<String> = step
        .conditions
        .iter()
        .map(|condition| condition.object.kind.clone())
        .collect();
    assert_eq!(objects, ["Eip", "Node", "Service"].map(String::from).into());
    assert_eq!(step.conditions.len(), 5);
    assert_eq!(tables.programmed().frontend_id(&frontend(1)), None);
    assert!(image.filter.iter().all(|word| *word == 0) && image.responders.is_empty());
}

#[test]
fn an_interface_that_is_missing_or_not_taken_is_said_of_each_eip_and_not_answered_on() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 64, 16);
    let mut tables = image.adopt();
    let pods = pods(0..1);
    let mut plan = plan([(1, &pods[..]), (2, &pods), (3, &pods), (4, &pods)]);
    let names = ["eth0", "eth1", "can_reach:10.0.0.1", "eth9"];
    let named = |((address, mut held), name): ((IpAddr, Arc<Vip>), &&str)| {
        let vip = Arc::make_mut(&mut held);
        (vip.eip, vip.interface) = (format!("on-{name}"), Some((*name).into()));
        (address, held)
    };
    plan.vips = plan.vips.into_iter().zip(&names).map(named).collect();
    let all = names.into_iter().chain(["can_reach: 10.0.0.9"]);
    plan.interfaces = all.map(|name| (format!("on-{name}"), name.to_owned())).collect();
    let mut links = links();
    let eth1 = Interface {
        ifindex: 8,
        vlan: 0,
        ..links.interfaces["eth0"].clone()
    };
    links.interfaces.insert("can_reach:10.0.0.1".into(), eth1.clone());
    links.interfaces.insert("eth1".into(), eth1);
    let mut step = |links: &Links| {
        let step = tables.step(&plan, links, &SETTINGS);
        step.writes.iter().for_each(|write| image.write(write));
        let said: Vec<_> = step.conditions.iter().map(ToString::to_string).collect();
        let answered: BTreeSet<u32> = image.responders.keys().map(|key| key.ifindex).collect();
        (said, answered, image.responders.len())
    };
    let missing = [
        "Eip on-can_reach: 10.0.0.9, spec.interface: InterfaceMissing: this node may be elected for its addresses and has no \
         interface that leads to 10.0.0.9; correct spec.interface or add a route.",
        "Eip on-eth9, spec.interface: InterfaceMissing: this node may be elected for its addresses and has no interface eth9; \
         correct spec.interface or add the interface.",
    ];
    let remedy = "this node may be elected for its addresses and takes no packets from eth1; start its agent with --interface \
                  eth1, too (agent.interfaces in the values of the chart), or correct spec.interface.";
    let not_taken = [
        format!(
            "Eip on-can_reach:10.0.0.1, spec.interface: InterfaceNotTaken: can_reach:10.0.0.1 leads to eth1, and {remedy}"
        ),
        format!("Eip on-eth1, spec.interface: InterfaceNotTaken: {remedy}"),
    ];
    let some = vec![
        missing[0].to_owned(),
        not_taken[0].clone(),
        not_taken[1].clone(),
        missing[1].to_owned(),
    ];
    assert_eq!(step(&links), (some.clone(), [7].into(), 1));
    links.taken.insert(8);
    assert_eq!(step(&links), (missing.map(str::to_owned).to_vec(), [7, 8].into(), 3));
    links.taken.remove(&8);
    assert_eq!(step(&links), (some, [7].into(), 1));
}

#[test]
fn reachability_is_a_matter_of_nodes_alone() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 64, 16);
    let mut tables = image.adopt();
    let pods = pods(0..3);
    let plan = plan([(1, &pods[..])]);
    settle(&mut tables, &mut image, &plan);
    let id = tables.programmed().node_id(node_address("node-b")).unwrap();
    let hop = &links().next_hops[&node_address("node-b")];
    let node = image.nodes[id as usize];
    assert_eq!(
        (node.ifindex, node.destination_mac, node.mtu),
        (hop.ifindex, hop.destination_mac, hop.mtu)
    );
    assert_eq!(node.source, hop.source.into());
    let known_by: IpAddr = "192.0.2.77".parse().unwrap();
    let own = Plan {
        tunnel_address: Some(known_by),
        ..plan.clone()
    };
    let writes = tables.step(&own, &links(), &SETTINGS).writes;
    let renamed = |write: &Write| matches!(write, Write::Node { node, .. } if node.source == known_by.into());
    assert!(
        writes.iter().any(renamed),
        "other nodes take packets of our tunnel address only: {writes:?}"
    );
    settle(&mut tables, &mut image, &plan);
    let mut tagged = links();
    tagged.next_hops.values_mut().for_each(|hop| hop.vlan = 0x234);
    let writes = tables.step(&plan, &tagged, &SETTINGS).writes;
    assert!(matches!(writes[..], [Write::Node { id: written, node }] if written == id && node.vlan == [0x02, 0x34]));
    let writes = tables.step(&plan, &Default::default(), &SETTINGS).writes;
    let node = |write: &Write| matches!(write, Write::Node { node, .. } if node.ifindex == 0);
    assert_eq!(writes.iter().filter(|write| node(write)).count(), 1);
    assert!(
        writes
            .iter()
            .all(|write| node(write) || matches!(write, Write::RemoveResponder { .. }))
    );
}

#[test]
fn a_bond_is_answered_for_under_every_index_its_packets_may_have() {
    let mut image = Image::new(DIRECTORY_SLOTS as usize, 1 << 10, 64, 16);
    let mut tables = image.adopt();
    let pods = pods(0..1);
    let plan = plan([(1, &pods[..])]);
    let mut links = links();
    let indexes = |image: &Image| image.responders.keys().map(|key| key.ifindex).collect::<BTreeSet<_>>();
    for (slaves, expected) in [(vec![8, 9], [7, 8, 9].into()), (vec![9], BTreeSet::from([7, 9]))] {
        if let Some(interface) = links.interfaces.get_mut("eth0") {
            interface.slaves = slaves.into_iter().collect();
        }
        let step = tables.step(&plan, &links, &SETTINGS);
        step.writes.iter().for_each(|write| image.write(write));
        assert_eq!(indexes(&image), expected);
    }
}
