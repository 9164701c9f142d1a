//! How an Eip stands on one node, as that node tells the others by the Eip's status.

use crate::{
    ipam::Pools,
    model::{Cluster, Condition, ServiceKey, reason},
    plan::{Plan, ThisNode, left_to_cni},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The most problems that all nodes together tell of one Eip, so that the object stays small; the rest is in their own logs and
/// `weir status`.
const MOST_PROBLEMS: usize = 512;
/// The most that one node tells.
const MOST_OF_NODE: usize = 64;

/// The most problems that each of so many nodes tells of one Eip; who tells so many may have more to tell.
#[must_use]
pub(crate) fn most_problems(nodes: usize) -> usize {
    (MOST_PROBLEMS / nodes.max(1)).clamp(1, MOST_OF_NODE)
}

/// What one node says about one Eip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the node does for the Eip's addresses what it should.
    pub ready: bool,
    /// Why not, or what else is wrong with the node.
    pub message: String,
    /// Whether the node takes packets for its pods out of the tunnel.
    pub takes_tunnel: bool,
    /// The addresses that this node draws the traffic of.
    pub announces: BTreeSet<IpAddr>,
    /// What is wrong with Services that have one of those.
    pub problems: Vec<Problem>,
}

/// What keeps nodes from serving an Eip, whichever node it is and whatever else it says about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Failure {
    /// The object at fault and its field, as [`Condition`] shows them; of a node only that it is one.
    about: String,
    reason: String,
}

impl Standing {
    /// What fails, of a node that is not ready. A text that shows no [`Condition`] is told from others by its first words.
    pub(crate) fn failure(&self) -> Failure {
        let mut parts = self.message.splitn(3, ": ");
        let (about, reason) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let about = match about.split_once(", ") {
            Some((node, field)) if node.starts_with("Node ") => format!("Node, {field}"),
            None if about.starts_with("Node ") => "Node".to_owned(),
            _ => about.to_owned(),
        };
        Failure {
            about,
            reason: reason.to_owned(),
        }
    }
}

impl Failure {
    /// Whether a text that has the messages of standings in it tells of something that fails for the same reason.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        text.contains(&format!(": {}", self.reason))
    }
}

/// Something that is wrong with a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The Service.
    pub service: ServiceKey,
    /// As in [`Condition`].
    pub field: String,
    /// As in [`Condition`].
    pub reason: String,
    /// As in [`Condition`].
    pub message: String,
}

/// How each Eip of `cluster` stands on `this` node, which `plan` is of, when `conditions` are all that is wrong there and
/// `takes_tunnel` is whether the program is where packets from other nodes come in.
#[must_use]
pub fn standings<'a>(
    cluster: &Cluster,
    this: &ThisNode,
    plan: &Plan,
    conditions: impl Iterator<Item = &'a Condition> + Clone,
    takes_tunnel: bool,
) -> BTreeMap<String, Standing> {
    let of_node = conditions.clone().find(|condition| stops_node(condition));
    // Only what is wrong with this one: what each says of others would be said many times.
    let beside = conditions
        .clone()
        .find(|it| it.object.kind == "Node" && it.object.name == this.name);
    let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
    for (name, eip) in &cluster.eips {
        let mut of_eip = conditions
            .clone()
            .filter(|it| it.object.kind == "Eip" && it.object.name == *name);
        let problem = of_node.or_else(|| of_eip.find(|condition| stops_eip(condition)));
        let left = left_to_cni(name, eip);
        let standing = Standing {
            ready: problem.is_none(),
            message: problem
                .or(beside)
                .or(left.as_ref())
                .map(ToString::to_string)
                .unwrap_or_default(),
            takes_tunnel,
            ..Standing::default()
        };
        standings.insert(name.clone(), standing);
    }
    let owned = plan.vips.iter().filter(|(_, vip)| vip.owned);
    for (address, vip) in owned {
        if let Some(standing) = standings.get_mut(&vip.eip).filter(|standing| standing.ready) {
            standing.announces.insert(*address);
        }
    }
    // What nobody draws the traffic of is dealt out among those that could, of which the agents are heard of.
    let could = cluster.nodes.iter().filter(|(_, node)| node.ready);
    let (heard, unheard): (Vec<&str>, Vec<&str>) = could.map(|(name, _)| name.as_str()).partition(|name| {
        let told = cluster.tunnels.as_ref();
        told.is_none_or(|told| told.contains(*name))
    });
    let tellers = if heard.is_empty() { unheard } else { heard };
    let pools = Pools::new(&cluster.eips, &mut Vec::new());
    for condition in conditions {
        let Some((service, field)) = about(cluster, condition) else {
            continue;
        };
        // Not those of the plan, which lacks what is refused here.
        let shown = cluster.services.get(&service).map(|service| &service.ingress);
        let eips: BTreeSet<&str> = shown
            .into_iter()
            .flatten()
            .filter(|address| match plan.vips.get(address) {
                Some(vip) if vip.owner.is_some() => vip.owned,
                _ => teller(&tellers, **address) == Some(&this.name),
            })
            .filter_map(|address| pools.containing(*address).map(|pool| pool.name))
            .collect();
        for eip in eips {
            if let Some(standing) = standings.get_mut(eip) {
                standing.problems.push(Problem {
                    service: service.clone(),
                    field: field.clone(),
                    reason: condition.reason.clone(),
                    message: condition.message.clone(),
                });
            }
        }
    }
    let most = most_problems(cluster.nodes.len());
    for standing in standings.values_mut() {
        standing.problems.sort();
        standing.problems.truncate(most);
    }
    standings
}

