//! Giving out addresses: first what Services already have, then what they ask for by address, then a free one.
//!
//! Within each round the oldest Service comes first (creation time, namespace, name), so the outcome depends on nothing but
//! the objects and what is remembered. Nobody is brought to an address that another has unless all but one of the two asked
//! for it; once a Service shows an address, it keeps it, asking or not, for as long as no port there is another's
//! (`keeping`).

mod keeping;

use super::{
    AddressRange,
    given::given,
    pools::{Pool, Pools},
    request::{Request, Slot, check_protocol, request},
};
use crate::model::{Automatic, Cluster, Condition, Family, ObjectRef, PortProtocol, Service, ServiceKey, reason};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Addresses given out.
#[derive(Clone, Debug, Default)]
pub struct Allocations<'a> {
    /// Addresses of each Service of ours that got any.
    pub by_service: BTreeMap<&'a ServiceKey, BTreeSet<IpAddr>>,
    /// Who has each address.
    pub claims: BTreeMap<IpAddr, Claim<'a>>,
    /// Services of ours, whether they got anything or not.
    pub asking: BTreeSet<&'a ServiceKey>,
    /// Who asked for the very address that it got.
    pub asked: BTreeSet<(&'a ServiceKey, IpAddr)>,
}

/// An address that is given out.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Name of the Eip it is from.
    pub eip: &'a str,
    /// The Service that has each port; of two that want one, the one that was first.
    pub ports: BTreeMap<(u16, &'a PortProtocol), &'a ServiceKey>,
    /// Whether somebody has it without having asked for it.
    automatic: bool,
}

/// Why a slot stays empty, or is filled otherwise than asked for.
struct Refusal {
    condition: Box<Condition>,
    /// Whether it is just that no Eip has addresses of that family.
    no_eip: bool,
}

/// Gives every Service of ours its addresses.
#[must_use]
pub fn allocate<'a>(cluster: &'a Cluster, pools: &Pools<'a>, conditions: &mut Vec<Condition>) -> Allocations<'a> {
    if cluster.automatic == Automatic::Given {
        return given(cluster, pools, conditions);
    }
    let mut requests: Vec<Request<'a>> = cluster
        .services
        .iter()
        .filter_map(|(key, service)| request(key, service, &cluster.rules, conditions))
        .collect();
    requests.sort_by_key(|request| (request.service.created, request.key));

    let mut allocator = Allocator {
        cluster,
        pools,
        node_addresses: cluster
            .nodes
            .values()
            .flat_map(|node| node.internal_addresses.iter().copied())
            .collect(),
        withheld: withheld(cluster),
        unreadable: unreadable(cluster),
        shown: shown(cluster),
        cursors: BTreeMap::new(),
        given: Allocations::default(),
    };
    allocator.given.asking = requests.iter().map(|request| request.key).collect();
    allocator.keep(&mut requests, conditions);
    let mut empty = Vec::new();
    let giving = cluster.automatic != Automatic::Kept;
    for by_address in [true, false] {
        for request in requests.iter().filter(|_| giving) {
            for slot in request
                .slots
                .iter()
                .filter(|slot| slot.requested.is_some() == by_address)
            {
                match allocator.find(request, *slot) {
                    Ok((address, eip)) => allocator.give(request, address, eip, by_address),
                    Err(_) => empty.push((request, *slot)),
                }
            }
        }
    }
    for (request, slot) in empty {
        // Asked once more, so that what is said does not depend on who came before whom. Nothing is given back in between.
        let Err(refusal) = allocator.find(request, slot) else {
            continue;
        };
        // A family that nobody offers is worth a word only if it is needed, or if the Service got nothing at all.
        let served = allocator.given.by_service.contains_key(request.key);
        if slot.required || !refusal.no_eip || !served {
            conditions.push(*refusal.condition);
        }
    }
    for request in &requests {
        for address in allocator.given.by_service.get(request.key).into_iter().flatten() {
            check_protocol(request, *address, pools, conditions);
        }
    }
    allocator.given
}

