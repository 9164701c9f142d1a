use super::*;
use weir_core::model::{Eip, Endpoint, EndpointSlice, Node, Service, reason};

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
    let mut contents = Contents::new(Automatic::Given);
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
    let mut contents = Contents::new(Automatic::Given);
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
    let mut contents = Contents::new(Automatic::Given);
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
    let mut contents = Contents::new(Automatic::Given);
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
    assert_eq!(contents.snapshot(), Contents::new(Automatic::Given).snapshot());
}

#[test]
fn nodes_and_namespaces_are_kept_by_name() {
    let node = Node {
        internal_addresses: Vec::new(),
        excluded: false,
        ready: true,
    };
    let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let mut contents = Contents::new(Automatic::Lowest);
    let of_node = Identity::cluster_scoped("Node", "node-1");
    assert!(contents.set(entry(of_node.clone(), Object::Node(node))));
    let of_namespace = Identity::cluster_scoped("Namespace", "apps");
    assert!(contents.set(entry(of_namespace, Object::Namespace(labels.clone()))));
    assert_eq!(contents.snapshot().namespaces["apps"], labels);
    assert!(contents.remove(&of_node) && !contents.remove(&of_node));
    assert!(contents.replace("Namespace", Vec::new()));
}
