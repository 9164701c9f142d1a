//! The Eips that can be used: readable, announceable and without a common address.

use super::range::AddressRange;
use crate::{
    annotations::{DEFAULT, field},
    model::{Condition, Eip, Family, Mode, ObjectRef, ServiceKey, reason},
};
use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

/// One usable Eip.
#[derive(Clone, Debug)]
pub struct Pool<'a> {
    /// Name of the Eip.
    pub name: &'a str,
    /// The Eip.
    pub eip: &'a Eip,
    /// Its addresses.
    pub range: AddressRange,
    /// Whether it is the default of its family.
    pub default: bool,
}

/// What is wrong with an Eip: field, reason and message of a condition.
pub(crate) type Fault = (Cow<'static, str>, &'static str, String);

/// All usable Eips, by age, then name.
#[derive(Clone, Debug, Default)]
pub struct Pools<'a> {
    pools: Vec<Pool<'a>>,
    by_name: BTreeMap<&'a str, usize>,
    by_first: BTreeMap<(Family, IpAddr), usize>,
    /// Those that are refused although their addresses can be read.
    refused: Vec<Pool<'a>>,
}

impl<'a> Pools<'a> {
    /// Takes the Eips oldest first; one that cannot be read, cannot be announced, or overlaps an accepted one is refused
    /// as a whole, with a condition.
    pub fn new(eips: &'a BTreeMap<String, Eip>, conditions: &mut Vec<Condition>) -> Self {
        let mut in_order: Vec<_> = eips.iter().collect();
        in_order.sort_by_key(|(name, eip)| (eip.created, *name));
        let mut pools = Self::default();
        for (name, eip) in in_order {
            let checked = range_of(eip).and_then(|range| {
                let refused = pools.check(name, eip, range).err();
                match refused {
                    None => Ok(pools.accept(name, eip, range)),
                    Some(fault) => {
                        let default = false;
                        pools.refused.push(Pool {
                            name,
                            eip,
                            range,
                            default,
                        });
                        Err(fault)
                    }
                }
            });
            let said = checked.unwrap_or_else(Some);
            conditions.extend(said.map(|(field, reason, message)| {
                Condition::new(ObjectRef::cluster_scoped("Eip", name), &field, reason, message)
            }));
        }
        pools
    }

    /// Adds one Eip; has something to say if it is not the default it says it is, or says neither that it is nor that it is not.
    fn accept(&mut self, name: &'a str, eip: &'a Eip, range: AddressRange) -> Option<Fault> {
        let says_default = says_default(eip);
        let family = range.family();
        let other = self.of_family(Some(family)).find(|pool| says_default && pool.default);
        let second = other.map(|other| {
            let message = format!(
                "Eip {} is already the default for {family}, so this one is used only by name, by address or by namespace. \
                 Remove the annotation from one of the two.",
                other.name
            );
            (reason::SECOND_DEFAULT, message)
        });
        let index = self.pools.len();
        self.pools.push(Pool {
            name,
            eip,
            range,
            default: says_default && second.is_none(),
        });
        self.by_name.insert(name, index);
        self.by_first.insert((family, range.first()), index);
        let unclear = || unclear_default(&eip.annotations).map(|message| (reason::UNCLEAR_DEFAULT, message));
        let (reason, message) = second.or_else(unclear)?;
        Some((default_field(&eip.annotations).into(), reason, message))
    }

    /// Why an Eip with these addresses is refused.
    fn check(&self, name: &str, eip: &Eip, range: AddressRange) -> Result<(), Fault> {
        if eip.mode != Mode::Bgp {
            check_interface(eip.interface.as_deref())
                .map_err(|message| ("spec.interface".into(), reason::INVALID_INTERFACE, message))?;
        }
        if let Some(other) = self.overlapping(&range) {
            let message = format!(
                "{range} has addresses in common with Eip {} ({}), which comes first by age, then name; so nothing is allotted \
                 from {name}. Change one of the two so that they are apart.",
                other.name, other.range
            );
            return Err(("spec.address".into(), reason::OVERLAP, message));
        }
        Ok(())
    }

