//! Manifests of thousands of Services.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};

/// Name of the Eip all VIPs are of.
pub const EIP_NAME: &str = "many";
/// That Eip.
pub const EIP: &str = "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: many}\nspec:\n  \
    address: 10.20.0.0/16\n  protocol: layer2\n  interface: eth0\n---\n";
/// The port of every Service.
pub const PORT: u16 = 80;
/// The port of every endpoint.
pub const TARGET_PORT: u16 = 8080;

/// An endpoint: its address and the name of its node.
pub type Endpoint<'a> = (IpAddr, &'a str);

/// VIP of Service number `number`.
#[must_use]
pub fn vip(number: u32) -> Ipv4Addr {
    // Not the network's own address.
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 20, 0, 1)) + number)
}

/// Service number `number` over `protocol`, which asks for [`vip`].
#[must_use]
pub fn service(number: u32, protocol: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: many-{number}\n  namespace: default\n  annotations:\n    \
         lb.kubesphere.io/v1alpha1: openelb\n    eip.openelb.kubesphere.io/v1alpha1: {vip}\nspec:\n  \
         type: LoadBalancer\n  ipFamilies: [IPv4]\n  ports:\n    \
         - {{name: p, protocol: {protocol}, port: {PORT}, targetPort: {TARGET_PORT}}}\n---\n",
        vip = vip(number)
    )
}

/// The EndpointSlice of Service number `number`, all ready.
#[must_use]
pub fn slice(number: u32, protocol: &str, endpoints: &[Endpoint<'_>]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: many-{number}-1\n  namespace: default\n  \
         labels:\n    kubernetes.io/service-name: many-{number}\naddressType: IPv4\nports:\n  \
         - {{name: p, protocol: {protocol}, port: {TARGET_PORT}}}\nendpoints:\n"
    );
    for (address, node) in endpoints {
        let _ = writeln!(
            text,
            "  - {{addresses: [{address}], nodeName: {node}, conditions: {{ready: true, serving: true, terminating: false}}}}"
        );
    }
    text + "---\n"
}
