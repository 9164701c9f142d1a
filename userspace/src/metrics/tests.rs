//! What is exposed, and that the page about it says the same.

use super::{families, snapshot::Snapshot, *};
use crate::{
    apply::bpf::{
        counters::Counts,
        fill::{Fill, MapFill},
    },
    report::{BackendReport, BackendState, FrontendReport, InterfaceReport, NodeReport, VipReport, XdpModeName},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
};
use std::{collections::BTreeMap, fmt};
use weir_common::{
    abi::{BackendCounter, Counter, FrontendCounter},
    verdict::Reason,
};
use weir_core::model::{Condition, Mode, ObjectRef, Protocol};

fn backend(number: u8, local: bool) -> BackendReport {
    BackendReport {
        address: [10, 0, 0, number].into(),
        port: 8080,
        node: if local { "here" } else { "there" }.into(),
        local,
        weight: 1,
        state: BackendState::Serving,
        id: Some(u32::from(number)),
    }
}

fn frontend(id: u32, service: &str, protocol: Protocol, backends: Vec<BackendReport>) -> FrontendReport {
    FrontendReport {
        address: [10, 10, 1, 2].into(),
        port: 80,
        protocol,
        service: service.parse().unwrap(),
        port_name: "http".into(),
        policy: weir_core::plan::Policy::default(),
        id: Some(id),
        backends,
    }
}

/// One of everything.
fn report() -> Report {
    Report {
        version: "1.2.3".into(),
        layout_version: 2,
        node: "here".into(),
        pid: 1,
        started: 1_700_000_000,
        start_ticks: 1,
        updated: 1_700_000_001,
        starts: 3,
        adoptions: 2,
        waiting: None,
        pin_dir: "/nowhere".into(),
        tunnel_address: None,
        tunnel_port: 6081,
        interfaces: vec![InterfaceReport {
            name: "eth0".into(),
            device: Some("eth0".into()),
            ifindex: Some(2),
            vlan: 0,
            xdp_mode: Some(XdpModeName::Generic),
        }],
        nodes: vec![NodeReport {
            name: "there".into(),
            address: [192, 0, 2, 2].into(),
            id: Some(1),
            reachable: true,
        }],
        vips: vec![VipReport {
            address: [10, 10, 1, 2].into(),
            eip: "pool".into(),
            mode: Mode::Layer2,
            interface: Some("eth0".into()),
            owner: Some("here".into()),
            owned: true,
            services: Vec::new(),
        }],
        frontends: vec![
            frontend(
                1,
                "shop/web",
                Protocol::Tcp,
                vec![backend(1, true), backend(2, false), backend(3, false)],
            ),
            frontend(2, "shop/dns", Protocol::Udp, vec![backend(1, true)]),
        ],
        conditions: ["Overlap", "Overlap", "NoEip"]
            .map(|reason| Condition::new(ObjectRef::cluster_scoped("Eip", "a"), "", reason, String::new()))
            .to_vec(),
    }
}

#[derive(Debug)]
struct Fixed(Snapshot, fn(&Snapshot, DescriptorEncoder<'_>) -> fmt::Result);

impl Collector for Fixed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.1)(&self.0, encoder)
    }
}

fn counts() -> Counts {
    let mut reasons = vec![Counter::default(); Reason::ALL.len()];
    reasons[Reason::Tunnel as usize] = Counter { packets: 7, bytes: 700 };
    reasons[Reason::ArpReply as usize] = Counter { packets: 3, bytes: 180 };
    reasons[Reason::NeighborAdvertisement as usize] = Counter { packets: 2, bytes: 172 };
    let frontend = |packets, syns| FrontendCounter {
        packets,
        bytes: packets * 100,
        syns,
    };
    let backend = |packets, flows| BackendCounter {
        packets,
        bytes: packets * 100,
        flows,
    };
    Counts::new(
        reasons,
        vec![frontend(0, 0), frontend(5, 2), frontend(4, 0)],
        vec![backend(0, 0), backend(3, 1), backend(6, 0), backend(0, 0)],
    )
}

fn snapshot() -> Snapshot {
    let mut fill = Fill {
        maps: vec![MapFill {
            map: "ROWS",
            entries: 10,
            capacity: 20,
        }],
        ..Fill::default()
    };
    fill.flows.live[2] = 9;
    Snapshot {
        report: Arc::new(report()),
        counts: counts(),
        fill,
    }
}

fn exposed() -> String {
    let telemetry = Telemetry::default();
    telemetry.planned(Duration::from_millis(3));
    let registry = telemetry.registry(Fixed(snapshot(), families::encode));
    let mut written = String::new();
    text::encode(&mut written, &registry).unwrap();
    written
}