    /// Accepted ranges are apart, so only the last that starts at or before the end of `range` can overlap it.
    fn overlapping(&self, range: &AddressRange) -> Option<&Pool<'a>> {
        let before = self.by_first.range(..=(range.family(), range.last())).next_back();
        before
            .map(|(_, index)| &self.pools[*index])
            .filter(|pool| pool.range.overlaps(range))
    }

    /// The Eip with that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Pool<'a>> {
        self.by_name.get(name).map(|index| &self.pools[*index])
    }

    /// The Eip an address is in.
    #[must_use]
    pub fn containing(&self, address: IpAddr) -> Option<&Pool<'a>> {
        let before = self.by_first.range(..=(Family::of(address), address)).next_back();
        before
            .map(|(_, index)| &self.pools[*index])
            .filter(|pool| pool.range.contains(address))
    }

    /// The refused Eip an address is in: nothing is given out of it, and what Services have of it is nobody else's.
    #[must_use]
    pub fn refused(&self, address: IpAddr) -> Option<&Pool<'a>> {
        self.refused.iter().find(|pool| pool.range.contains(address))
    }

    /// Those that may be used without being asked for by a Service of a namespace, the preferred one first: the ones bound
    /// to the namespace, and after them the default if there are none or `fall_back`. Those that give out nothing new are
    /// left out.
    #[must_use]
    pub fn automatic(
        &self,
        service: &ServiceKey,
        labels: Option<&BTreeMap<String, String>>,
        family: Option<Family>,
        fall_back: bool,
    ) -> Vec<&Pool<'a>> {
        let giving = self.of_family(family).filter(|pool| pool.closed().is_none());
        let (mut bound, others): (Vec<_>, Vec<_>) = giving.partition(|pool| pool.bound_to(&service.namespace, labels));
        bound.sort_by_key(|pool| (pool.eip.priority, pool.name));
        if bound.is_empty() || fall_back {
            bound.extend(others.into_iter().filter(|pool| pool.default));
        }
        bound
    }

    /// All of a family, or all; oldest first.
    pub fn of_family(&self, family: Option<Family>) -> impl Iterator<Item = &Pool<'a>> {
        self.pools
            .iter()
            .filter(move |pool| family.is_none_or(|family| family == pool.range.family()))
    }
}

impl Pool<'_> {
    /// Why it gives out nothing new, if so.
    #[must_use]
    pub fn closed(&self) -> Option<&'static str> {
        match self.eip {
            Eip { deleting: true, .. } => Some("being deleted"),
            Eip { disabled: true, .. } => Some("closed by spec.disable"),
            _ => None,
        }
    }

    fn bound_to(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.eip.namespaces.contains(namespace)
            || self
                .eip
                .namespace_selector
                .as_ref()
                .zip(labels)
                .is_some_and(|(selector, labels)| {
                    // As in OpenELB, an empty selector means "any label".
                    !labels.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
                })
    }
}

/// Whether an Eip says that it is the default.
pub(crate) fn says_default(eip: &Eip) -> bool {
    DEFAULT
        .value(&eip.annotations)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The path of the annotation that says whether an Eip is the default.
pub(crate) fn default_field(annotations: &BTreeMap<String, String>) -> String {
    let named = DEFAULT.find(annotations);
    named.map_or_else(|| DEFAULT.field(), |(name, _)| field(name))
}

/// What to say of an Eip whose annotation means neither that it is the default nor that it is not.
pub(crate) fn unclear_default(annotations: &BTreeMap<String, String>) -> Option<String> {
    let value = DEFAULT.value(annotations)?;
    let clear = ["true", "false"].iter().any(|clear| value.eq_ignore_ascii_case(clear));
    (!clear).then(|| {
        format!(
            "`{value}` is neither true nor false, so this Eip is not the default. Write \"true\" or \"false\", or remove the annotation."
        )
    })
}

/// The addresses of an Eip.
pub(crate) fn range_of(eip: &Eip) -> Result<AddressRange, Fault> {
    eip.address.parse().map_err(|error| {
        let message = format!(
            "`{}` cannot be used: {error}. Write one address, a prefix such as 10.1.0.0/24, or a range such as \
             10.1.0.10-10.1.0.20.",
            eip.address
        );
        ("spec.address".into(), reason::INVALID_RANGE, message)
    })
}

/// Refuses what cannot be an interface for ARP and NDP; the message says what to write.
fn check_interface(interface: Option<&str>) -> Result<(), String> {
    const REMEDY: &str = "Write the name of the nodes' interface in that network, or can_reach: and an address in it.";
    match interface {
        None | Some("") => Err(format!(
            "layer2 and vip need an interface to answer on, and none is given. {REMEDY}"
        )),
        Some("lo") => Err(format!("nobody outside the node can reach lo. {REMEDY}")),
        Some(name) => match name.strip_prefix("can_reach:") {
            Some(target) if target.trim().parse::<IpAddr>().is_err() => {
                Err(format!("`{target}` behind can_reach: is not an IP address. {REMEDY}"))
            }
            _ => Ok(()),
        },
    }
}
