//! Thousands of objects in a Kubernetes API: written, changed, and seen by somebody who watches.

use super::super::services::{PORT, TARGET_PORT};
use crate::kube::ControlPlane;
use anyhow::{Context, Result, ensure};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::Ipv4Addr, pin::Pin};

/// Requests under way at a time.
const TOGETHER: usize = 32;

/// An endpoint: address, name of its node, and whether it gets new flows or ends.
#[derive(Clone, Debug)]
pub(super) struct Endpoint<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) node: &'a str,
    pub(super) terminating: bool,
}

/// The API, as its admin.
pub(super) struct Objects {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
}

/// What another who watches is told of EndpointSlices.
pub(super) type Watch = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<EndpointSlice>>> + Send>>;

impl Objects {
    /// For use on a thread that can reach it.
    pub(super) async fn open(control_plane: &ControlPlane) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(control_plane.kubectl().kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        Ok(Self {
            services: Api::default_namespaced(client.clone()),
            slices: Api::default_namespaced(client),
        })
    }

    /// Makes Services that ask for an address of the Eip `many`.
    pub(super) async fn make_services(&self, names: impl Iterator<Item = String>) -> Result<()> {
        let parameters = PostParams::default();
        let make = async |name: String| -> Result<()> {
            let service = serde_json::from_value(service(&name))?;
            self.services.create(&parameters, &service).await.map(drop)?;
            Ok(())
        };
        stream::iter(names)
            .map(make)
            .buffer_unordered(TOGETHER)
            .try_collect()
            .await
    }

    /// Makes the slices of these Services.
    pub(super) async fn make_slices(&self, slices: impl Iterator<Item = (String, Vec<Endpoint<'_>>)>) -> Result<()> {
        let parameters = PostParams::default();
        let make = async |(name, endpoints): (String, Vec<Endpoint<'_>>)| -> Result<()> {
            let slice = serde_json::from_value(slice(&name, &endpoints))?;
            self.slices.create(&parameters, &slice).await.map(drop)?;
            Ok(())
        };
        stream::iter(slices)
            .map(make)
            .buffer_unordered(TOGETHER)
            .try_collect()
            .await
    }

    /// Replaces the endpoints of a Service.
    pub(super) async fn set_endpoints(&self, name: &str, endpoints: &[Endpoint<'_>]) -> Result<()> {
        let patch = Patch::Merge(json!({"endpoints": listed(endpoints)}));
        let (slice, parameters) = (slice_name(name), PatchParams::default());
        let patched = self.slices.patch(&slice, &parameters, &patch);
        patched.await.map(drop).with_context(|| format!("endpoints of {name}"))
    }

    /// The address of each Service that has one, by name.
    pub(super) async fn addresses(&self) -> Result<BTreeMap<String, Ipv4Addr>> {
        let services = self.services.list(&ListParams::default()).await?;
        let address = |service: Service| -> Option<(String, Ipv4Addr)> {
            let ingress = service.status?.load_balancer?.ingress?;
            let address = ingress.first()?.ip.as_deref()?.parse().ok()?;
            Some((service.metadata.name?, address))
        };
        Ok(services.items.into_iter().filter_map(address).collect())
    }

    /// Deletes Services.
    pub(super) async fn delete_services(&self, names: impl Iterator<Item = String>) -> Result<()> {
        let parameters = DeleteParams::default();
        let delete = async |name: String| -> Result<()> {
            self.services.delete(&name, &parameters).await.map(drop)?;
            Ok(())
        };
        stream::iter(names)
            .map(delete)
            .buffer_unordered(TOGETHER)
            .try_collect()
            .await
    }

    /// Begins to watch EndpointSlices.
    pub(super) async fn watch(&self) -> Result<Watch> {
        let now = self.slices.list(&ListParams::default().limit(1)).await?;
        let version = now.metadata.resource_version.context("a list without a version")?;
        let watch = self.slices.watch(&WatchParams::default(), &version).await?;
        Ok(Box::pin(watch))
    }
}

/// Waits until the watch tells that `address` is among the endpoints of the Service.
pub(super) async fn told(watch: &mut Watch, name: &str, address: Ipv4Addr) -> Result<()> {
    let (slice, address) = (slice_name(name), address.to_string());
    loop {
        let event = watch.next().await.context("the watch ended")??;
        let WatchEvent::Modified(object) = event else {
            ensure!(!matches!(event, WatchEvent::Error(_)), "the watch says {event:?}");
            continue;
        };
        let mut all = object.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        if object.metadata.name.as_ref() == Some(&slice) && all.any(|one| *one == address) {
            return Ok(());
        }
    }
}

fn slice_name(service: &str) -> String {
    format!("{service}-1")
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {
            "lb.kubesphere.io/v1alpha1": "openelb",
            "eip.openelb.kubesphere.io/v1alpha2": "many",
        }},
        "spec": {
            "type": "LoadBalancer",
            // There are fewer node ports than Services.
            "allocateLoadBalancerNodePorts": false,
            "ports": [{"name": "p", "protocol": "TCP", "port": PORT, "targetPort": TARGET_PORT}],
        },
    })
}

/// As the EndpointSlice controller of a cluster writes it.
fn slice(service: &str, endpoints: &[Endpoint<'_>]) -> Value {
    json!({
        "metadata": {"name": slice_name(service), "labels": {
            "kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "addressType": "IPv4",
        "ports": [{"name": "p", "protocol": "TCP", "port": TARGET_PORT}],
        "endpoints": listed(endpoints),
    })
}

fn listed(endpoints: &[Endpoint<'_>]) -> Vec<Value> {
    let one = |endpoint: &Endpoint<'_>| {
        let pod = format!("pod-{}", endpoint.address.to_string().replace('.', "-"));
        json!({
            "addresses": [endpoint.address],
            "nodeName": endpoint.node,
            "conditions": {
                "ready": !endpoint.terminating,
                "serving": true,
                "terminating": endpoint.terminating,
            },
            "targetRef": {"kind": "Pod", "namespace": "default", "name": pod, "uid": format!("0000-{pod}")},
        })
    };
    endpoints.iter().map(one).collect()
}
