//! How much of a Service's new flows each endpoint is to get, relative to the others.
//!
//! Two annotations say it: on an EndpointSlice for all its endpoints, and on the Service by node. The slice's counts first:
//! it is nearer to the endpoint. Without either the weight is 1. Weight 0 gets no new flows and keeps those it has.

use super::{Condition, nodes::Nodes};
use crate::{
    annotations::{self, Annotation},
    model::{ObjectRef, Service, ServiceKey, Slices, reason},
};
use std::collections::BTreeMap;

/// The largest weight: enough for every ratio that the rows of a frontend can tell apart.
const MAX: u32 = 256;

/// The weights of one Service.
pub(super) struct Weights<'a> {
    by_node: BTreeMap<&'a str, u32>,
    by_slice: BTreeMap<&'a str, u32>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(
        key: &ServiceKey,
        service: &'a Service,
        slices: &'a Slices,
        nodes: &Nodes,
        conditions: &mut Vec<Condition>,
    ) -> Self {
        let mut say = |object: ObjectRef, annotation: Annotation, reason: &str, message: String| {
            conditions.push(Condition::new(object, &annotation.field(), reason, message));
        };
        let mut weights = Self {
            by_node: BTreeMap::new(),
            by_slice: BTreeMap::new(),
        };
        let text = annotations::WEIGHTS.value(&service.annotations).unwrap_or_default();
        for part in annotations::list(text) {
            let pair = part.split_once('=');
            let pair = pair.and_then(|(node, weight)| Some((node.trim(), parse(weight)?)));
            let Some((node, weight)) = pair.filter(|(node, _)| !node.is_empty()) else {
                let message = format!(
                    "`{part}` is not a weight, so it is left out. Write the name of a node, = and a number from 0 to {MAX}, \
                     with commas between them."
                );
                say(
                    ObjectRef::service(key),
                    annotations::WEIGHTS,
                    reason::INVALID_VALUE,
                    message,
                );
                continue;
            };
            if nodes.tunnel_address(node).is_none() {
                let message = format!(
                    "there is no Node {node} with an InternalIP, so its weight means nothing. Correct the name, or remove it."
                );
                say(
                    ObjectRef::service(key),
                    annotations::WEIGHTS,
                    reason::UNKNOWN_NODE,
                    message,
                );
            }
            if weights
                .by_node
                .insert(node, weight)
                .is_some_and(|former| former != weight)
            {
                let message = format!("{node} has two weights; the last one, {weight}, counts. Remove one.");
                say(
                    ObjectRef::service(key),
                    annotations::WEIGHTS,
                    reason::INVALID_VALUE,
                    message,
                );
            }
        }
        for (name, slice) in slices {
            let Some(text) = annotations::WEIGHT.value(&slice.annotations) else {
                continue;
            };
            match parse(text) {
                Some(weight) => {
                    weights.by_slice.insert(name, weight);
                }
                None => {
                    let message =
                        format!("`{text}` is not a weight, so it is ignored. Write a number from 0 to {MAX}.");
                    let object = ObjectRef::endpoint_slice(key, name);
                    say(object, annotations::WEIGHT, reason::INVALID_VALUE, message);
                }
            }
        }
        weights
    }

    /// The weight of an endpoint that `slice` has on `node`.
    pub(super) fn of(&self, slice: &str, node: &str) -> u32 {
        let weight = self.by_slice.get(slice).or_else(|| self.by_node.get(node));
        weight.copied().unwrap_or(1)
    }
}

fn parse(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|weight| *weight <= MAX)
}
