//! What is written, step by step. Rows A.. and B.. are OpenELB's behaviours and ours beyond them.

mod announcing;
mod saying;
mod staying;
mod swapping;
mod telling;

use super::*;
use crate::model::{Cluster, Eip, Mode, Node, PortProtocol, Protocol, Service, ServicePort};
use std::collections::{BTreeMap, BTreeSet};

const POOL: &str = "eip.openelb.kubesphere.io/v1alpha2";
const ADDRESS: &str = "eip.openelb.kubesphere.io/v1alpha1";

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "apps".into(),
        name: name.into(),
    }
}

fn service(more: &[(&str, &str)]) -> Service {
    let opt_in = ("lb.kubesphere.io/v1alpha1", "openelb");
    let all = std::iter::once(&opt_in).chain(more);
    Service {
        load_balancer: true,
        annotations: all.map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: PortProtocol::Served(Protocol::Tcp),
            port: 80,
        }],
        ..Service::default()
    }
}

fn eip(address: &str) -> Eip {
    Eip {
        address: address.into(),
        mode: Mode::Layer2,
        interface: Some("eth0".into()),
        ..Eip::default()
    }
}

/// The objects, with the writes carried out.
#[derive(Default)]
struct Objects {
    services: BTreeMap<ServiceKey, (Service, ServiceObject)>,
    eips: BTreeMap<String, (Eip, EipObject)>,
    nodes: Vec<String>,
    node_addresses: Vec<IpAddr>,
    silent: BTreeSet<String>,
    events: Vec<String>,
}

impl Objects {
    fn with(eips: &[(&str, Eip)], services: &[(&str, Service)]) -> Self {
        let eips = eips
            .iter()
            .map(|(name, eip)| ((*name).into(), (eip.clone(), EipObject::default())));
        let services = services.iter();
        Self {
            eips: eips.collect(),
            services: services
                .map(|(name, service)| (key(name), (service.clone(), ServiceObject::default())))
                .collect(),
            ..Self::default()
        }
    }

    fn world(&self) -> World {
        let cluster = Cluster {
            services: self
                .services
                .iter()
                .map(|(key, (service, _))| (key.clone(), service.clone().into()))
                .collect(),
            eips: self
                .eips
                .iter()
                .map(|(name, (eip, _))| (name.clone(), eip.clone()))
                .collect(),
            nodes: self
                .nodes
                .iter()
                .map(|name| (name.clone(), node(&self.node_addresses)))
                .collect(),
            ..Cluster::default()
        };
        let services = self
            .services
            .iter()
            .map(|(key, (_, object))| (key.clone(), object.clone()));
        let eips = self
            .eips
            .iter()
            .map(|(name, (_, object))| (name.clone(), object.clone()));
        World::new(cluster, services.collect(), eips.collect(), true).not_hearing(self.silent.clone())
    }

