//! Rows A.. and B.. are OpenELB's behaviours and ours beyond them.

mod asking;
mod given;
mod keeping;
mod refusing;
mod rules;

use super::*;
use crate::model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const OPT_IN: (&str, &str) = ("lb.kubesphere.io/v1alpha1", "openelb");
const POOL: &str = "eip.openelb.kubesphere.io/v1alpha2";
const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";
const DEFAULT: (&str, &str) = ("eip.openelb.kubesphere.io/is-default-eip", "true");

fn eip(address: &str) -> Eip {
    Eip {
        address: address.into(),
        mode: Mode::Layer2,
        interface: Some("eth0".into()),
        ..Eip::default()
    }
}

fn default_eip(address: &str) -> Eip {
    Eip {
        annotations: annotations(&[DEFAULT]),
        ..eip(address)
    }
}

/// A Service of ours with the port 80 and more annotations.
fn service(more: &[(&str, &str)]) -> Service {
    let mut all = vec![OPT_IN];
    all.extend(more);
    Service {
        load_balancer: true,
        annotations: annotations(&all),
        ports: vec![port(80)],
        ..Service::default()
    }
}

fn port(port: u16) -> ServicePort {
    ServicePort {
        name: String::new(),
        protocol: PortProtocol::Served(Protocol::Tcp),
        port,
    }
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "apps".into(),
        name: name.into(),
    }
}

fn cluster<const E: usize, const S: usize>(eips: [(&str, Eip); E], services: [(&str, Service); S]) -> Cluster {
    Cluster {
        eips: eips.into_iter().map(|(name, eip)| (name.into(), eip)).collect(),
        services: services
            .into_iter()
            .map(|(name, service)| (key(name), service.into()))
            .collect(),
        ..Cluster::default()
    }
}

/// Addresses by Service, each joined by blanks, and reasons with their objects' names.
fn outcome(cluster: &Cluster) -> (BTreeMap<String, String>, Vec<String>) {
    let mut conditions = Vec::new();
    let pools = Pools::new(&cluster.eips, &mut conditions);
    let allocations = allocate(cluster, &pools, &mut conditions);
    let addresses = allocations.by_service.iter().map(|(key, addresses)| {
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        (key.name.clone(), texts.join(" "))
    });
    (
        addresses.collect(),
        conditions
            .iter()
            .map(|it| format!("{} {}", it.object.name, it.reason))
            .collect(),
    )
}

#[track_caller]
fn expect(cluster: &Cluster, addresses: &[(&str, &str)], reasons: &[&str]) {
    let expected: BTreeMap<String, String> = addresses.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    assert_eq!(
        outcome(cluster),
        (expected, reasons.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    );
}

fn hold(cluster: &mut Cluster, name: &str, addresses: &[&str]) {
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Arc::make_mut(&mut cluster.previous).insert(key(name), addresses);
}
