//! Controllers at work: what they know, and one write after the other.

use crate::{
    checks::{AskedAt, check_not_doubled, check_sticky},
    server::Server,
};
use proptest::prelude::*;
use weir_core::{
    controller::{Action, Fresh, Freshness, World, plan},
    model::Cluster,
};

/// One controller: how old its views are, and what it is about to do.
#[derive(Default)]
pub struct Controller {
    pub services: usize,
    pub eips: usize,
    freshness: Freshness,
    world: World,
    pub todo: Vec<Action>,
    /// Whether the Eips have been found to be those of `world`.
    confirmed: Option<bool>,
    /// The state of the Eips that `world` is of.
    planned_from: usize,
}

impl Controller {
    /// One that has seen all there is.
    pub fn started(server: &Server) -> Self {
        Self {
            services: server.services.len() - 1,
            eips: server.eips.len() - 1,
            ..Self::default()
        }
    }

    /// What it knows that objects ask for.
    pub fn cluster(&self, server: &Server) -> Cluster {
        let (services, eips) = (&server.services[self.services], &server.eips[self.eips]);
        Cluster {
            services: services
                .iter()
                .map(|(key, (service, _))| (key.clone(), service.clone().into()))
                .collect(),
            eips: eips
                .iter()
                .map(|(name, (eip, _))| (name.clone(), eip.clone()))
                .collect(),
            rules: server.rules.clone(),
            ..Cluster::default()
        }
    }

    fn world(&self, server: &Server, give: bool) -> World {
        let (services, eips) = (&server.services[self.services], &server.eips[self.eips]);
        let cluster = self.cluster(server);
        let services = services
            .iter()
            .map(|(key, (_, object))| (key.clone(), object.clone()))
            .collect();
        let eips = eips
            .iter()
            .map(|(name, (_, object))| (name.clone(), object.clone()))
            .collect();
        World::new(cluster, services, eips, give)
    }

    /// Decides what to do by what it knows.
    pub fn plan(&mut self, server: &Server) {
        let fresh = self.freshness.observe(&self.world(server, false));
        self.world = self.world(server, fresh == Fresh::Yes);
        self.todo = plan(&self.world).actions;
        self.todo.reverse();
        self.confirmed = None;
        self.planned_from = self.eips;
    }

    /// Reads what the server has.
    pub fn read_services(&mut self, server: &Server) {
        let world = self.world(server, false);
        self.freshness.observe(&world);
        let now = server.now().0.iter();
        let now = now
            .map(|(key, (_, object))| (key.clone(), object.resource_version.clone()))
            .collect();
        self.freshness.listed(&world, now);
    }

    /// Makes the next write of what it has planned, with the look at the Eips before it if it takes one.
    pub fn write(&mut self, server: &mut Server) -> Result<bool, TestCaseError> {
        let looked = self.confirmed.is_some();
        let changed = self.act(server)?;
        if !looked && self.confirmed.is_some() {
            return self.act(server);
        }
        Ok(changed)
    }

    /// Does the next thing of what it has planned; gives whether it changed anything.
    pub fn act(&mut self, server: &mut Server) -> Result<bool, TestCaseError> {
        let Some(action) = self.todo.pop() else {
            return Ok(false);
        };
        let (services, eips) = server.now();
        match action {
            Action::Show {
                service,
                resource_version,
                addresses,
                ..
            } => {
                let Some(confirmed) = self.confirmed else {
                    let now = eips
                        .iter()
                        .map(|(name, (_, object))| (name.as_str(), object.resource_version.as_str()));
                    self.confirmed = Some(now.eq(self.world.eip_versions()));
                    self.todo.push(Action::Show {
                        service,
                        resource_version,
                        addresses,
                        events: Vec::new(),
                    });
                    return Ok(true);
                };
                let current = services
                    .get(&service)
                    .filter(|(_, it)| it.resource_version == resource_version);
                let Some((before, _)) = current.filter(|_| confirmed) else {
                    return Ok(false);
                };
                // An Eip may have shrunk, and grown again since the look at the Eips.
                let known = [&server.eips[self.planned_from], server.now().1];
                check_sticky(&service, before, &addresses, known, &server.rules)?;
                server.change_service(&service, |service, _| service.ingress = addresses);
            }
            Action::Mark {
                service,
                resource_version,
                eip,
                ..
            } => {
                if services
                    .get(&service)
                    .is_none_or(|(_, it)| it.resource_version != resource_version)
                {
                    return Ok(false);
                }
                server.change_service(&service, |service, object| {
                    object.finalizer = eip.is_some();
                    service.label.clone_from(&eip);
                    object.label = eip;
                });
            }
            Action::Guard {
                eip,
                resource_version,
                finalizer,
            } => {
                if eips
                    .get(&eip)
                    .is_none_or(|(_, it)| it.resource_version != resource_version)
                {
                    return Ok(false);
                }
                server.change_eip(&eip, |_, object| object.finalizer = finalizer);
            }
            Action::Record {
                eip,
                resource_version,
                status,
            } => {
                if eips
                    .get(&eip)
                    .is_none_or(|(_, it)| it.resource_version != resource_version)
                {
                    return Ok(false);
                }
                server.change_eip(&eip, |_, object| object.status = status);
            }
        }
        Ok(true)
    }
}

/// Runs one controller until nothing is left to write.
pub fn settle(server: &mut Server, had_asked: &mut AskedAt) -> Result<(), TestCaseError> {
    let mut controller = Controller::started(server);
    for _ in 0..60 {
        controller.services = server.services.len() - 1;
        controller.eips = server.eips.len() - 1;
        controller.read_services(server);
        controller.plan(server);
        if controller.todo.is_empty() {
            return Ok(());
        }
        while !controller.todo.is_empty() {
            controller.act(server)?;
            check_not_doubled(server.now().0, had_asked)?;
        }
    }
    controller.plan(server);
    prop_assert!(false, "no end: {:?}", controller.todo);
    Ok(())
}
