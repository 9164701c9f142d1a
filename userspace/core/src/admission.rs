//! Whether the API server ought to take a write of an Eip, where that depends on other objects.
//!
//! What one object says wrongly by itself is refused by its definition. Here a write is refused only for what it makes worse:
//! an Eip that is wrong already can be changed in every other respect, and be mended. What gets past, because nobody was
//! there to ask or two writes came at once, is a condition of the planner ([`crate::ipam`]).

use crate::{
    controller::EipStatus,
    ipam::{AddressRange, default_field, range_of, says_default, unclear_default},
    model::{Condition, Eip, ObjectRef, reason},
};
use std::collections::BTreeMap;

/// Addresses named in one message.
const NAMED: usize = 4;

/// A write of an Eip.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Name of the Eip.
    pub name: &'a str,
    /// What it was; `None`: it is new.
    pub before: Option<&'a Eip>,
    /// What it is to be.
    pub after: &'a Eip,
    /// Its status: who has which address.
    pub status: &'a EipStatus,
}

/// Why a write is to be refused, given all Eips there are (the one that is written may be among them); empty if it is not.
#[must_use]
pub fn refusals(write: &Write<'_>, eips: &BTreeMap<String, Eip>) -> Vec<Condition> {
    if write.after.deleting {
        return Vec::new();
    }
    let range = match range_of(write.after) {
        Ok(range) => range,
        Err(_) if write.before.is_some_and(|before| before.address == write.after.address) => return Vec::new(),
        Err((field, reason, message)) => return vec![write.refusal(&field, reason, message)],
    };
    let others: Vec<(&str, &Eip, AddressRange)> = eips
        .iter()
        .filter(|(name, _)| *name != write.name)
        .filter_map(|(name, eip)| Some((name.as_str(), eip, range_of(eip).ok()?)))
        .collect();
    let before = write.before.and_then(|before| range_of(before).ok());
    let mut refusals = Vec::new();
    refusals.extend(write.overlap(range, before, &others));
    refusals.extend(write.second_default(range, before, &others));
    refusals.extend(write.taken_away(range, before));
    refusals
}

impl Write<'_> {
    fn refusal(&self, field: &str, reason: &str, message: String) -> Condition {
        Condition::new(ObjectRef::cluster_scoped("Eip", self.name), field, reason, message)
    }

    fn overlap(
        &self,
        range: AddressRange,
        before: Option<AddressRange>,
        others: &[(&str, &Eip, AddressRange)],
    ) -> Option<Condition> {
        let new = |other: &AddressRange| range.overlaps(other) && !before.is_some_and(|before| before.overlaps(other));
        let names: Vec<String> = others
            .iter()
            .filter(|(_, _, other)| new(other))
            .map(|(name, eip, other)| {
                let leaving = if eip.deleting { ", being deleted" } else { "" };
                format!("{name} ({other}{leaving})")
            })
            .collect();
        if names.is_empty() {
            return None;
        }
        let message = format!(
            "{range} has addresses in common with Eip {}. Write addresses that no other Eip has.",
            names.join(", ")
        );
        Some(self.refusal("spec.address", reason::OVERLAP, message))
    }

    fn second_default(
        &self,
        range: AddressRange,
        before: Option<AddressRange>,
        others: &[(&str, &Eip, AddressRange)],
    ) -> Option<Condition> {
        let family = range.family();
        let was = self.before.is_some_and(says_default) && before.is_some_and(|before| before.family() == family);
        if was || !says_default(self.after) {
            return None;
        }
        let (other, ..) = others
            .iter()
            .find(|(_, eip, other)| other.family() == family && says_default(eip))?;
        let message = format!(
            "Eip {other} is already the default for {family}. Remove the annotation there first, or leave it out here."
        );
        let field = default_field(&self.after.annotations);
        Some(self.refusal(&field, reason::SECOND_DEFAULT, message))
    }

    /// Addresses in use that it had and will not have.
    fn taken_away(&self, range: AddressRange, before: Option<AddressRange>) -> Option<Condition> {
        let before = before.filter(|before| *before != range)?;
        let mut lost: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (address, service) in self.status.entries() {
            if before.contains(address) && !range.contains(address) {
                lost.entry(address).or_default().push(service.to_string());
            }
        }
        if lost.is_empty() {
            return None;
        }
        let named: Vec<String> = lost
            .iter()
            .take(NAMED)
            .map(|(address, services)| format!("{address} ({})", services.join(", ")))
            .collect();
        let more = match lost.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "{range} is without addresses that are in use: {}{more}. Give these Services other addresses first, or write addresses that \
             have them, too.",
            named.join(", ")
        );
        Some(self.refusal("spec.address", reason::IN_USE, message))
    }
}

