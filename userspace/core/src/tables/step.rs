//! One step: from what the tables hold to what a plan wants, in order.

use super::{
    LivePod, Settings, Step, Tables, Write, announced,
    frontends::Outcome,
    key::Key,
    refusal::{Refusal, refused, without_interface},
    wanted::{Basis, Role, Wanted, WantedFrontend, members},
};
use crate::{
    SharedMap,
    links::Links,
    model::{Condition, ObjectRef},
    plan::Plan,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weir_common::abi::{kind, protocol};

/// The keys that a step looks at, with what each is to be.
type Touched = BTreeMap<Key, Option<Role>>;

impl Tables {
    /// Takes over which pods of this node have flows that go on. The next step keeps what their replies are looked up by,
    /// though neither the plan nor a row names them any more.
    pub fn set_live<'a>(&mut self, pods: impl IntoIterator<Item = &'a LivePod>) {
        self.backends.set_live(pods.into_iter().map(Key::from).collect());
    }

    /// The writes that lead from what the maps hold to `plan`, in the order in which they must be carried out.
    ///
    /// The tables take it that the writes are carried out; where that fails, read the maps again ([`Tables::adopt`]).
    #[must_use = "the tables take it that the writes are carried out"]
    pub fn step(&mut self, plan: &Plan, links: &Links, settings: &Settings) -> Step {
        let mut step = Step {
            writes: std::mem::take(&mut self.repairs),
            ..Step::default()
        };
        self.release(&mut step.writes);
        self.nodes.update(plan, links, &mut step.writes, &mut step.conditions);
        let touched = self.enter_plan(plan, settings);
        self.enter_backends(&touched, &mut step);
        let no_room = self.make_room(&touched, plan, &mut step);
        self.enter_support(&touched, &mut step.writes);
        self.enter_frontends(&touched, &no_room, settings, &mut step);
        let no_longer = self.announce(plan, links, &mut step);
        self.remove_unwanted(&touched, &no_longer, plan, &mut step.writes);
        self.remember_lacking(touched, no_longer);
        step.conditions.sort();
        step.conditions.dedup();
        step.unsettled = self.unsettled();
        step
    }

    /// Takes over the plan; gives the keys to be looked at, with what each is to be.
    fn enter_plan(&mut self, plan: &Plan, settings: &Settings) -> Touched {
        let basis = self.basis(plan, settings);
        let mut touched = std::mem::take(&mut self.lacking);
        if std::mem::take(&mut self.unknown) || *self.wanted.basis() != basis {
            touched.extend(basis.tunnel.iter().chain(&basis.peers));
            touched.extend(
                self.directory
                    .keys()
                    .chain(self.backends.keys())
                    .chain(self.frontends.keys()),
            );
            self.wanted = Wanted::new(basis);
        }
        touched.extend(self.wanted.enter(plan));
        self.wanted.roles(touched)
    }

    fn basis(&self, plan: &Plan, settings: &Settings) -> Basis {
        let tunnel = |address| Key::socket(address, settings.tunnel_port, protocol::UDP);
        let id = |(name, address): (&String, &IpAddr)| Some((name.clone(), self.nodes.id(&(*address).into())?));
        Basis {
            tunnel: plan.tunnel_address.map(tunnel),
            peers: plan.nodes.values().map(|address| Key::address(*address)).collect(),
            nodes: plan.nodes.iter().filter_map(id).collect(),
            jiffies_per_second: settings.jiffies_per_second,
        }
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

    fn enter_backends(&mut self, touched: &Touched, step: &mut Step) {
        let without_id = self.backends.update(touched.keys(), &self.wanted, &mut step.writes);
        if without_id.is_empty() {
            return;
        }
        for WantedFrontend { name, frontend, .. } in self.wanted.frontends.values() {
            let serving = members(frontend).into_iter().map(|(key, _)| key);
            let all = serving.chain(frontend.draining.keys().map(Key::from));
            let left_out = all.filter(|key| without_id.contains(key)).count();
            if left_out > 0 {
                let what = format!("{left_out} backends of {name} are left out");
                let service = ObjectRef::service(&frontend.service);
                step.conditions.push(refused(service, Refusal::Backends, what));
            }
        }
    }

    /// Makes room in the directory for all keys, those that others rely on first; gives those that find none.
    fn make_room(&mut self, touched: &Touched, plan: &Plan, step: &mut Step) -> BTreeSet<Key> {
        let mut keys: Vec<(Role, Key)> = touched
            .iter()
            .filter_map(|(key, role)| Some(((*role)?, *key)))
            .collect();
        keys.retain(|(role, key)| self.can_enter(*role, key));
        keys.sort_unstable();
        let no_room = self
            .directory
            .reserve(keys.into_iter().map(|(_, key)| key), &mut step.writes);
        if !no_room.is_empty() {
            step.conditions
                .extend(without_room(self.wanted.basis(), plan, &no_room));
        }
        no_room
    }

    /// Whether what a key's entry names has an id.
    fn can_enter(&self, role: Role, key: &Key) -> bool {
        match role {
            Role::Peer => self.nodes.id(&key.address).is_some(),
            Role::Backend => self.backends.id(key).is_some(),
            Role::Tunnel | Role::Frontend | Role::Vip => true,
        }
    }

    /// The entries that others rely on: a backend's reply is looked up as soon as a row leads to it.
    fn enter_support(&mut self, touched: &Touched, writes: &mut Vec<Write>) {
        for (key, role) in touched {
            let (kind, id) = match role {
                Some(Role::Tunnel) => (kind::TUNNEL, Some(0)),
                Some(Role::Peer) => (kind::PEER, self.nodes.id(&key.address)),
                Some(Role::Backend) => (kind::BACKEND, self.backends.id(key)),
                Some(Role::Frontend | Role::Vip) | None => continue,
            };
            if let Some(id) = id {
                self.directory.set(key.entry(kind, id), writes);
            }
        }
    }

    /// Frontends with their rows, then the VIPs.
    fn enter_frontends(&mut self, touched: &Touched, no_room: &BTreeSet<Key>, settings: &Settings, step: &mut Step) {
        let directory = &mut self.directory;
        let mut outcome = Outcome {
            writes: &mut step.writes,
            conditions: &mut step.conditions,
        };
        self.frontends.update(
            (&self.wanted, touched),
            &self.backends,
            |key| !no_room.contains(key),
            settings,
            &mut outcome,
            |entry, writes| directory.set(entry, writes),
        );
        step.forget_in = self.frontends.forget_in(settings);
        for (key, _) in touched.iter().filter(|(_, role)| **role == Some(Role::Vip)) {
            if self.frontends.served().contains_key(&key.address) {
                directory.set(key.entry(kind::VIP, 0), &mut step.writes);
            }
        }
    }

    /// Opens filter and responders for what is there now, and closes them for what is about to go. Gives the keys of the
    /// addresses at which nothing is served any more.
    fn announce(&mut self, plan: &Plan, links: &Links, step: &mut Step) -> Vec<Key> {
        let tunnel = self
            .wanted
            .basis()
            .tunnel
            .filter(|key| self.directory.kind(key).is_some());
        let basis = announced::Basis {
            tunnel: tunnel.map(|key| key.address),
            served: self.frontends.served().clone(),
            // Who stands by draws nothing that goes elsewhere now.
            vips: if self.frontends.stack().stands_by() {
                SharedMap::new()
            } else {
                plan.vips.clone()
            },
            links: links.clone(),
        };
        let no_longer = self.announced.no_longer_served(&basis);
        self.announced.update(basis, &mut step.conditions, &mut step.writes);
        step.conditions.extend(without_interface(plan, links));
        no_longer
    }

    /// Takes out what the plan does not want, what packets meet first going first.
    fn remove_unwanted(&mut self, touched: &Touched, no_longer: &[Key], plan: &Plan, writes: &mut Vec<Write>) {
        // Rows first: what they remember decides which backends stay.
        self.frontends.sweep(touched.keys(), &self.wanted);
        if self.backends.scarce() {
            self.frontends.forget(writes);
        }
        let unused = self.backends.unused(&self.frontends);
        let role = |key: &Key| touched.get(key).copied().unwrap_or_else(|| self.wanted.role(key));
        let stays = |key: &Key| match role(key) {
            Some(Role::Frontend) => self.frontends.id(key).is_some(),
            Some(Role::Vip) => self.announced.serves(&key.address),
            Some(_) => true,
            // A pod taken out of its Service may live on, and its flows' replies with it. The entry may have become that of a
            // VIP at the pod's address since.
            None => {
                self.directory.kind(key) == Some(kind::BACKEND)
                    && self.backends.is_remembered_here(key, &self.frontends)
            }
        };
        let looked_at = touched.keys().chain(no_longer).chain(&unused).filter(|key| !stays(key));
        let gone: BTreeSet<(u8, Key)> = looked_at
            .filter_map(|key| Some((self.directory.kind(key)?, *key)))
            .collect();
        for (_, key) in gone {
            self.directory.remove(&key, writes);
        }
        self.backends.remove(&unused);
        self.nodes.sweep(plan, || self.backends.nodes());
    }

    /// What is wanted and could not be had is looked at again in the next step.
    fn remember_lacking(&mut self, mut touched: Touched, no_longer: Vec<Key>) {
        touched.extend(no_longer.into_iter().map(|key| (key, self.wanted.role(&key))));
        let lacks = |(key, role): &(Key, Option<Role>)| {
            let without_entry = role.is_some() && self.directory.kind(key).is_none();
            without_entry || self.backends.id(key).is_none() && self.wanted.backend(key).is_some()
        };
        self.lacking = touched.into_iter().filter(lacks).map(|(key, _)| key).collect();
    }
}

/// Names everything that found no room in the directory.
fn without_room(basis: &Basis, plan: &Plan, keys: &BTreeSet<Key>) -> Vec<Condition> {
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
        if keys.contains(&Key::address(*address)) {
            let eip = ObjectRef::cluster_scoped("Eip", &vip.eip);
            conditions.push(full(eip, format!("echo requests to {address} are not answered")));
        }
    }
    for (name, address) in &plan.nodes {
        if keys.contains(&Key::address(*address)) {
            let node = ObjectRef::cluster_scoped("Node", name);
            conditions.push(full(node, format!("tunnel packets from {name} are not accepted")));
        }
    }
    if let Some(address) = plan
        .tunnel_address
        .filter(|_| basis.tunnel.is_some_and(|key| keys.contains(&key)))
    {
        let node = ObjectRef::cluster_scoped("Node", &address.to_string());
        conditions.push(full(node, "tunnel packets to this node are not accepted".into()));
    }
    conditions
}
