//! Who may connect to a frontend, how often, and for how long a client stays with its backend.

use super::{Condition, sources::Sources};
use crate::{
    annotations::{self, Annotation},
    model::{Family, ObjectRef, Service, ServiceKey, reason},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The policies of one frontend; the default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Seconds for which an idle client stays with its backend; `None`: every connection chooses anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// Who may connect.
    #[serde(skip_serializing_if = "Sources::are_unrestricted")]
    pub sources: Sources,
    /// How often.
    #[serde(skip_serializing_if = "Limits::are_none")]
    pub limits: Limits,
}

/// Rates per second, each with a burst of one second's worth; `None`: any. Every node counts for itself, and every
/// frontend (a Service's port at one of its addresses) on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// New flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<u32>,
    /// Packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<u32>,
    /// New flows of one source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_flows: Option<u32>,
    /// Packets of one source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_packets: Option<u32>,
}

impl Policy {
    /// Whether there is nothing to it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a Service says, before it is split by family.
pub(super) struct Policies {
    affinity_seconds: Option<u32>,
    limits: Limits,
    /// `None`: everybody.
    allowed: Option<Vec<IpNet>>,
    denied: Vec<IpNet>,
    /// Where `allowed` was written.
    field: String,
}

impl Policies {
    pub(super) fn new(key: &ServiceKey, service: &Service, conditions: &mut Vec<Condition>) -> Self {
        let mut say = |field: &str, reason: &str, message: String| {
            conditions.push(Condition::new(ObjectRef::service(key), field, reason, message));
        };
        let (field, allowed) = allowed(service, &mut say);
        let mut policies = Self {
            affinity_seconds: service.affinity_seconds,
            limits: limits(service, &mut say),
            allowed,
            denied: Vec::new(),
            field,
        };
        match denied(service, &mut say) {
            Some(denied) => policies.denied = denied,
            None => policies.allowed = Some(Vec::new()),
        }
        policies
    }

    /// The policy of a frontend of this family.
    pub(super) fn of(&self, family: Family) -> Policy {
        let of_family = |prefixes: &[IpNet]| -> Vec<IpNet> {
            let fits = |prefix: &&IpNet| Family::of(prefix.addr()) == family;
            prefixes.iter().filter(fits).copied().collect()
        };
        Policy {
            affinity_seconds: self.affinity_seconds,
            sources: Sources::new(self.allowed.as_deref().map(of_family), of_family(&self.denied)),
            limits: self.limits,
        }
    }

    /// The field to name if a family has ranges and none of them lets anybody in: `None` while that is what was asked
    /// for, or already said.
    pub(super) fn shut_out(&self, family: Family) -> Option<&str> {
        let allowed = self.allowed.as_ref()?;
        let of_family = |prefix: &IpNet| Family::of(prefix.addr()) == family;
        (!allowed.is_empty() && !allowed.iter().any(of_family)).then_some(&self.field)
    }
}

/// The ranges that are let in and where they are written. What cannot be read lets nobody in.
fn allowed(service: &Service, say: &mut impl FnMut(&str, &str, String)) -> (String, Option<Vec<IpNet>>) {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    let annotated = annotations::ALLOWED_SOURCES.value(&service.annotations);
    let (field, texts): (String, Vec<(String, &str)>) = match annotated {
        Some(text) if service.source_ranges.is_empty() => {
            let field = annotations::ALLOWED_SOURCES.field();
            let parts = annotations::list(text).map(|part| (field.clone(), part)).collect();
            (field, parts)
        }
        _ => {
            let parts = service.source_ranges.iter().enumerate();
            let parts = parts.map(|(index, part)| (format!("{FIELD}[{index}]"), part.as_str()));
            (FIELD.into(), parts.collect())
        }
    };
    if texts.is_empty() {
        return (field, None);
    }
    let mut allowed = Vec::new();
    for (field, text) in texts {
        match prefix(text) {
            Some(prefix) => allowed.push(prefix),
            None => {
                let message = format!(
                    "`{text}` is not a range of addresses, so it lets nobody in; only the others count. Write an address and \
                     a prefix length, as 192.0.2.0/24 or 2001:db8::/32."
                );
                say(&field, reason::SOURCE_RANGES, message);
            }
        }
    }
    (field, Some(allowed))
}

/// The ranges that are refused; `None` if one cannot be read: whom it means nobody knows, so that nobody can be let in.
fn denied(service: &Service, say: &mut impl FnMut(&str, &str, String)) -> Option<Vec<IpNet>> {
    let text = annotations::DENIED_SOURCES
        .value(&service.annotations)
        .unwrap_or_default();
    let mut denied = Some(Vec::new());
    for part in annotations::list(text) {
        match prefix(part) {
            Some(prefix) => denied.iter_mut().for_each(|denied| denied.push(prefix)),
            None => {
                denied = None;
                let message = format!(
                    "`{part}` is not a range of addresses, and whom it is to keep out cannot be told, so this Service \
                     refuses everybody. Write an address and a prefix length, as 192.0.2.0/24 or 2001:db8::/32, with commas \
                     between them."
                );
                say(&annotations::DENIED_SOURCES.field(), reason::SOURCE_RANGES, message);
            }
        }
    }
    denied
}

/// A prefix, its host bits cleared; an address alone is a prefix of its whole length. IPv4 in IPv6 is IPv4.
fn prefix(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let prefix = match text.parse::<IpNet>() {
        Ok(prefix) => prefix.trunc(),
        Err(_) => IpNet::from(text.parse::<std::net::IpAddr>().ok()?),
    };
    let IpNet::V6(v6) = prefix else {
        return Some(prefix);
    };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(length)) => IpNet::new(v4.into(), length).ok(),
        _ => Some(prefix),
    }
}

fn limits(service: &Service, say: &mut impl FnMut(&str, &str, String)) -> Limits {
    let mut rate = |annotation: Annotation| {
        let text = annotation.value(&service.annotations)?;
        let rate = text.parse::<u32>().ok().filter(|rate| *rate > 0);
        if rate.is_none() {
            let message = format!(
                "`{text}` is not a rate, so this is not limited. Write a number per second from 1 to {}, or remove the \
                 annotation.",
                u32::MAX
            );
            say(&annotation.field(), reason::INVALID_VALUE, message);
        }
        rate
    };
    Limits {
        flows: rate(annotations::FLOWS),
        packets: rate(annotations::PACKETS),
        source_flows: rate(annotations::SOURCE_FLOWS),
        source_packets: rate(annotations::SOURCE_PACKETS),
    }
}
