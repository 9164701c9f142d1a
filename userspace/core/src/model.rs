//! The cluster as the sources describe it. kube types stop at the source; from here on there is only this.
//!
//! A source publishes a whole [`Cluster`] each time. Maps are keyed by what identifies an object, so neither the order in
//! which objects were read nor a repeated object can change a plan. What an annotation means is decided by the planner
//! ([`crate::ipam`]), not by a source: sources hand annotations over as they are.
//!
//! What can be large is behind an [`Arc`], and what can be many is in a [`SharedMap`]. A source that hands over the same ones
//! again for what has not changed makes comparing snapshots and planning again cheap; nothing else depends on it.

mod condition;
mod key;

pub use condition::{Condition, ObjectRef, reason};
pub use key::{KeyError, ServiceKey};

use crate::SharedMap;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

/// The EndpointSlices of one Service, by their own name.
pub type Slices = BTreeMap<String, Arc<EndpointSlice>>;
/// Addresses by Service.
pub type Addresses = BTreeMap<ServiceKey, BTreeSet<IpAddr>>;

/// Everything planning reads, complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Eips by name.
    pub eips: BTreeMap<String, Eip>,
    /// Services by namespace and name; all of them, also those that are none of ours.
    pub services: SharedMap<ServiceKey, Arc<Service>>,
    /// EndpointSlices by the Service they belong to, then by their own name.
    pub endpoint_slices: SharedMap<ServiceKey, Slices>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// The nodes that say that they take packets out of the tunnel; `None` where nodes say no such thing to each other, and
    /// all are taken to.
    pub tunnels: Option<Arc<BTreeSet<String>>>,
    /// Labels of namespaces by name; a namespace that is missing has none.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Addresses given out by earlier plans ([`crate::plan::Plan::memory`]), kept where they still fit.
    pub previous: Arc<Addresses>,
    /// Which free address a Service gets that asks for none.
    pub automatic: Automatic,
    /// What whoever runs Weir has decided about giving out addresses.
    pub rules: Rules,
    /// What the sources themselves have to say: documents that cannot be read, objects defined twice.
    pub faults: Vec<Condition>,
}

impl Cluster {
    /// How many came before a Service to an address that it shares.
    #[must_use]
    pub fn came_after(&self, service: &ServiceKey, address: IpAddr) -> usize {
        let sharers = self.eips.values().filter_map(|eip| eip.shared.get(&address));
        let places = sharers.filter_map(|keys| keys.iter().position(|key| key == service));
        places.max().unwrap_or_default()
    }

    /// The Eips that a source could not read, in no order.
    pub(crate) fn unread_eips(&self) -> impl Iterator<Item = &str> {
        let unread = self.faults.iter().filter(|fault| fault.reason == reason::UNPARSABLE);
        let eips = unread.filter(|fault| fault.object.kind == "Eip");
        eips.map(|fault| fault.object.name.as_str())
    }

    /// Whether a source has something it cannot read: an object that is missing may be in there.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.faults.iter().any(|fault| fault.reason == reason::UNPARSABLE)
    }
}

/// What is ours and what is given out, where OpenELB leaves no choice; the defaults are OpenELB's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// The `spec.loadBalancerClass` that is ours.
    pub class: String,
    /// Whether Services that name no class are ours without the annotation, too.
    pub adopt_all: bool,
    /// Whether the default Eip is used when those bound to the namespace are full.
    pub fall_back_to_default: bool,
    /// Whether Services keep what they have of an Eip that is being deleted, which is gone when none has anything of it.
    pub hold_eips_in_use: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            class: "openelb".into(),
            adopt_all: false,
            fall_back_to_default: false,
            hold_eips_in_use: false,
        }
    }
}

/// Which free address of an Eip a Service gets that asks for none. A source says it, by who gives addresses out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Automatic {
    /// The lowest, as OpenELB does. Depends on which Services came before, so it needs one allocator for the cluster whose
    /// choice all others read. What a Service shows in its status is not free.
    #[default]
    Lowest,
    /// The first free one from SHA-256 of `<namespace>/<name>` modulo the number of addresses on, the first address of the
    /// Eip following its last. For nodes that each allocate for themselves: what came before matters only where two
    /// Services meet, so a node that joins late chooses as those did that saw the Services come one by one.
    Hashed,
    /// None: another allocates, and Services have the addresses in their status, those they ask for too.
    Given,
    /// None for now, nor one it asks for: Services keep what they have while it still is what they ask for.
    Kept,
}

