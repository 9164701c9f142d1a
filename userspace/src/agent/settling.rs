//! What comes after the maps: interfaces are taken and let go, and what is true now is told.

use super::{Agent, RETRY, allocations::Allocations, replace, reporting::Contents, source::Source};
use crate::{
    apply::bpf,
    causes::error_text,
    source::netlink::{Network, Queries},
};
use std::sync::Arc;
use tracing::warn;
use weir_core::{
    model::{Cluster, Condition, ObjectRef},
    plan::{Plan, ThisNode},
    standing::standings as standings_of,
};

impl Agent {
    pub(super) async fn settle_interfaces(
        &mut self,
        queries: &Queries,
        plan: &Arc<Plan>,
        network: &Arc<Network>,
        attach: bool,
    ) {
        // What cannot be listed is not taken for missing: others would be told that nothing is served here.
        if self.list(queries).await && attach {
            self.interfaces.attach(&mut self.dataplane, network, &self.listed);
            self.list(queries).await;
            self.untidy = self.tidy(network).err().map(|problem| error_text(&problem));
            self.leave_standby(plan, network).await;
        }
        self.report(plan, network);
    }

    /// Lists the devices there are; whether that can be done.
    async fn list(&mut self, queries: &Queries) -> bool {
        let listed = queries.devices().await.inspect_err(|problem| {
            warn!(
                problem = problem as &dyn std::error::Error,
                "interfaces cannot be listed; trying again"
            );
        });
        listed.map(|devices| self.listed = devices).is_ok()
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
            if !self.reporting.waiting(awaited, conditions) {
                // It is told again.
                self.waiting = None;
            }
        }
    }

    fn report(&mut self, plan: &Arc<Plan>, network: &Arc<Network>) {
        let Some(stepped) = &self.stepped else { return };
        let conditions = plan.conditions.iter().chain(stepped).cloned();
        let conditions = conditions.chain(self.interfaces.conditions());
        let conditions = conditions.chain(self.allocations.as_ref().and_then(Allocations::condition));
        let conditions = conditions.chain(self.source_conditions.iter().cloned());
        let conditions = conditions
            .chain(self.flow_table.conditions())
            .chain(self.mirror.condition());
        let conditions = conditions.chain(self.untidy.as_ref().map(|problem| not_tidied(&self.this, problem)));
        let conditions = conditions.chain(self.reporting.condition(&self.this));
        let conditions = conditions.chain(self.health_checks.conditions());
        self.conditions.replace(conditions.chain(self.exposing.condition()));
        if self.reporting.may_begin() {
            self.reporting.begin(Contents {
                plan: plan.clone(),
                programmed: self.mirror.tables().programmed(),
                network: network.clone(),
                interfaces: self.interfaces.report(&self.dataplane, network, &self.listed),
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
        self.list(queries).await;
        self.report(&plan, &network);
    }
}

fn not_tidied(this: &ThisNode, problem: &str) -> Condition {
    let message = format!(
        "what an earlier agent left is not all cleared: {problem}. Services are served all the same, and it is tried again every \
         {} seconds; check that the files in the folder of --pin-dir can be removed.",
        RETRY.as_secs()
    );
    let object = ObjectRef::cluster_scoped("Node", &this.name);
    Condition::new(object, "--pin-dir", "NotTidied", message)
}
