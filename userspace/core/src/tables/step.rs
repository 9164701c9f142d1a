//! One step: from what the tables hold to what a plan wants, in order.

use super::{
    LivePod, Settings, Step, Tables, Write,
    announced::WantedAnnounced,
    frontends::Outcome,
    key::{Key, address_of},
    refusal::{Refusal, refused},
    wanted::{Role, Wanted},
};
use crate::{
    links::Links,
    model::{Condition, ObjectRef},
    plan::{FrontendKey, Plan},
};
use std::collections::BTreeSet;
use weir_common::abi::{Address, DirectoryEntry, kind};

impl Tables {
    /// Takes over which pods of this node have flows that go on. The next step keeps what their replies are looked up by,
    /// though neither the plan nor a row names them any more.
    pub fn set_live<'a>(&mut self, pods: impl IntoIterator<Item = &'a LivePod>) {
        self.backends.set_live(pods.into_iter().map(Key::from).collect());
    }

    /// The writes that lead from what the maps hold to `plan`, in the order in which they must be carried out, and what
    /// the ids in them stand for.
    ///
    /// The tables take it that the writes are carried out; where that fails, read the maps again ([`Tables::adopt`]).
    #[must_use = "the tables take it that the writes are carried out"]
    pub fn step(&mut self, plan: &Plan, links: &Links, settings: &Settings) -> Step {
        let wanted = Wanted::new(plan, settings);
        let mut step = Step {
            writes: std::mem::take(&mut self.repairs),
            ..Step::default()
        };
        self.release(&mut step.writes);
        self.nodes.update(plan, links, &mut step.writes, &mut step.conditions);
        self.enter_backends(&wanted, &mut step);
        let no_room = self.make_room(&wanted, plan, &mut step);
        self.enter_support(&wanted, &mut step.writes);
        let served = self.enter_frontends(&wanted, &no_room, settings, &mut step);
        self.announce(&wanted, &served, plan, links, &mut step);
        self.remove_unwanted(&wanted, &served, plan, &mut step.writes);
        step.conditions.sort();
        step.conditions.dedup();
        self.name_ids(plan, &mut step);
        step.unsettled = self.unsettled();
        step
    }

    /// Whether something waits to be released by another step.
    fn unsettled(&self) -> bool {
        self.directory.waiting() || self.frontends.waiting() || self.backends.waiting() || self.nodes.waiting()
    }

    /// Clears what the last step took out of use: no packet that read the maps then is still under way.
    fn release(&mut self, writes: &mut Vec<Write>) {
        self.directory.release(writes);
        self.frontends.release(writes);
        self.backends.release(writes);
        self.nodes.release(writes);
    }

    fn enter_backends(&mut self, wanted: &Wanted<'_>, step: &mut Step) {
        let without_id = self.backends.update(wanted, &self.nodes, &mut step.writes);
        if without_id.is_empty() {
            return;
        }
        for frontend in wanted.frontends.values() {
            let all = frontend
                .members
                .iter()
                .map(|(key, _)| *key)
                .chain(frontend.frontend.draining.keys().map(Key::from));
            let left_out = all.filter(|key| without_id.contains(key)).count();
            if left_out > 0 {
                let what = format!("{left_out} backends of {} are left out", frontend.name);
                step.conditions.push(refused(
                    ObjectRef::service(&frontend.frontend.service),
                    Refusal::Backends,
                    what,
                ));
            }
        }
    }

    /// Makes room in the directory for all keys, those that others rely on first; gives those that find none.
    fn make_room(&mut self, wanted: &Wanted<'_>, plan: &Plan, step: &mut Step) -> BTreeSet<Key> {
        let roles = [Role::Tunnel, Role::Peer, Role::Backend, Role::Frontend, Role::Vip];
        let keys = roles
            .into_iter()
            .flat_map(|role| wanted.keys(role))
            .filter(|key| self.can_enter(wanted, key));
        let keys: Vec<Key> = keys.collect();
        let no_room = self.directory.reserve(keys.into_iter(), &mut step.writes);
        if !no_room.is_empty() {
            step.conditions.extend(without_room(wanted, plan, &no_room));
        }
        no_room
    }

    /// Whether what a key's entry names has an id.
    fn can_enter(&self, wanted: &Wanted<'_>, key: &Key) -> bool {
        match wanted.keys.get(key) {
            Some(Role::Peer) => self.nodes.id(&key.address).is_some(),
            Some(Role::Backend) => self.backends.id(key).is_some(),
            _ => true,
        }
    }

    /// The entries that others rely on: a backend's reply is looked up as soon as a row leads to it.
    fn enter_support(&mut self, wanted: &Wanted<'_>, writes: &mut Vec<Write>) {
        for (key, role) in &wanted.keys {
            let (kind, id) = match role {
                Role::Tunnel => (kind::TUNNEL, Some(0)),
                Role::Peer => (kind::PEER, self.nodes.id(&key.address)),
                Role::Backend => (kind::BACKEND, self.backends.id(key)),
                Role::Frontend | Role::Vip => continue,
            };
            if let Some(id) = id {
                self.directory.set(entry(key, kind, id), writes);
            }
        }
    }

    /// Frontends with their rows, then the VIPs; gives the addresses at which something is served.
    fn enter_frontends(
        &mut self,
        wanted: &Wanted<'_>,
        no_room: &BTreeSet<Key>,
        settings: &Settings,
        step: &mut Step,
    ) -> BTreeSet<Address> {
        let directory = &mut self.directory;
        let mut served = BTreeSet::new();
        let mut outcome = Outcome {
            writes: &mut step.writes,
            conditions: &mut step.conditions,
        };
        self.frontends.update(
            wanted,
            &self.backends,
            |key| !no_room.contains(key),
            settings,
            &mut outcome,
            |entry, writes| {
                served.insert(entry.address);
                directory.set(entry, writes);
            },
        );
        step.forget_in = self.frontends.forget_in(settings);
        for key in wanted.keys(Role::Vip).filter(|key| served.contains(&key.address)) {
            directory.set(entry(&key, kind::VIP, 0), &mut step.writes);
        }
        served
    }

    /// Opens filter and responders for what is there now, and closes them for what is about to go.
    fn announce(
        &mut self,
        wanted: &Wanted<'_>,
        served: &BTreeSet<Address>,
        plan: &Plan,
        links: &Links,
        step: &mut Step,
    ) {
        let mut known = served.clone();
        known.extend(
            wanted
                .keys(Role::Tunnel)
                .filter(|key| self.directory.holds(key))
                .map(|key| key.address),
        );
        let announced = WantedAnnounced::new(&known, served, plan, links, &mut step.conditions);
        self.announced.open(&announced, &mut step.writes);
        self.announced.close(&announced, &mut step.writes);
    }

    /// Takes out what the plan does not want, what packets meet first going first.
    fn remove_unwanted(
        &mut self,
        wanted: &Wanted<'_>,
        served: &BTreeSet<Address>,
        plan: &Plan,
        writes: &mut Vec<Write>,
    ) {
        // Rows first: what they remember decides which backends stay.
        self.frontends.sweep(wanted);
        if self.backends.scarce() {
            self.frontends.forget(writes);
        }
        let stays = |key: &Key| match wanted.keys.get(key) {
            Some(Role::Frontend) => self.frontends.id(key).is_some(),
            Some(Role::Vip) => served.contains(&key.address),
            Some(_) => true,
            // A pod taken out of its Service may live on, and its flows' replies with it.
            None => self.backends.is_remembered_here(key, &self.frontends),
        };
        let mut gone: Vec<(u8, Key)> = self
            .directory
            .keys()
            .filter(|(key, _)| !stays(key))
            .map(|(key, kind)| (kind, key))
            .collect();
        gone.sort_unstable();
        for (_, key) in gone {
            self.directory.remove(&key, writes);
        }
        self.backends.sweep(wanted, &self.frontends);
        self.nodes.sweep(plan, &self.backends.nodes());
    }

    fn name_ids(&self, plan: &Plan, step: &mut Step) {
        let frontend = |name: &FrontendKey| Some((*name, self.frontends.id(&Key::from(name))?));
        step.frontend_ids = plan.frontends.keys().filter_map(frontend).collect();
        let backends = plan
            .frontends
            .values()
            .flat_map(|frontend| frontend.backends.keys().chain(frontend.draining.keys()));
        step.backend_ids = backends
            .filter_map(|backend| Some((backend.clone(), self.backends.id(&Key::from(backend))?)))
            .collect();
        let node = |(name, address): (&String, &_)| Some((name.clone(), self.nodes.id(&address_of(*address))?));
        step.node_ids = plan.nodes.iter().filter_map(node).collect();
    }
}

