//! What is made up: where backends are, and what each node has as the owners of the row.

use crate::{
    frame::Sent,
    network::{Journey, Network},
    node::Path,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::ops::RangeInclusive;
use weir_common::abi::PAST_OWNERS;

/// Owners of a row that a node remembers, the current one among them.
pub const OWNERS: usize = 2 + PAST_OWNERS;

/// Where everybody is.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Nodes.
    pub nodes: u32,
    /// The node of each backend.
    pub places: Vec<u32>,
    /// The node that the packet comes in by.
    pub entry: u32,
}

/// The owners of the row on each node, the current one first.
pub type Rows = Vec<Vec<u32>>;

impl Scene {
    /// The backends.
    pub fn backends(&self) -> Vec<u32> {
        (1..=self.places.len() as u32).collect()
    }

    /// The node of a backend.
    pub fn place(&self, backend: u32) -> u32 {
        self.places[backend as usize - 1]
    }

    /// Whether more than one backend is on a node.
    pub fn has_several(&self, node: u32) -> bool {
        self.places.iter().filter(|&&place| place == node).count() > 1
    }

    /// What nodes have that agree: all backends were owners, and the first is the current one.
    pub fn equal_rows(&self) -> Rows {
        vec![self.backends(); self.nodes as usize]
    }

    /// The row of the node that the packet comes in by.
    pub fn entry_row<'a>(&self, rows: &'a Rows) -> &'a [u32] {
        &rows[self.entry as usize - 1]
    }

    /// The journey of a packet whose flow is one of backend `has`.
    pub fn journey(&self, sent: Sent, rows: &Rows, has: u32) -> Journey {
        let network = Network::new(sent, &self.places, rows);
        network.know(has);
        network.carry(sent, self.entry)
    }
}

/// Every backend on a node of its own.
pub fn apart(nodes: RangeInclusive<u32>, backends: RangeInclusive<usize>) -> impl Strategy<Value = Scene> {
    let order = nodes.prop_flat_map(|nodes| Just((1..=nodes).collect::<Vec<_>>()).prop_shuffle());
    (order, backends, any::<Index>()).prop_map(|(order, backends, entry)| Scene {
        nodes: order.len() as u32,
        entry: *entry.get(&order),
        places: order.into_iter().take(backends).collect(),
    })
}

/// Backends anywhere.
pub fn anywhere(nodes: RangeInclusive<u32>, backends: RangeInclusive<usize>) -> impl Strategy<Value = Scene> {
    (nodes, backends).prop_flat_map(|(nodes, backends)| {
        (vec(1..=nodes, backends), 1..=nodes).prop_map(move |(places, entry)| Scene { nodes, places, entry })
    })
}

/// Up to ten owners of the row on up to eleven nodes.
pub fn full_row(owners: RangeInclusive<usize>) -> impl Strategy<Value = Scene> {
    prop_oneof![apart(2..=11, owners.clone()), anywhere(2..=11, owners)]
}

/// A packet of a flow that goes on.
pub fn going_on() -> impl Strategy<Value = Sent> {
    prop_oneof![Just(Sent::Segment), Just(Sent::Datagram)]
}

/// Scenes after up to 24 changes of the row. Each node has seen the first of them and some others; one that has several
/// backends has seen all that gave the row to one of these, as it is asked for one of them and has to name the rest itself.
pub fn after_changes(scenes: impl Strategy<Value = Scene>) -> impl Strategy<Value = (Scene, Rows)> {
    scenes
        .prop_flat_map(|scene| {
            let change = (1..=scene.places.len() as u32, vec(any::<bool>(), scene.nodes as usize));
            (Just(scene), vec(change, 1..24))
        })
        .prop_map(move |(scene, mut changes)| {
            changes[0].1.fill(true);
            let mut rows = vec![Vec::new(); scene.nodes as usize];
            for (owner, seen) in changes {
                for ((node, row), seen) in (1..).zip(&mut rows).zip(seen) {
                    if seen || scene.place(owner) == node && scene.has_several(node) {
                        row.retain(|&other| other != owner);
                        row.insert(0, owner);
                        row.truncate(OWNERS);
                    }
                }
            }
            (scene, rows)
        })
}

/// Some paths that are not open: (from, to, what they are).
pub type Paths = Vec<(u32, u32, Path)>;

/// A scene of more nodes than may be asked, with rows that have nothing to do with each other, and bad paths.
pub fn chaos() -> impl Strategy<Value = (Scene, Rows, Paths)> {
    prop_oneof![apart(16..=16, 16..=16), anywhere(2..=16, 1..=16)].prop_flat_map(|scene| {
        let row = Just(scene.backends())
            .prop_shuffle()
            .prop_flat_map(|all| (0..=all.len().min(OWNERS)).prop_map(move |len| all[..len].to_vec()));
        let rows = vec(row, scene.nodes as usize);
        let path = prop_oneof![Just(Path::Narrow), Just(Path::Cut), Just(Path::Unknown)];
        let paths = vec((1..=scene.nodes, 1..=scene.nodes, path), 0..20);
        (Just(scene), rows, paths)
    })
}
