//! From a snapshot to families of metrics. Pure: which names and labels there are is decided here and nowhere else.

use super::snapshot::Snapshot;
use crate::{
    apply::bpf::sweep::STATES,
    report::{BackendReport, BackendState, FrontendReport},
};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};
use std::{collections::BTreeMap, fmt};
use weir_common::verdict::Reason;
use weir_core::model::Protocol;

/// One family under way: gives each member its labels and value.
pub(crate) struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
}

impl<'a> Family<'a> {
    pub(crate) fn counter(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
    ) -> Result<Self, fmt::Error> {
        Self::new(encoder, name, help, MetricType::Counter)
    }

    pub(crate) fn gauge(encoder: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Result<Self, fmt::Error> {
        Self::new(encoder, name, help, MetricType::Gauge)
    }

    /// What only ever grows, under a name that does not say so (counters' names end in `_total`).
    fn untyped(encoder: &'a mut DescriptorEncoder<'_>, name: &'a str, help: &str) -> Result<Self, fmt::Error> {
        Self::new(encoder, name, help, MetricType::Unknown)
    }

    fn new(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
        kind: MetricType,
    ) -> Result<Self, fmt::Error> {
        Ok(Self {
            encoder: encoder.encode_descriptor(name, help, None, kind)?,
            kind,
        })
    }

    pub(crate) fn put(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        Self::encode(self.encoder.encode_family(labels)?, self.kind, value)
    }

    /// The only member, without labels.
    pub(crate) fn put_alone(self, value: u64) -> fmt::Result {
        Self::encode(self.encoder, self.kind, value)
    }

    fn encode(mut member: MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
        match kind {
            MetricType::Counter => member.encode_counter::<NoLabelSet, _, u64>(&value, None),
            _ => member.encode_gauge(&value),
        }
    }
}

/// Writes all families.
///
/// # Errors
///
/// When the text cannot be written.
pub fn encode(snapshot: &Snapshot, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let encoder = &mut encoder;
    agent(snapshot, encoder)?;
    state(snapshot, encoder)?;
    fill(snapshot, encoder)?;
    reasons(snapshot, encoder)?;
    frontends(snapshot, encoder)?;
    backends(snapshot, encoder)
}

/// Writes those families of OpenELB's speaker that have a true value, without its label `ip`: what is counted is counted for
/// all VIPs together. A request that is not answered here is for another node to answer, and is not counted by OpenELB
/// either.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_openelb(snapshot: &Snapshot, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let encoder = &mut encoder;
    let answers = [Reason::ArpReply, Reason::NeighborAdvertisement];
    let answers = answers
        .map(|reason| snapshot.counts.reason(reason).packets)
        .iter()
        .sum();
    let help = "ARP requests and neighbour solicitations for VIPs that this node answers for";
    Family::untyped(encoder, "requests_received", help)?.put_alone(answers)?;
    Family::untyped(encoder, "responses_sent", "Answers to them")?.put_alone(answers)
}

fn agent(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let report = &snapshot.report;
    let layout = report.layout_version.to_string();
    let build = [("version", report.version.as_str()), ("layout", &layout)];
    Family::gauge(encoder, "build_info", "Version of the agent and of its map layout")?.put(&build, 1)?;
    let started = "When the agent started, in seconds since 1970";
    Family::gauge(encoder, "agent_start_time_seconds", started)?.put_alone(report.started)?;
    let starts = "Agents that have started with this state folder";
    Family::counter(encoder, "agent_starts", starts)?.put_alone(report.starts)?;
    let adoptions = "Agents among them that went on with the data path of an earlier one";
    Family::counter(encoder, "agent_adoptions", adoptions)?.put_alone(report.adoptions)
}

fn state(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let report = &snapshot.report;
    let help = "1 for the way XDP runs on an interface: native, generic or off";
    let mut family = Family::gauge(encoder, "interface_xdp_mode", help)?;
    for interface in &report.interfaces {
        let now = interface.xdp_mode.map_or("off", |mode| mode.name());
        for mode in ["native", "generic", "off"] {
            family.put(
                &[("interface", interface.name.as_str()), ("mode", mode)],
                u64::from(mode == now),
            )?;
        }
    }
    let mut conditions: BTreeMap<&str, u64> = BTreeMap::new();
    for condition in &report.conditions {
        *conditions.entry(&condition.reason).or_default() += 1;
    }
    let mut family = Family::gauge(encoder, "conditions", "Conditions that stand, by reason")?;
    for (reason, count) in conditions {
        family.put(&[("reason", reason)], count)?;
    }
    let mut family = Family::gauge(
        encoder,
        "node_reachable",
        "Whether the next hop to another node is known",
    )?;
    for node in &report.nodes {
        family.put(&[("node", node.name.as_str())], u64::from(node.reachable))?;
    }
    let mut family = Family::gauge(encoder, "vip_owned", "Whether this node answers for a VIP")?;
    for vip in &report.vips {
        let address = vip.address.to_string();
        family.put(&[("vip", address.as_str()), ("eip", &vip.eip)], u64::from(vip.owned))?;
    }
    Ok(())
}

