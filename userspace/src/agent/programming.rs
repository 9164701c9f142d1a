//! From a plan to the maps.

use super::{Agent, RETRY};
use crate::{apply::bpf::config, source::netlink::Network};
use std::{net::IpAddr, time::Duration};
use tokio::time::Instant;
use tracing::debug;
use weir_core::{
    plan::Plan,
    tables::{self, Tables},
};

/// An adopted data path is left as it is until all next hops are known again, but no longer than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a step took out of use is cleared this much later; packets under way are gone in microseconds.
const SETTLE: Duration = Duration::from_millis(10);

impl Agent {
    /// Whether the first step would cut off nodes whose next hops are just being resolved.
    pub(super) fn should_wait(&mut self, network: &Network) -> bool {
        let known = network.wanted == *self.wanted.borrow() && network.reaches_all();
        let patience = *self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
        let wait = !known && Instant::now() < patience;
        self.wake_at = wait.then_some(patience);
        wait
    }

    pub(super) fn step_tables(&mut self, plan: &Plan, network: &Network) {
        let settings = tables::Settings {
            tunnel_port: self.settings.dataplane.tunnel_port,
            jiffies_per_second: config::jiffies_per_second(),
            now: self.started.elapsed().as_secs(),
            udp_idle: config::UDP.as_secs(),
        };
        let begun = Instant::now();
        let dataplane = &self.dataplane;
        let Some(tables) = self.mirror.right(|| dataplane.with_contents(Tables::adopt)) else {
            self.wake_at = Some(Instant::now() + RETRY);
            return;
        };
        tables.set_live(self.flow_table.live());
        tables.set_stack_flows(self.stack_flows.at());
        let step = tables.step(plan, &network.links, &settings);
        self.telemetry.stepped(begun.elapsed());
        let mss = config::mss(
            plan.tunnel_address,
            smallest_mtu(plan, network, &self.settings.interfaces),
        );
        let syn_mss = config::syn_mss(own_mtu(network, &self.settings.interfaces));
        let written = self
            .dataplane
            .set_mss(mss, syn_mss)
            .and_then(|()| self.dataplane.apply(&step.writes));
        let due = [
            step.unsettled.then_some(SETTLE),
            step.forget_in.map(Duration::from_secs),
        ];
        self.wake_at = due.into_iter().flatten().min().map(|time| Instant::now() + time);
        self.telemetry.set_programmed(written.is_ok());
        self.mirror.written(&written);
        if written.is_ok() {
            let changed = self.changed.take();
            if !step.writes.is_empty() {
                debug!(writes = step.writes.len(), time = ?begun.elapsed(), "programmed");
                changed.inspect(|seen| self.telemetry.programmed(*seen));
            }
        } else {
            // What is reported is what the maps hold, if that can be read.
            let dataplane = &self.dataplane;
            self.mirror.right(|| dataplane.with_contents(Tables::adopt));
            self.wake_at = Some(Instant::now() + RETRY);
        }
        self.stepped = Some(step.conditions);
    }
}

/// The smallest MTU on the way to another node; `None` when there is no other node.
fn smallest_mtu(plan: &Plan, network: &Network, interfaces: &[String]) -> Option<u16> {
    if plan.nodes.is_empty() {
        return None;
    }
    let next_hop = |address: &IpAddr| network.links.next_hops.get(address).map(|hop| hop.mtu);
    let own = own_mtu(network, interfaces);
    plan.nodes.values().filter_map(next_hop).chain(own).min()
}

/// The smallest MTU of this node's interfaces.
fn own_mtu(network: &Network, interfaces: &[String]) -> Option<u16> {
    let known = interfaces.iter().filter_map(|name| network.links.interfaces.get(name));
    known.map(|interface| interface.mtu).min()
}