    /// Makes the writes of one plan; gives their names.
    fn round(&mut self) -> Vec<String> {
        let world = self.world();
        let planned = plan(&world);
        let unmarked: BTreeMap<_, _> = self
            .services
            .keys()
            .map(|key| (key.clone(), world.unmarked(key)))
            .collect();
        for telling in planned.telling {
            match telling {
                Telling::Service { service, served, .. } => self.services.get_mut(&service).unwrap().1.served = served,
                Telling::Eip { eip, ready, gone } => {
                    let object = &mut self.eips.get_mut(&eip).unwrap().1;
                    object.ready = (ready.holds, Some(ready));
                    object.nodes.retain(|node, _| !gone.contains(node));
                }
            }
        }
        let made = planned.actions.into_iter().map(|action| match action {
            Action::Show {
                service,
                addresses,
                events,
                ..
            } => {
                let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let made = format!("show {} [{}]", service.name, texts.join(" "));
                self.services.get_mut(&service).unwrap().0.ingress = addresses;
                self.events.extend(events.into_iter().map(|event| event.reason));
                made
            }
            Action::Mark {
                service, eip, events, ..
            } => {
                let made = format!("mark {} {}", service.name, eip.as_deref().unwrap_or("-"));
                let (object, written) = self.services.get_mut(&service).unwrap();
                written.finalizer = eip.is_some();
                written.node_proxy &= eip.is_some() || !unmarked[&service].contains(&NODE_PROXY_FINALIZERS[0]);
                object.label.clone_from(&eip);
                written.label = eip;
                self.events.extend(events.into_iter().map(|event| event.reason));
                if object.deleting && !written.finalizer && !written.node_proxy {
                    self.services.remove(&service);
                }
                made
            }
            Action::Guard { eip, finalizer, .. } => {
                let made = format!("guard {eip} {finalizer}");
                self.eips.get_mut(&eip).unwrap().1.finalizer = finalizer;
                if !finalizer {
                    self.eips.remove(&eip);
                }
                made
            }
            Action::Record { eip, status, .. } => {
                let used: Vec<_> = status
                    .used
                    .iter()
                    .map(|(address, keys)| format!("{address}={keys}"))
                    .collect();
                let made = format!("record {eip} {}", used.join(" "));
                self.eips.get_mut(&eip).unwrap().1.status = status;
                made
            }
        });
        made.collect()
    }

    #[track_caller]
    fn settle(&mut self) {
        for _ in 0..20 {
            if self.round().is_empty() {
                return;
            }
        }
        panic!("no end");
    }

    fn service(&mut self, name: &str) -> &mut Service {
        &mut self.services.get_mut(&key(name)).unwrap().0
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = plan(&self.world()).warnings;
        warnings
            .iter()
            .map(|it| format!("{} {}", it.object, it.reason))
            .collect()
    }

    fn used(&self, eip: &str) -> BTreeMap<String, String> {
        self.eips[eip].1.status.used.clone()
    }
}

