//! `NODES`: the way to every other node, and the ids they are known by.
//!
//! A node is known by its tunnel address. One that leaves the plan keeps its entry as long as a backend, perhaps one
//! that only old flows remember, is said to be on it. Whether a node can be reached is a matter of its entry alone.

use super::{
    Write,
    ids::Ids,
    refusal::{Refusal, refused},
};
use crate::{
    links::{Links, NextHop},
    model::{Condition, ObjectRef},
    plan::Plan,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_common::abi::{Address, Node};

#[derive(Debug)]
pub(super) struct Nodes {
    ids: Ids,
    held: BTreeMap<Address, (u32, Node)>,
}

impl Nodes {
    /// What the map holds; entries that are no node, or a node a second time, are cleared.
    pub fn adopt(contents: &[Node], repairs: &mut Vec<Write>) -> Self {
        let mut adopted = Self {
            ids: Ids::new(1, contents.len() as u32),
            held: BTreeMap::new(),
        };
        for (id, node) in (0..).zip(contents).filter(|(_, node)| **node != Node::default()) {
            let new = node.address != Address::UNSPECIFIED && !adopted.held.contains_key(&node.address);
            if new && adopted.ids.claim(id) {
                adopted.held.insert(node.address, (id, *node));
            } else {
                repairs.push(Write::Node {
                    id,
                    node: Node::default(),
                });
            }
        }
        adopted
    }

    /// Clears what the last step left behind.
    pub fn release(&mut self, writes: &mut Vec<Write>) {
        writes.extend(self.ids.release().into_iter().map(|id| Write::Node {
            id,
            node: Node::default(),
        }));
    }

    /// Whether entries wait to be cleared.
    pub fn waiting(&self) -> bool {
        self.ids.waiting()
    }

    /// Enters the planned nodes and brings every entry up to date with `links`.
    pub fn update(&mut self, plan: &Plan, links: &Links, writes: &mut Vec<Write>, conditions: &mut Vec<Condition>) {
        let hops: BTreeMap<Address, &NextHop> = links
            .next_hops
            .iter()
            .map(|(address, hop)| (Address::from(*address), hop))
            .collect();
        let entry = |address, hop: Option<&&NextHop>| entry(address, plan.tunnel_address, hop.copied());
        for (address, (id, node)) in &mut self.held {
            let wanted = entry(*address, hops.get(address));
            if *node != wanted {
                *node = wanted;
                writes.push(Write::Node { id: *id, node: wanted });
            }
        }
        for (name, address) in &plan.nodes {
            let address = Address::from(*address);
            if address == Address::UNSPECIFIED || self.held.contains_key(&address) {
                continue;
            }
            let Some(id) = self.ids.take() else {
                let object = ObjectRef::cluster_scoped("Node", name);
                conditions.push(refused(object, Refusal::Nodes, format!("node {name} gets no tunnel")));
                continue;
            };
            let node = entry(address, hops.get(&address));
            self.held.insert(address, (id, node));
            writes.push(Write::Node { id, node });
        }
    }

    /// Retires the nodes that neither the plan nor a backend names. `used` gives the ids that backends name.
    pub fn sweep(&mut self, plan: &Plan, used: impl FnOnce() -> BTreeSet<u32>) {
        let planned: BTreeSet<Address> = plan.nodes.values().map(|address| Address::from(*address)).collect();
        if self.held.keys().all(|address| planned.contains(address)) {
            return;
        }
        let used = used();
        let Self { ids, held } = self;
        held.retain(|address, (id, _)| {
            let keep = used.contains(id) || planned.contains(address);
            if !keep {
                ids.retire(*id);
            }
            keep
        });
    }

    /// The id of the node with this tunnel address.
    pub fn id(&self, address: &Address) -> Option<u32> {
        self.held.get(address).map(|(id, _)| *id)
    }

    /// The id of each node.
    pub fn ids(&self) -> impl Iterator<Item = (Address, u32)> {
        self.held.iter().map(|(address, (id, _))| (*address, *id))
    }
}

/// Other nodes know us by `tunnel_address`, whichever interface leads to them; the kernel's choice of source is for nodes
/// that have none of the family.
fn entry(address: Address, tunnel_address: Option<IpAddr>, hop: Option<&NextHop>) -> Node {
    let Some(hop) = hop else {
        return Node {
            address,
            ..Node::default()
        };
    };
    let known_by = tunnel_address.filter(|own| own.is_ipv4() == hop.source.is_ipv4());
    Node {
        address,
        source: Address::from(known_by.unwrap_or(hop.source)),
        destination_mac: hop.destination_mac,
        source_mac: hop.source_mac,
        ifindex: hop.ifindex,
        vlan: (hop.vlan & 0x0fff).to_be_bytes(),
        mtu: hop.mtu,
        ..Node::default()
    }
}
