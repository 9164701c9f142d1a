//! Which pods the EndpointSlices list, and how, at each moment.

use super::pods::port;
use crate::lab::{
    FAMILIES, Lab, Pod,
    address::vip,
    manifests::{Endpoint, HTTP, Service},
};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Last part of the first VIP's address.
const FIRST_VIP: u8 = 10;

/// The Services, which all have the same pods, and those pods.
#[derive(Debug)]
pub struct Members {
    services: Vec<Service>,
    pods: Vec<Pod>,
    /// By place in `pods`; absent ones are in no slice.
    listed: Mutex<BTreeMap<usize, Endpoint>>,
}

impl Members {
    /// `services` Services over `pods`, none of which is listed yet.
    #[must_use]
    pub fn new(services: u16, pods: Vec<Pod>) -> Self {
        let service = |number| {
            Service::new(&format!("web-{number}"))
                .at(FAMILIES.map(|family| vip(family, FIRST_VIP + number as u8)))
                .leading_to(port(number))
        };
        Self {
            services: (0..services).map(service).collect(),
            pods,
            listed: Mutex::default(),
        }
    }

    /// VIPs and ports of all Services, both families.
    #[must_use]
    pub fn targets(&self) -> Vec<SocketAddr> {
        let addresses =
            (0..self.services.len() as u8).flat_map(|number| FAMILIES.map(|family| vip(family, FIRST_VIP + number)));
        addresses.map(|address| SocketAddr::new(address, HTTP)).collect()
    }

    /// Number of pods there are, listed or not.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Changes what is listed and writes the slices of all nodes.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn change(&self, lab: &Lab, change: impl FnOnce(&mut BTreeMap<usize, Endpoint>)) -> Result<()> {
        // Held while writing: of two changes the later one must be the one that stays.
        let mut listed = self.listed();
        change(&mut listed);
        let states: Vec<(&Pod, Endpoint)> = listed
            .iter()
            .map(|(&place, &state)| (&self.pods[place], state))
            .collect();
        let yaml = self
            .services
            .iter()
            .map(|service| service.yaml() + &service.endpoints_in_states(&states));
        lab.apply("services.yaml", &yaml.collect::<String>())
    }

    /// How many pods are listed as `state`.
    #[must_use]
    pub fn count(&self, state: Endpoint) -> usize {
        self.listed().values().filter(|&&listed| listed == state).count()
    }

    fn listed(&self) -> MutexGuard<'_, BTreeMap<usize, Endpoint>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
