//! Kubernetes YAML as users write it, for the lab's folders.

use super::{
    Family, Lab, Pod,
    address::FAMILIES,
    servers::{ECHO_PORT, WEB_PORT},
};
use std::net::IpAddr;

/// The Node objects of a lab, whose tunnels run over IPv4.
pub fn nodes(lab: &Lab) -> String {
    nodes_over(lab, Family::V4)
}

/// The Node objects of a lab, with the address of this family first: tunnels run over it.
pub fn nodes_over(lab: &Lab, underlay: Family) -> String {
    let mut families = FAMILIES;
    families.sort_by_key(|family| *family != underlay);
    lab.nodes
        .iter()
        .map(|node| {
            let addresses = families.map(|family| {
                format!("    - {{type: InternalIP, address: \"{}\"}}\n", node.address(family))
            });
            format!(
                "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nstatus:\n  addresses:\n{}  conditions:\n    - {{type: Ready, status: \"True\"}}\n---\n",
                node.name,
                addresses.concat()
            )
        })
        .collect()
}

/// A layer-2 Eip on `eth0`.
pub fn eip(name: &str, addresses: &str) -> String {
    eip_on(name, addresses, "eth0")
}

/// A layer-2 Eip on an interface.
pub fn eip_on(name: &str, addresses: &str, interface: &str) -> String {
    format!(
        "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata:\n  name: {name}\nspec:\n  \
         address: \"{addresses}\"\n  protocol: layer2\n  interface: {interface}\n---\n"
    )
}

/// Port of a [`Service`] where its pods' web servers are.
pub const HTTP: u16 = 80;
/// Port of a [`Service`] where its pods' echoes are.
pub const DNS: u16 = 53;

/// A Service of type LoadBalancer in namespace `default`, of both families if not said otherwise, whose port 80 over TCP
/// leads to the pods' web servers.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    families: Vec<Family>,
    request: Vec<IpAddr>,
    eip: Option<String>,
    ports: Vec<Port>,
    annotations: Vec<(String, String)>,
    spec: Vec<String>,
}

#[derive(Clone, Debug)]
struct Port {
    name: &'static str,
    protocol: &'static str,
    port: u16,
    target: u16,
}

impl Service {
    /// A Service of this name.
    pub fn new(name: &str) -> Self {
        let service = Self {
            name: name.into(),
            families: FAMILIES.into(),
            request: Vec::new(),
            eip: None,
            ports: vec![],
            annotations: Vec::new(),
            spec: Vec::new(),
        };
        service.with_tcp("http", HTTP, WEB_PORT)
    }

    /// Its port 80 leads to this port of the pods instead.
    #[must_use]
    pub fn leading_to(mut self, target: u16) -> Self {
        for port in self.ports.iter_mut().filter(|port| port.port == HTTP) {
            port.target = target;
        }
        self
    }

    /// This port instead of port 80.
    #[must_use]
    pub fn on_port(mut self, number: u16) -> Self {
        for port in self.ports.iter_mut().filter(|port| port.port == HTTP) {
            port.port = number;
        }
        self
    }

    /// Also port 53 over UDP, to the pods' echoes.
    #[must_use]
    pub fn with_udp(mut self) -> Self {
        self.ports.push(Port {
            name: "dns",
            protocol: "UDP",
            port: DNS,
            target: ECHO_PORT,
        });
        self
    }

    /// Asks for these addresses, at most one of each family, and has the families they are of.
    #[must_use]
    pub fn at(mut self, addresses: impl Into<Vec<IpAddr>>) -> Self {
        self.request = addresses.into();
        self.families = self.request.iter().copied().map(Family::of).collect();
        self
    }

    /// Takes an address of the Eip of this name, in one family.
    #[must_use]
    pub fn from_eip(mut self, eip: &str, family: Family) -> Self {
        self.eip = Some(eip.into());
        self.families = vec![family];
        self
    }

