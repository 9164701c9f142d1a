//! Flows that the stack, kube-proxy that is, had before Weir drew the packets of their VIPs: it keeps them until they end.
//!
//! On a node where no agent was before, frontends stand by at first: the program is on the interfaces and leaves everything to
//! the stack, but notes what begins. Then connection tracking is asked what the stack had before, and packets are drawn, but for
//! those of the flows found and noted. Flows that connection tracking knows no more are forgotten; where none is left, nothing is
//! asked of a packet any more.

use super::Agent;
use crate::source::{
    conntrack::{self, TranslatedFlow},
    netlink::Network,
};
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::{debug, info, warn};
use weir_common::abi::{StackFlow, protocol};
use weir_core::{
    model::Protocol,
    plan::{FrontendKey, Plan},
    tables,
};

/// How often it may be asked which of them have ended.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// While none ends it is asked seldomer, up to so many intervals apart: the kernel goes through its whole table each time.
const SELDOM: u32 = 30;
/// How often connection tracking is asked before packets are drawn, if it does not answer.
const ATTEMPTS: u32 = 3;
/// A packet that met a frontend standing by is through after this.
const SETTLE: Duration = Duration::from_millis(10);

type Translated = Result<HashSet<TranslatedFlow>, conntrack::Error>;

/// What is known of them.
#[derive(Debug)]
pub struct StackFlows {
    at: tables::StackFlows,
    flows: BTreeSet<StackFlow>,
    under_way: Option<JoinHandle<Translated>>,
    /// Intervals between two questions, and those still to pass.
    pause: (u32, u32),
}

impl StackFlows {
    /// `flows` are those that an earlier agent left, of a node that stands by or not.
    #[must_use]
    pub fn new(stands_by: bool, flows: BTreeSet<StackFlow>) -> Self {
        let at = if stands_by {
            tables::StackFlows::Standby
        } else {
            at(&flows)
        };
        Self {
            at,
            flows,
            under_way: None,
            pause: (1, 0),
        }
    }

    /// Where the stack has flows.
    #[must_use]
    pub const fn at(&self) -> &tables::StackFlows {
        &self.at
    }

    /// Whether it is known which flows the stack has.
    const fn are_known(&self) -> bool {
        matches!(self.at, tables::StackFlows::At(_))
    }

    /// Begins to ask which have ended, if that is due and there are any. Needs a runtime.
    pub fn begin(&mut self) {
        if !self.are_known() || self.flows.is_empty() || self.under_way.is_some() {
            return;
        }
        let (_, left) = &mut self.pause;
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.under_way = Some(spawn_blocking(conntrack::translated));
        }
    }

    /// Waits for the answer, for ever if nothing is asked; gives those that have ended. May be dropped at any time.
    pub async fn ended(&mut self) -> Vec<StackFlow> {
        let Some(task) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let answer = task.await;
        self.under_way = None;
        let Some(translated) = known(answer) else {
            return Vec::new();
        };
        let there: BTreeSet<StackFlow> = translated.iter().map(stack_flow).collect();
        let ended: Vec<StackFlow> = self.flows.difference(&there).copied().collect();
        let (pause, _) = self.pause;
        let pause = if ended.is_empty() { (pause * 2).min(SELDOM) } else { 1 };
        self.pause = (pause, pause);
        ended
    }
}

impl Agent {
    /// Draws packets, if this node stands by for that, and its programs are where packets come in.
    pub(super) async fn leave_standby(&mut self, plan: &Plan, network: &Network) {
        if self.stack_flows.at != tables::StackFlows::Standby || !self.interfaces.any_attached() {
            return;
        }
        // What was noted long ago, while no agent was here to forget it, takes no room from what goes on.
        let noted = self.dataplane.stack_flows().all().unwrap_or_default();
        let translated = ask().await;
        let served = translated
            .iter()
            .filter(|flow| plan.frontends.contains_key(&frontend_of(flow)));
        let served: BTreeSet<StackFlow> = served.map(stack_flow).collect();
        let (mut lost, map) = (0, self.dataplane.stack_flows());
        for flow in noted.difference(&served) {
            if let Err(problem) = map.remove(flow) {
                debug!(
                    problem = &problem as &dyn std::error::Error,
                    "a flow that has ended is not forgotten"
                );
            }
        }
        for flow in &served {
            if let Err(problem) = map.add(flow) {
                debug!(
                    problem = &problem as &dyn std::error::Error,
                    "a flow that the stack has is not noted"
                );
                lost += 1;
            }
        }
        if lost > 0 {
            warn!(
                lost,
                "connections that kube-proxy had are more than can be noted; these break now"
            );
        }
        // From here on packets are drawn, and nothing is noted any more: only what is noted now is the stack's.
        self.stack_flows.at = tables::StackFlows::Anywhere;
        self.step_tables(plan, network);
        sleep(SETTLE).await;
        if self.find_stack_flows() {
            self.step_tables(plan, network);
        }
    }