/// Label of an Eip, whatever its value: who announces what it has is somebody else.
pub const CNI_LABEL: &str = "openelb.kubesphere.io/cni";

/// A set of addresses to allot from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eip {
    /// `metadata.creationTimestamp` in seconds since 1970, if the object has one.
    pub created: Option<i64>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.address` as written: `a`, `a/length` or `a-b`.
    pub address: String,
    /// `spec.protocol`.
    pub mode: Mode,
    /// `spec.interface` as written: a name, or `can_reach:<ip>`.
    pub interface: Option<String>,
    /// Whether it has the label [`CNI_LABEL`]: its addresses are given out and served, and somebody else, a CNI's
    /// BGP say, brings their traffic to the nodes.
    pub left_to_cni: bool,
    /// `spec.disable`.
    pub disabled: bool,
    /// `spec.avoidBuggyIPs`: addresses that end in .0 or .255 are given only to who asks for them.
    pub avoid_buggy_ips: bool,
    /// `spec.priority`; smaller is preferred.
    pub priority: i64,
    /// `spec.namespaces`.
    pub namespaces: BTreeSet<String>,
    /// `spec.namespaceSelector`.
    pub namespace_selector: Option<BTreeMap<String, String>>,
    /// By `status.used`: the addresses that several Services have, in the order in which they came.
    pub shared: BTreeMap<IpAddr, Vec<ServiceKey>>,
}

/// How an Eip's addresses are announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// BGP, OpenELB's default.
    #[default]
    Bgp,
    /// ARP and NDP by one elected node.
    Layer2,
    /// VRRP.
    Vip,
}

impl Eip {
    /// Whether one node is elected to announce each of its addresses.
    pub(crate) fn elects(&self) -> bool {
        // Until VRRP is spoken, `vip` is served the way `layer2` is: one owner that answers ARP and NDP.
        self.mode != Mode::Bgp && !self.left_to_cni
    }
}

impl Mode {
    /// As `spec.protocol` names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::Layer2 => "layer2",
            Self::Vip => "vip",
        }
    }
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `metadata.creationTimestamp` in seconds since 1970, if the object has one.
    pub created: Option<i64>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The label by which the controller says that the addresses in its status are ours: the Eip of the first.
    pub label: Option<String>,
    /// Whether `spec.type` is `LoadBalancer`.
    pub load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerIP` as written.
    pub load_balancer_ip: Option<String>,
    /// `spec.ipFamilies`; empty when not given, as in files that no API server has filled in.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort` of a Service whose policy is `Local`; others have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_port: Option<u16>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// With `spec.sessionAffinity: ClientIP`, its time-out in seconds (1 to 86,400).
    pub affinity_seconds: Option<u32>,
    /// `spec.loadBalancerSourceRanges` as written.
    pub source_ranges: Vec<String>,
    /// Addresses in `status.loadBalancer.ingress`, in order.
    pub ingress: Vec<IpAddr>,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// How many families a Service wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FamilyPolicy {
    /// One.
    #[default]
    SingleStack,
    /// Both if there are addresses of both.
    PreferDualStack,
    /// Both.
    RequireDualStack,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name, empty when it has none; EndpointSlice ports are matched by it.
    #[serde(default)]
    pub name: String,
    /// Transport protocol.
    pub protocol: PortProtocol,
    /// The port clients use.
    pub port: u16,
}

/// Transport protocol as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortProtocol {
    /// One that frontends can have.
    Served(Protocol),
    /// Any other (`SCTP`), by its name.
    Other(String),
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served(protocol) => protocol.fmt(f),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Transport protocol of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Which endpoints a node may send a Service's traffic from outside to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All of them.
    #[default]
    Cluster,
    /// Those on the same node.
    Local,
}

/// One EndpointSlice: every endpoint has every port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Ports, already resolved from `targetPort` by whoever made the slice.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Name, empty when it has none.
    #[serde(default)]
    pub name: String,
    /// Transport protocol.
    pub protocol: PortProtocol,
    /// The port pods listen on.
    pub port: u16,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address (the first; Kubernetes gives the others no meaning).
    pub address: IpAddr,
    /// Node it runs on.
    pub node: Option<String>,
    /// `conditions.ready`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its InternalIP addresses in order; the first is where its tunnel ends.
    pub internal_addresses: Vec<IpAddr>,
    /// Whether it carries the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub excluded: bool,
    /// False only if a Ready condition is given and is not `True`.
    pub ready: bool,
}