    /// One more annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: impl ToString) -> Self {
        self.annotations.push((key.into(), value.to_string()));
        self
    }

    /// One more field of `spec`, as a line of YAML.
    #[must_use]
    pub fn with_spec(mut self, line: impl Into<String>) -> Self {
        self.spec.push(line.into());
        self
    }

    /// One more TCP port.
    #[must_use]
    pub fn with_tcp(mut self, name: &'static str, port: u16, target: u16) -> Self {
        self.ports.push(Port {
            name,
            protocol: "TCP",
            port,
            target,
        });
        self
    }

    /// The Service object.
    pub fn yaml(&self) -> String {
        let mut annotations = "    lb.kubesphere.io/v1alpha1: openelb\n".to_owned();
        if !self.request.is_empty() {
            let request = comma_separated(&self.request);
            annotations += &format!("    eip.openelb.kubesphere.io/v1alpha1: \"{request}\"\n");
        }
        if let Some(eip) = &self.eip {
            annotations += &format!("    eip.openelb.kubesphere.io/v1alpha2: {eip}\n");
        }
        for (key, value) in &self.annotations {
            annotations += &format!("    {key}: \"{value}\"\n");
        }
        let policy = if self.families.len() > 1 {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        let ports = self.ports.iter().map(
            |Port {
                 name,
                 protocol,
                 port,
                 target,
             }| {
                format!("    - {{name: {name}, protocol: {protocol}, port: {port}, targetPort: {target}}}\n")
            },
        );
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  annotations:\n{annotations}\
             spec:\n  type: LoadBalancer\n  ipFamilyPolicy: {policy}\n  ipFamilies: [{families}]\n{spec}  ports:\n{ports}---\n",
            name = self.name,
            spec = self.spec.iter().map(|line| format!("  {line}\n")).collect::<String>(),
            families = comma_separated(&self.families),
            ports = ports.collect::<String>(),
        )
    }

    /// Its EndpointSlices with these pods, all ready.
    pub fn endpoints<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> String {
        let pods: Vec<_> = pods.into_iter().map(|pod| (pod, Endpoint::Ready)).collect();
        self.endpoints_in_states(&pods)
    }

    /// Its EndpointSlices with these pods, one of each family.
    pub fn endpoints_in_states(&self, pods: &[(&Pod, Endpoint)]) -> String {
        self.families.iter().map(|&family| self.slice(family, pods)).collect()
    }

    /// The Service and its EndpointSlices.
    pub fn with<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> String {
        self.yaml() + &self.endpoints(pods)
    }

    fn slice(&self, family: Family, pods: &[(&Pod, Endpoint)]) -> String {
        let name = &self.name;
        let ports = self.ports.iter().map(
            |Port {
                 name, protocol, target, ..
             }| { format!("  - {{name: {name}, protocol: {protocol}, port: {target}}}\n") },
        );
        let endpoints = pods.iter().map(|(pod, state)| {
            let (address, node, conditions) = (pod.address(family), &pod.node, state.conditions());
            format!("  - {{addresses: [\"{address}\"], nodeName: {node}, conditions: {conditions}}}\n")
        });
        let endpoints: String = endpoints.collect();
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{lower}\n  \
             namespace: default\n  labels:\n    kubernetes.io/service-name: {name}\naddressType: {family}\nports:\n\
             {ports}endpoints:{endpoints}---\n",
            lower = family.to_string().to_lowercase(),
            ports = ports.collect::<String>(),
            endpoints = if endpoints.is_empty() {
                " []\n".to_owned()
            } else {
                format!("\n{endpoints}")
            },
        )
    }
}

fn comma_separated<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// State of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Takes new flows.
    Ready,
    /// Being deleted, still serves the flows it has.
    Terminating,
    /// Fails its readiness probe.
    NotReady,
}

impl Endpoint {
    fn conditions(self) -> &'static str {
        match self {
            Self::Ready => "{ready: true, serving: true, terminating: false}",
            Self::Terminating => "{ready: false, serving: true, terminating: true}",
            Self::NotReady => "{ready: false, serving: false, terminating: false}",
        }
    }
}