fn entry(key: &Key, kind: u8, id: u32) -> DirectoryEntry {
    DirectoryEntry {
        address: key.address,
        port: key.port,
        protocol: key.protocol,
        kind,
        id,
        ..DirectoryEntry::default()
    }
}

/// Names everything that found no room in the directory.
fn without_room(wanted: &Wanted<'_>, plan: &Plan, keys: &BTreeSet<Key>) -> Vec<Condition> {
    let full = |object, what| refused(object, Refusal::Directory, what);
    let mut conditions = Vec::new();
    for (name, frontend) in &plan.frontends {
        let service = || ObjectRef::service(&frontend.service);
        if keys.contains(&Key::from(name)) {
            conditions.push(full(service(), format!("{name} is not served")));
        }
        for backend in frontend
            .backends
            .keys()
            .chain(frontend.draining.keys())
            .filter(|backend| backend.local)
        {
            if keys.contains(&Key::from(backend)) {
                conditions.push(full(
                    service(),
                    format!("replies of backend {backend} do not find their way back"),
                ));
            }
        }
    }
    for (address, vip) in &plan.vips {
        if keys.contains(&Key::address(address_of(*address))) {
            let eip = ObjectRef::cluster_scoped("Eip", &vip.eip);
            conditions.push(full(eip, format!("echo requests to {address} are not answered")));
        }
    }
    for (name, address) in &plan.nodes {
        if keys.contains(&Key::address(address_of(*address))) {
            let node = ObjectRef::cluster_scoped("Node", name);
            conditions.push(full(node, format!("tunnel packets from {name} are not accepted")));
        }
    }
    if let Some(address) = plan
        .tunnel_address
        .filter(|_| wanted.keys(Role::Tunnel).any(|key| keys.contains(&key)))
    {
        let node = ObjectRef::cluster_scoped("Node", &address.to_string());
        conditions.push(full(node, "tunnel packets to this node are not accepted".into()));
    }
    conditions
}