fn fill(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let maps = &snapshot.fill.maps;
    let mut family = Family::gauge(encoder, "map_entries", "Entries in use, by map")?;
    for map in maps {
        family.put(&[("map", map.map)], map.entries)?;
    }
    let mut family = Family::gauge(encoder, "map_capacity", "Room for entries, by map")?;
    for map in maps {
        family.put(&[("map", map.map)], map.capacity)?;
    }
    let help = "Flows of this node's backends within their time limit, by state";
    let mut family = Family::gauge(encoder, "flows", help)?;
    for ((_, state), count) in STATES.iter().zip(snapshot.fill.flows.live) {
        family.put(&[("state", *state)], count)?;
    }
    Ok(())
}

fn reasons(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = Family::counter(encoder, "packets", "Packets seen, by reason of what was done with them")?;
    for reason in Reason::ALL {
        family.put(&[("reason", reason.name())], snapshot.counts.reason(*reason).packets)?;
    }
    let mut family = Family::counter(encoder, "bytes", "Bytes of the frames of these packets")?;
    for reason in Reason::ALL {
        family.put(&[("reason", reason.name())], snapshot.counts.reason(*reason).bytes)?;
    }
    Ok(())
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn frontends(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let all: Vec<(&FrontendReport, String, String)> = snapshot
        .report
        .frontends
        .iter()
        .map(|frontend| (frontend, frontend.address.to_string(), frontend.port.to_string()))
        .collect();
    let put = |family: &mut Family<'_>, value: &dyn Fn(&FrontendReport) -> Option<u64>| {
        for (frontend, vip, port) in &all {
            let Some(value) = value(frontend) else { continue };
            let labels = [
                ("namespace", frontend.service.namespace.as_str()),
                ("service", &frontend.service.name),
                ("vip", vip),
                ("port", port),
                ("protocol", protocol(frontend.protocol)),
            ];
            family.put(&labels, value)?;
        }
        fmt::Result::Ok(())
    };
    let counts = &snapshot.counts;
    let help = "Packets from clients for which this node chose a backend, by frontend";
    put(&mut Family::counter(encoder, "frontend_packets", help)?, &|frontend| {
        Some(counts.frontend(frontend.id).packets)
    })?;
    let help = "Bytes of these packets from the IP header on";
    put(&mut Family::counter(encoder, "frontend_bytes", help)?, &|frontend| {
        Some(counts.frontend(frontend.id).bytes)
    })?;
    let help = "TCP connection attempts (SYN without ACK) among these packets";
    put(
        &mut Family::counter(encoder, "frontend_new_flows", help)?,
        &|frontend| (frontend.protocol == Protocol::Tcp).then(|| counts.frontend(frontend.id).syns),
    )?;
    let help = "Whether a frontend is in the maps";
    put(&mut Family::gauge(encoder, "frontend_programmed", help)?, &|frontend| {
        Some(u64::from(frontend.id.is_some()))
    })?;
    let help = "Backends of a frontend that get new flows";
    put(
        &mut Family::gauge(encoder, "frontend_serving_backends", help)?,
        &|frontend| {
            let serving = |backend: &&BackendReport| backend.state == BackendState::Serving;
            Some(frontend.backends.iter().filter(serving).count() as u64)
        },
    )
}

/// Backends that something was counted for, each once: a counter is the backend's, however many frontends share it.
fn backends(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let counts = &snapshot.counts;
    let mut all: BTreeMap<u32, (&FrontendReport, &BackendReport)> = BTreeMap::new();
    for frontend in &snapshot.report.frontends {
        for backend in &frontend.backends {
            let count = counts.backend(backend.id);
            if let Some(id) = backend.id.filter(|_| count.packets > 0 || count.flows > 0) {
                all.entry(id).or_insert((frontend, backend));
            }
        }
    }
    let all: Vec<_> = all
        .into_iter()
        .map(|(id, (frontend, backend))| {
            (
                id,
                frontend,
                backend,
                backend.address.to_string(),
                backend.port.to_string(),
            )
        })
        .collect();
    let put = |family: &mut Family<'_>, value: &dyn Fn(u32, &BackendReport) -> Option<u64>| {
        for (id, frontend, backend, address, port) in &all {
            let Some(value) = value(*id, backend) else { continue };
            let labels = [
                ("namespace", frontend.service.namespace.as_str()),
                ("service", &frontend.service.name),
                ("backend", address),
                ("port", port),
                ("protocol", protocol(frontend.protocol)),
                ("node", &backend.node),
            ];
            family.put(&labels, value)?;
        }
        fmt::Result::Ok(())
    };
    let help = "Packets that this node, having chosen the backend, gave to it or sent to its node";
    put(&mut Family::counter(encoder, "backend_packets", help)?, &|id, _| {
        Some(counts.backend(Some(id)).packets)
    })?;
    let help = "Bytes of these packets from the IP header on";
    put(&mut Family::counter(encoder, "backend_bytes", help)?, &|id, _| {
        Some(counts.backend(Some(id)).bytes)
    })?;
    let help = "Flows noted for a backend of this node, whichever node chose it";
    put(
        &mut Family::counter(encoder, "backend_new_flows", help)?,
        &|id, backend| backend.local.then(|| counts.backend(Some(id)).flows),
    )
}
