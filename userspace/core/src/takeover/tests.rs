mod cleaning;

use super::*;
use crate::{
    controller::{
        EIP_FINALIZER, EIP_LABEL, EipObject, EipStatus, NODE_PROXY_FINALIZERS, SERVICE_FINALIZER, ServiceObject, World,
    },
    model::{Cluster, Eip, Family, Mode, PortProtocol, Protocol, Service, ServiceKey, ServicePort, TrafficPolicy},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

fn key(name: &str) -> ServiceKey {
    format!("default/{name}").parse().unwrap()
}

/// A cluster that OpenELB 0.6 has left in order: one Eip, one Service with an address of it.
struct Left {
    cluster: Cluster,
    services: BTreeMap<ServiceKey, ServiceObject>,
    eips: BTreeMap<String, EipObject>,
    surroundings: Surroundings,
}

impl Left {
    fn in_order() -> Self {
        let address: IpAddr = "10.1.0.7".parse().unwrap();
        let mut left = Self {
            cluster: Cluster::default(),
            services: BTreeMap::new(),
            eips: BTreeMap::new(),
            surroundings: Surroundings {
                letting_in: Some(Vec::new()),
                ..Surroundings::default()
            },
        };
        left.cluster.eips.insert(
            "pool".into(),
            Eip {
                address: "10.1.0.0/24".into(),
                mode: Mode::Layer2,
                interface: Some("eth0".into()),
                ..Eip::default()
            },
        );
        left.eips.insert(
            "pool".into(),
            EipObject {
                finalizer: true,
                status: EipStatus {
                    usage: 1,
                    pool_size: 256,
                    used: [("10.1.0.7".into(), "default/web".into())].into(),
                    first_ip: "10.1.0.0".into(),
                    last_ip: "10.1.0.255".into(),
                    v4: true,
                    occupied: false,
                },
                ..EipObject::default()
            },
        );
        left.serve("web", &[address]);
        left
    }

    fn serve(&mut self, name: &str, ingress: &[IpAddr]) {
        let service = Service {
            annotations: [
                ("lb.kubesphere.io/v1alpha1".into(), "openelb".into()),
                (EIP_LABEL.into(), "pool".into()),
            ]
            .into(),
            load_balancer: true,
            families: vec![Family::V4],
            ports: vec![ServicePort {
                name: "http".into(),
                protocol: PortProtocol::Served(Protocol::Tcp),
                port: 80,
            }],
            ingress: ingress.into(),
            ..Service::default()
        };
        self.cluster.services.insert(key(name), Arc::new(service));
        self.services.insert(
            key(name),
            ServiceObject {
                label: (!ingress.is_empty()).then(|| "pool".into()),
                finalizer: !ingress.is_empty(),
                ..ServiceObject::default()
            },
        );
    }

    fn service(&mut self, name: &str) -> &mut Service {
        Arc::make_mut(self.cluster.services.get_mut(&key(name)).unwrap())
    }

    /// What is found, a line each: level, object, field.
    fn found(self) -> Vec<String> {
        let world = World::new(self.cluster.clone(), self.services, self.eips, true);
        let findings = judge(&self.cluster, world, &self.surroundings);
        for finding in &findings {
            assert!(!finding.says.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
        }
        findings
            .iter()
            .map(
                |Finding {
                     level, object, field, ..
                 }| format!("{level:?} {object} {field}").trim_end().to_owned(),
            )
            .collect()
    }
}

fn workload(kind: &str, name: &str, pods: i64) -> Workload {
    Workload {
        object: ObjectRef {
            kind: kind.into(),
            namespace: "openelb-system".into(),
            name: name.into(),
        },
        images: vec![format!("kubesphere/{name}:v0.6.0")],
        pods,
    }
}

fn webhook(service: &str, fails_closed: bool) -> Webhook {
    Webhook {
        configuration: ObjectRef::cluster_scoped("ValidatingWebhookConfiguration", &format!("{service}-hooks")),
        name: "validate.example.com".into(),
        service: Some(("openelb-system".into(), service.into())),
        fails_closed,
        resources: vec!["eips".into()],
    }
}

#[test]
fn what_is_in_order_is_no_finding() {
    assert_eq!(Left::in_order().found(), [""; 0]);
}

#[test]
fn who_still_runs_is_named() {
    let mut left = Left::in_order();
    left.surroundings.workloads = vec![
        workload("Deployment", "openelb-controller", 1),
        workload("DaemonSet", "openelb-speaker", 3),
        workload("Deployment", "porter-manager", 0),
        workload("Deployment", "node-proxy-web-default", 1),
        Workload {
            images: vec!["nginx".into()],
            ..workload("Deployment", "web", 3)
        },
    ];
    assert_eq!(
        left.found(),
        [
            "Problem DaemonSet openelb-system/openelb-speaker",
            "Problem Deployment openelb-system/openelb-controller spec.replicas",
            "Warning Deployment openelb-system/node-proxy-web-default",
            "Note Deployment openelb-system/porter-manager",
        ]
    );
}

/// What has its words in its name, or comes by way of it, is not its.
#[test]
fn who_is_not_of_openelb_is_left_in_peace() {
    let with = |name: &str, image: &str| Workload {
        images: vec!["nginx".into(), image.into()],
        ..workload("DaemonSet", name, 3)
    };
    let mut left = Left::in_order();
    left.surroundings.workloads = vec![
        with("node-exporter", "quay.io/prometheus/node-exporter:v1.8.2"),
        with("blackbox-exporter", "quay.io/prometheus/blackbox-exporter@sha256:0123"),
        with("weir-agent", "registry.openelb.example:5000/openelb/weir:0.1.0"),
        with("porter-shop", "shop/porterhouse:openelb"),
    ];
    let kubesphere = Webhook {
        name: "validating-network.kubesphere.io".into(),
        resources: vec!["ippools".into()],
        ..webhook("ks-controller-manager", true)
    };
    left.surroundings.webhooks = vec![
        webhook("porter-shop", true),
        webhook("porter-operator-controller-manager", true),
        webhook("openelb-exporter", true),
        webhook("myopenelb-controller", true),
        kubesphere,
    ];
    assert_eq!(left.found(), [""; 0]);

    // Under another name, from a registry of one's own.
    for image in [
        "openelb-speaker",
        "registry.example:5000/mirror/openelb-speaker:v0.6.0@sha256:0123",
        "kubesphere/openelb@sha256:0123",
        "kubesphere/porter:v0.4.3",
    ] {
        let mut left = Left::in_order();
        left.surroundings.workloads = vec![with("speaker", image)];
        assert_eq!(left.found(), ["Problem DaemonSet openelb-system/speaker"], "{image}");
    }
}

/// Where kube-proxy has hidden clients from pods, and only there.
#[test]
fn policies_that_will_see_clients_are_named() {
    let policy = |namespace: &str, name: &str| ObjectRef {
        kind: "NetworkPolicy".into(),
        namespace: namespace.into(),
        name: name.into(),
    };
    let with = |namespace: &str| {
        let mut left = Left::in_order();
        left.serve("others", &[]);
        left.service("others").annotations.clear();
        left.surroundings.letting_in = Some(vec![policy(namespace, "deny"), policy(namespace, "web")]);
        left
    };
    let left = with("default");
    let world = World::new(left.cluster.clone(), left.services.clone(), left.eips.clone(), true);
    let findings = judge(&left.cluster, world, &left.surroundings);
    assert!(findings[0].says.ends_with("come in: deny, web"), "{findings:?}");
    assert_eq!(left.found(), ["Note Service default/web spec.externalTrafficPolicy"]);
    assert_eq!(with("elsewhere").found(), [""; 0]);
    let mut local = with("default");
    local.service("web").traffic_policy = TrafficPolicy::Local;
    assert_eq!(local.found(), [""; 0]);
    let mut unseen = Left::in_order();
    unseen.surroundings.letting_in = None;
    assert_eq!(unseen.found(), ["Note NetworkPolicy *"]);
}

#[test]
fn who_would_be_asked_is_named() {
    let mut left = Left::in_order();
    left.surroundings.webhooks = vec![
        webhook("openelb-controller", true),
        webhook("openelb-manager", false),
        webhook("openelb-prod-controller", true),
        webhook("lb-openelb-controller", true),
        // By the name of the webhook, and by that of the configuration.
        Webhook {
            name: "mutating.eip.network.kubesphere.io".into(),
            ..webhook("one-manager", true)
        },
        Webhook {
            configuration: ObjectRef::cluster_scoped("ValidatingWebhookConfiguration", "openelb-admission"),
            ..webhook("another", true)
        },
        // Weir's own, whatever its Service is called.
        Webhook {
            name: "validate.eip.network.kubesphere.io".into(),
            ..webhook("weir-controller", true)
        },
        Webhook {
            configuration: ObjectRef::cluster_scoped("ValidatingWebhookConfiguration", "weir"),
            name: "validate.eip.network.kubesphere.io".into(),
            ..webhook("by-another-name", true)
        },
        webhook("cert-manager", true),
    ];
    left.surroundings.definitions = vec![
        Definition {
            name: "eips.network.kubesphere.io".into(),
            converter: Some(("x".into(), "gone".into())),
            served: vec!["v1alpha1".into()],
        },
        Definition {
            name: "bgpconfs.network.kubesphere.io".into(),
            converter: Some(("weir-system".into(), "weir-controller".into())),
            served: vec!["v1alpha1".into(), "v1alpha2".into()],
        },
    ];
    let field = "webhooks[validate.example.com]";
    assert_eq!(
        left.found(),
        [
            "Problem CustomResourceDefinition eips.network.kubesphere.io spec.conversion".to_owned(),
            "Problem CustomResourceDefinition eips.network.kubesphere.io spec.versions".to_owned(),
            format!("Problem ValidatingWebhookConfiguration lb-openelb-controller-hooks {field}"),
            "Problem ValidatingWebhookConfiguration one-manager-hooks webhooks[mutating.eip.network.kubesphere.io]"
                .into(),
            format!("Problem ValidatingWebhookConfiguration openelb-admission {field}"),
            format!("Problem ValidatingWebhookConfiguration openelb-controller-hooks {field}"),
            format!("Problem ValidatingWebhookConfiguration openelb-prod-controller-hooks {field}"),
            format!("Warning ValidatingWebhookConfiguration openelb-manager-hooks {field}"),
        ]
    );
}

#[test]
fn other_ways_of_announcing_are_named() {
    let mut left = Left::in_order();
    for (name, mode) in [("routed", Mode::Bgp), ("shared", Mode::Vip)] {
        let eip = Eip {
            address: format!("10.{}.0.1", mode as u8 + 2),
            mode,
            interface: Some("eth0".into()),
            ..Eip::default()
        };
        left.cluster.eips.insert(name.into(), eip);
    }
    left.surroundings.bgp = vec![ObjectRef::cluster_scoped("BgpConf", "default")];
    assert_eq!(
        left.found(),
        [
            "Problem Eip routed spec.protocol",
            "Warning BgpConf default",
            "Warning Eip shared spec.protocol",
        ]
    );
}

#[test]
fn addresses_that_would_change_are_problems() {
    let mut left = Left::in_order();
    left.service("web").ingress = vec!["10.9.9.9".parse().unwrap()];
    let found = left.found();
    assert!(
        found.contains(&"Problem Service default/web status.loadBalancer.ingress".to_owned()),
        "{found:?}"
    );
}

/// What is wrong with a Service is a problem as far as it loses by it.
#[test]
fn a_mistake_by_which_an_address_is_kept_is_no_problem() {
    let mut left = Left::in_order();
    left.service("web").load_balancer_ip = Some("ten".into());
    assert_eq!(left.found(), ["Warning Service default/web"]);

    // No Eip has it, and there is no other.
    let mut left = Left::in_order();
    left.cluster.eips.clear();
    left.eips.clear();
    for marked in [true, false] {
        let mut left = Left {
            cluster: left.cluster.clone(),
            services: left.services.clone(),
            eips: left.eips.clone(),
            surroundings: left.surroundings.clone(),
        };
        let object = left.services.get_mut(&key("web")).unwrap();
        object.finalizer = marked;
        object.label = object.label.take().filter(|_| marked);
        let found = left.found();
        assert!(found.contains(&"Problem Service default/web".to_owned()), "{found:?}");
    }
}

#[test]
fn a_service_that_waits_gets_an_address() {
    let mut left = Left::in_order();
    left.serve("new", &[]);
    let found = left.found();
    assert_eq!(
        found,
        ["Note Service default/new status.loadBalancer.ingress"],
        "{found:?}"
    );
}

#[test]
fn books_that_are_wrong_are_named() {
    let mut left = Left::in_order();
    let used = &mut left.eips.get_mut("pool").unwrap().status.used;
    used.clear();
    used.insert("10.1.0.9".into(), "default/gone".into());
    assert_eq!(
        left.found(),
        [
            "Warning Eip pool status.used[10.1.0.7]",
            "Warning Eip pool status.used[10.1.0.9]",
        ]
    );
}

#[test]
fn earlier_annotations_are_named() {
    let mut left = Left::in_order();
    let annotations = &mut left.service("web").annotations;
    annotations.insert("lb.kubesphere.io/v1alpha1".into(), "porter".into());
    annotations.insert("layer2.openelb.kubesphere.io/v1alpha1".into(), "node-1".into());
    annotations.insert("layer2.porter.kubesphere.io/v1alpha1".into(), "node-1".into());
    annotations.insert("node-proxy.porter.kubesphere.io/external-ip".into(), "10.0.0.1".into());
    annotations.insert("protocol.openelb.kubesphere.io/v1alpha1".into(), "bgp".into());
    assert_eq!(
        left.found(),
        [
            "Warning Service default/web",
            "Note Service default/web metadata.annotations[layer2.openelb.kubesphere.io/v1alpha1]",
            "Note Service default/web metadata.annotations[layer2.porter.kubesphere.io/v1alpha1]",
            "Note Service default/web metadata.annotations[lb.kubesphere.io/v1alpha1]",
            "Note Service default/web metadata.annotations[node-proxy.porter.kubesphere.io/external-ip]",
        ]
    );
}

#[test]
fn a_node_proxy_is_a_problem_where_it_costs_an_address() {
    let mut left = Left::in_order();
    left.service("web")
        .annotations
        .insert("node-proxy.openelb.kubesphere.io/type".into(), "daemonset".into());
    let found = left.found();
    assert!(found.contains(&"Problem Service default/web".to_owned()), "{found:?}");
}

/// B28: whether it lives or is being deleted already.
#[test]
fn a_service_that_waits_for_openelbs_node_proxy_is_named() {
    for deleting in [false, true] {
        let mut left = Left::in_order();
        left.serve("proxied", &[]);
        let service = left.service("proxied");
        service.annotations.clear();
        service.deleting = deleting;
        left.services.get_mut(&key("proxied")).unwrap().node_proxy = true;
        assert_eq!(left.found(), ["Warning Service default/proxied metadata.finalizers"]);
    }
}
