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
