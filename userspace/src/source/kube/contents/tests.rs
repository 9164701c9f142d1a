use super::*;
use weir_core::model::{Automatic, Eip, Endpoint, EndpointSlice, Node, Service, reason};
use weir_core::{controller::EipObject, standing::Standing};

fn entry(identity: Identity, object: Object) -> Entry {
    Entry {
        identity,
        object: Some(object),
        record: None,
        faults: Vec::new(),
    }
}

fn of(name: &str) -> ServiceKey {
    format!("apps/{name}").parse().unwrap()
}

fn eip(name: &str, address: &str) -> Entry {
    let object = Eip {
        address: address.into(),
        ..Eip::default()
    };
    entry(Identity::cluster_scoped("Eip", name), Object::Eip(object))
}

fn service(name: &str, priority: i64) -> Entry {
    let object = Service {
        created: Some(priority),
        ..Service::default()
    };
    entry(Identity::service(&of(name)), Object::Service(object.into()))
}

fn slice_id(name: &str) -> Identity {
    Identity::endpoint_slice(&of("any"), name)
}

fn slice(name: &str, service: &str, address: &str) -> Entry {
    let endpoint = Endpoint {
        address: address.parse().unwrap(),
        node: None,
        ready: true,
        serving: true,
        terminating: false,
    };
    let object = EndpointSlice {
        endpoints: vec![endpoint],
        ..EndpointSlice::default()
    };
    entry(slice_id(name), Object::EndpointSlice(of(service), object.into()))
}

fn slices(contents: &Contents) -> Vec<String> {
    let cluster = contents.snapshot();
    let all = cluster.endpoint_slices.iter();
    all.flat_map(|(service, slices)| slices.keys().map(move |slice| format!("{}: {slice}", service.name)))
        .collect()
}

#[test]
fn the_same_again_is_nothing_new() {
    let mut contents = Contents::new(Scope::Agent);
    assert!(contents.set(eip("pool", "10.1.0.0/24")));
    assert!(contents.set(service("web", 1)));
    assert!(contents.set(slice("web-1", "web", "10.9.0.1")));
    let before = contents.snapshot();
    assert_eq!(before.automatic, Automatic::Given);

    assert!(!contents.set(eip("pool", "10.1.0.0/24")));
    assert!(!contents.set(service("web", 1)));
    assert!(!contents.replace("EndpointSlice", vec![slice("web-1", "web", "10.9.0.1")]));
    assert!(!contents.replace("Service", vec![service("web", 1)]));
    assert!(!contents.replace("Eip", vec![eip("pool", "10.1.0.0/24")]));
    assert_eq!(contents.snapshot(), before);

    assert!(contents.set(slice("web-1", "web", "10.9.0.2")));
    assert!(contents.set(service("web", 2)));
    assert_ne!(contents.snapshot(), before);
}

#[test]
fn a_list_replaces_its_own_kind() {
    let mut contents = Contents::new(Scope::Agent);
    contents.replace("Service", vec![service("a", 1), service("b", 1)]);
    contents.replace("Eip", vec![eip("pool", "10.1.0.0/24")]);
    assert!(contents.replace("Service", vec![service("b", 1), service("c", 1)]));
    let cluster = contents.snapshot();
    let names: Vec<_> = cluster.services.keys().map(|key| &*key.name).collect();
    assert_eq!((names, cluster.eips.len()), (vec!["b", "c"], 1));

    assert!(contents.replace("Eip", Vec::new()));
    assert!(contents.snapshot().eips.is_empty());
}

#[test]
fn slices_follow_their_service_whatever_comes_first() {
    let mut contents = Contents::new(Scope::Agent);
    assert!(!contents.set(slice("web-1", "web", "10.9.0.1")), "nobody needs it");
    assert!(contents.set(service("web", 1)));
    assert!(contents.set(slice("web-2", "web", "10.9.0.2")));
    assert_eq!(slices(&contents), ["web: web-1", "web: web-2"]);

    assert!(contents.remove(&Identity::service(&of("web"))));
    assert_eq!(slices(&contents), [""; 0]);
    assert!(!contents.remove(&slice_id("web-2")));
    assert!(contents.set(service("web", 1)));
    assert_eq!(slices(&contents), ["web: web-1"]);

    // The label may lead to another Service one day.
    assert!(contents.set(service("shop", 1)));
    assert!(contents.set(slice("web-1", "shop", "10.9.0.1")));
    assert_eq!(slices(&contents), ["shop: web-1"]);
    assert!(contents.set(slice("web-1", "elsewhere", "10.9.0.1")));
    assert_eq!(slices(&contents), [""; 0]);
    assert!(!contents.replace("EndpointSlice", Vec::new()));
    assert!(contents.unclaimed.is_empty() && contents.slices.is_empty());
}