fn node(addresses: &[IpAddr]) -> Node {
    Node {
        internal_addresses: addresses.to_vec(),
        excluded: false,
        ready: true,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A14, A15, B11, B16, B25: book, mark, status, in this order.
#[test]
fn an_address_is_recorded_before_it_is_shown() {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
    assert_eq!(objects.round(), ["guard pool true"]);
    assert_eq!(objects.round(), ["record pool 10.1.0.8=apps/web"]);
    let status = EipStatus {
        occupied: false,
        usage: 1,
        pool_size: 4,
        used: [("10.1.0.8".to_owned(), "apps/web".to_owned())].into(),
        first_ip: "10.1.0.8".into(),
        last_ip: "10.1.0.11".into(),
        v4: true,
    };
    assert_eq!(objects.eips["pool"].1.status, status);
    assert_eq!(objects.round(), ["mark web pool"]);
    assert_eq!(objects.round(), ["show web [10.1.0.8]"]);
    assert_eq!(objects.round(), [""; 0]);
    assert_eq!(objects.events, ["AssignIP"]);
}

/// B17, B18, B25: the other way round.
#[test]
fn an_address_is_free_when_nobody_shows_it() {
    let release = |change: fn(&mut Service)| {
        let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
        objects.settle();
        objects.events.clear();
        change(objects.service("web"));
        if objects.service("web").load_balancer {
            assert_eq!(objects.round(), ["show web []"]);
        }
        assert_eq!(objects.round(), ["mark web -"]);
        assert_eq!(objects.round(), ["record pool "]);
        assert_eq!(objects.round(), [""; 0]);
        assert_eq!(objects.events, ["ReleaseIP"]);
    };
    release(|service| service.deleting = true);
    release(|service| service.annotations.clear());
    release(|service| {
        service.load_balancer = false;
        // The API server does this.
        service.ingress.clear();
    });
    // NodeProxy is refused, not half handled (B28).
    release(|service| {
        let key = "node-proxy.openelb.kubesphere.io/type";
        service.annotations.insert(key.into(), "daemonset".into());
    });
}

/// B28: what OpenELB would have done before a Service goes is not waited for; while it lives, the finalizer is OpenELB's.
#[test]
fn a_service_that_waits_for_openelbs_node_proxy_is_let_go() {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
    let mut plain = service(&[]);
    plain.annotations.clear();
    objects.services.insert(key("plain"), (plain, ServiceObject::default()));
    for (_, written) in objects.services.values_mut() {
        written.node_proxy = true;
    }
    objects.settle();
    assert!(objects.services.values().all(|(_, written)| written.node_proxy));
    objects.events.clear();
    objects.service("plain").deleting = true;
    assert_eq!(objects.round(), ["mark plain -"]);
    assert_eq!(objects.events, ["NodeProxyUnsupported"]);
    objects.service("web").deleting = true;
    assert_eq!(objects.round(), ["show web []"]);
    assert_eq!(objects.round(), ["mark web -"]);
    assert!(objects.services.is_empty());
    assert_eq!(
        objects.events,
        ["NodeProxyUnsupported", "ReleaseIP", "NodeProxyUnsupported"]
    );
}

/// B12, B13, A15: who shares is joined by `;`, in the order of coming.
#[test]
fn sharers_are_joined() {
    let other_port = |port| {
        let mut service = service(&[(ADDRESS, "10.1.0.9")]);
        service.ports[0].port = port;
        service
    };
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("b", other_port(80))]);
    objects.settle();
    let later = [("a", other_port(443)), ("c", other_port(80))];
    objects
        .services
        .extend(later.map(|(name, service)| (key(name), (service, ServiceObject::default()))));
    objects.settle();
    assert_eq!(
        objects.used("pool"),
        [("10.1.0.9".to_owned(), "apps/b;apps/a".to_owned())].into()
    );
    assert_eq!(objects.eips["pool"].1.status.usage, 1);
    assert_eq!(objects.service("a").ingress, [address("10.1.0.9")]);
    assert!(objects.service("c").ingress.is_empty());
    assert_eq!(objects.warnings(), ["Service apps/c AssignIPFailed"]);
}

/// B22: nothing that OpenELB has written is written again.
#[test]
fn what_openelb_has_written_is_taken_as_it_is() {
    let mut objects = Objects::with(
        &[("pool", eip("10.1.0.8/30"))],
        &[("web", service(&[])), ("by-name", service(&[(POOL, "pool")]))],
    );
    for (name, shown) in [("web", "10.1.0.10"), ("by-name", "10.1.0.9")] {
        let (service, written) = objects.services.get_mut(&key(name)).unwrap();
        service.ingress = vec![address(shown)];
        (written.label, written.finalizer) = (Some("pool".into()), true);
    }
    let (_, written) = objects.eips.get_mut("pool").unwrap();
    written.finalizer = true;
    written.status = EipStatus {
        occupied: false,
        usage: 2,
        pool_size: 4,
        used: [("10.1.0.9", "apps/by-name"), ("10.1.0.10", "apps/web")]
            .map(|(address, key)| (address.to_owned(), key.to_owned()))
            .into(),
        first_ip: "10.1.0.8".into(),
        last_ip: "10.1.0.11".into(),
        v4: true,
    };
    assert_eq!(objects.round(), [""; 0]);
    // B23: a book that is lost is written anew from the Services, whatever is lost with it.
    objects.eips.get_mut("pool").unwrap().1 = EipObject::default();
    objects
        .services
        .insert(key("a-new"), (service(&[(POOL, "pool")]), ServiceObject::default()));
    objects.settle();
    let used = [
        ("10.1.0.10", "apps/web"),
        ("10.1.0.8", "apps/a-new"),
        ("10.1.0.9", "apps/by-name"),
    ];
    assert_eq!(
        objects.used("pool"),
        used.map(|(a, k)| (a.to_owned(), k.to_owned())).into()
    );
}

