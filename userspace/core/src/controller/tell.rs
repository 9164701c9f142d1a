//! What the statuses of Services and Eips say in words: why something is not served, and which nodes do their part.
//!
//! Nodes tell how they stand to an Eip in its status ([`Standing`]); from that, and from what is wrong with the objects
//! themselves, follow the conditions. A Service that is served and always was is not written to for this.

use super::{StatusCondition, Telling, World, serve::Served};
use crate::{
    model::{Condition, Eip, ObjectRef, Service, ServiceKey, reason},
    standing::{Problem, Standing},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Nobody says anything about an Eip.
const NO_NODE: &str = "NoNode";
/// The most nodes that a message names.
const NAMED: usize = 3;

/// What is to be told.
pub(super) struct Told<'a> {
    world: &'a World,
    served: &'a Served<'a>,
    /// What is wrong with each Service and Eip, before any node says anything.
    faults: BTreeMap<&'a ObjectRef, Vec<&'a Condition>>,
    /// What nodes say is wrong with each Service.
    problems: BTreeMap<&'a ServiceKey, BTreeSet<&'a Problem>>,
    /// The nodes that draw the traffic of each address.
    announcers: BTreeMap<IpAddr, Vec<&'a str>>,
    /// Whether any node says anything.
    heard: bool,
}

impl<'a> Told<'a> {
    pub(super) fn new(world: &'a World, served: &'a Served<'a>, conditions: &'a [Condition]) -> Self {
        let mut faults: BTreeMap<&ObjectRef, Vec<&Condition>> = BTreeMap::new();
        for condition in conditions {
            faults.entry(&condition.object).or_default().push(condition);
        }
        let mut problems: BTreeMap<&ServiceKey, BTreeSet<&Problem>> = BTreeMap::new();
        let mut announcers: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for (node, standing) in world.eips.keys().flat_map(|eip| standings(world, eip)) {
            for problem in &standing.problems {
                problems.entry(&problem.service).or_default().insert(problem);
            }
            for address in &standing.announces {
                announcers.entry(*address).or_default().push(node);
            }
        }
        Self {
            heard: world.eips.keys().any(|eip| standings(world, eip).next().is_some()),
            world,
            served,
            faults,
            problems,
            announcers,
        }
    }

    /// What nodes say is wrong with Services that are there.
    pub(super) fn problems(&self) -> Vec<Condition> {
        let problems = self.problems.values().flatten();
        let there = problems.filter(|problem| self.served.wanted.contains_key(&problem.service));
        there
            .map(|problem| {
                let object = ObjectRef::service(&problem.service);
                Condition::new(object, &problem.field, &problem.reason, problem.message.clone())
            })
            .collect()
    }

    /// The writes that are due.
    pub(super) fn telling(&self) -> Vec<Telling> {
        let services = self.world.services().filter_map(|(key, service, object)| {
            // What is under way says enough by what becomes of it.
            if service.deleting || !self.served.settled(key) {
                return None;
            }
            let served = self.of_service(key, service).or_else(|| {
                // Told once that it was not served, it is told that it is.
                let ours = self.served.wanted.contains_key(key);
                object.served.as_ref().filter(|_| ours).map(|_| self.is_served(key))
            });
            (served != object.served).then(|| Telling::Service {
                service: key.clone(),
                served,
            })
        });
        let eips = self.world.eips.iter().filter_map(|(name, object)| {
            let eip = self.world.cluster.eips.get(name).filter(|eip| !eip.deleting)?;
            let ready = self.of_eip(name, eip);
            // What OpenELB's speakers have made ready stays so until our nodes have a say.
            if object.ready == (true, None) && ready.reason == NO_NODE {
                return None;
            }
            let nodes = &self.world.cluster.nodes;
            let gone: Vec<String> = object
                .nodes
                .keys()
                .filter(|node| !nodes.contains_key(*node))
                .cloned()
                .collect();
            let as_told = object.ready == (ready.holds, Some(ready.clone()));
            (!as_told || !gone.is_empty()).then(|| Telling::Eip {
                eip: name.clone(),
                ready,
                gone,
            })
        });
        services.chain(eips).collect()
    }

