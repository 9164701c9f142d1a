//! Annotations: Weir's own names, and how all of them are read.
//!
//! Everything here that OpenELB does not know has the prefix `lb.weir.dev/`. A prefix of our own because a name under
//! `kubesphere.io` would be taken for one of OpenELB's, which reads some of its keys by prefix, and because a Service that
//! goes back to OpenELB then keeps nothing that it could mistake. A user's guide to them is `docs/policies.md`.

use std::collections::BTreeMap;

/// On a Service: the weights of its endpoints by node, `node-a=3,node-b=1`.
pub(crate) const WEIGHTS: &str = "lb.weir.dev/weights";
/// On an EndpointSlice: the weight of all its endpoints.
pub(crate) const WEIGHT: &str = "lb.weir.dev/weight";
/// On a Service: prefixes that are refused, whatever is allowed.
pub(crate) const DENIED_SOURCES: &str = "lb.weir.dev/denied-source-ranges";
/// On a Service: new flows per second at each of its frontends.
pub(crate) const FLOWS: &str = "lb.weir.dev/new-flows-per-second";
/// On a Service: packets per second at each of its frontends.
pub(crate) const PACKETS: &str = "lb.weir.dev/packets-per-second";
/// On a Service: new flows per second of one source address at each of its frontends.
pub(crate) const SOURCE_FLOWS: &str = "lb.weir.dev/new-flows-per-second-per-source";
/// On a Service: packets per second of one source address at each of its frontends.
pub(crate) const SOURCE_PACKETS: &str = "lb.weir.dev/packets-per-second-per-source";
/// On a Service: Kubernetes' older form of `spec.loadBalancerSourceRanges`, which counts while that is empty.
pub(crate) const ALLOWED_SOURCES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The value of an annotation, without space around it; `None` if it is missing or empty.
pub(crate) fn value<'a>(annotations: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    annotations
        .get(key)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

/// The path of an annotation.
pub(crate) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// The parts of a list with commas.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
