//! Nothing a packet can see is ever half done: random plans, one write at a time, and the kernel's way of looking
//! after each.

use super::{
    SETTINGS,
    between::Between,
    image::Image,
    settle,
    world::{PODS, add_frontend, answering, backend, empty_frontend, frontends, links, node_address, plan},
};
use crate::{
    plan::{FrontendKey, Plan},
    tables::{SourceKey, Step, Tables, Write, directory::with_policy_of, key::Key},
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use weir_common::abi::{BACKEND_DRAINING, Backend, Past, Row, RowRange, SourcePrefix, kind, protocol};

/// Half the slots do not exist, so every second new key has to move its bucket.
fn image() -> Image {
    Image::new(1 << 16, 1 << 13, 64, 16)
}

/// One node's maps, tables and past.
struct Run {
    image: Image,
    tables: Tables,
    plans: Vec<Plan>,
    /// Those before the last step.
    earlier: Vec<Plan>,
    known: BTreeSet<Key>,
}

impl Run {
    fn new() -> Self {
        let image = image();
        Self {
            tables: image.adopt(),
            image,
            plans: Vec::new(),
            earlier: Vec::new(),
            known: BTreeSet::new(),
        }
    }

    /// One step to `new`; only the first `limit` writes are done.
    fn step(&mut self, new: &Plan, limit: usize) -> Step {
        let before = self.image.clone();
        for frontend in new.frontends.values() {
            self.known
                .extend(frontend.backends.keys().chain(frontend.draining.keys()).map(Key::from));
        }
        let found =
            |name: &&FrontendKey| before.entry(&Key::from(*name)).is_some() && before.filter_has(&Key::from(*name));
        let kept: Vec<FrontendKey> = new.frontends.keys().filter(found).copied().collect();
        let step = self.tables.step(new, &links(), &SETTINGS);
        let mut after = before.clone();
        step.writes.iter().for_each(|write| after.write(write));
        let between = Between {
            after: &after,
            old: &self.plans,
            new,
            earlier: &self.earlier,
            kept,
            before: &before,
            known: self.known.clone(),
        };
        for (count, write) in step.writes.iter().take(limit).enumerate() {
            self.image.write(write);
            match write {
                // Most writes are rows, and concern that row alone.
                Write::SetSource { key, .. } | Write::RemoveSource { key } => {
                    between.check_sources(key.frontend(), &self.image);
                }
                Write::Row { index, .. } | Write::Past { index, .. } if count % 256 != 0 => {
                    between.check_written_row(*index, &self.image);
                }
                _ => between.check(&self.image),
            }
            if let Write::Directory { entry, .. } | Write::FrontendPolicy { entry, .. } = write {
                between.check_sources(Some(entry.id), &self.image);
            }
        }
        if limit >= step.writes.len() {
            for name in &between.kept {
                assert!(
                    self.tables.programmed().frontend_id(name).is_some(),
                    "{name} was pushed out"
                );
            }
            self.check_reuse(&before);
            self.earlier.clone_from(&self.plans);
        }
        step
    }

    /// Writes as much of new rows as was done when their writer was killed.
    fn write_part(&mut self, first: u32, owners: &[u32], part: f64) {
        let written = (owners.len() as f64 * part) as usize;
        self.image.write(&Write::NewRows {
            first,
            owners: owners[..written].into(),
        });
    }

    /// An id that was somebody's before the step is nobody else's after it.
    fn check_reuse(&self, before: &Image) {
        let frontend_ids = |image: &Image| -> Vec<(u32, Key)> {
            let found = frontends()
                .into_iter()
                .filter_map(|name| Some((image.entry(&Key::from(&name))?.id, name)));
            found.map(|(id, name)| (id, Key::from(&name))).collect()
        };
        for (id, key) in frontend_ids(before) {
            assert!(
                frontend_ids(&self.image)
                    .iter()
                    .all(|(other, now)| *other != id || *now == key)
            );
        }
        let in_use = frontends()
            .into_iter()
            .filter_map(|name| before.entry(&Key::from(&name)));
        let in_use: BTreeSet<u32> = in_use.flat_map(|entry| before.owners(entry.rows)).flatten().collect();
        for id in in_use {
            assert_eq!(
                Key::from(&before.backends[id as usize]),
                Key::from(&self.image.backends[id as usize])
            );
        }
    }
}

/// In the end the maps say what maps built from nothing say.
fn check_same_as_fresh(image: &Image, plan: &Plan) {
    let mut fresh = image_like(image);
    let mut tables = fresh.adopt();
    if !settle(&mut tables, &mut fresh, plan).conditions.is_empty() {
        return;
    }
    assert_eq!(image.filter, fresh.filter);
    assert_eq!(image.responders, fresh.responders);
    for entry in fresh.directory.iter().filter(|entry| entry.kind != kind::FREE) {
        let key = Key::from(entry);
        let found = image.entry(&key).unwrap_or_else(|| panic!("{key:?} is not found"));
        assert_eq!(found.kind, entry.kind);
        match entry.kind {
            kind::PEER => assert_eq!(image.nodes[found.id as usize], fresh.nodes[entry.id as usize]),
            kind::BACKEND => assert_eq!(image.backends[found.id as usize], fresh.backends[entry.id as usize]),
            kind::FRONTEND => {
                assert_eq!(with_policy_of(*entry, found), *entry, "other policies");
                assert_eq!(image.sources_of(found.id), fresh.sources_of(entry.id));
                let [rows, expected] = [image.range(found.rows), fresh.range(entry.rows)];
                for index in 0..rows.len().max(expected.len()) {
                    let row = image.backends[rows[index & (rows.len() - 1)].current as usize];
                    let wanted = fresh.backends[expected[index & (expected.len() - 1)].current as usize];
                    assert_eq!(Key::from(&row), Key::from(&wanted));
                }
            }
            _ => {}
        }
    }
    assert_eq!(image.sources.len(), fresh.sources.len(), "prefixes are left over");
    // Mark and sweep, done plainly: nothing else is there, but for backends that rows remember.
    let named = image.named();
    for entry in image.directory.iter().filter(|entry| entry.kind != kind::FREE) {
        let remembered = entry.kind == kind::BACKEND && named.contains(&entry.id);
        assert!(
            remembered || fresh.entry(&Key::from(entry)).is_some(),
            "{entry:?} is left over"
        );
    }
    let planned: BTreeSet<Key> = plan
        .frontends
        .values()
        .flat_map(|of| of.backends.keys().chain(of.draining.keys()))
        .map(Key::from)
        .collect();
    let serving: BTreeSet<Key> = plan
        .frontends
        .values()
        .flat_map(|of| of.backends.keys())
        .map(Key::from)
        .collect();
    for (id, backend) in (0..)
        .zip(&image.backends)
        .filter(|(_, backend)| **backend != Backend::default())
    {
        assert!(
            named.contains(&id) || planned.contains(&Key::from(backend)),
            "{backend:?} is left over"
        );
        let draining = backend.flags & BACKEND_DRAINING != 0;
        assert_eq!(draining, !serving.contains(&Key::from(backend)), "{backend:?}");
    }
    check_history(image, plan);
}

/// Each owner is there once and without gaps, UDP remembers only those that answer, and rows out of use have no past.
fn check_history(image: &Image, plan: &Plan) {
    let answering = answering(plan);
    let mut used = vec![false; image.rows.len()];
    for entry in image.directory.iter().filter(|entry| entry.kind == kind::FRONTEND) {
        let base = entry.rows.base as usize;
        used[base..=base + entry.rows.mask as usize].fill(true);
        for [current, former @ ..] in image.owners(entry.rows) {
            let count = former.iter().position(|id| *id == 0).unwrap_or(former.len());
            assert!(former[count..].iter().all(|id| *id == 0), "{former:?}");
            let distinct: BTreeSet<u32> = former[..count].iter().copied().chain([current]).collect();
            assert_eq!(distinct.len(), count + 1, "{current}, {former:?}");
            let answers = |id: &u32| answering.contains(&Key::from(&image.backends[*id as usize]));
            assert!(entry.protocol == protocol::TCP || former[..count].iter().all(answers));
        }
    }
    let unused = image.history.iter().zip(used).filter(|(_, used)| !used);
    assert!(
        unused.into_iter().all(|(past, _)| *past == Past::default()),
        "a past of nobody"
    );
}

fn image_like(image: &Image) -> Image {
    Image::new(
        image.directory.len(),
        image.rows.len(),
        image.backends.len(),
        image.nodes.len(),
    )
}

/// A case is thousands of looks at the maps, so few will do; `PROPTEST_CASES` scales them.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.div_ceil(32),
        failure_persistence: None,
        max_shrink_iters: 0,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_single_write_leaves_the_maps_right(plans in proptest::collection::vec(plan(), 1..5)) {
        let mut run = Run::new();
        for plan in plans {
            let step = run.step(&plan, usize::MAX);
            run.plans = vec![plan.clone()];
            if step.unsettled {
                run.step(&plan, usize::MAX);
            }
            settle(&mut run.tables, &mut run.image, &plan);
            check_same_as_fresh(&run.image, &plan);
        }
    }

    #[test]
    fn steps_need_no_settling_between(plans in proptest::collection::vec(plan(), 2..6)) {
        let mut run = Run::new();
        for plan in &plans {
            run.step(plan, usize::MAX);
            run.plans = vec![plan.clone()];
        }
        let last = plans.last().unwrap();
        settle(&mut run.tables, &mut run.image, last);
        check_same_as_fresh(&run.image, last);
    }

    #[test]
    fn an_agent_that_dies_between_two_writes_is_succeeded(
        plans in proptest::collection::vec((plan(), 0.0..1.0_f64), 2..5),
    ) {
        let mut run = Run::new();
        for (plan, until) in plans {
            let writes = run.image.adopt().step(&plan, &links(), &SETTINGS).writes.len();
            run.tables = run.image.adopt();
            run.step(&plan, (writes as f64 * until) as usize);
            run.tables = run.image.adopt();
            // What is there now is a bit of both plans.
            run.plans.push(plan.clone());
            run.step(&plan, usize::MAX);
            settle(&mut run.tables, &mut run.image, &plan);
            check_same_as_fresh(&run.image, &plan);
            run.plans = vec![plan];
        }
    }

    #[test]
    fn an_agent_that_dies_within_new_rows_is_succeeded(
        plans in (plan(), plan()),
        which in any::<prop::sample::Index>(),
        part in 0.0..1.0_f64,
    ) {
        let mut run = Run::new();
        settle(&mut run.tables, &mut run.image, &plans.0);
        run.plans = vec![plans.0.clone()];
        run.known = run.image.backends.iter().map(Key::from).collect();
        let writes = run.image.adopt().step(&plans.1, &links(), &SETTINGS).writes;
        let new_rows: Vec<usize> = (0..writes.len()).filter(|&at| matches!(writes[at], Write::NewRows { .. })).collect();
        prop_assume!(!new_rows.is_empty());
        let at = new_rows[which.index(new_rows.len())];
        run.tables = run.image.adopt();
        run.step(&plans.1, at);
        let served: Vec<FrontendKey> =
            frontends().into_iter().filter(|name| run.image.entry(&Key::from(name)).is_some()).collect();
        if let Write::NewRows { first, owners } = &writes[at] {
            run.write_part(*first, owners, part);
        }
        // What is there now is a bit of both plans.
        run.plans.push(plans.1.clone());
        run.tables = run.image.adopt();
        for name in &served {
            prop_assert!(run.tables.programmed().frontend_id(name).is_some(), "{} is lost", name);
        }
        run.step(&plans.1, usize::MAX);
        settle(&mut run.tables, &mut run.image, &plans.1);
        check_same_as_fresh(&run.image, &plans.1);
    }

    #[test]
    fn adopted_tables_have_nothing_to_write(plans in proptest::collection::vec(plan(), 1..4)) {
        let mut run = Run::new();
        for plan in plans {
            let settled = settle(&mut run.tables, &mut run.image, &plan);
            let step = run.image.adopt().step(&plan, &links(), &SETTINGS);
            prop_assert_eq!(step, Step { writes: Vec::new(), unsettled: false, ..settled });
        }
    }

    #[test]
    fn garbage_is_replaced(
        plans in (plan(), plan()),
        noise in proptest::collection::vec((0..9_u8, any::<u16>(), 0..20_u32, 0..300_u32), 0..200),
    ) {
        let mut run = Run::new();
        settle(&mut run.tables, &mut run.image, &plans.0);
        for (map, at, a, b) in noise {
            scramble(&mut run.image, map, at as usize, a, b);
        }
        run.tables = run.image.adopt();
        settle(&mut run.tables, &mut run.image, &plans.1);
        check_same_as_fresh(&run.image, &plans.1);
        prop_assert_eq!(run.image.adopt().step(&plans.1, &links(), &SETTINGS).writes, []);
    }
}