    /// What there is to say about a Service; `None`: nothing.
    fn of_service(&self, key: &ServiceKey, service: &Service) -> Option<StatusCondition> {
        let object = ObjectRef::service(key);
        // Of a Service that is another load balancer's, nothing is said in its status.
        let faults = self.faults.get(&object).into_iter().flatten();
        let faults: Vec<&&Condition> = faults.filter(|fault| fault.reason != reason::OTHER_CLASS).collect();
        let first = faults.first().copied();
        let taken = self.served.wanted.get(key);
        if taken.is_none() && (first.is_none() || !service.load_balancer) {
            return None;
        }
        let problems = self.problems.get(key).into_iter().flatten();
        let unannounced: Vec<IpAddr> = taken
            .into_iter()
            .flatten()
            .map(|(address, _)| *address)
            .filter(|address| self.heard && !self.announcers.contains_key(address))
            .collect();
        let said = faults.iter().map(|fault| sentence(&fault.field, &fault.message));
        let said = said.chain(
            problems
                .clone()
                .map(|problem| sentence(&problem.field, &problem.message)),
        );
        let mut said: Vec<String> = said.collect();
        let mut reason = first.map(|fault| &fault.reason);
        reason = reason.or_else(|| problems.clone().next().map(|problem| &problem.reason));
        let mut holds = taken.is_some();
        if let Some(address) = unannounced.first() {
            holds = false;
            // If nodes say why, that is why.
            if said.is_empty() {
                let eips = taken.into_iter().flatten().filter(|(taken, _)| taken == address);
                let why = eips.map(|(_, eip)| self.why_not(eip)).collect::<String>();
                said.push(format!("no node announces {address}{why}"));
            }
        }
        let reason = reason
            .cloned()
            .or_else(|| (!holds).then(|| reason::NOT_ANNOUNCED.to_owned()));
        Some(StatusCondition {
            holds,
            reason: reason?,
            message: said.join(" "),
        })
    }

    fn is_served(&self, key: &ServiceKey) -> StatusCondition {
        let taken = self.served.wanted.get(key).into_iter().flatten();
        let message = taken.map(|(address, eip)| format!("{address} of Eip {eip} is served."));
        StatusCondition {
            holds: true,
            reason: "Served".into(),
            message: message.collect::<Vec<_>>().join(" "),
        }
    }

    fn why_not(&self, eip: &str) -> String {
        let mut messages = standings(self.world, eip).filter(|(_, standing)| !standing.ready);
        let first = messages.next();
        first.map_or_else(String::new, |(node, standing)| {
            format!("; {node} says: {}", standing.message)
        })
    }

    fn of_eip(&self, name: &str, eip: &Eip) -> StatusCondition {
        let object = ObjectRef::cluster_scoped("Eip", name);
        let faults = self.faults.get(&object).into_iter().flatten();
        let mut faults = faults.filter(|fault| fault.reason != reason::SECOND_DEFAULT);
        let not = |reason: &str, message: String| StatusCondition {
            holds: false,
            reason: reason.into(),
            message,
        };
        if let Some(fault) = faults.next() {
            return not(&fault.reason, sentence(&fault.field, &fault.message));
        }
        let (ready, unready): (Vec<_>, Vec<_>) = standings(self.world, name).partition(|(_, standing)| standing.ready);
        let named: Vec<String> = unready
            .iter()
            .take(NAMED)
            .map(|(node, standing)| format!("{node}: {}", standing.message))
            .collect();
        let more = unready.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" And {more} more nodes are not ready.")
        } else {
            String::new()
        };
        let unready = named.join(" ");
        match ready.len() {
            0 if unready.is_empty() => not(
                NO_NODE,
                "no node has said that it serves this Eip; see whether `weir agent` runs on the nodes.".into(),
            ),
            0 => not("NotReady", format!("{unready}{more}")),
            count => StatusCondition {
                holds: true,
                reason: if eip.disabled { "Disabled" } else { "Ready" }.into(),
                message: match (count, unready.is_empty()) {
                    (1, true) => "One node serves it.".into(),
                    (_, true) => format!("{count} nodes serve it."),
                    _ => format!("{count} of the nodes serve it. {unready}{more}"),
                },
            },
        }
    }
}

/// What nodes that are there and well say about an Eip: what the others said last is of no worth.
fn standings<'a>(world: &'a World, eip: &str) -> impl Iterator<Item = (&'a str, &'a Standing)> {
    let nodes = world.eips.get(eip).into_iter().flat_map(|object| &object.nodes);
    let there = nodes.filter(|(node, _)| world.cluster.nodes.get(*node).is_some_and(|node| node.ready));
    there.map(|(node, standing)| (node.as_str(), standing))
}

fn sentence(field: &str, message: &str) -> String {
    if field.is_empty() {
        message.to_owned()
    } else {
        format!("{field}: {message}")
    }
}