/// By metric, as a query names it: its type and its labels.
pub(crate) fn families_of(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "histogram" => "_count",
            _ => "",
        };
        let sample = format!("{name}{suffix}");
        let first = text
            .lines()
            .find(|line| line.split(['{', ' ']).next() == Some(sample.as_str()));
        let first = first.unwrap_or_else(|| panic!("no sample of {name} in\n{text}"));
        let labels = first
            .split_once('{')
            .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let labels = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        let shown = if kind == "counter" { sample } else { name.to_owned() };
        found.insert(shown, (kind.to_owned(), labels.collect()));
    }
    found
}

/// The same as the page about metrics lists it, of those whose names begin so.
pub(crate) fn listed(prefix: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let page = include_str!("../../../docs/metrics.md");
    let start = format!("| `{prefix}");
    let rows = page
        .lines()
        .filter(|line| line.starts_with(&start) && line.matches('|').count() == 5);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let labels = cells[2]
            .split(", ")
            .filter(|label| !label.is_empty())
            .map(str::to_owned);
        let name = cells[0].trim_matches('`').to_owned();
        (name, (cells[1].to_owned(), labels.collect()))
    })
    .collect()
}

/// [G05]
#[test]
fn the_page_about_metrics_lists_what_is_exposed_by_openelbs_names() {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Fixed(snapshot(), families::encode_openelb)));
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    let mut page = listed("requests_");
    page.extend(listed("responses_"));
    assert_eq!(families_of(&text), page);
    for line in ["requests_received 5\n", "responses_sent 5\n"] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[test]
fn the_page_about_metrics_lists_exactly_what_is_exposed() {
    let mut listed = listed("weir_");
    listed.retain(|name, _| !name.starts_with("weir_controller_"));
    assert_eq!(families_of(&exposed()), listed);
}

#[test]
fn every_reason_is_there_and_counted_in_its_place() {
    let text = exposed();
    for reason in Reason::ALL {
        let line = format!("weir_packets_total{{reason=\"{}\"}} ", reason.name());
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.contains("weir_packets_total{reason=\"tunnel\"} 7\n"), "{text}");
    assert!(text.contains("weir_bytes_total{reason=\"tunnel\"} 700\n"), "{text}");
}

#[test]
fn frontends_and_backends_carry_their_own_counts() {
    let text = exposed();
    let web = "namespace=\"shop\",service=\"web\",vip=\"10.10.1.2\",port=\"80\",protocol=\"TCP\"";
    let dns = "namespace=\"shop\",service=\"dns\",vip=\"10.10.1.2\",port=\"80\",protocol=\"UDP\"";
    for line in [
        format!("weir_frontend_packets_total{{{web}}} 5\n"),
        format!("weir_frontend_bytes_total{{{web}}} 500\n"),
        format!("weir_frontend_new_flows_total{{{web}}} 2\n"),
        format!("weir_frontend_serving_backends{{{web}}} 3\n"),
        format!("weir_frontend_packets_total{{{dns}}} 4\n"),
        "backend=\"10.0.0.2\",port=\"8080\",protocol=\"TCP\",node=\"there\"} 6\n".to_owned(),
        "weir_interface_xdp_mode{interface=\"eth0\",mode=\"generic\"} 1\n".to_owned(),
        "weir_interface_xdp_mode{interface=\"eth0\",mode=\"native\"} 0\n".to_owned(),
        "weir_conditions{reason=\"Overlap\"} 2\n".to_owned(),
        "weir_flows{state=\"established\"} 9\n".to_owned(),
        "weir_agent_adoptions_total 2\n".to_owned(),
    ] {
        assert!(text.contains(&line), "no {line} in\n{text}");
    }
    assert!(
        !text.contains(&format!("weir_frontend_new_flows_total{{{dns}}}")),
        "UDP has no SYNs"
    );
}

#[test]
fn a_shared_backend_is_there_once_and_an_unused_one_not_at_all() {
    let text = exposed();
    let of = |address: &str| {
        let needle = format!("backend=\"{address}\"");
        let lines = text
            .lines()
            .filter(|line| line.starts_with("weir_backend_packets_total"));
        lines.filter(|line| line.contains(&needle)).count()
    };
    assert_eq!((of("10.0.0.1"), of("10.0.0.2"), of("10.0.0.3")), (1, 1, 0));
    let flows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("weir_backend_new_flows_total"))
        .collect();
    assert_eq!(flows.len(), 1, "only backends of this node have flows here: {flows:?}");
}

#[test]
fn an_agent_is_ready_when_maps_and_interfaces_are() {
    let telemetry = Telemetry::default();
    assert!(telemetry.unready().is_some() && telemetry.unwell().is_none());
    telemetry.report(Arc::new(report()));
    assert!(telemetry.unready().unwrap().contains("map"));
    telemetry.set_programmed(true);
    assert_eq!(telemetry.unready(), None);
    let mut idle = report();
    idle.interfaces[0].xdp_mode = None;
    telemetry.report(Arc::new(idle));
    assert!(telemetry.unready().unwrap().contains("eth0"));
}
