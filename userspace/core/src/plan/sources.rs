//! Which source addresses a frontend lets in, as few prefixes as say it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// Who may connect to a frontend; the default is everybody. All prefixes are of the frontend's family. The longest one
/// that has a source decides, as in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// Prefixes that are let in, none inside another; `None`: everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<BTreeSet<IpNet>>,
    /// Prefixes that are refused, none inside another; with `allowed`, each is inside one of those.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<IpNet>,
}

impl Sources {
    /// Lets in whoever is in `allowed` (`None`: everybody) and not in `denied`.
    #[must_use]
    pub(super) fn new(allowed: Option<Vec<IpNet>>, denied: Vec<IpNet>) -> Self {
        let inside = |set: &[IpNet], prefix: &IpNet| set.iter().any(|other| other.contains(prefix));
        let mut denied = IpNet::aggregate(&denied);
        let allowed = allowed.map(|allowed| IpNet::aggregate(&allowed));
        let some = allowed.filter(|allowed| allowed.iter().all(|prefix| prefix.prefix_len() > 0));
        let allowed = some.map(|mut allowed| {
            // Nobody is let in by a longer prefix than the one that refuses him.
            allowed.retain(|prefix| !inside(&denied, prefix));
            denied.retain(|prefix| inside(&allowed, prefix));
            allowed.into_iter().collect()
        });
        Self {
            allowed,
            denied: denied.into_iter().collect(),
        }
    }

    /// Nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            allowed: Some(BTreeSet::new()),
            denied: BTreeSet::new(),
        }
    }

    /// Whether everybody may connect.
    #[must_use]
    pub fn are_unrestricted(&self) -> bool {
        self.allowed.is_none() && self.denied.is_empty()
    }

    /// Whether `source`, of the frontend's family, may connect.
    #[must_use]
    pub fn admit(&self, source: IpAddr) -> bool {
        let has = |set: &BTreeSet<IpNet>| set.iter().any(|prefix| prefix.contains(&source));
        !has(&self.denied) && self.allowed.as_ref().is_none_or(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*};

    /// Prefixes of 10.0.0.0/8's first few addresses, so that they meet.
    fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
        let prefix = (0_u8..16, prop_oneof![9 => 28_u8..=32, 1 => Just(0)]);
        let prefix = prefix.prop_map(|(last, length)| IpNet::new([10, 0, 0, last].into(), length).unwrap().trunc());
        vec(prefix, 0..8)
    }

    /// As the kernel finds it.
    fn longest(sources: &Sources, source: IpAddr) -> bool {
        let of = |set: &BTreeSet<IpNet>| {
            let matching = set.iter().filter(|prefix| prefix.contains(&source));
            matching.map(|prefix| prefix.prefix_len()).max()
        };
        let (allowed, denied) = (sources.allowed.as_ref().map(of), of(&sources.denied));
        match (allowed, denied) {
            (None, denied) => denied.is_none(),
            (Some(allowed), denied) => allowed > denied,
        }
    }

    proptest! {
        #[test]
        fn whoever_is_allowed_and_not_denied_is_let_in(allowed in option::of(prefixes()), denied in prefixes()) {
            let sources = Sources::new(allowed.clone(), denied.clone());
            for last in 0..20 {
                let source = IpAddr::from([10, 0, 0, last]);
                let has = |set: &Vec<IpNet>| set.iter().any(|prefix| prefix.contains(&source));
                let expected = allowed.as_ref().is_none_or(has) && !has(&denied);
                prop_assert_eq!(sources.admit(source), expected, "{}: {:?}", source, sources);
                prop_assert_eq!(longest(&sources, source), expected, "{}: {:?}", source, sources);
            }
        }

        #[test]
        fn no_prefix_is_too_much(allowed in option::of(prefixes()), denied in prefixes()) {
            let sources = Sources::new(allowed, denied);
            let inside = |set: &BTreeSet<IpNet>, prefix: &IpNet| {
                set.iter().any(|other| other != prefix && other.contains(prefix))
            };
            prop_assert!(sources.denied.iter().all(|prefix| !inside(&sources.denied, prefix)));
            if let Some(allowed) = &sources.allowed {
                prop_assert!(allowed.iter().all(|prefix| !inside(allowed, prefix) && !inside(&sources.denied, prefix)));
                prop_assert!(sources.denied.iter().all(|prefix| inside(allowed, prefix)));
            }
        }
    }

    #[test]
    fn a_whole_family_is_everybody() {
        let everybody = Sources::new(
            Some(vec!["0.0.0.0/1".parse().unwrap(), "128.0.0.0/1".parse().unwrap()]),
            Vec::new(),
        );
        assert!(everybody.are_unrestricted());
        assert!(!Sources::new(Some(Vec::new()), Vec::new()).admit([10, 0, 0, 1].into()));
        assert_eq!(Sources::new(Some(Vec::new()), Vec::new()), Sources::nobody());
    }
}
