//! What rows remember: who, for how long, and in which order.

use super::{
    SETTINGS,
    image::Image,
    settle,
    world::{self, add_frontend, answering, empty_frontend, links, node_address, plan},
};
use crate::{
    plan::{BackendKey, Draining, Frontend, FrontendKey, Plan},
    tables::{LivePod, Settings, Tables, key::Key},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use weir_common::abi::{BACKEND_DRAINING, Backend, PAST_OWNERS, kind};

/// Rows for all, so that no table has to shrink.
fn image() -> Image {
    Image::new(1 << 17, 1 << 15, 64, 16)
}

fn tcp() -> FrontendKey {
    world::frontends()[0]
}

fn udp() -> FrontendKey {
    let udp = |name: &FrontendKey| Key::from(name).protocol == 17;
    world::frontends().into_iter().find(udp).unwrap()
}

/// A plan with one frontend; pods by number, all on another node.
fn one(name: FrontendKey, serving: &[usize], draining: &[(usize, Draining)]) -> Plan {
    let mut plan = Plan::default();
    plan.nodes.insert("node-b".into(), node_address("node-b"));
    let mut frontend = empty_frontend(&name);
    frontend.backends = serving.iter().map(|&pod| (world::backend(pod, 1), 1)).collect();
    frontend.draining = draining
        .iter()
        .map(|&(pod, why)| (world::backend(pod, 1), why))
        .collect();
    add_frontend(&mut plan, name, frontend);
    plan
}

/// The owners of each hash of a frontend, by key; without the empty slots.
fn owners(image: &Image, name: &FrontendKey) -> Vec<Vec<Key>> {
    let range = image.entry(&Key::from(name)).expect("it is served").rows;
    let named = |ids: [u32; 2 + PAST_OWNERS]| {
        let ids = ids.into_iter().filter(|id| *id != 0);
        ids.map(|id| Key::from(&image.backends[id as usize])).collect()
    };
    image.owners(range).map(named).collect()
}

fn check_all(image: &Image, name: &FrontendKey, expected: &[usize]) {
    let expected: Vec<Key> = expected.iter().map(|&pod| Key::from(&world::backend(pod, 1))).collect();
    for owners in owners(image, name) {
        assert_eq!(owners, expected);
    }
}

#[test]
fn who_answers_is_asked_before_who_may_be_dead_and_before_who_is_gone() {
    let (mut image, name) = (image(), tcp());
    let mut tables = image.adopt();
    settle(&mut tables, &mut image, &one(name, &[0], &[]));
    settle(&mut tables, &mut image, &one(name, &[1], &[(0, Draining::Serving)]));
    settle(
        &mut tables,
        &mut image,
        &one(name, &[2], &[(0, Draining::Serving), (1, Draining::Serving)]),
    );
    check_all(&image, &name, &[2, 1, 0]);
    settle(
        &mut tables,
        &mut image,
        &one(name, &[2], &[(0, Draining::Serving), (1, Draining::NotServing)]),
    );
    check_all(&image, &name, &[2, 0, 1]);
    settle(&mut tables, &mut image, &one(name, &[2], &[(1, Draining::NotServing)]));
    check_all(&image, &name, &[2, 1, 0]);
    settle(&mut tables, &mut image, &one(name, &[1], &[]));
    check_all(&image, &name, &[1, 2, 0]);
}

#[test]
fn udp_remembers_who_answers_for_as_long_as_a_flow_may_be_idle() {
    let (mut image, name) = (image(), udp());
    let mut tables = image.adopt();
    let mut at = |now: u64, plan: &Plan| {
        let settings = Settings { now, ..SETTINGS };
        let step = tables.step(plan, &links(), &settings);
        step.writes.iter().for_each(|write| image.write(write));
        (owners(&image, &name)[0].len(), step.forget_in)
    };
    let keeping = |pod| (pod, Draining::Serving);
    assert_eq!(at(0, &one(name, &[0], &[])), (1, None));
    assert_eq!(at(1000, &one(name, &[1], &[keeping(0)])), (2, Some(181)));
    assert_eq!(at(1100, &one(name, &[1], &[keeping(0)])), (2, Some(81)));
    assert_eq!(
        at(1110, &one(name, &[2], &[keeping(0), keeping(1)])),
        (3, Some(181)),
        "its rows changed again"
    );
    assert_eq!(
        at(1120, &one(name, &[2], &[(0, Draining::NotServing), keeping(1)])),
        (2, Some(171))
    );
    assert_eq!(
        at(1120, &one(name, &[2], &[keeping(0), keeping(1)])),
        (2, Some(171)),
        "and is not remembered again"
    );
    assert_eq!(at(1130, &one(name, &[2], &[keeping(0)])), (1, None));
    assert_eq!(at(1140, &one(name, &[0], &[keeping(2)])), (2, Some(181)));
    assert_eq!(at(1320, &one(name, &[0], &[keeping(2)])), (2, Some(1)));
    assert_eq!(at(1321, &one(name, &[0], &[keeping(2)])), (1, None));
}

#[test]
fn adopted_udp_rows_changed_just_now() {
    let (mut image, name) = (image(), udp());
    let mut tables = image.adopt();
    settle(&mut tables, &mut image, &one(name, &[0], &[]));
    let plan = one(name, &[1], &[(0, Draining::Serving)]);
    settle(&mut tables, &mut image, &plan);
    let settings = Settings { now: 50, ..SETTINGS };
    let step = image.adopt().step(&plan, &links(), &settings);
    assert_eq!((step.writes.len(), step.forget_in), (0, Some(181)));
}

#[test]
fn a_backend_without_new_flows_is_marked_as_draining() {
    let (mut image, name) = (image(), tcp());
    let mut tables = image.adopt();
    let mut draining = |plan: &Plan| {
        settle(&mut tables, &mut image, plan);
        let found = |pod: usize| {
            let key = Key::from(&world::backend(pod, 1));
            image
                .backends
                .iter()
                .find(|backend| Key::from(*backend) == key)
                .map(|backend| backend.flags & BACKEND_DRAINING)
        };
        [found(0), found(1)]
    };
    assert_eq!(draining(&one(name, &[0], &[])), [Some(0), None]);
    let mut both = one(name, &[1], &[(0, Draining::Serving)]);
    assert_eq!(draining(&both), [Some(BACKEND_DRAINING), Some(0)]);
    let other = one(udp(), &[0], &[]);
    both.frontends.extend(other.frontends);
    assert_eq!(draining(&both), [Some(0), Some(0)], "another frontend gives it some");
    assert_eq!(
        draining(&one(name, &[1], &[])),
        [Some(BACKEND_DRAINING), Some(0)],
        "the plan has it no more, a row does"
    );
}

/// Who is to be found, by the plainest of rules: the last owners that answered ever since.
#[derive(Default)]
struct Model {
    owners: BTreeMap<(FrontendKey, usize), Vec<Key>>,
}

impl Model {
    /// Hashes looked at; no table of the world is larger.
    const HASHES: usize = 1 << 10;

    fn check(&mut self, plan: &Plan, image: &Image) {
        let answering = answering(plan);
        self.owners.retain(|(name, _), _| plan.frontends.contains_key(name));
        for name in plan.frontends.keys() {
            let found = owners(image, name);
            let range = image.entry(&Key::from(name)).unwrap().rows;
            for hash in 0..Self::HASHES {
                let found = &found[hash & range.mask as usize];
                let owners = self.owners.entry((*name, hash)).or_default();
                owners.retain(|key| answering.contains(key));
                let current = image.range(range)[hash & range.mask as usize].current;
                if current != 0 {
                    owners.retain(|key| *key != found[0]);
                    owners.insert(0, found[0]);
                }
                owners.truncate(2 + PAST_OWNERS - usize::from(current == 0));
                assert!(
                    owners.iter().all(|key| found.contains(key)),
                    "{name} {hash}: {owners:?}, found {found:?}"
                );
                let first: Vec<&Key> = found.iter().filter(|key| owners.contains(key)).collect();
                assert!(
                    first.into_iter().eq(owners.iter()),
                    "{name} {hash}: not the last one first"
                );
            }
        }
    }
}

/// The rows of all frontends, by key.
fn all_owners(image: &Image, plan: &Plan) -> BTreeMap<FrontendKey, Vec<Option<Key>>> {
    let rows = |name: &FrontendKey| {
        let range = image.entry(&Key::from(name)).unwrap().rows;
        let current = |hash: usize| image.range(range)[hash & range.mask as usize].current;
        let key = |hash| {
            Some(current(hash))
                .filter(|id| *id != 0)
                .map(|id| Key::from(&image.backends[id as usize]))
        };
        (*name, (0..Model::HASHES).map(key).collect())
    };
    plan.frontends.keys().map(rows).collect()
}

/// The plan as another node has it: what is local there is not here.
fn seen_from_elsewhere(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let elsewhere = |mut backend: BackendKey| {
        backend.local = false;
        backend
    };
    let moved = |mut frontend: Arc<Frontend>| {
        let held = Arc::make_mut(&mut frontend);
        let backends = std::mem::take(&mut held.backends).into_iter();
        held.backends = backends.map(|(backend, weight)| (elsewhere(backend), weight)).collect();
        frontend
    };
    let frontends = plan.frontends.into_iter();
    plan.frontends = frontends.map(|(name, frontend)| (name, moved(frontend))).collect();
    plan
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn the_last_owners_that_live_are_found(plans in proptest::collection::vec(plan(), 1..16), adopts in any::<u16>()) {
        let mut image = image();
        let mut tables = image.adopt();
        let mut model = Model::default();
        for (index, plan) in plans.iter().enumerate() {
            settle(&mut tables, &mut image, plan);
            model.check(plan, &image);
            if adopts >> index & 1 == 1 {
                tables = image.adopt();
            }
        }
    }

    #[test]
    fn nodes_build_the_same_rows_whatever_they_saw_before(
        paths in proptest::collection::vec(proptest::collection::vec(plan(), 0..4), 2),
        last in plan(),
    ) {
        let mut seen = Vec::new();
        for (index, path) in paths.into_iter().enumerate() {
            let mut image = image();
            let mut tables: Tables = image.adopt();
            let last = if index == 0 { last.clone() } else { seen_from_elsewhere(&last) };
            for plan in path.iter().chain([&last]) {
                settle(&mut tables, &mut image, plan);
            }
            seen.push(all_owners(&image, &last));
        }
        prop_assert_eq!(&seen[0], &seen[1]);
    }
}

/// A connection of days outlives the memory of rows: its pod's replies are rewritten as long as it has flows.
#[test]
fn a_pod_with_live_flows_keeps_its_entries_though_nobody_names_it() {
    let pod = Key::from(&world::backend(0, 0));
    let live = LivePod {
        address: pod.address,
        port: pod.port,
        protocol: pod.protocol,
    };
    let mut serving = empty_frontend(&tcp());
    serving.backends.insert(world::backend(0, 0), 1);
    let mut with = Plan::default();
    add_frontend(&mut with, tcp(), serving);

    let (mut image, without) = (image(), Plan::default());
    let mut tables = image.adopt();
    settle(&mut tables, &mut image, &with);
    let id = image.entry(&pod).expect("it serves").id;
    for restarted in [false, true] {
        if restarted {
            tables = image.adopt();
        }
        tables.set_live([&live]);
        settle(&mut tables, &mut image, &without);
        assert_eq!(image.entry(&pod).map(|entry| entry.id), Some(id));
        assert_eq!(Key::from(&image.backends[id as usize]), pod);
        assert!(image.entry(&Key::from(&tcp())).is_none(), "nothing is served");
    }
    tables.set_live([]);
    settle(&mut tables, &mut image, &without);
    assert!(image.entry(&pod).is_none(), "its flows are over");
    assert_eq!(image.backends[id as usize], Backend::default());
}

/// A VIP at the address and port of a pod that was a backend is its own: it goes when nobody wants it any more, though the
/// pod is remembered.
#[test]
fn a_frontend_at_a_remembered_pods_address_does_not_outlive_its_plan() {
    let pod = world::backend(0, 0);
    let at_pod = FrontendKey {
        address: pod.address,
        port: pod.port,
        protocol: pod.protocol,
    };
    let serving = |name, pods: &[(usize, usize)]| {
        let mut frontend = empty_frontend(&name);
        frontend.backends = pods.iter().map(|&(pod, node)| (world::backend(pod, node), 1)).collect();
        frontend
    };
    let with_pod = |pods: &[(usize, usize)]| {
        let mut plan = Plan::default();
        plan.nodes.insert("node-b".into(), node_address("node-b"));
        add_frontend(&mut plan, tcp(), serving(tcp(), pods));
        plan
    };
    let (mut image, key) = (image(), Key::from(&pod));
    let mut tables = image.adopt();
    settle(&mut tables, &mut image, &with_pod(&[(0, 0)]));
    assert_eq!(image.entry(&key).map(|entry| entry.kind), Some(kind::BACKEND));

    let mut with_both = with_pod(&[(1, 1)]);
    add_frontend(&mut with_both, at_pod, serving(at_pod, &[(1, 1)]));
    settle(&mut tables, &mut image, &with_both);
    assert_eq!(image.entry(&key).map(|entry| entry.kind), Some(kind::FRONTEND));

    settle(&mut tables, &mut image, &with_pod(&[(1, 1)]));
    assert_eq!(
        image.entry(&key),
        None,
        "nothing is served there, and its rows are another's"
    );
    assert_eq!(owners(&image, &tcp())[0][1], key, "the pod is remembered all the same");
}