/// The same where it matters most: a frontend that has rows is to get more of them, and they are written in part.
#[test]
fn a_table_that_grows_is_as_before_until_all_of_its_rows_are_written() {
    let name = frontends()[0];
    let serving = |pods: usize| {
        let mut plan = Plan::default();
        plan.nodes.insert("node-b".into(), node_address("node-b"));
        let mut frontend = empty_frontend(&name);
        frontend.backends = (0..pods).map(|pod| (backend(pod, 1), 1)).collect();
        add_frontend(&mut plan, name, frontend);
        plan
    };
    let (few, many) = (serving(1), serving(PODS));
    for part in [0.0, 0.5, 0.99, 1.0] {
        let mut run = Run::new();
        settle(&mut run.tables, &mut run.image, &few);
        run.plans = vec![few.clone()];
        run.known = run.image.backends.iter().map(Key::from).collect();
        let before = run.image.entry(&Key::from(&name)).copied().expect("it is served");
        let writes = run.image.adopt().step(&many, &links(), &SETTINGS).writes;
        let at = writes.iter().position(|write| matches!(write, Write::NewRows { .. }));
        let at = at.expect("it gets more rows");
        run.tables = run.image.adopt();
        run.step(&many, at);
        if let Write::NewRows { first, owners } = &writes[at] {
            run.write_part(*first, owners, part);
        }
        run.tables = run.image.adopt();
        let now = run.image.entry(&Key::from(&name)).copied().expect("it is served");
        assert_eq!(now, before, "nothing leads to the new rows");
        run.plans.push(many.clone());
        run.step(&many, usize::MAX);
        settle(&mut run.tables, &mut run.image, &many);
        check_same_as_fresh(&run.image, &many);
        assert!(run.image.entry(&Key::from(&name)).expect("it is served").rows.mask > before.rows.mask);
    }
}

