//! What one Service asks for: whether it is ours at all, from which Eip, which address, of which families.

use super::pools::Pools;
use crate::{
    annotations::{self, field, list},
    model::{Condition, Family, FamilyPolicy, ObjectRef, Rules, Service, ServiceKey, reason},
};
use std::net::IpAddr;

/// What OpenELB knows as node proxies.
const NODE_PROXIES: [&str; 2] = ["deployment", "daemonset"];

/// What is wrong with a request: field, reason and message of a condition.
type Fault = (String, &'static str, String);

/// What a Service of ours asks for.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    /// Its key.
    pub key: &'a ServiceKey,
    /// The Service.
    pub service: &'a Service,
    /// The Eips it names; empty: any.
    pub eips: Vec<&'a str>,
    /// Where it names them, as a field path.
    pub eips_field: String,
    /// Where it names addresses, as a field path.
    pub address_field: String,
    /// One for each address it is to have.
    pub slots: Vec<Slot>,
    /// What is wrong with it, if it says nothing about which addresses it is to have: it gets none then.
    pub unreadable: Option<Box<Condition>>,
}

/// One address a Service is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Of this family; `None`: of any.
    pub family: Option<Family>,
    /// This very address.
    pub requested: Option<IpAddr>,
    /// Whether the lack of any Eip of that family is worth a word.
    pub required: bool,
}

/// Reads what a Service asks for; `None` if it is none of ours, or for somebody else to serve (then with a condition).
pub(super) fn request<'a>(
    key: &'a ServiceKey,
    service: &'a Service,
    rules: &Rules,
    conditions: &mut Vec<Condition>,
) -> Option<Request<'a>> {
    let mut say = |field: &str, reason: &str, message: String| {
        conditions.push(Condition::new(ObjectRef::service(key), field, reason, message));
    };
    if !is_ours(service, rules, &mut say) {
        return None;
    }
    let node_proxy = annotations::NODE_PROXY.find(&service.annotations);
    if let Some((name, _)) = node_proxy.filter(|(_, value)| NODE_PROXIES.contains(value)) {
        let message =
            "the node proxy is not offered, so this Service gets nothing. Remove the annotation and give it an \
                       Eip: every node forwards for it then."
                .into();
        say(&field(name), reason::NODE_PROXY, message);
        return None;
    }
    let eips = annotations::EIP.find(&service.annotations);
    let (address_field, text) = address_text(service);
    let unknown = node_proxy.map(|(name, value)| {
        let message = format!(
            "the node proxy is not offered, and `{value}` is no kind of it. Remove the annotation: every node forwards for a \
             Service with an address of an Eip."
        );
        (field(name), reason::NODE_PROXY, message)
    });
    let read = unknown
        .map_or_else(|| addresses(&address_field, text), Err)
        .and_then(|addresses| slots(service, &addresses, &address_field, &mut say));
    let (slots, unreadable) = match read {
        Ok(slots) => (slots, None),
        Err((field, reason, message)) => {
            let condition = Condition::new(ObjectRef::service(key), &field, reason, message);
            (slots_to_keep(service), Some(condition.into()))
        }
    };
    Some(Request {
        key,
        service,
        eips: eips.iter().flat_map(|(_, names)| list(names)).collect(),
        eips_field: eips.map(|(name, _)| field(name)).unwrap_or_default(),
        address_field,
        slots,
        unreadable,
    })
}

/// Whether OpenELB's node proxy is to serve a Service, and so nobody by an address of an Eip. A value that OpenELB does not know
/// moves nothing there either.
pub(super) fn is_node_proxy(service: &Service) -> bool {
    let named = annotations::NODE_PROXY.find(&service.annotations);
    named.is_some_and(|(_, value)| NODE_PROXIES.contains(&value))
}

/// Whether a Service is for us to serve; what speaks for it and against it at once is said.
pub(super) fn is_ours(service: &Service, rules: &Rules, say: &mut impl FnMut(&str, &str, String)) -> bool {
    if !service.load_balancer || service.deleting {
        return false;
    }
    let named = annotations::BALANCER.find(&service.annotations).map(|(_, value)| value);
    let annotated = named.is_some_and(|value| ["openelb", "porter"].contains(&value));
    let other = named.filter(|value| !annotated && !value.trim().is_empty());
    let mut ignored = |because: &str| {
        if let Some(other) = other {
            let message = format!(
                "the annotation says `{other}`, and this Service is Weir's all the same, as {because}. Write openelb, or remove the \
                 annotation."
            );
            say(&annotations::BALANCER.field(), reason::BALANCER_IGNORED, message);
        }
    };
    match service.load_balancer_class.as_deref() {
        None if rules.adopt_all => {
            ignored("those that name no class are");
            true
        }
        None => {
            if let Some(other) = named.filter(|_| !annotated) {
                let message = format!(
                    "the annotation says `{other}`, which is not `openelb`, so this Service is left alone. Write openelb, in small \
                     letters, or remove the annotation."
                );
                say(&annotations::BALANCER.field(), reason::OTHER_BALANCER, message);
            }
            annotated
        }
        Some(class) if class == rules.class => {
            ignored(&format!("its class is `{class}`"));
            true
        }
        Some(other) => {
            if annotated {
                let message = format!(
                    "the class `{other}` gives this Service to another load balancer, so it is left alone in spite of its \
                     annotation. Remove one of the two (the class of an existing Service cannot be changed)."
                );
                say("spec.loadBalancerClass", reason::OTHER_CLASS, message);
            }
            false
        }
    }
}