/// B19: the new one is had before the old one is free.
#[test]
fn a_change_of_request_moves_the_service() {
    let eips = [("one", eip("10.1.0.0/24")), ("two", eip("10.2.0.0/24"))];
    let mut objects = Objects::with(&eips, &[("web", service(&[(POOL, "one")]))]);
    objects.settle();
    objects.events.clear();
    objects.service("web").annotations.insert(POOL.into(), "two".into());
    assert_eq!(objects.round(), ["record two 10.2.0.0=apps/web"]);
    assert_eq!(objects.round(), ["mark web two"]);
    assert_eq!(objects.round(), ["show web [10.2.0.0]"]);
    assert_eq!(objects.round(), ["record one "]);
    assert_eq!(objects.round(), [""; 0]);
    assert_eq!(objects.events, ["ReleaseIP", "AssignIP"]);
}

/// A13, A14: an Eip goes when nobody has an address of it any more.
#[test]
fn a_deleted_eip_waits_for_its_services() {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
    objects.settle();
    objects.eips.get_mut("pool").unwrap().0.deleting = true;
    assert_eq!(objects.round(), ["show web []"]);
    assert_eq!(objects.round(), ["mark web -"]);
    assert_eq!(objects.round(), ["record pool "]);
    assert_eq!(objects.round(), ["guard pool false"]);
    assert_eq!(objects.round(), [""; 0]);
    assert_eq!(objects.warnings(), ["Service apps/web AssignIPFailed"]);
}

/// B20, B21: neither a disabled Eip nor one that is refused takes anything back.
#[test]
fn a_fault_of_the_eip_leaves_services_alone() {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
    objects.settle();
    for change in [
        |eip: &mut Eip| eip.disabled = true,
        |eip: &mut Eip| eip.interface = None,
    ] {
        change(&mut objects.eips.get_mut("pool").unwrap().0);
        objects
            .services
            .insert(key("late"), (service(&[(POOL, "pool")]), ServiceObject::default()));
        assert_eq!(objects.round(), [""; 0]);
    }
    assert_eq!(
        objects.warnings(),
        ["Eip pool add/update eip", "Service apps/late AssignIPFailed"]
    );
}

/// A pool of one that is full, and one that grows (A10).
#[test]
fn figures_follow_the_range() {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8"))], &[("web", service(&[(POOL, "pool")]))]);
    objects.settle();
    let status = |objects: &Objects| objects.eips["pool"].1.status.clone();
    assert!(status(&objects).occupied);
    objects.eips.get_mut("pool").unwrap().0.address = "10.1.0.8/29".into();
    objects.settle();
    let EipStatus {
        occupied, pool_size, ..
    } = status(&objects);
    assert_eq!((occupied, pool_size), (false, 8));
    objects.eips.get_mut("pool").unwrap().0.address = "fd00::/64".into();
    objects.eips.get_mut("pool").unwrap().0.annotations.clear();
    objects.settle();
    let EipStatus { pool_size, v4, .. } = status(&objects);
    assert_eq!((pool_size, v4), (i64::MAX, false));
}

/// B01, B02: what is not ours is left alone, whatever it shows.
#[test]
fn others_are_not_touched() {
    let foreign = Service {
        annotations: BTreeMap::new(),
        ingress: vec![address("10.1.0.8")],
        ..service(&[])
    };
    let other_class = Service {
        load_balancer_class: Some("other".into()),
        ingress: vec![address("10.9.0.1")],
        ..service(&[])
    };
    let services = [
        ("foreign", foreign),
        ("other", other_class),
        ("web", service(&[(POOL, "pool")])),
    ];
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &services);
    objects.settle();
    assert_eq!(objects.service("foreign").ingress, [address("10.1.0.8")]);
    assert_eq!(objects.service("other").ingress, [address("10.9.0.1")]);
    assert_eq!(
        objects.used("pool"),
        [("10.1.0.9".to_owned(), "apps/web".to_owned())].into()
    );
}
