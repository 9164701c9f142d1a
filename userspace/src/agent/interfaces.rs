//! Keeps the programs on the interfaces asked for, as interfaces come and go.

use crate::{
    apply::bpf::{Dataplane, attach::AttachError},
    causes::error_text,
    report::{InterfaceReport, XdpModeName},
    source::netlink::{Device, Network},
};
use std::collections::{BTreeMap, BTreeSet};
use weir_core::model::{Condition, ObjectRef, reason};

/// The interfaces asked for and how they are.
#[derive(Debug)]
pub struct Interfaces {
    names: Vec<String>,
    /// The devices of the last attempt.
    seen: BTreeMap<String, Device>,
    failures: BTreeMap<String, Failure>,
    attempted: bool,
}

#[derive(Debug)]
enum Failure {
    Missing,
    Attach(AttachError),
}

impl Interfaces {
    /// For these names; each once, however often it is given.
    #[must_use]
    pub fn new(mut names: Vec<String>) -> Self {
        let mut known = BTreeSet::new();
        names.retain(|name| known.insert(name.clone()));
        Self {
            names,
            seen: BTreeMap::new(),
            failures: BTreeMap::new(),
            attempted: false,
        }
    }

    /// Whether an attempt may do something: the first, devices that changed, or an earlier failure.
    #[must_use]
    pub fn due(&self, network: &Network, retry: bool) -> bool {
        !self.attempted || self.seen != network.devices || retry && !self.failures.is_empty()
    }

    /// Attaches where it is needed. `devices` are those of now, `network` names the device of each interface.
    pub fn attach(&mut self, dataplane: &mut Dataplane, network: &Network, devices: &[Device]) {
        self.attempted = true;
        self.seen.clone_from(&network.devices);
        self.failures.clear();
        for name in &self.names {
            let device = network.device_of(name).and_then(|device| {
                devices
                    .iter()
                    .find(|now| now.name == device.name && now.ifindex == device.ifindex)
            });
            let failure = match device {
                None => Failure::Missing,
                Some(device) => match dataplane.attach(device) {
                    Ok(()) => continue,
                    Err(error) => Failure::Attach(error),
                },
            };
            self.failures.insert(name.clone(), failure);
        }
    }

    /// Whether no interface still runs an earlier agent's program because this one's was refused.
    #[must_use]
    pub fn all_taken_over(&self) -> bool {
        !self
            .failures
            .values()
            .any(|failure| matches!(failure, Failure::Attach(_)))
    }

    /// Whether the program is on one of them, by the last attempt.
    #[must_use]
    pub fn any_attached(&self) -> bool {
        self.attempted && self.failures.len() < self.names.len()
    }

    /// The devices of all interfaces; `None` while one is missing.
    #[must_use]
    pub fn devices<'a>(&self, network: &'a Network) -> Option<BTreeSet<&'a str>> {
        self.names
            .iter()
            .map(|name| network.device_of(name).map(|device| device.name.as_str()))
            .collect()
    }

    /// What is wrong with them.
    pub fn conditions(&self) -> impl Iterator<Item = Condition> {
        self.failures.iter().map(|(name, failure)| {
            let object = ObjectRef::cluster_scoped("Interface", name);
            let (reason, message) = match failure {
                Failure::Missing => (
                    reason::INTERFACE_MISSING,
                    format!("there is no interface {name}; it is taken as soon as it appears. Check --interface."),
                ),
                Failure::Attach(error) => (error.reason(), error_text(error)),
            };
            Condition::new(object, "--interface", reason, message)
        })
    }

    /// How each interface is, by what the kernel says of `devices`.
    #[must_use]
    pub fn report(&self, dataplane: &Dataplane, network: &Network, devices: &[Device]) -> Vec<InterfaceReport> {
        let report = |name: &String| {
            let interface = network.links.interfaces.get(name);
            let device = network.device_of(name);
            let now = device.and_then(|device| devices.iter().find(|now| now.ifindex == device.ifindex));
            let ours = now
                .and_then(|now| now.xdp)
                .filter(|xdp| xdp.program == dataplane.ingress_id());
            InterfaceReport {
                name: name.clone(),
                device: device.map(|device| device.name.clone()),
                ifindex: device.map(|device| device.ifindex),
                vlan: interface.map_or(0, |interface| interface.vlan),
                xdp_mode: ours.map(|xdp| {
                    if xdp.native {
                        XdpModeName::Native
                    } else {
                        XdpModeName::Generic
                    }
                }),
            }
        };
        self.names.iter().map(report).collect()
    }
}
