//! Annotations: all that are read, by which names, and how.
//!
//! Everything here that OpenELB does not know has the prefix `lb.weir.dev/`. A prefix of our own because a name under
//! `kubesphere.io` would be taken for one of OpenELB's, which reads some of its keys by prefix, and because a Service that
//! goes back to OpenELB then keeps nothing that it could mistake. A user's guide to them is `docs/policies.md`. Names with
//! `porter` in them are of OpenELB's earlier name.

use std::collections::BTreeMap;

/// An annotation that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The kind of the objects it is read of.
    pub kind: &'static str,
    /// Its names. Of several that an object has, the first counts.
    pub names: &'static [&'static str],
}

impl Annotation {
    /// The name that an object has it by, and its value as written.
    pub(crate) fn find<'a>(&self, annotations: &'a BTreeMap<String, String>) -> Option<(&'static str, &'a str)> {
        let mut names = self.names.iter();
        names.find_map(|name| Some((*name, annotations.get(*name)?.as_str())))
    }

    /// Its value, without space around it; `None` if it is missing or empty.
    pub(crate) fn value<'a>(&self, annotations: &'a BTreeMap<String, String>) -> Option<&'a str> {
        let (_, value) = self.find(annotations)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// The path of its first name.
    pub(crate) fn field(&self) -> String {
        self.names.first().map(|name| field(name)).unwrap_or_default()
    }
}

/// Each is read through one of these, and all of them are in [`ALL`].
macro_rules! annotations {
    ($($(#[$doc:meta])* $constant:ident: $kind:literal $names:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) const $constant: Annotation = Annotation { kind: $kind, names: &$names };
        )*
        /// Every annotation that is read.
        pub const ALL: &[Annotation] = &[$($constant),*];
    };
}

annotations! {
    /// What makes a Service ours.
    BALANCER: "Service" ["lb.kubesphere.io/v1alpha1"];
    /// The Eips that a Service names.
    EIP: "Service" ["eip.openelb.kubesphere.io/v1alpha2", "eip.porter.kubesphere.io/v1alpha2"];
    /// The addresses that a Service asks for.
    ADDRESS: "Service" ["eip.openelb.kubesphere.io/v1alpha1", "eip.porter.kubesphere.io/v1alpha1"];
    /// How OpenELB 0.5 was to announce a Service.
    PROTOCOL: "Service" ["protocol.openelb.kubesphere.io/v1alpha1", "protocol.porter.kubesphere.io/v1alpha1"];
    /// That OpenELB was to serve a Service from the nodes' own addresses.
    NODE_PROXY: "Service" ["node-proxy.openelb.kubesphere.io/type", "node-proxy.porter.kubesphere.io/type"];
    /// Whether an Eip is the default of its family.
    DEFAULT: "Eip" ["eip.openelb.kubesphere.io/is-default-eip", "eip.porter.kubesphere.io/is-default-eip"];
    /// The weights of a Service's endpoints by node, `node-a=3,node-b=1`.
    WEIGHTS: "Service" ["lb.weir.dev/weights"];
    /// The weight of all endpoints of a slice.
    WEIGHT: "EndpointSlice" ["lb.weir.dev/weight"];
    /// Prefixes that are refused, whatever is allowed.
    DENIED_SOURCES: "Service" ["lb.weir.dev/denied-source-ranges"];
    /// New flows per second at each of a Service's frontends.
    FLOWS: "Service" ["lb.weir.dev/new-flows-per-second"];
    /// Packets per second at each of a Service's frontends.
    PACKETS: "Service" ["lb.weir.dev/packets-per-second"];
    /// New flows per second of one source address at each of a Service's frontends.
    SOURCE_FLOWS: "Service" ["lb.weir.dev/new-flows-per-second-per-source"];
    /// Packets per second of one source address at each of a Service's frontends.
    SOURCE_PACKETS: "Service" ["lb.weir.dev/packets-per-second-per-source"];
    /// Kubernetes' older form of `spec.loadBalancerSourceRanges`, which counts while that is empty.
    ALLOWED_SOURCES: "Service" ["service.beta.kubernetes.io/load-balancer-source-ranges"];
}

/// The path of an annotation.
pub(crate) fn field(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// The parts of a list with commas.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
