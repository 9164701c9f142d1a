//! Planning for a large cluster: 5,000 Services with 20 endpoints each on 50 nodes.

use std::{net::IpAddr, time::Instant};
use weir_core::{
    model::{
        Cluster, Eip, Endpoint, EndpointPort, EndpointSlice, Mode, Node, PortProtocol, Protocol, Service, ServiceKey,
        ServicePort,
    },
    plan::{ThisNode, plan},
};

const SERVICES: u16 = 5_000;
const ENDPOINTS: u16 = 20;
const NODES: u16 = 50;

fn address(block: u8, number: u32) -> IpAddr {
    let [_, b, c, d] = number.to_be_bytes();
    IpAddr::from([block, b, c, d])
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    let annotation = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let pool = Eip {
        annotations: annotation("eip.openelb.kubesphere.io/is-default-eip", "true"),
        address: "11.0.0.0/16".into(),
        mode: Mode::Layer2,
        interface: Some("eth0".into()),
        ..Eip::default()
    };
    cluster.eips.insert("pool".into(), pool);
    for number in 0..NODES {
        let node = Node {
            internal_addresses: vec![address(12, number.into())],
            excluded: false,
            ready: true,
        };
        cluster.nodes.insert(format!("node-{number}"), node);
    }
    let tcp = || PortProtocol::Served(Protocol::Tcp);
    for number in 0..SERVICES {
        let key = ServiceKey {
            namespace: "apps".into(),
            name: format!("svc-{number}"),
        };
        let service = Service {
            annotations: annotation("lb.kubesphere.io/v1alpha1", "openelb"),
            load_balancer: true,
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: tcp(),
                port: 80,
            }],
            ..Service::default()
        };
        let endpoint = |index: u16| Endpoint {
            address: address(13, u32::from(number) * u32::from(ENDPOINTS) + u32::from(index)),
            node: Some(format!("node-{}", (number + index) % NODES)),
            ready: true,
            serving: true,
            terminating: false,
        };
        let slice = EndpointSlice {
            ports: vec![EndpointPort {
                name: "http".into(),
                protocol: tcp(),
                port: 8080,
            }],
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
            ..EndpointSlice::default()
        };
        cluster
            .endpoint_slices
            .insert(key.clone(), [("slice".to_owned(), slice.into())].into());
        cluster.services.insert(key, service.into());
    }
    cluster
}

/// The bound is far above what it takes (printed), and far below what anything quadratic would.
#[test]
fn a_large_cluster_is_planned_in_time() {
    let cluster = cluster();
    let start = Instant::now();
    let plan = plan(&cluster, &ThisNode { name: "node-7".into() });
    let taken = start.elapsed();
    println!("{SERVICES} Services with {ENDPOINTS} endpoints each: {taken:?}");
    assert_eq!(plan.frontends.len(), usize::from(SERVICES));
    assert!(plan.conditions.is_empty());
    assert!(taken.as_secs() < 10, "{taken:?}");
}
