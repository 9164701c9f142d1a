//! What comes after the maps: interfaces are taken and let go, and what is true now is told.

use super::{Agent, allocations::Allocations, replace, reporting::Contents, source::Source};
use crate::{
    apply::bpf,
    source::netlink::{Device, Network, Queries},
};
use std::sync::Arc;
use tracing::warn;
use weir_core::{model::Cluster, plan::Plan, standing::standings as standings_of};

impl Agent {
    pub(super) async fn settle_interfaces(
        &mut self,
        queries: &Queries,
        plan: &Arc<Plan>,
        network: &Arc<Network>,
        attach: bool,
    ) {
        let mut devices = list(queries).await;
        if attach {
            self.interfaces.attach(&mut self.dataplane, network, &devices);
            devices = list(queries).await;
            if let Err(problem) = self.tidy(network) {
                warn!(
                    problem = &problem as &dyn std::error::Error,
                    "what an earlier agent left is not all cleared; trying again"
                );
            }
            self.leave_standby(plan, network).await;
        }
        self.report(plan, network, &devices);
    }

    /// Ends what a take-over began: interfaces nobody asks for are let go, flows move.
    fn tidy(&mut self, network: &Network) -> Result<(), bpf::Error> {
        if let Some(devices) = self.interfaces.devices(network) {
            self.dataplane.keep_only(&devices)?;
        }
        if self.interfaces.all_taken_over() {
            self.dataplane.finish_move()?;
        }
        Ok(())
    }

    /// Tells the others how Eips stand here.
    pub(super) fn tell_standings(&self, plan: &Plan) {
        // What a node that is none says would be taken away again.
        let known = |cluster: &&Cluster| cluster.nodes.contains_key(&self.this.name);
        if let (Some(standings), Some(cluster)) = (&self.standings, self.cluster.as_ref().filter(known)) {
            let now = standings_of(
                cluster,
                &self.this,
                plan,
                self.conditions.current(),
                self.interfaces.any_attached(),
            );
            standings.should_be(now, cluster.nodes.len());
        }
    }

    /// Tells that nothing has been made true yet, what of the source is awaited, and what is wrong with it.
    pub(super) fn report_waiting(&mut self, source: &Source) {
        let awaited = source.awaited();
        let awaited = awaited.unwrap_or_else(|| "interfaces and next hops are not known yet".to_owned());
        let conditions = self.source_conditions.clone();
        if replace(&mut self.waiting, Some((awaited.clone(), conditions.clone()))) {
            self.conditions.replace(conditions.iter().cloned());
            self.reporting.waiting(awaited, conditions);
        }
    }

    fn report(&mut self, plan: &Arc<Plan>, network: &Arc<Network>, devices: &[Device]) {
        let Some(stepped) = &self.stepped else { return };
        let conditions = plan.conditions.iter().chain(stepped).cloned();
        let conditions = conditions.chain(self.interfaces.conditions());
        let conditions = conditions.chain(self.allocations.as_ref().and_then(Allocations::condition));
        let conditions = conditions.chain(self.source_conditions.iter().cloned());
        let conditions = conditions.chain(self.flow_table.condition());
        self.conditions.replace(conditions.chain(self.exposing.condition()));
        if self.reporting.may_begin() {
            self.reporting.begin(Contents {
                plan: plan.clone(),
                programmed: self.tables.programmed(),
                network: network.clone(),
                interfaces: self.interfaces.report(&self.dataplane, network, devices),
                conditions: self.conditions.current().cloned().collect(),
            });
        }
    }

    /// Reports what is true at the end, if that has not been.
    pub(super) async fn report_last(&mut self, queries: &Queries) {
        if self.reporting.last().await {
            self.report_late(queries).await;
            self.reporting.ended().await;
        }
    }

    /// Reports what was put off.
    pub(super) async fn report_late(&mut self, queries: &Queries) {
        let (Some(plan), Some(network)) = (self.plan.clone(), self.network.clone()) else {
            return;
        };
        self.report(&plan, &network, &list(queries).await);
    }
}

async fn list(queries: &Queries) -> Vec<Device> {
    queries.devices().await.unwrap_or_else(|problem| {
        warn!(
            problem = &problem as &dyn std::error::Error,
            "interfaces cannot be listed; trying again"
        );
        Vec::new()
    })
}