/// Where it asks for addresses, by annotation or else by `spec.loadBalancerIP`, and how.
fn address_text(service: &Service) -> (String, &str) {
    match annotations::ADDRESS.find(&service.annotations) {
        Some((name, value)) => (field(name), value),
        None => (
            "spec.loadBalancerIP".into(),
            service.load_balancer_ip.as_deref().unwrap_or_default(),
        ),
    }
}

/// The addresses in a list.
fn addresses(field: &str, text: &str) -> Result<Vec<IpAddr>, Fault> {
    let parse = |part: &str| match part.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => {
            let message = format!(
                "`{part}` is not an IP address. Write one address, or one of each family with a comma between them."
            );
            Err((field.to_owned(), reason::INVALID_ADDRESS, message))
        }
    };
    list(text).map(parse).collect()
}

/// For a Service that gets nothing new: any address of its families.
fn slots_to_keep(service: &Service) -> Vec<Slot> {
    let both = [Family::V4, Family::V6];
    let families = if service.families.is_empty() {
        &both[..]
    } else {
        &service.families
    };
    let slot = |family: &Family| Slot {
        family: Some(*family),
        requested: None,
        required: false,
    };
    families.iter().map(slot).collect()
}

/// One slot for each family it wants, with the address it asks for in that family.
fn slots(
    service: &Service,
    addresses: &[IpAddr],
    address_field: &str,
    say: &mut impl FnMut(&str, &str, String),
) -> Result<Vec<Slot>, Fault> {
    let both = || vec![Family::V4, Family::V6];
    let families = match (service.families.as_slice(), service.family_policy) {
        ([], FamilyPolicy::SingleStack) => addresses.iter().map(|address| Family::of(*address)).collect(),
        ([], _) => both(),
        ([given], _) => vec![*given],
        (_, _) => both(),
    };
    let mut slots: Vec<Slot> = Vec::new();
    for family in families {
        if !slots.iter().any(|slot| slot.family == Some(family)) {
            slots.push(Slot {
                family: Some(family),
                requested: None,
                required: true,
            });
        }
    }
    if slots.is_empty() {
        slots.push(Slot {
            family: None,
            requested: None,
            required: true,
        });
    }
    if slots.len() > 1 && service.family_policy != FamilyPolicy::RequireDualStack {
        slots.iter_mut().for_each(|slot| slot.required = false);
    }
    for address in addresses {
        let family = Family::of(*address);
        match slots.iter_mut().find(|slot| slot.family == Some(family)) {
            Some(slot) if slot.requested.is_none() => slot.requested = Some(*address),
            Some(slot) if slot.requested == Some(*address) => {}
            Some(_) => {
                let message = format!(
                    "{address} is a second {family} address, and a Service has one of each family. Remove it, or make a \
                     second Service for it."
                );
                say(address_field, reason::FAMILY_MISMATCH, message);
            }
            None => {
                let message = format!(
                    "{address} is {family}, which spec.ipFamilies does not have. Ask for an address of the Service's own \
                     family, or add {family} to spec.ipFamilies."
                );
                return Err((address_field.to_owned(), reason::FAMILY_MISMATCH, message));
            }
        }
    }
    Ok(slots)
}

/// Says so if the protocol annotation of OpenELB 0.5 contradicts the Eip an address came from.
pub(super) fn check_protocol(
    request: &Request<'_>,
    address: IpAddr,
    pools: &Pools<'_>,
    conditions: &mut Vec<Condition>,
) {
    let Some((name, wanted)) = annotations::PROTOCOL.find(&request.service.annotations) else {
        return;
    };
    let Some(pool) = pools.containing(address) else { return };
    if wanted != pool.eip.mode.name() {
        let message = format!(
            "the annotation says `{wanted}`, but {address} is from Eip {}, which is announced by {}. Remove the annotation: \
             the Eip decides.",
            pool.name,
            pool.eip.mode.name()
        );
        conditions.push(Condition::new(
            ObjectRef::service(request.key),
            &field(name),
            reason::PROTOCOL_IGNORED,
            message,
        ));
    }
}