#[test]
fn an_object_that_cannot_be_read_is_as_it_was() {
    let mut contents = Contents::new(Scope::Agent);
    contents.set(eip("pool", "10.1.0.0/24"));
    let identity = Identity::cluster_scoped("Eip", "pool");
    let fault = Condition::new(
        identity.clone(),
        "spec.priority",
        reason::UNPARSABLE,
        "no number".into(),
    );
    let unreadable = Entry {
        identity,
        object: None,
        record: None,
        faults: vec![fault.clone()],
    };
    assert!(contents.set(unreadable.clone()));
    assert!(!contents.replace("Eip", vec![unreadable.clone()]));
    let cluster = contents.snapshot();
    assert_eq!((cluster.eips.len(), cluster.faults), (1, vec![fault]));
    assert!(contents.set(eip("pool", "10.1.0.0/24")), "the fault is gone");
    assert!(contents.snapshot().faults.is_empty());

    // One that never could be read leaves nothing behind either.
    contents.replace("Eip", Vec::new());
    contents.set(unreadable);
    assert!(contents.replace("Eip", Vec::new()));
    assert_eq!(contents.snapshot(), Contents::new(Scope::Agent).snapshot());
}

#[test]
fn nodes_and_namespaces_are_kept_by_name() {
    let node = Node {
        internal_addresses: Vec::new(),
        excluded: false,
        ready: true,
    };
    let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let mut contents = Contents::new(Scope::Controller);
    let of_node = Identity::cluster_scoped("Node", "node-1");
    assert!(contents.set(entry(of_node.clone(), Object::Node(node))));
    let of_namespace = Identity::cluster_scoped("Namespace", "apps");
    assert!(contents.set(entry(of_namespace, Object::Namespace(labels.clone()))));
    assert_eq!(contents.snapshot().namespaces["apps"], labels);
    assert!(contents.remove(&of_node) && !contents.remove(&of_node));
    assert!(contents.replace("Namespace", Vec::new()));
}

/// As a record of an Eip says it of each node.
fn says(name: &str, nodes: &[(&str, bool)]) -> Entry {
    let standing = |takes_tunnel: &bool| Standing {
        takes_tunnel: *takes_tunnel,
        ..Standing::default()
    };
    let nodes = nodes.iter().map(|(node, takes)| ((*node).to_owned(), standing(takes)));
    Entry {
        record: Some(Record::Eip(EipObject {
            nodes: nodes.collect(),
            ..EipObject::default()
        })),
        ..eip(name, "10.1.0.0/24")
    }
}

#[test]
fn any_eip_says_for_a_node_that_a_tunnel_leads_to_it() {
    let mut contents = Contents::new(Scope::Agent);
    let taking =
        |contents: &Contents| -> Vec<String> { contents.snapshot().tunnels.unwrap().iter().cloned().collect() };
    assert!(taking(&contents).is_empty());
    contents.set(says("one", &[("node-a", true), ("node-b", false)]));
    contents.set(says("two", &[("node-b", true)]));
    assert_eq!(taking(&contents), ["node-a", "node-b"]);
    contents.set(says("one", &[]));
    assert_eq!(taking(&contents), ["node-b"]);
    contents.replace("Eip", vec![says("one", &[("node-c", true)])]);
    assert_eq!(taking(&contents), ["node-c"], "what is listed no more says nothing");
    contents.remove(&Identity::cluster_scoped("Eip", "one"));
    assert!(taking(&contents).is_empty());

    // A controller forwards nothing.
    let mut contents = Contents::new(Scope::Controller);
    contents.set(says("one", &[("node-a", true)]));
    assert_eq!(contents.snapshot().tunnels, None);
}
