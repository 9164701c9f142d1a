//! What holds at any time, and what holds in the end.

use crate::{
    running::Controller,
    server::{Eips, Server, Services},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_core::{
    controller::EipObject,
    ipam,
    model::{Automatic, Eip, Family, Rules, Service, ServiceKey},
};

/// What Services asked for when they came to it, or later, and still show.
pub type AskedAt = BTreeSet<(ServiceKey, IpAddr)>;

/// The addresses a Service asks for, of which only the first of a family counts; `None` if what it asks for cannot be read.
fn asked(service: &Service) -> Option<Vec<IpAddr>> {
    let text = service.annotations.get("eip.openelb.kubesphere.io/v1alpha1");
    let addresses = text.into_iter().flat_map(|text| text.split(','));
    let mut asked: Vec<IpAddr> = Vec::new();
    for address in addresses.map(|address| address.parse().ok()) {
        let address = address?;
        if !asked.iter().any(|other| Family::of(*other) == Family::of(address)) {
            asked.push(address);
        }
    }
    let known_proxy = !service
        .annotations
        .contains_key("node-proxy.openelb.kubesphere.io/type");
    known_proxy.then_some(asked)
}

/// Whether a Service may have an address, by these Eips: it asks for it, or nobody can make out what it asks for.
fn fits(service: &Service, address: IpAddr, eips: &Eips, rules: &Rules) -> bool {
    let named = service.annotations.get("eip.openelb.kubesphere.io/v1alpha2");
    let is_named = |name: &String| named.is_none_or(|named| named == name);
    let has = |eip: &Eip, address| {
        let range: ipam::AddressRange = eip.address.parse().unwrap();
        range.contains(address)
    };
    let offering =
        |(_, (eip, _)): &(&String, &(Eip, EipObject))| (!eip.deleting || rules.hold_eips_in_use) && has(eip, address);
    let offered = eips.iter().any(|it| offering(&it));
    let offered_as_named = eips.iter().any(|it| offering(&it) && is_named(it.0));
    let mut usable = eips
        .iter()
        .filter(|(_, (eip, _))| eip.interface.is_some())
        .map(|(name, (eip, _))| (name, eip));
    let Some(asked) = asked(service) else { return offered };
    let of_family = asked.iter().find(|it| Family::of(**it) == Family::of(address));
    match of_family {
        Some(wanted) if *wanted == address && offered_as_named => true,
        Some(wanted) => offered && !usable.any(|(name, eip)| is_named(name) && has(eip, *wanted)),
        None if !asked.is_empty() => false,
        None => offered_as_named || offered && !usable.any(|(name, _)| is_named(name)),
    }
}

fn opted_in(service: &Service) -> bool {
    service.annotations.contains_key("lb.kubesphere.io/v1alpha1") && !service.deleting
}

/// What a Service shows changes only if it can no longer have it, or asks for another that is there (B20), as the Eips were in one
/// of these states.
pub fn check_sticky(
    key: &ServiceKey,
    service: &Service,
    after: &[IpAddr],
    eips: [&Eips; 2],
    rules: &Rules,
) -> Result<(), TestCaseError> {
    for address in service.ingress.iter().filter(|address| !after.contains(address)) {
        let fits = opted_in(service) && eips.into_iter().all(|eips| fits(service, *address, eips, rules));
        prop_assert!(!fits, "{key} loses {address}, gets {after:?}");
    }
    Ok(())
}

/// Who shows each address: all but one asked for it when they came to it or later, and none has the port of another.
pub fn check_not_doubled(services: &Services, had_asked: &mut AskedAt) -> Result<(), TestCaseError> {
    for (key, (service, _)) in services {
        let asked = asked(service)
            .unwrap_or_default()
            .into_iter()
            .filter(|asked| service.ingress.contains(asked));
        had_asked.extend(asked.map(|asked| (key.clone(), asked)));
    }
    had_asked.retain(|(key, address)| {
        services
            .get(key)
            .is_some_and(|(service, _)| service.ingress.contains(address))
    });
    let mut shown: BTreeMap<IpAddr, Vec<(&ServiceKey, &Service)>> = BTreeMap::new();
    for (key, (service, _)) in services {
        for address in &service.ingress {
            shown.entry(*address).or_default().push((key, service));
        }
    }
    for (address, who) in shown {
        let unasked = who
            .iter()
            .filter(|(key, _)| !had_asked.contains(&((*key).clone(), address)))
            .count();
        prop_assert!(
            unasked <= 1,
            "{address} is shown by {:?}",
            who.iter().map(|it| it.0).collect::<Vec<_>>()
        );
        let ports: BTreeSet<u16> = who
            .iter()
            .flat_map(|(_, service)| &service.ports)
            .map(|port| port.port)
            .collect();
        prop_assert_eq!(ports.len(), who.len(), "a port twice at {}", address);
    }
    Ok(())
}

/// In the end the books say what Services show, and whoever could have an address has one.
pub fn check_settled(server: &Server) -> Result<(), TestCaseError> {
    let (services, eips) = server.now();
    let mut shown = BTreeSet::new();
    for (key, (service, object)) in services {
        for address in &service.ingress {
            shown.insert((*address, key.clone()));
        }
        prop_assert!(!service.deleting, "{key} is stuck");
        prop_assert_eq!(
            object.finalizer,
            !service.ingress.is_empty(),
            "the finalizer of {}",
            key
        );
        prop_assert_eq!(object.label.is_some(), object.finalizer, "the label of {}", key);
    }
    let mut recorded = BTreeSet::new();
    for (name, (eip, object)) in eips {
        let held = server.rules.hold_eips_in_use && object.status.usage > 0;
        prop_assert!((!eip.deleting || held) && object.finalizer, "Eip {name}");
        recorded.extend(object.status.entries());
        prop_assert_eq!(object.status.usage, i64::try_from(object.status.used.len()).unwrap());
    }
    prop_assert_eq!(&shown, &recorded);
    // As the allocator of the plans says it, from nothing but what is shown.
    let controller = Controller::started(server);
    let mut cluster = controller.cluster(server);
    cluster.automatic = Automatic::Lowest;
    let mut conditions = Vec::new();
    let pools = ipam::Pools::new(&cluster.eips, &mut conditions);
    let allocations = ipam::allocate(&cluster, &pools, &mut conditions);
    for (key, addresses) in allocations.by_service {
        let (service, _) = &services[key];
        prop_assert_eq!(
            service.ingress.iter().copied().collect::<BTreeSet<_>>(),
            addresses,
            "{}",
            key
        );
    }
    Ok(())
}
