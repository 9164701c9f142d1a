//! What the host harness and the kernel harness have in common: run a frame, read and restore the flow tables.

use std::collections::{BTreeMap, BTreeSet};
use weir_common::abi::{CacheBucket, FlowBucket, Row, StackFlow};
use weir_common::verdict::{Action, Reason};

/// Which program gets the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `weir_ingress`.
    Ingress,
    /// `weir_egress`.
    Egress,
    /// `weir_egress`, and the kernel is still to cut the frame into segments.
    EgressUncut,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The action. The kernel harness cannot see the interface of a redirect and says 0.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Outcome {
    /// The same without what only the host harness knows.
    #[must_use]
    pub fn comparable(mut self) -> Self {
        if let Action::Redirect(_) = self.action {
            self.action = Action::Redirect(0);
        }
        self
    }
}

/// The tables that packets change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// `FLOWS`.
    pub flows: Vec<FlowBucket>,
    /// `FLOW_CACHE`.
    pub cache: Vec<CacheBucket>,
    /// `STACK_FLOWS`.
    pub stack_flows: BTreeSet<StackFlow>,
}

impl Flows {
    /// The same without times, which differ between the host and the kernel.
    #[must_use]
    pub fn timeless(mut self) -> Self {
        for flow in self.flows.iter_mut().flat_map(|bucket| &mut bucket.flows) {
            flow.last_seen = 0;
        }
        for entry in self.cache.iter_mut().flat_map(|bucket| &mut bucket.entries) {
            entry.last_seen = 0;
        }
        self
    }

    /// The same, `ticks` later.
    #[must_use]
    pub fn aged(mut self, ticks: u32) -> Self {
        for flow in self.flows.iter_mut().flat_map(|bucket| &mut bucket.flows) {
            flow.last_seen = flow.last_seen.wrapping_sub(ticks);
        }
        for entry in self.cache.iter_mut().flat_map(|bucket| &mut bucket.entries) {
            entry.last_seen = entry.last_seen.wrapping_sub(ticks);
        }
        self
    }
}

/// What was counted, without zero entries: (id, packets, bytes, SYNs), sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `FRONTEND_COUNTERS`.
    pub frontends: Vec<(u32, u64, u64, u64)>,
    /// `BACKEND_COUNTERS`; the last one are flows.
    pub backends: Vec<(u32, u64, u64, u64)>,
}

impl Counts {
    /// What was counted after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let differences = |now: &[(u32, u64, u64, u64)], then: &[(u32, u64, u64, u64)]| {
            let then: BTreeMap<_, _> = then.iter().map(|&(id, a, b, c)| (id, (a, b, c))).collect();
            now.iter()
                .map(|&(id, a, b, c)| {
                    let (before_a, before_b, before_c) = then.get(&id).copied().unwrap_or_default();
                    (id, a - before_a, b - before_b, c - before_c)
                })
                .filter(|&(_, a, b, c)| (a, b, c) != (0, 0, 0))
                .collect()
        };
        Self {
            frontends: differences(&self.frontends, &before.frontends),
            backends: differences(&self.backends, &before.backends),
        }
    }
}

/// The packet path over the tables of [`super::world`].
pub trait Runner {
    /// Runs one frame.
    fn run(&mut self, program: Program, frame: &[u8]) -> anyhow::Result<Outcome>;
    /// Whether an outcome says which interface a frame was redirected to. The kernel's test run does not.
    fn sees_interfaces(&self) -> bool;
    /// The flow tables now.
    fn flows(&mut self) -> anyhow::Result<Flows>;
    /// Replaces the flow tables.
    fn restore(&mut self, flows: &Flows) -> anyhow::Result<()>;
    /// Empties limiters and the cache of fragments.
    fn forget_limits(&mut self) -> anyhow::Result<()>;
    /// Replaces one element of `ROWS`.
    fn set_row(&mut self, index: u32, row: Row) -> anyhow::Result<()>;
    /// What was counted since the start, of the ids the world uses.
    fn counts(&mut self) -> anyhow::Result<Counts>;
}