/// What to tell whoever writes an object that is taken, and does not do what they may think.
#[must_use]
pub fn advice(kind: &str, name: &str, annotations: &BTreeMap<String, String>) -> Option<String> {
    match kind {
        "BgpConf" if name != "default" => Some(format!(
            "BgpConf {name} is without effect: only the one named default counts"
        )),
        "Eip" => {
            let unclear = unclear_default(annotations)?;
            Some(format!("{}: {unclear}", default_field(annotations)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "eip.openelb.kubesphere.io/is-default-eip";

    fn eip(address: &str) -> Eip {
        Eip {
            address: address.into(),
            ..Eip::default()
        }
    }

    fn default(address: &str, value: &str) -> Eip {
        Eip {
            annotations: [(DEFAULT.into(), value.into())].into(),
            ..eip(address)
        }
    }

    fn eips(all: &[(&str, Eip)]) -> BTreeMap<String, Eip> {
        all.iter()
            .map(|(name, eip)| ((*name).to_owned(), eip.clone()))
            .collect()
    }

    fn said(before: Option<&Eip>, after: &Eip, all: &BTreeMap<String, Eip>) -> Vec<(String, String)> {
        let status = EipStatus {
            used: [
                ("10.1.0.9".into(), "a/web;a/dns".into()),
                ("10.1.0.2".into(), "a/www".into()),
            ]
            .into(),
            ..EipStatus::default()
        };
        let write = Write {
            name: "new",
            before,
            after,
            status: &status,
        };
        let refusals = refusals(&write, all);
        refusals.into_iter().map(|it| (it.reason, it.message)).collect()
    }

    fn reasons(before: Option<&Eip>, after: &Eip, all: &BTreeMap<String, Eip>) -> Vec<String> {
        said(before, after, all).into_iter().map(|(reason, _)| reason).collect()
    }

    #[test]
    fn a08_a_new_overlap_is_refused_and_names_the_others() {
        let disabled = Eip {
            disabled: true,
            ..eip("10.1.0.128-10.1.0.140")
        };
        let deleting = Eip {
            deleting: true,
            ..eip("10.3.0.0/16")
        };
        let all = eips(&[
            ("a", disabled),
            ("b", eip("10.1.0.200")),
            ("c", eip("10.2.0.0/24")),
            ("gone", deleting),
            ("garbled", eip("ten")),
        ]);
        let refused = said(None, &eip("10.1.0.0/24"), &all);
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, reason::OVERLAP);
        assert!(refused[0].1.contains("Eip a (10.1.0.128-10.1.0.140), b (10.1.0.200)."));
        assert_eq!(reasons(None, &eip("10.1.0.0/25"), &all), [""; 0]);
        assert_eq!(reasons(None, &eip("fd00::/64"), &all), [""; 0]);
        // As long as it is there, Services may have something of it.
        let refused = said(None, &eip("10.3.0.1"), &all);
        assert!(
            refused[0].1.contains("gone (10.3.0.0-10.3.255.255, being deleted)"),
            "{refused:?}"
        );
    }

    #[test]
    fn a08_what_overlaps_already_can_be_changed_and_mended_but_not_made_worse() {
        let all = eips(&[
            ("new", eip("10.1.0.0/24")),
            ("a", eip("10.1.0.128/25")),
            ("b", eip("10.1.1.0/24")),
        ]);
        let before = eip("10.1.0.0/24");
        let other = Eip {
            priority: 7,
            ..before.clone()
        };
        assert_eq!(reasons(Some(&before), &other, &all), [""; 0]);
        assert_eq!(reasons(Some(&before), &eip("10.1.0.0/25"), &all), [""; 0]);
        assert_eq!(reasons(Some(&before), &eip("10.1.0.0/26"), &all), [""; 0]);
        let worse = said(Some(&before), &eip("10.1.0.0/23"), &all);
        assert!(
            worse[0].1.contains("Eip b (") && !worse[0].1.contains("a ("),
            "{worse:?}"
        );
    }

    #[test]
    fn a12_a_second_default_of_a_family_is_refused_whatever_its_letters() {
        let all = eips(&[("a", default("10.9.0.0/24", "True")), ("new", eip("10.1.0.0/24"))]);
        let refused = said(None, &default("10.1.0.0/24", "true"), &all);
        assert_eq!(refused[0].0, reason::SECOND_DEFAULT);
        assert!(refused[0].1.contains("Eip a is already the default for IPv4"));
        let plain = eip("10.1.0.0/24");
        let now = |value| default("10.1.0.0/24", value);
        assert_eq!(reasons(Some(&plain), &now("TRUE"), &all), [reason::SECOND_DEFAULT]);
        assert_eq!(reasons(Some(&plain), &now("false"), &all), [""; 0]);
        // It was one already: not this write's fault.
        assert_eq!(reasons(Some(&now("true")), &now("TRUE"), &all), [""; 0]);
        // The other family has its own.
        assert_eq!(reasons(None, &default("fd00::/64", "true"), &all), [""; 0]);
    }

    #[test]
    fn a10_addresses_in_use_stay() {
        let before = eip("10.1.0.0/28");
        let none = BTreeMap::new();
        assert_eq!(reasons(Some(&before), &eip("10.1.0.0/24"), &none), [""; 0]);
        assert_eq!(reasons(Some(&before), &eip("10.1.0.2-10.1.0.9"), &none), [""; 0]);
        let refused = said(Some(&before), &eip("10.1.0.0/29"), &none);
        assert_eq!(refused[0].0, reason::IN_USE);
        assert!(refused[0].1.contains("10.1.0.9 (a/web, a/dns)"), "{refused:?}");
        assert!(!refused[0].1.contains("10.1.0.2"), "{refused:?}");
        // What is outside already is not taken away by this.
        let before = eip("10.1.0.0/29");
        assert_eq!(reasons(Some(&before), &eip("10.1.0.0/30"), &none), [""; 0]);
    }

    #[test]
    fn a06_addresses_nobody_can_have_are_refused_once() {
        let none = BTreeMap::new();
        let loopback = eip("127.0.0.0/30");
        assert_eq!(reasons(None, &loopback, &none), [reason::INVALID_RANGE]);
        assert_eq!(
            reasons(Some(&eip("10.1.0.0/24")), &loopback, &none),
            [reason::INVALID_RANGE]
        );
        let other = Eip {
            priority: 1,
            ..loopback.clone()
        };
        assert_eq!(reasons(Some(&loopback), &other, &none), [""; 0]);
        assert_eq!(reasons(Some(&loopback), &eip("10.1.0.0/24"), &none), [""; 0]);
    }

    #[test]
    fn an_eip_on_its_way_out_is_left_alone() {
        let all = eips(&[("a", eip("10.1.0.0/24"))]);
        let leaving = Eip {
            deleting: true,
            ..eip("10.1.0.0/24")
        };
        assert_eq!(reasons(Some(&eip("10.9.0.0/24")), &leaving, &all), [""; 0]);
    }

    #[test]
    fn a17_what_does_nothing_is_said() {
        let none = BTreeMap::new();
        assert_eq!(advice("BgpConf", "default", &none), None);
        assert_eq!(advice("BgpPeer", "a", &none), None);
        assert!(advice("BgpConf", "a", &none).unwrap().contains("named default"));
        let said = |value| advice("Eip", "a", &default("10.1.0.0/24", value).annotations);
        assert_eq!((said("TRUE"), said(" false "), said("")), (None, None, None));
        assert!(said("yes").unwrap().contains("`yes` is neither true nor false"));
        assert_eq!(advice("Eip", "a", &none), None);
    }
}
