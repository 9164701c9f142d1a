//! Decides what happens to the maps that an earlier agent left pinned: kept, filled anew, moved, or refused.
//!
//! Takes descriptions of the maps the embedded object wants and of those that are pinned; gives one [`Fate`] per map.
//! aya takes over any pin of the right name, whatever is behind it, so this is the only check there is. It touches
//! nothing itself; `pins.rs` carries the decision out.

use std::collections::BTreeMap;

/// What the kernel allows to differ between two maps of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity in entries.
    pub max_entries: u32,
    /// `BPF_F_*` flags given at creation.
    pub flags: u32,
}

/// What a pinned map is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows from the plan. These refer to each other by id and index, so they are recreated all or none.
    Derived,
    /// What the programs know of the other maps' capacities, besides times and seeds: written anew by every agent, into a map
    /// of its own when a capacity changes, as the running program goes on with the old one.
    Settings,
    /// Keyed by ids that the derived maps give out: worthless once those are recreated.
    Numbered,
    /// Flows of local backends, keyed by addresses: survives everything.
    Flows,
    /// Depends on no other map: counters by [`weir_common::verdict::Reason`], whose numbers never change, what is told to people,
    /// and the stack's own flows.
    Tally,
}

/// The maps that are pinned, so that they outlive the agent. Every other map of the object is private to one load.
pub const PINNED: [(&str, Role); 22] = [
    ("ANSWERED", Role::Tally),
    ("BACKENDS", Role::Derived),
    ("BACKEND_COUNTERS", Role::Numbered),
    ("CONFIG", Role::Settings),
    ("DIRECTORY", Role::Derived),
    ("DISPLACEMENT", Role::Derived),
    ("FILTER", Role::Derived),
    ("FLOWS", Role::Flows),
    ("FLOW_CACHE", Role::Numbered),
    ("FRAGMENTS", Role::Numbered),
    ("FRONTEND_COUNTERS", Role::Numbered),
    ("HISTORY", Role::Derived),
    ("LIMITERS", Role::Numbered),
    ("MONITOR", Role::Tally),
    ("NODES", Role::Derived),
    ("REASONS", Role::Tally),
    ("RESPONDERS", Role::Derived),
    ("ROWS", Role::Derived),
    ("SAMPLES", Role::Tally),
    ("SOURCES", Role::Derived),
    ("SOURCE_LIMITERS", Role::Numbered),
    ("STACK_FLOWS", Role::Tally),
];

/// What happens to one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is pinned: a new map.
    Create,
    /// The pinned map is used on.
    Adopt,
    /// The pinned map is replaced by an empty one; its contents follow from the plan or are worth nothing any more.
    Recreate,
    /// The pinned map is replaced, and what is in it moves over.
    Move,
}

/// A pinned map that this agent cannot take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the map.
    pub map: &'static str,
    /// What differs.
    pub what: &'static str,
    /// The value of the pinned map.
    pub pinned: u32,
    /// The value this agent needs.
    pub wanted: u32,
}

/// The fate of every map in [`PINNED`] that the object has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// By name.
    pub fates: BTreeMap<&'static str, Fate>,
}

impl Decision {
    /// Whether everything pinned is used on as it is.
    #[must_use]
    pub fn adopts_all(&self) -> bool {
        self.fates.values().all(|fate| *fate == Fate::Adopt)
    }

    /// Whether nothing was pinned.
    #[must_use]
    pub fn creates_all(&self) -> bool {
        self.fates.values().all(|fate| *fate == Fate::Create)
    }
}

/// Decides the fate of every pinned map.
///
/// `wanted` and `pinned` are keyed by map name. `seed_known` says whether the seed that `FLOWS` was filled under can
/// still be read, `cut` that an agent ended while it put new maps in the place of old ones: the derived maps may then be
/// of two generations.
///
/// # Errors
///
/// [`Mismatch`] when a pinned map differs in more than its capacity.
pub fn decide(
    wanted: &BTreeMap<String, Shape>,
    pinned: &BTreeMap<String, Shape>,
    seed_known: bool,
    cut: bool,
) -> Result<Decision, Mismatch> {
    let mut maps = Vec::new();
    for (name, role) in PINNED {
        let Some(wanted) = wanted.get(name) else { continue };
        let found = pinned.get(name);
        if let Some(found) = found {
            compare(name, wanted, found)?;
        }
        maps.push((name, role, found.map(|found| found.max_entries == wanted.max_entries)));
    }
    let differs = |wanted: fn(&Role) -> bool| maps.iter().any(|(_, role, same)| wanted(role) && *same != Some(true));
    let rebuild = cut || differs(|role| *role == Role::Derived);
    // Rows, and what they remember, stay when only flows and caches get another size.
    let resettle = rebuild || differs(|role| !matches!(role, Role::Derived | Role::Tally));
    let fates = maps
        .into_iter()
        .map(|(name, role, same)| {
            let fate = match (same, role) {
                (None, _) => Fate::Create,
                (Some(_), Role::Derived | Role::Numbered) if rebuild => Fate::Recreate,
                (Some(_), Role::Settings) if resettle => Fate::Recreate,
                (Some(same), Role::Flows) if !same || !seed_known => Fate::Move,
                (Some(false), _) => Fate::Recreate,
                (Some(true), _) => Fate::Adopt,
            };
            (name, fate)
        })
        .collect();
    Ok(Decision { fates })
}