fn scramble(image: &mut Image, map: u8, at: usize, a: u32, b: u32) {
    let used: Vec<usize> = (0..image.directory.len())
        .filter(|&slot| image.directory[slot].kind != 0)
        .collect();
    let slot = if used.is_empty() { at } else { used[at % used.len()] };
    match map {
        0 => image.filter[at % 1024] ^= u64::from(b) << a,
        1 => image.displacement[at % 2] = b,
        2 => image.directory[slot].kind = (a % 7) as u8,
        3 => image.directory[slot].id = b,
        4 => {
            image.directory[slot].rows = RowRange {
                base: at as u32,
                mask: b,
            }
        }
        5 if b.is_multiple_of(2) => image.history[at % 4096].owners[a as usize % 4] = b / 4,
        5 => {
            image.rows[at % 4096] = Row {
                current: a,
                previous: b,
            }
        }
        6 => image.directory[slot].policies = a,
        7 => {
            let prefix = SourcePrefix {
                frontend: (b % 16).to_be_bytes(),
                address: [at as u8; 16],
            };
            let length = at as u32 % 161;
            // Bits beyond the length do not count, as in the kernel.
            image.sources.insert(SourceKey { length, prefix }.masked(), a);
        }
        _ => {
            let backend = image.backends[at % 64];
            image.backends[a as usize] = Backend { node: b, ..backend };
            image.nodes[a as usize % 16].ifindex = b;
        }
    }
}
