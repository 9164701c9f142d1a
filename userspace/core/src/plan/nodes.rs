//! The nodes: where their tunnels end, and which of them may answer for VIPs.

use super::{Condition, ThisNode};
use crate::model::{Cluster, ObjectRef, reason};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The nodes that have an address of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    pub tunnel_addresses: BTreeMap<Arc<str>, IpAddr>,
    /// Those that may own a VIP.
    pub eligible: BTreeSet<Arc<str>>,
    /// Those that do not say that they take packets out of the tunnel: no agent runs there yet, or none does any more.
    pub silent: BTreeSet<Arc<str>>,
}

impl Nodes {
    pub(super) fn new(cluster: &Cluster, this: &ThisNode, conditions: &mut Vec<Condition>) -> Self {
        let mut say = |name: &str, field: &str, reason: &str, message: String| {
            conditions.push(Condition::new(
                ObjectRef::cluster_scoped("Node", name),
                field,
                reason,
                message,
            ));
        };
        let mut nodes = Self::default();
        let mut by_address: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (name, node) in &cluster.nodes {
            let Some(address) = node.internal_addresses.first().copied() else {
                let message =
                    "it has no address of type InternalIP, so it can neither forward nor be forwarded to. Add one \
                               to its status."
                        .into();
                say(name, "status.addresses", reason::NO_NODE_ADDRESS, message);
                continue;
            };
            if let Some(other) = by_address.get(&address) {
                let message = format!(
                    "{address} is also the InternalIP of Node {other}, so this one is left out. Correct one of the two."
                );
                say(name, "status.addresses", reason::SAME_NODE_ADDRESS, message);
                continue;
            }
            by_address.insert(address, name);
            let name: Arc<str> = name.as_str().into();
            if node.ready && !node.excluded {
                nodes.eligible.insert(name.clone());
            }
            let told = cluster.tunnels.as_ref().is_none_or(|told| told.contains(&*name));
            if !told && *name != *this.name {
                nodes.silent.insert(name.clone());
            }
            nodes.tunnel_addresses.insert(name, address);
        }
        if !cluster.nodes.contains_key(&this.name) {
            let message =
                "there is no Node of this name, so this node owns no VIP and takes no tunnel traffic. Add the Node, \
                           or start the agent with --node and the name it has there."
                    .into();
            say(&this.name, "metadata.name", reason::UNKNOWN_NODE, message);
        }
        nodes
    }

    /// Where a node's tunnel ends.
    pub(super) fn tunnel_address(&self, node: &str) -> Option<IpAddr> {
        self.tunnel_addresses.get(node).copied()
    }

    /// Whether what is sent to a node by tunnel arrives, as far as it says so.
    pub(super) fn takes_tunnel(&self, node: &str) -> bool {
        !self.silent.contains(node)
    }

    /// The name of a node that has one, as it is shared by all that speak of it.
    pub(super) fn name(&self, node: &str) -> Option<&Arc<str>> {
        self.tunnel_addresses.get_key_value(node).map(|(name, _)| name)
    }

    /// Tunnel addresses of all nodes but one.
    pub(super) fn others(&self, this: &str) -> BTreeMap<String, IpAddr> {
        let others = self.tunnel_addresses.iter().filter(|(name, _)| &***name != this);
        others.map(|(name, address)| (name.to_string(), *address)).collect()
    }
}