    /// Finds out where the stack has flows, if it may be anywhere. Whether it is known now and another step is due.
    pub(super) fn find_stack_flows(&mut self) -> bool {
        if self.stack_flows.at != tables::StackFlows::Anywhere || !self.mirror.is_right() {
            return false;
        }
        match self.dataplane.stack_flows().all() {
            Ok(flows) => {
                if !flows.is_empty() {
                    info!(
                        flows = flows.len(),
                        "connections that kube-proxy had stay with it until they end"
                    );
                }
                self.stack_flows = StackFlows::new(false, flows);
                true
            }
            Err(problem) => {
                warn!(
                    problem = &problem as &dyn std::error::Error,
                    "it cannot be read which connections are kube-proxy's; trying again"
                );
                false
            }
        }
    }

    /// Forgets flows that have ended.
    pub(super) fn forget_stack_flows(&mut self, ended: &[StackFlow]) {
        if !self.stack_flows.are_known() {
            return;
        }
        for flow in ended {
            match self.dataplane.stack_flows().remove(flow) {
                Ok(()) => drop(self.stack_flows.flows.remove(flow)),
                Err(problem) => warn!(
                    problem = &problem as &dyn std::error::Error,
                    "a connection that kube-proxy had is not forgotten; trying again"
                ),
            }
        }
        let now = at(&self.stack_flows.flows);
        if self.stack_flows.at != now {
            if self.stack_flows.flows.is_empty() {
                info!("no connection that kube-proxy had is left");
            }
            self.stack_flows.at = now;
            self.restep = true;
        }
    }
}

/// What connection tracking translates; nothing if it does not say so.
async fn ask() -> HashSet<TranslatedFlow> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(INTERVAL / 10).await;
        }
        if let Some(translated) = known(spawn_blocking(conntrack::translated).await) {
            return translated;
        }
    }
    HashSet::new()
}

/// What connection tracking says, if it says something.
fn known(answer: Result<Translated, JoinError>) -> Option<HashSet<TranslatedFlow>> {
    match answer {
        Ok(Ok(translated)) => Some(translated),
        Ok(Err(problem)) => {
            warn!(
                problem = &problem as &dyn std::error::Error,
                "it is not known which connections kube-proxy has"
            );
            None
        }
        // One that panicked has said so.
        Err(_) => None,
    }
}

fn at(flows: &BTreeSet<StackFlow>) -> tables::StackFlows {
    let frontend = |flow: &StackFlow| {
        Some(FrontendKey {
            address: flow.vip.into(),
            port: u16::from_be_bytes(flow.vip_port),
            protocol: match flow.protocol {
                protocol::TCP => Protocol::Tcp,
                protocol::UDP => Protocol::Udp,
                _ => return None,
            },
        })
    };
    tables::StackFlows::At(flows.iter().filter_map(frontend).collect())
}

const fn frontend_of(flow: &TranslatedFlow) -> FrontendKey {
    FrontendKey {
        address: flow.destination.ip(),
        port: flow.destination.port(),
        protocol: flow.protocol,
    }
}

fn stack_flow(flow: &TranslatedFlow) -> StackFlow {
    StackFlow {
        client: flow.client.ip().into(),
        vip: flow.destination.ip().into(),
        client_port: flow.client.port().to_be_bytes(),
        vip_port: flow.destination.port().to_be_bytes(),
        protocol: match flow.protocol {
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
        },
        reserved: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: &str, destination: &str) -> TranslatedFlow {
        TranslatedFlow {
            client: client.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_flow_leads_back_to_its_frontend() {
        for destination in ["10.10.1.2:80", "[fd00::2]:80"] {
            let flow = flow("[2001:db8::1]:4711", destination);
            let frontends = [frontend_of(&flow)].into();
            assert_eq!(at(&[stack_flow(&flow)].into()), tables::StackFlows::At(frontends));
        }
    }

    #[tokio::test]
    async fn what_is_not_translated_any_more_has_ended() {
        let [gone, there] = ["203.0.113.7:1000", "203.0.113.7:1001"].map(|client| flow(client, "10.10.1.2:80"));
        let mut flows = StackFlows::new(false, [stack_flow(&gone), stack_flow(&there)].into());
        flows.under_way = Some(tokio::spawn(async move { Ok([there].into()) }));
        assert_eq!(flows.ended().await, [stack_flow(&gone)]);
        flows.under_way = Some(tokio::spawn(async { Err(conntrack::Error::NotPermitted) }));
        assert_eq!(flows.ended().await, [], "who does not know, forgets nothing");
    }

    #[tokio::test]
    async fn who_stands_by_asks_for_no_end() {
        let noted = || [stack_flow(&flow("203.0.113.7:1000", "10.10.1.2:80"))].into();
        let mut flows = StackFlows::new(true, noted());
        flows.begin();
        assert!(flows.under_way.is_none() && *flows.at() == tables::StackFlows::Standby);
        let mut flows = StackFlows::new(false, noted());
        flows.begin();
        assert!(flows.under_way.is_some());
    }

    #[tokio::test]
    async fn the_longer_none_ends_the_seldomer_it_is_asked() {
        let there = flow("203.0.113.7:1000", "10.10.1.2:80");
        let mut flows = StackFlows::new(false, [stack_flow(&there)].into());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            flows.under_way = Some(tokio::spawn(async move { Ok([there].into()) }));
            flows.ended().await;
            pauses.push(flows.pause.0);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30]);
    }
}
