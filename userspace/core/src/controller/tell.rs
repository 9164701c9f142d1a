//! What the statuses of Services and Eips say in words: why something is not served, and which nodes do their part.
//!
//! Nodes tell how they stand to an Eip in its status ([`Standing`]); from that, and from what is wrong with the objects
//! themselves, follow the conditions. A Service that is served and always was is not written to for this.

use super::{
    Announcing, EipObject, StatusCondition, Telling, World,
    announcers::Seen,
    serve::Served,
    set_up::{self, SetUp},
};
use crate::{
    model::{Condition, Eip, ObjectRef, Service, ServiceKey, reason},
    standing::{Failure, Problem, Standing, most_problems},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Nobody says anything about an Eip.
const NO_NODE: &str = "NoNode";
/// Nodes do, and none serves it.
const NOT_READY: &str = "NotReady";
/// Others have to leave an address first.
const AWAITED: &str = "AddressAwaited";
/// Who announces what an Eip with that label has.
const LEFT: &str = "that is left to somebody else by the label openelb.kubesphere.io/cni";
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
    /// The addresses whose traffic some node draws, with those nodes.
    announced: BTreeMap<IpAddr, BTreeSet<&'a str>>,
    /// The Eips of which every node that is well says something.
    heard: BTreeSet<&'a str>,
}

/// Whether a Service is served in spite of a fault.
fn is_harmless(reason: &str) -> bool {
    [
        reason::ADDRESS_KEPT,
        reason::BALANCER_IGNORED,
        reason::PROTOCOL_IGNORED,
        reason::STOOD_ASIDE,
        reason::SHARED_LOCAL,
        reason::UNREACHABLE_ENDPOINT,
        reason::INVALID_VALUE,
        reason::HEALTH_CHECK_PORT,
        // In its weights: those of the other nodes count.
        reason::UNKNOWN_NODE,
        reason::LEFT_TO_CNI,
    ]
    .contains(&reason)
}