/// Who tells what is wrong with the Services of an address that nobody draws the traffic of.
fn teller<'a>(tellers: &[&'a str], address: IpAddr) -> Option<&'a str> {
    let number = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let place = number.checked_rem(tellers.len() as u128)?;
    tellers.get(place as usize).copied()
}

/// The Service that a condition is about, and the field; an EndpointSlice is a part of its Service.
fn about(cluster: &Cluster, condition: &Condition) -> Option<(ServiceKey, String)> {
    let object = &condition.object;
    match &*object.kind {
        "Service" => {
            let service = ServiceKey {
                namespace: object.namespace.clone(),
                name: object.name.clone(),
            };
            Some((service, condition.field.clone()))
        }
        "EndpointSlice" => {
            let mut slices = cluster.endpoint_slices.iter();
            let (service, _) = slices.find(|(service, slices)| {
                service.namespace == object.namespace && slices.contains_key(&*object.name)
            })?;
            Some((
                service.clone(),
                format!("EndpointSlice {} {}", object.name, condition.field),
            ))
        }
        _ => None,
    }
}

/// Whether a condition keeps the node from serving anything.
fn stops_node(condition: &Condition) -> bool {
    match &*condition.object.kind {
        "Interface" => true,
        "Node" => {
            [reason::UNKNOWN_NODE, reason::NO_NODE_ADDRESS, reason::MAP_NOT_WRITTEN].contains(&&*condition.reason)
        }
        _ => false,
    }
}