fn compare(map: &'static str, wanted: &Shape, pinned: &Shape) -> Result<(), Mismatch> {
    let pairs = [
        ("type", pinned.map_type, wanted.map_type),
        ("key size", pinned.key_size, wanted.key_size),
        ("value size", pinned.value_size, wanted.value_size),
        ("flags", pinned.flags, wanted.flags),
    ];
    match pairs.into_iter().find(|(_, pinned, wanted)| pinned != wanted) {
        Some((what, pinned, wanted)) => Err(Mismatch {
            map,
            what,
            pinned,
            wanted,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> BTreeMap<String, Shape> {
        PINNED
            .iter()
            .map(|(name, _)| {
                let shape = Shape {
                    map_type: 2,
                    key_size: 4,
                    value_size: 64,
                    max_entries: 1024,
                    flags: 1024,
                };
                ((*name).to_owned(), shape)
            })
            .collect()
    }

    fn with_capacity(name: &str, max_entries: u32) -> BTreeMap<String, Shape> {
        let mut maps = all();
        maps.get_mut(name).unwrap().max_entries = max_entries;
        maps
    }

    fn fate(decision: &Decision, name: &str) -> Fate {
        decision.fates[name]
    }

    #[test]
    fn nothing_pinned_creates_everything() {
        assert!(decide(&all(), &BTreeMap::new(), false, false).unwrap().creates_all());
    }

    #[test]
    fn same_shapes_are_adopted() {
        assert!(decide(&all(), &all(), true, false).unwrap().adopts_all());
    }

    #[test]
    fn another_capacity_of_a_derived_map_recreates_what_belongs_together_and_keeps_the_flows() {
        let decision = decide(&with_capacity("ROWS", 2048), &all(), true, false).unwrap();
        for (name, role) in PINNED {
            let expected = match role {
                Role::Derived | Role::Settings | Role::Numbered => Fate::Recreate,
                Role::Flows | Role::Tally => Fate::Adopt,
            };
            assert_eq!(fate(&decision, name), expected, "{name}");
        }
    }

    #[test]
    fn another_capacity_of_flows_moves_them_needs_another_config_and_leaves_the_rows() {
        let decision = decide(&with_capacity("FLOWS", 4096), &all(), true, false).unwrap();
        assert_eq!(fate(&decision, "FLOWS"), Fate::Move);
        assert_eq!(fate(&decision, "CONFIG"), Fate::Recreate);
        for name in ["ROWS", "HISTORY", "BACKENDS", "FLOW_CACHE", "REASONS"] {
            assert_eq!(fate(&decision, name), Fate::Adopt, "{name}");
        }
    }

    #[test]
    fn another_capacity_of_the_flow_cache_renews_it_alone() {
        let decision = decide(&with_capacity("FLOW_CACHE", 4096), &all(), true, false).unwrap();
        for (name, role) in PINNED {
            let renewed = name == "FLOW_CACHE" || role == Role::Settings;
            let expected = if renewed { Fate::Recreate } else { Fate::Adopt };
            assert_eq!(fate(&decision, name), expected, "{name}");
        }
    }

    #[test]
    fn maps_of_two_generations_are_recreated_and_the_flows_kept() {
        let decision = decide(&all(), &all(), true, true).unwrap();
        for (name, role) in PINNED {
            let expected = match role {
                Role::Derived | Role::Settings | Role::Numbered => Fate::Recreate,
                Role::Flows | Role::Tally => Fate::Adopt,
            };
            assert_eq!(fate(&decision, name), expected, "{name}");
        }
    }

    #[test]
    fn flows_under_a_lost_seed_are_moved() {
        let mut pinned = all();
        pinned.remove("CONFIG");
        let decision = decide(&all(), &pinned, false, false).unwrap();
        assert_eq!(fate(&decision, "FLOWS"), Fate::Move);
        assert_eq!(fate(&decision, "CONFIG"), Fate::Create);
        assert_eq!(fate(&decision, "DIRECTORY"), Fate::Adopt);
    }

    #[test]
    fn more_reasons_touch_nothing_else() {
        let decision = decide(&with_capacity("REASONS", 128), &all(), true, false).unwrap();
        assert_eq!(fate(&decision, "REASONS"), Fate::Recreate);
        assert_eq!(fate(&decision, "DIRECTORY"), Fate::Adopt);
    }

    #[test]
    fn another_value_size_is_refused_by_name() {
        let mut wanted = all();
        wanted.get_mut("BACKENDS").unwrap().value_size = 72;
        let mismatch = decide(&wanted, &all(), true, false).unwrap_err();
        assert_eq!(
            mismatch,
            Mismatch {
                map: "BACKENDS",
                what: "value size",
                pinned: 64,
                wanted: 72
            }
        );
    }

    #[test]
    fn a_map_the_object_lacks_is_left_alone() {
        let mut wanted = all();
        wanted.remove("FLOW_CACHE");
        assert!(
            !decide(&wanted, &all(), true, false)
                .unwrap()
                .fates
                .contains_key("FLOW_CACHE")
        );
    }
}
