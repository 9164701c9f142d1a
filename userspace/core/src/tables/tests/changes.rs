//! A step that looks at what has changed writes what a comparison of everything would.

use super::{
    SETTINGS,
    image::Image,
    world::{self, links, node_address, plan},
};
use crate::{
    SharedMap,
    links::Links,
    plan::Plan,
    tables::{LivePod, Settings, StackFlows, key::Key},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
};
use std::sync::Arc;
use weir_common::abi::policy;

/// What becomes of the plan and all else that a step is given; parts of a plan are taken from another one.
#[derive(Clone, Debug)]
enum Change {
    /// Of the frontends whose place in order is in this set of bits.
    Frontends(u32, Plan),
    Vips(Plan),
    Nodes(Plan),
    Links(bool),
    Live(u16),
    Seconds(u64),
    /// The plan is the same, not even equal parts are shared.
    Copied,
    /// The tunnel has another port.
    Port(u16),
    /// A write fails when this share of a step's writes is done: what the maps hold is read again.
    Adopted(f64),
    /// The stack has flows elsewhere.
    Stack(StackFlows),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (any::<[u32; 3]>(), plan()).prop_map(|([a, b, c], plan)| Change::Frontends(a & b & c, plan)),
        1 => plan().prop_map(|plan| Change::Frontends(u32::MAX, plan)),
        1 => plan().prop_map(Change::Vips),
        1 => plan().prop_map(Change::Nodes),
        1 => any::<bool>().prop_map(Change::Links),
        2 => any::<u16>().prop_map(Change::Live),
        2 => (1..200_u64).prop_map(Change::Seconds),
        1 => Just(Change::Copied),
        1 => (6081..6083_u16).prop_map(Change::Port),
        2 => (0.0..=1.0_f64).prop_map(Change::Adopted),
        1 => select(vec![StackFlows::Standby, StackFlows::Anywhere]).prop_map(Change::Stack),
        1 => subsequence(world::frontends(), 0..4).prop_map(|at| Change::Stack(StackFlows::At(at.into_iter().collect()))),
    ]
}

struct Inputs {
    plan: Plan,
    links: Links,
    live: Vec<LivePod>,
    settings: Settings,
    stack: StackFlows,
}

impl Inputs {
    fn change(&mut self, change: Change) {
        let plan = &mut self.plan;
        match change {
            Change::Frontends(which, mut other) => {
                let all = world::frontends().into_iter().enumerate();
                for (_, name) in all.filter(|(index, _)| which >> (index % 32) & 1 == 1) {
                    match other.frontends.remove(&name) {
                        Some(frontend) => drop(plan.frontends.insert(name, frontend)),
                        None => drop(plan.frontends.remove(&name)),
                    }
                }
                plan.vips.extend(other.vips);
            }
            Change::Vips(other) => plan.vips = other.vips,
            Change::Nodes(other) => {
                plan.tunnel_address = Some(node_address(world::THIS)).filter(|_| other.nodes.len() > 1);
                plan.nodes = other.nodes;
            }
            Change::Links(all) => {
                self.links = if all { links() } else { Links::default() };
            }
            Change::Live(which) => {
                let pods = (0..world::PODS).filter(|pod| which >> pod & 1 == 1);
                let live = |pod| {
                    let key = Key::from(&world::backend(pod, 0));
                    LivePod {
                        address: key.address,
                        port: key.port,
                        protocol: key.protocol,
                    }
                };
                self.live = pods.map(live).collect();
            }
            Change::Seconds(seconds) => self.settings.now += seconds,
            Change::Copied => {
                plan.frontends = copied(&plan.frontends);
                plan.vips = copied(&plan.vips);
            }
            Change::Port(port) => self.settings.tunnel_port = port,
            Change::Adopted(_) => {}
            Change::Stack(stack) => self.stack = stack,
        }
    }
}

fn copied<K: Ord + Clone, V: Clone>(of: &SharedMap<K, Arc<V>>) -> SharedMap<K, Arc<V>> {
    let copied = |(key, value): (&K, &Arc<V>)| (key.clone(), Arc::new((**value).clone()));
    of.iter().map(copied).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_not_looked_at_needs_no_write(
        first in plan(),
        changes in vec(change(), 1..24),
        (rows, backends, nodes) in (prop_oneof![Just(1 << 14), Just(1 << 10), Just(40)], 6..64_usize, 2..5_usize),
        // Where many keys find no slot, looking for one takes long.
        slots in prop_oneof![15 => Just(1 << 16), 1 => Just(1 << 15)],
    ) {
        let mut image = Image::new(slots, rows, backends, nodes);
        let (mut quick, mut thorough) = (image.adopt(), image.adopt());
        let mut inputs = Inputs { plan: first, links: links(), live: Vec::new(), settings: SETTINGS, stack: StackFlows::Standby };
        // All of the last one's writes are done.
        let last = Some(Change::Seconds(0));
        for change in [None].into_iter().chain(changes.into_iter().map(Some)).chain([last]) {
            let told = format!("{change:?}");
            let done = if let Some(Change::Adopted(done)) = change { Some(done) } else { None };
            change.into_iter().for_each(|change| inputs.change(change));
            let Inputs { plan, links, live, settings, stack } = &inputs;
            quick.set_live(live);
            thorough.set_live(live);
            quick.set_stack_flows(stack);
            thorough.set_stack_flows(stack);
            thorough.forget();
            let step = quick.step(plan, links, settings);
            prop_assert_eq!(&step, &thorough.step(plan, links, settings), "{}", told);
            let written = done.map_or(step.writes.len(), |done| (step.writes.len() as f64 * done) as usize);
            step.writes[..written].iter().for_each(|write| image.write(write));
            if done.is_some() {
                (quick, thorough) = (image.adopt(), image.adopt());
            }
        }
        for name in inputs.plan.frontends.keys() {
            prop_assert_eq!(quick.programmed().frontend_id(name), thorough.programmed().frontend_id(name));
            let Some(entry) = image.entry(&Key::from(name)) else { continue };
            let expected = match &inputs.stack {
                StackFlows::Standby => policy::STANDBY,
                StackFlows::At(at) if !at.contains(name) => 0,
                _ => policy::STACK_FLOWS,
            };
            prop_assert_eq!(entry.policies & (policy::STANDBY | policy::STACK_FLOWS), expected);
        }
    }
}
