//! What the controller would write if it led, and what it would say of it.

use super::Findings;
use crate::{
    controller::{Action, EipStatus, World, plan},
    model::{Cluster, Family, ObjectRef, ServiceKey, reason},
    takeover::Level,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What the controller would write, and what it would say.
pub(super) fn planned(cluster: &Cluster, world: &World, findings: &mut Findings) {
    let planned = plan(world);
    for action in &planned.actions {
        match action {
            Action::Show { service, addresses, .. } => shown(cluster, service, addresses, findings),
            Action::Mark { service, eip, .. } => marked(world, service, eip.as_deref(), findings),
            Action::Guard { eip, finalizer, .. } => {
                let says = if *finalizer {
                    "would get its finalizer"
                } else {
                    "would lose its finalizer"
                };
                let object = ObjectRef::cluster_scoped("Eip", eip);
                findings.add(Level::Note, &object, "metadata.finalizers", says, "nothing");
            }
            Action::Record { eip, status, .. } => recorded(cluster, world, eip, status, findings),
        }
    }
    let remaining = remaining(cluster, world, &planned.actions);
    for event in planned.warnings {
        let mut services = cluster.services.iter();
        let service = services.find(|(key, _)| ObjectRef::service(key) == event.object);
        let has = service.is_some_and(|(_, service)| !service.ingress.is_empty());
        let loses = service.is_some_and(|(key, service)| {
            let mut addresses = service.ingress.iter();
            addresses.any(|address| !remaining.contains(&(*address, key.clone())))
        });
        let harmless = [reason::BALANCER_IGNORED, reason::PROTOCOL_IGNORED, reason::SHARED_LOCAL];
        // What nobody serves is of no use, whoever has it.
        let unserved = has && event.reason == reason::FRONTEND_TAKEN;
        let unlike = !harmless.contains(&event.reason.as_str());
        let level = if loses && unlike || unserved {
            Level::Problem
        } else {
            Level::Warning
        };
        findings.add(
            level,
            &event.object,
            "",
            format!("{}: {}", event.reason, event.message),
            "as it says",
        );
    }
}

/// The addresses that are still their Services' after these writes: the books have them, and statuses are not to lose them.
fn remaining(cluster: &Cluster, world: &World, actions: &[Action]) -> BTreeSet<(IpAddr, ServiceKey)> {
    let mut books: BTreeMap<&str, &EipStatus> = BTreeMap::new();
    for name in cluster.eips.keys() {
        books.extend(world.eip(name).map(|object| (name.as_str(), &object.status)));
    }
    let mut shown: BTreeMap<&ServiceKey, &[IpAddr]> = BTreeMap::new();
    for action in actions {
        match action {
            Action::Record { eip, status, .. } => drop(books.insert(eip, status)),
            Action::Show { service, addresses, .. } => drop(shown.insert(service, addresses)),
            Action::Mark { .. } | Action::Guard { .. } => {}
        }
    }
    let entries = books.into_values().flat_map(EipStatus::entries);
    let entries = entries.filter(|(address, key)| shown.get(key).is_none_or(|shown| shown.contains(address)));
    entries.collect()
}

fn shown(cluster: &Cluster, key: &ServiceKey, addresses: &[IpAddr], findings: &mut Findings) {
    let before = cluster.services.get(key).map_or(&[][..], |service| &service.ingress);
    let object = ObjectRef::service(key);
    let spell = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let lost: Vec<IpAddr> = before
        .iter()
        .copied()
        .filter(|address| !addresses.contains(address))
        .collect();
    let field = "status.loadBalancer.ingress";
    if lost.is_empty() {
        let says = format!("would get {}", spell(addresses));
        findings.add(Level::Note, &object, field, says, "nothing, if that is wanted");
        return;
    }
    let instead = if addresses.is_empty() {
        "none".into()
    } else {
        spell(addresses)
    };
    findings.add(
        Level::Problem,
        &object,
        field,
        format!(
            "has {} and would have {instead}, as {} is not what it asks for, or no Eip has it",
            spell(before),
            spell(&lost)
        ),
        "ask for the address by the annotation eip.openelb.kubesphere.io/v1alpha1, and see to an Eip that has it",
    );
}

fn marked(world: &World, key: &ServiceKey, eip: Option<&str>, findings: &mut Findings) {
    let object = ObjectRef::service(key);
    let object_now = world.service(key);
    let before = object_now.and_then(|service| service.label.as_deref());
    match (before, eip) {
        // That has been said.
        (_, None) if object_now.is_some_and(|service| !service.marked()) => {}
        (_, None) => findings.add(
            Level::Warning,
            &object,
            "metadata.finalizers",
            "carries OpenELB's label or finalizer and is none of its Services any more; both would go",
            "nothing",
        ),
        (Some(before), Some(eip)) if before != eip => findings.add(
            Level::Warning,
            &object,
            "metadata.labels[eip.openelb.kubesphere.io/v1alpha2]",
            format!("is {before} and would be {eip}, which has its address"),
            "nothing",
        ),
        _ => findings.add(
            Level::Note,
            &object,
            "metadata.labels",
            "would get label and finalizer",
            "nothing",
        ),
    }
}

/// Where the book of an Eip and the Services differ.
fn recorded(cluster: &Cluster, world: &World, eip: &str, after: &EipStatus, findings: &mut Findings) {
    let object = ObjectRef::cluster_scoped("Eip", eip);
    let book = |status: &EipStatus| status.entries().collect::<BTreeSet<_>>();
    let before = world.eip(eip).map(|object| book(&object.status)).unwrap_or_default();
    let after = book(after);
    let field = |address: &IpAddr| format!("status.used[{address}]");
    for (address, key) in before.difference(&after) {
        let says = format!("says that Service {key} has it, which it does not, or not any more");
        findings.add(
            Level::Warning,
            &object,
            &field(address),
            says,
            "nothing; the entry would go",
        );
    }
    for (address, key) in after.difference(&before) {
        let has = cluster
            .services
            .get(key)
            .is_some_and(|service| service.ingress.contains(address));
        if has {
            let says = format!("is missing, and Service {key} has it");
            findings.add(
                Level::Warning,
                &object,
                &field(address),
                says,
                "nothing; it would be entered",
            );
        } else {
            // The book comes first; what it says is what the Service would have next, in that family.
            let before = cluster.services.get(key).map_or(&[][..], |service| &service.ingress);
            let others = before
                .iter()
                .copied()
                .filter(|other| Family::of(*other) != Family::of(*address));
            let next: Vec<IpAddr> = others.chain([*address]).collect();
            shown(cluster, key, &next, findings);
        }
    }
    if before == after {
        let says = "the numbers are not those of the Eip, or not there yet";
        findings.add(Level::Note, &object, "status", says, "nothing; they would be written");
    }
}