impl<'a> Told<'a> {
    pub(super) fn new(world: &'a World, served: &'a Served<'a>, conditions: &'a [Condition]) -> Self {
        let mut faults: BTreeMap<&ObjectRef, Vec<&Condition>> = BTreeMap::new();
        for condition in conditions {
            faults.entry(&condition.object).or_default().push(condition);
        }
        let mut problems: BTreeMap<&ServiceKey, BTreeSet<&Problem>> = BTreeMap::new();
        let mut announced: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
        for (node, standing) in world.eips.keys().flat_map(|eip| standings(world, eip)) {
            for problem in &standing.problems {
                problems.entry(&problem.service).or_default().insert(problem);
            }
            for address in &standing.announces {
                announced.entry(*address).or_default().insert(node);
            }
        }
        let nodes = world.cluster.nodes.keys();
        let well = nodes.filter(|node| speaks(world, node)).count();
        let heard = world.eips.iter().filter(|(eip, object)| {
            let all = standings(world, eip).count() == well;
            // While nobody has ever said anything, OpenELB may serve it.
            let expected = well > 0 || !world.silent.is_empty() && object.ready.1.is_some();
            all && expected
        });
        Self {
            heard: heard.map(|(eip, _)| eip.as_str()).collect(),
            world,
            served,
            faults,
            problems,
            announced,
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
            if service.deleting {
                return None;
            }
            let (served, silent_nodes) = match self.awaits(key, service) {
                Some(awaits) => (Some(awaits), None),
                None if self.served.settled(key) => self.of_service(key, service),
                // What else is under way says enough by what becomes of it.
                None => return None,
            };
            let served = served.or_else(|| {
                // Told once that it was not served, it is told that it is.
                let ours = self.served.wanted.contains_key(key);
                object.served.as_ref().filter(|_| ours).map(|_| self.is_served(key))
            });
            (served != object.served).then(|| Telling::Service {
                service: key.clone(),
                served,
                silent_nodes,
            })
        });
        let eips = self.eips().filter_map(|(name, object, ready, _)| {
            let nodes = &self.world.cluster.nodes;
            let gone: Vec<String> = object
                .nodes
                .keys()
                .filter(|node| !nodes.contains_key(*node) || self.world.silent.contains(*node))
                .cloned()
                .collect();
            let as_told = object.ready == (ready.holds, Some(ready.clone()));
            (!as_told || !gone.is_empty()).then(|| Telling::Eip {
                eip: name.to_owned(),
                ready,
                gone,
            })
        });
        services.chain(eips).collect()
    }

    /// How each Eip stands of which something is to be told: with its condition, and what fails on nodes.
    fn eips(&self) -> impl Iterator<Item = (&str, &EipObject, StatusCondition, BTreeSet<Failure>)> {
        self.world.eips.iter().filter_map(|(name, object)| {
            let eip = self.world.cluster.eips.get(name).filter(|eip| !eip.deleting)?;
            let (ready, fails) = self.of_eip(name, eip);
            // What OpenELB's speakers have made ready stays so until our nodes have a say.
            let openelbs = object.ready == (true, None) && ready.reason == NO_NODE;
            (!openelbs).then_some((name.as_str(), object, ready, fails))
        })
    }

    /// How Eips are served, and were when it was last told.
    pub(super) fn set_ups(&self) -> set_up::All {
        let eips = self.eips().map(|(name, object, ready, fails)| {
            let set_up = SetUp {
                uid: object.uid.clone(),
                expected: [NO_NODE, NOT_READY].contains(&&*ready.reason),
                ready,
                told: object.ready.1.clone(),
                fails,
            };
            (name.to_owned(), set_up)
        });
        eips.collect()
    }

    /// What there is to say about a Service, `None`: nothing; and of how many nodes it is that they say nothing.
    fn of_service(&self, key: &ServiceKey, service: &Service) -> (Option<StatusCondition>, Option<u32>) {
        let object = ObjectRef::service(key);
        // Of a Service that is another load balancer's, nothing is said in its status.
        let others = [reason::OTHER_CLASS, reason::OTHER_BALANCER];
        let faults = self.faults.get(&object).into_iter().flatten();
        let faults: Vec<&&Condition> = faults.filter(|fault| !others.contains(&&*fault.reason)).collect();
        let taken = self.served.wanted.get(key);
        if taken.is_none() && (faults.is_empty() || !service.load_balancer) {
            return (None, None);
        }
        let problems = self.problems.get(key).into_iter().flatten();
        let mut said: Vec<(&str, String)> = faults
            .iter()
            .map(|fault| (&*fault.reason, sentence(&fault.field, &fault.message)))
            .chain(problems.map(|it| (&*it.reason, sentence(&it.field, &it.message))))
            .collect();
        let mut silent_nodes = None;
        // If nodes say what is wrong with the Service, that is why.
        let explained = said.iter().any(|(reason, _)| !is_harmless(reason));
        let mut taken_of = taken.into_iter().flatten();
        let missed = taken_of.find_map(|(address, eip)| self.missed(*address, eip));
        if let Some(message) = missed.filter(|_| !explained) {
            said.insert(0, (reason::NOT_ANNOUNCED, message));
            silent_nodes = Some(self.nodes());
        }
        let taken_of = taken.into_iter().flatten();
        let left = taken_of.filter(|(_, eip)| self.heard.contains(eip) && self.is_left_to_cni(eip));
        said.extend(left.map(|(address, eip)| {
            let message = format!("{address} is served and not announced: {} of Eip {eip}.", LEFT);
            (reason::LEFT_TO_CNI, message)
        }));
        // What matters most first.
        said.sort_by_key(|(reason, _)| is_harmless(reason));
        let condition = said.first().map(|(reason, _)| StatusCondition {
            holds: taken.is_some() && is_harmless(reason),
            reason: (*reason).to_owned(),
            message: said.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" "),
        });
        (condition, silent_nodes)
    }

    /// Who announces what Services show.
    pub(super) fn announcing(&self) -> Announcing {
        let by = self.announced.iter();
        let by = by.map(|(address, nodes)| (*address, nodes.iter().map(|node| (*node).to_owned()).collect()));
        let nodes = self.world.cluster.nodes.keys();
        let unheard = nodes.filter(|node| !speaks(self.world, node)).cloned().collect();
        let eips = &self.world.cluster.eips;
        let named = self.world.eips.keys().cloned().collect();
        let mut announcing = Announcing::new(by.collect(), named, unheard, self.nodes());
        for (key, service, object) in self.world.services() {
            let taken = self.served.wanted.get(key).into_iter().flatten();
            let taken = taken.filter(|(_, eip)| !self.is_left_to_cni(eip));
            for (address, eip) in taken.filter(|(address, _)| service.ingress.contains(address)) {
                let missed = self.missed(*address, eip);
                let told = object.served.as_ref();
                let seen = Seen {
                    eip: (*eip).to_owned(),
                    elected: eips.get(*eip).is_some_and(Eip::elects),
                    missed: missed.filter(|_| !self.is_explained(key)),
                    told: told.is_some_and(|told| told.reason == reason::NOT_ANNOUNCED),
                };
                announcing.show(key, object, *address, seen);
            }
        }
        announcing
    }

    /// Whether something is known to be wrong with a Service that keeps it from being served.
    fn is_explained(&self, key: &ServiceKey) -> bool {
        let faults = self.faults.get(&ObjectRef::service(key)).into_iter().flatten();
        let problems = self.problems.get(key).into_iter().flatten();
        let mut reasons = faults
            .map(|fault| &*fault.reason)
            .chain(problems.map(|problem| &*problem.reason));
        reasons.any(|reason| !is_harmless(reason))
    }

    /// Whether it is for somebody else to announce what an Eip has.
    fn is_left_to_cni(&self, eip: &str) -> bool {
        let eip = self.world.cluster.eips.get(eip);
        eip.is_some_and(|eip| eip.left_to_cni)
    }

    fn nodes(&self) -> u32 {
        u32::try_from(self.world.cluster.nodes.len()).unwrap_or(u32::MAX)
    }

    /// That nobody announces an address of an Eip, when all have had their say.
    fn missed(&self, address: IpAddr, eip: &str) -> Option<String> {
        let heard = self.heard.contains(eip) && !self.is_left_to_cni(eip);
        let missed = heard && !self.announced.contains_key(&address);
        missed.then(|| format!("no node announces {address}{}", self.why_not(eip)))
    }

    /// That a Service waits for others to leave an address, if it does.
    fn awaits(&self, key: &ServiceKey, service: &Service) -> Option<StatusCondition> {
        let (address, other) = self.served.awaited(key)?;
        let until = match other {
            Some(other) => format!("Service {other} has left it; see what that Service says if it does not"),
            None => "whoever had it is struck from the status of its Eip".to_owned(),
        };
        Some(StatusCondition {
            // What it shows meanwhile is served.
            holds: !service.ingress.is_empty(),
            reason: AWAITED.into(),
            message: format!("{address} is this Service's when {until}."),
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
        match messages.next() {
            Some((node, standing)) => format!("; {node} says: {}", standing.message),
            None if standings(self.world, eip).next().is_none() => {
                "; no agent has been heard of lately, see whether `weir agent` runs on the nodes.".into()
            }
            None if self.is_cut(eip) => {
                "; nodes have more to say than there is room for here, see `weir status` on them.".into()
            }
            None => String::new(),
        }
    }

    /// Whether nodes may have more to say about an Eip's Services than they can.
    fn is_cut(&self, eip: &str) -> bool {
        let most = most_problems(self.world.cluster.nodes.len());
        standings(self.world, eip).any(|(_, standing)| standing.problems.len() >= most)
    }

    /// How an Eip stands, and what fails on the nodes that do not serve it.
    fn of_eip(&self, name: &str, eip: &Eip) -> (StatusCondition, BTreeSet<Failure>) {
        let object = ObjectRef::cluster_scoped("Eip", name);
        let faults = self.faults.get(&object).into_iter().flatten();
        // That keeps nothing of it from being served.
        let (of_default, faults): (Vec<&Condition>, Vec<&Condition>) =
            faults.partition(|fault| [reason::SECOND_DEFAULT, reason::UNCLEAR_DEFAULT].contains(&&*fault.reason));
        let not = |reason: &str, message: String| StatusCondition {
            holds: false,
            reason: reason.into(),
            message,
        };
        if let Some(fault) = faults.first() {
            let refused = not(&fault.reason, sentence(&fault.field, &fault.message));
            return (refused, BTreeSet::new());
        }
        let (ready, unready): (Vec<_>, Vec<_>) = standings(self.world, name).partition(|(_, standing)| standing.ready);
        // One node of each that is worth to be told of, before others.
        let mut fails = BTreeSet::new();
        let (firsts, others): (Vec<_>, Vec<_>) = unready
            .iter()
            .partition(|(_, standing)| fails.insert(standing.failure()));
        let named: Vec<String> = firsts
            .into_iter()
            .chain(others)
            .take(NAMED)
            .map(|(node, standing)| format!("{node}: {}", standing.message))
            .collect();
        let mut unready_say = named.join(" ");
        let more = unready.len().saturating_sub(NAMED);
        if more > 0 {
            unready_say += &format!(" And {more} more nodes are not ready.");
        }
        let announced_by = if eip.left_to_cni {
            format!(" Its addresses are not announced: {LEFT}.")
        } else {
            String::new()
        };
        let mut condition = match (ready.len(), unready.is_empty()) {
            (0, true) => not(
                NO_NODE,
                "no node has said that it serves this Eip; see whether `weir agent` runs on the nodes.".into(),
            ),
            (0, false) => not(NOT_READY, unready_say),
            (count, all) => StatusCondition {
                holds: true,
                reason: match (eip, of_default.first()) {
                    (Eip { disabled: true, .. }, _) => "Disabled",
                    (Eip { left_to_cni: true, .. }, _) => reason::LEFT_TO_CNI,
                    (_, Some(fault)) => &fault.reason,
                    (_, None) => "Ready",
                }
                .into(),
                message: match (count, all) {
                    (1, true) => "One node serves it.".into(),
                    (_, true) => format!("{count} nodes serve it."),
                    _ => format!("{count} of the nodes serve it. {unready_say}"),
                } + &announced_by,
            },
        };
        for fault in of_default {
            condition.message += &format!(" {}", sentence(&fault.field, &fault.message));
        }
        (condition, fails)
    }
}

/// Whether what a node says counts: it is there and well, and its agent speaks.
fn speaks(world: &World, node: &str) -> bool {
    let well = world.cluster.nodes.get(node).is_some_and(|node| node.ready);
    well && !world.silent.contains(node)
}

/// What nodes say about an Eip, of those that count.
fn standings<'a>(world: &'a World, eip: &str) -> impl Iterator<Item = (&'a str, &'a Standing)> {
    let nodes = world.eips.get(eip).into_iter().flat_map(|object| &object.nodes);
    let speaking = nodes.filter(|(node, _)| speaks(world, node));
    speaking.map(|(node, standing)| (node.as_str(), standing))
}

fn sentence(field: &str, message: &str) -> String {
    if field.is_empty() {
        message.to_owned()
    } else {
        format!("{field}: {message}")
    }
}