/// Whether a condition of an Eip keeps this node from serving it.
fn stops_eip(condition: &Condition) -> bool {
    ![
        reason::SECOND_DEFAULT,
        reason::UNCLEAR_DEFAULT,
        reason::NO_ELIGIBLE_NODE,
        reason::LEFT_TO_CNI,
    ]
    .contains(&&*condition.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Eip, ObjectRef};

    fn of_node(node: &str, reason: &str) -> Condition {
        let object = ObjectRef::cluster_scoped("Node", node);
        Condition::new(object, "--flag", reason, format!("what is wrong with {node}"))
    }

    fn standing(conditions: &[Condition]) -> Standing {
        let this = ThisNode { name: "node-a".into() };
        let cluster = Cluster {
            eips: BTreeMap::from([("pool".to_owned(), Eip::default())]),
            ..Cluster::default()
        };
        standings(&cluster, &this, &Plan::default(), conditions.iter(), true)
            .remove("pool")
            .expect("one Eip")
    }

    #[test]
    fn what_nobody_draws_is_dealt_out_among_those_that_could() {
        let tellers = ["a", "b", "c"];
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for last in 0..30 {
            let addresses = [
                IpAddr::from([10, 1, 0, last]),
                IpAddr::from([0, 0, 0, 0, 0, 0, 0, last.into()]),
            ];
            for address in addresses {
                *told.entry(teller(&tellers, address).unwrap()).or_default() += 1;
            }
        }
        assert_eq!(told, [("a", 20), ("b", 20), ("c", 20)].into());
        assert_eq!(teller(&[], [10, 1, 0, 1].into()), None);
    }

    #[test]
    fn what_fails_is_the_same_on_every_node() {
        let fails = |message: String| {
            Standing {
                message,
                ..Standing::default()
            }
            .failure()
        };
        let of = |node: &str, reason: &str| fails(of_node(node, reason).to_string());
        assert_eq!(of("node-a", "MapNotWritten"), of("node-b", "MapNotWritten"));
        assert_ne!(of("node-a", "MapNotWritten"), of("node-a", "UnknownNode"));
        let interface = |name: &str, message: &str| {
            let object = ObjectRef::cluster_scoped("Interface", name);
            fails(Condition::new(object, "", "NoInterface", message.into()).to_string())
        };
        assert_eq!(
            interface("eth7", "there is none"),
            interface("eth7", "2 are there: eth0, eth1")
        );
        assert_ne!(interface("eth7", "there is none"), interface("eth8", "there is none"));
        let told = "1 of the nodes serve it. node-c: Node node-c, --flag: MapNotWritten: what is wrong with node-c";
        assert!(of("node-a", "MapNotWritten").is_in(told));
        assert!(!of("node-a", "UnknownNode").is_in(told));
    }

    #[test]
    fn what_is_wrong_with_the_node_is_said_though_it_serves() {
        let standing = standing(&[of_node("node-a", "FlowTableFull"), of_node("node-b", "NoAgent")]);
        assert!(standing.ready && standing.message.contains("FlowTableFull") && !standing.message.contains("node-b"));
    }

    /// A12.
    #[test]
    fn a12_an_eip_that_is_not_the_default_it_says_it_is_or_does_not_say_whether_it_is_is_ready() {
        let of_eip = |reason: &str| {
            let object = ObjectRef::cluster_scoped("Eip", "pool");
            standing(&[Condition::new(object, "field", reason, "what is wrong".into())])
        };
        for harmless in [reason::SECOND_DEFAULT, reason::UNCLEAR_DEFAULT] {
            assert!(of_eip(harmless).ready, "{harmless}");
        }
        assert!(!of_eip(reason::OVERLAP).ready);
    }

    /// A25.
    #[test]
    fn a25_an_eip_that_is_left_to_the_cni_is_ready_and_said_not_to_be_announced() {
        let this = ThisNode { name: "node-a".into() };
        let eip = Eip {
            left_to_cni: true,
            ..Eip::default()
        };
        let said = left_to_cni("pool", &eip).unwrap();
        let cluster = Cluster {
            eips: BTreeMap::from([("pool".to_owned(), eip)]),
            ..Cluster::default()
        };
        for conditions in [&[][..], &[said]] {
            let standings = standings(&cluster, &this, &Plan::default(), conditions.iter(), true);
            let standing = &standings["pool"];
            assert!(standing.ready && standing.announces.is_empty());
            assert!(
                standing.message.contains("openelb.kubesphere.io/cni"),
                "{}",
                standing.message
            );
        }
    }

    #[test]
    fn what_others_lack_is_for_them_to_say() {
        assert_eq!(standing(&[of_node("node-b", "NoAgent")]).message, "");
    }

    #[test]
    fn a_node_that_the_kernel_refuses_is_not_ready_and_says_that_first() {
        let standing = standing(&[
            of_node("node-a", "FlowTableFull"),
            of_node("node-a", reason::MAP_NOT_WRITTEN),
        ]);
        assert!(
            !standing.ready && standing.message.contains("MapNotWritten"),
            "{}",
            standing.message
        );
    }
}