struct Allocator<'a, 'p> {
    cluster: &'a Cluster,
    pools: &'p Pools<'a>,
    node_addresses: BTreeSet<IpAddr>,
    /// Addresses of Services that may be in what could not be read.
    withheld: BTreeSet<IpAddr>,
    /// Eips that are there, and whose addresses are not known.
    unreadable: BTreeSet<&'a str>,
    /// With [`Automatic::Lowest`]: addresses that somebody shows.
    shown: BTreeSet<IpAddr>,
    /// Offset of the lowest address of each Eip that may still be free. Nothing is given back while planning.
    cursors: BTreeMap<&'a str, u128>,
    given: Allocations<'a>,
}

impl<'a> Allocator<'a, '_> {
    /// Whether what a Service asks for in a slot is there: whether it can be read, and names Eips that can be used and have
    /// such addresses.
    fn made_out(&self, request: &Request<'a>, slot: Slot) -> Result<(), Refusal> {
        if let Some(condition) = request.unreadable.clone() {
            let no_eip = false;
            return Err(Refusal { condition, no_eip });
        }
        match slot.requested {
            Some(address) => self.pool_of(request, address).map(drop),
            None if request.eips.is_empty() => Ok(()),
            None => match self.pools_named(request, slot) {
                // A family that it can do without is none that it asks for.
                Err(refusal) if refusal.no_eip && !slot.required => Ok(()),
                named => named.map(drop),
            },
        }
    }

    /// An address for a slot, with the Eip it is from.
    fn find(&mut self, request: &Request<'a>, slot: Slot) -> Result<(IpAddr, &'a str), Refusal> {
        match slot.requested {
            Some(address) => self.requested(request, address).map(|eip| (address, eip)),
            None => self.automatic(request, slot),
        }
    }

    /// The Eip that has a requested address.
    fn pool_of(&self, request: &Request<'a>, address: IpAddr) -> Result<&Pool<'a>, Refusal> {
        let refuse = |message| {
            let field = &request.address_field;
            Err(refusal(request, field, reason::OUTSIDE_EIPS, message))
        };
        let Some(pool) = self.pools.containing(address) else {
            let family = Some(Family::of(address));
            let message = format!(
                "no Eip has {address}. Ask for an address of an Eip ({}), or add an Eip that has it.",
                listed(self.pools.of_family(family))
            );
            return refuse(message);
        };
        if !request.eips.is_empty() && !request.eips.contains(&pool.name) {
            let message = format!(
                "{address} is not in Eip {}, which this Service names; it is in {}. Make the two annotations agree.",
                request.eips.join(", "),
                pool.name
            );
            return refuse(message);
        }
        Ok(pool)
    }

    /// The Eip to take a requested address from.
    fn requested(&self, request: &Request<'a>, address: IpAddr) -> Result<&'a str, Refusal> {
        let refuse = |reason, message| Err(refusal(request, &request.address_field, reason, message));
        let pool = self.pool_of(request, address)?;
        if let Some(closed) = pool.closed() {
            let message = format!(
                "{address} is in Eip {}, which gives out nothing new as it is {closed}. Ask for an address of another Eip.",
                pool.name
            );
            return refuse(reason::EIP_DISABLED, message);
        }
        if self.node_addresses.contains(&address) {
            return refuse(
                reason::NODE_ADDRESS,
                format!("{address} is a node's own address. Ask for another one."),
            );
        }
        if let Some((port, protocol, other)) = self
            .given
            .claims
            .get(&address)
            .and_then(|claim| claim.conflict(request.service))
        {
            let message = format!(
                "{address} is shared with Service {other}, which already has port {port}/{protocol} there, so this Service \
                 gets no address. Change the port of one of the two, or ask for another address."
            );
            return refuse(reason::PORT_CONFLICT, message);
        }
        Ok(pool.name)
    }

    /// A free address of the first Eip that has one.
    fn automatic(&mut self, request: &Request<'a>, slot: Slot) -> Result<(IpAddr, &'a str), Refusal> {
        let candidates = if request.eips.is_empty() {
            self.unnamed(request, slot)?
        } else {
            self.named(request, slot)?
        };
        for pool in &candidates {
            if let Some(address) = self.free(request.key, pool) {
                return Ok((address, pool.name));
            }
        }
        let names: Vec<_> = candidates.iter().map(|pool| pool.name).collect();
        let message = format!(
            "every address of Eip {} is given out. Add an Eip, or delete a Service that has an address of it.",
            names.join(", ")
        );
        let field = match (request.eips_field.as_str(), &request.service.load_balancer_ip) {
            ("", Some(_)) => "spec.loadBalancerIP",
            ("", None) => "metadata.annotations",
            (named, _) => named,
        };
        Err(refusal(request, field, reason::EXHAUSTED, message))
    }

    /// The Eips a Service names that have addresses of the wanted family.
    fn pools_named(&self, request: &Request<'a>, slot: Slot) -> Result<Vec<&Pool<'a>>, Refusal> {
        let field = &request.eips_field;
        let mut pools = Vec::new();
        for name in &request.eips {
            let pool = self.pools.named(name).ok_or_else(|| {
                let message = match self.cluster.eips.get(*name) {
                    Some(_) => format!("Eip {name} cannot be used. See its own conditions."),
                    None => format!(
                        "there is no Eip {name}. Name one of: {}.",
                        listed(self.pools.of_family(None))
                    ),
                };
                refusal(request, field, reason::UNKNOWN_EIP, message)
            })?;
            pools.push(pool);
        }
        pools.retain(|pool| slot.family.is_none_or(|family| family == pool.range.family()));
        if pools.is_empty() {
            let family = slot.family.map_or_else(String::new, |family| family.to_string());
            let message = format!(
                "Eip {} has no {family} addresses, and the Service is to have one. Name an Eip of that family too, with a \
                 comma between them.",
                request.eips.join(", ")
            );
            return Err(Refusal {
                no_eip: true,
                ..refusal(request, field, reason::FAMILY_MISMATCH, message)
            });
        }
        Ok(pools)
    }

    /// Those of them that have some to give.
    fn named(&self, request: &Request<'a>, slot: Slot) -> Result<Vec<Pool<'a>>, Refusal> {
        let field = &request.eips_field;
        let mut pools = self.pools_named(request, slot)?;
        let closed = pools.iter().find_map(|pool| pool.closed());
        pools.retain(|pool| pool.closed().is_none());
        if let Some(closed) = closed.filter(|_| pools.is_empty()) {
            let message = format!(
                "Eip {} gives out nothing new as it is {closed}. Name another Eip.",
                request.eips.join(", ")
            );
            return Err(refusal(request, field, reason::EIP_DISABLED, message));
        }
        Ok(pools.into_iter().cloned().collect())
    }

    /// The Eips for a Service that names none.
    fn unnamed(&self, request: &Request<'a>, slot: Slot) -> Result<Vec<Pool<'a>>, Refusal> {
        let labels = self.cluster.namespaces.get(&request.key.namespace);
        let fall_back = self.cluster.rules.fall_back_to_default;
        let pools = self.pools.automatic(request.key, labels, slot.family, fall_back);
        if pools.is_empty() {
            let family = slot.family.map_or_else(String::new, |family| format!("{family} "));
            let message = format!(
                "no enabled Eip with {family}addresses is bound to namespace {} and none is the default. Name an Eip in the \
                 annotation eip.openelb.kubesphere.io/v1alpha2, or annotate one with \
                 eip.openelb.kubesphere.io/is-default-eip: \"true\".",
                request.key.namespace
            );
            return Err(Refusal {
                no_eip: true,
                ..refusal(request, "", reason::NO_EIP, message)
            });
        }
        Ok(pools.into_iter().cloned().collect())
    }

    /// The free address of an Eip that a Service is to have.
    fn free(&mut self, service: &ServiceKey, pool: &Pool<'a>) -> Option<IpAddr> {
        let lowest = self.lowest_free(pool)?;
        let range = pool.range;
        match self.cluster.automatic {
            Automatic::Lowest | Automatic::Given | Automatic::Kept => Some(lowest),
            Automatic::Hashed => (hash(service) % range.size()..range.size())
                .map_while(|offset| range.nth(offset))
                .find(|address| self.is_free(pool, *address))
                // None up to the end: going on from the beginning leads to the lowest.
                .or(Some(lowest)),
        }
    }

    fn is_free(&self, pool: &Pool<'_>, address: IpAddr) -> bool {
        let avoided = pool.eip.avoid_buggy_ips && is_buggy(address);
        let taken = [&self.node_addresses, &self.withheld, &self.shown];
        !avoided && !self.given.claims.contains_key(&address) && taken.iter().all(|taken| !taken.contains(&address))
    }

    fn lowest_free(&mut self, pool: &Pool<'a>) -> Option<IpAddr> {
        let mut cursor = self.cursors.get(pool.name).copied().unwrap_or_default();
        let mut lowest = pool.range.nth(cursor);
        while lowest.is_some_and(|address| !self.is_free(pool, address)) {
            cursor += 1;
            lowest = pool.range.nth(cursor);
        }
        self.cursors.insert(pool.name, cursor);
        lowest
    }

    fn give(&mut self, request: &Request<'a>, address: IpAddr, eip: &'a str, asked: bool) {
        self.given.give(request.key, request.service, address, eip, asked);
    }
}

impl<'a> Allocations<'a> {
    /// Leaves out what Services only keep, of Eips that are refused: nothing is served there.
    pub fn leave_out_refused(&mut self, pools: &Pools<'_>) {
        self.claims.retain(|_, claim| pools.named(claim.eip).is_some());
        for addresses in self.by_service.values_mut() {
            addresses.retain(|address| self.claims.contains_key(address));
        }
        self.by_service.retain(|_, addresses| !addresses.is_empty());
    }

    /// Notes that a Service has an address of an Eip; `asked`: as it asked for it.
    pub(super) fn give(
        &mut self,
        key: &'a ServiceKey,
        service: &'a Service,
        address: IpAddr,
        eip: &'a str,
        asked: bool,
    ) {
        let claim = self.claims.entry(address).or_insert(Claim {
            eip,
            ports: BTreeMap::new(),
            automatic: false,
        });
        if asked {
            self.asked.insert((key, address));
        } else {
            claim.automatic = true;
        }
        for port in &service.ports {
            claim.ports.entry((port.port, &port.protocol)).or_insert(key);
        }
        self.by_service.entry(key).or_default().insert(address);
    }
}

impl<'a> Claim<'a> {
    /// A port of `service` that somebody already has here: port, protocol, who.
    pub(super) fn conflict(&self, service: &'a Service) -> Option<(u16, &'a PortProtocol, &'a ServiceKey)> {
        service.ports.iter().find_map(|port| {
            self.ports
                .get(&(port.port, &port.protocol))
                .map(|other| (port.port, &port.protocol, *other))
        })
    }
}

/// Whether an address is one that some networks' equipment takes for a network's own or for a broadcast.
#[must_use]
pub fn is_buggy(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if [0, 255].contains(&address.octets()[3]))
}

/// The addresses that Services had which are missing now, while they may be in what could not be read.
fn withheld(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let partial = cluster.is_partial();
    let missing = cluster
        .previous
        .iter()
        .filter(|(key, _)| partial && !cluster.services.contains_key(*key));
    missing.flat_map(|(_, addresses)| addresses).copied().collect()
}

fn unreadable(cluster: &Cluster) -> BTreeSet<&str> {
    let eips = cluster
        .eips
        .iter()
        .filter(|(_, eip)| eip.address.parse::<AddressRange>().is_err());
    let eips = eips.map(|(name, _)| name.as_str());
    cluster.unread_eips().chain(eips).collect()
}

/// The addresses that the one allocator of a cluster gives to nobody anew: an address that a Service is leaving is free only
/// when it has left.
fn shown(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let one_allocator = cluster.automatic == Automatic::Lowest;
    let shown = cluster.services.values().flat_map(|service| &service.ingress);
    shown.filter(|_| one_allocator).copied().collect()
}

/// The first 16 bytes of SHA-256 of `<namespace>/<name>`, the most significant first.
fn hash(service: &ServiceKey) -> u128 {
    let digest = Sha256::digest(service.to_string());
    digest
        .iter()
        .take(16)
        .fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

fn refusal(request: &Request<'_>, field: &str, reason: &str, message: String) -> Refusal {
    Refusal {
        condition: Box::new(Condition::new(ObjectRef::service(request.key), field, reason, message)),
        no_eip: false,
    }
}

/// Names and addresses of a few Eips, for a message.
fn listed<'p, 'a: 'p>(pools: impl Iterator<Item = &'p Pool<'a>>) -> String {
    const MOST: usize = 5;
    let mut names: Vec<_> = pools
        .take(MOST + 1)
        .map(|pool| format!("{} {}", pool.name, pool.range))
        .collect();
    if names.is_empty() {
        return "there is none".into();
    }
    if names.len() > MOST {
        names.truncate(MOST);
        names.push("and others".into());
    }
    names.join(", ")
}
