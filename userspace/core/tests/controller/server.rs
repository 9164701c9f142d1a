//! A model of the API server: objects, each with a version that every change makes another, and all states they were in.

use std::collections::{BTreeMap, BTreeSet};
use weir_core::{
    controller::{EipObject, ServiceObject},
    model::{Eip, Mode, PortProtocol, Protocol, Rules, Service, ServiceKey, ServicePort},
};

/// Of the first Eip, of the second, and of the third.
pub const ADDRESSES: [&str; 9] = [
    "10.1.0.0", "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.2.0.0", "fd00::", "fd00::1", "fd00::2", "fd00::3",
];
pub const RANGES: [&str; 3] = ["10.1.0.0/30", "10.2.0.0/31", "fd00::/126"];
/// What is left of each when it is made smaller.
pub const HALVES: [&str; 3] = ["10.1.0.0/31", "10.2.0.0", "fd00::/127"];

/// What nobody can make out, whatever Eips there are.
pub const MISTAKES: [(&str, &str); 5] = [
    ("eip.openelb.kubesphere.io/v1alpha1", "ten"),
    ("eip.openelb.kubesphere.io/v1alpha1", "10.1.0.1,ten"),
    ("eip.openelb.kubesphere.io/v1alpha1", "192.0.2.1"),
    ("eip.openelb.kubesphere.io/v1alpha2", "nowhere"),
    (NODE_PROXY, "pod"),
];
const NODE_PROXY: &str = "node-proxy.openelb.kubesphere.io/type";

pub type Services = BTreeMap<ServiceKey, (Service, ServiceObject)>;
pub type Eips = BTreeMap<String, (Eip, EipObject)>;

/// Name of the Service of that number.
pub fn key(index: usize) -> ServiceKey {
    ServiceKey {
        namespace: "apps".into(),
        name: format!("s{index}"),
    }
}

/// The objects, with every state they were in.
pub struct Server {
    pub services: Vec<Services>,
    pub eips: Vec<Eips>,
    /// How addresses are given out.
    pub rules: Rules,
    /// How many ports there are: Services whose numbers are apart by a multiple of it have the same.
    ports: usize,
    version: u64,
}

impl Server {
    /// With nothing in it; whether Eips are held until nobody has anything of them, and how many ports Services have.
    pub fn new(hold_eips_in_use: bool, ports: usize) -> Self {
        Self {
            rules: Rules {
                hold_eips_in_use,
                ..Rules::default()
            },
            services: vec![Services::new()],
            eips: vec![Eips::new()],
            ports,
            version: 0,
        }
    }

    /// The objects as they are.
    pub fn now(&self) -> (&Services, &Eips) {
        (self.services.last().unwrap(), self.eips.last().unwrap())
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Changes a Service; one that is deleting is gone when it loses its finalizer.
    pub fn change_service(&mut self, key: &ServiceKey, change: impl FnOnce(&mut Service, &mut ServiceObject)) {
        let version = self.next_version();
        let mut services = self.now().0.clone();
        let Some((service, object)) = services.get_mut(key) else {
            return;
        };
        change(service, object);
        object.resource_version = version;
        if service.deleting && !object.finalizer {
            services.remove(key);
        }
        self.services.push(services);
    }

    /// Changes an Eip, in the same way.
    pub fn change_eip(&mut self, name: &str, change: impl FnOnce(&mut Eip, &mut EipObject)) {
        let version = self.next_version();
        let mut eips = self.now().1.clone();
        let Some((eip, object)) = eips.get_mut(name) else {
            return;
        };
        change(eip, object);
        object.resource_version = version;
        if eip.deleting && !object.finalizer {
            eips.remove(name);
        }
        self.eips.push(eips);
    }

    /// Makes the Service of that number, unless there is one.
    pub fn create_service(&mut self, index: usize, addresses: &[usize]) {
        let version = self.next_version();
        let mut services = self.now().0.clone();
        let mut service = Service {
            load_balancer: true,
            annotations: [("lb.kubesphere.io/v1alpha1".to_owned(), "openelb".to_owned())].into(),
            ports: vec![ServicePort {
                name: String::new(),
                protocol: PortProtocol::Served(Protocol::Tcp),
                port: u16::try_from(index % self.ports).unwrap() + 80,
            }],
            ..Service::default()
        };
        ask(&mut service, addresses, None);
        let object = ServiceObject {
            uid: version.clone(),
            resource_version: version,
            ..ServiceObject::default()
        };
        services.entry(key(index)).or_insert((service, object));
        self.services.push(services);
    }

    /// Makes the Eip of that number, unless there is one.
    pub fn create_eip(&mut self, index: usize) {
        let version = self.next_version();
        let mut eips = self.now().1.clone();
        let default = ("eip.openelb.kubesphere.io/is-default-eip".to_owned(), "true".to_owned());
        let eip = Eip {
            address: RANGES[index].into(),
            mode: Mode::Layer2,
            interface: Some("eth0".into()),
            annotations: if index == 0 { [default].into() } else { BTreeMap::new() },
            namespaces: if index == 1 {
                ["apps".to_owned()].into()
            } else {
                BTreeSet::new()
            },
            ..Eip::default()
        };
        let object = EipObject {
            uid: version.clone(),
            resource_version: version,
            ..EipObject::default()
        };
        eips.entry(format!("e{index}")).or_insert((eip, object));
        self.eips.push(eips);
    }
}

/// Makes a Service ask for addresses and an Eip, or for nothing.
pub fn ask(service: &mut Service, addresses: &[usize], eip: Option<usize>) {
    let mut set = |key: &str, value: Option<String>| {
        service.annotations.remove(key);
        service.annotations.extend(value.map(|value| (key.to_owned(), value)));
    };
    let texts: Vec<&str> = addresses.iter().map(|index| ADDRESSES[*index]).collect();
    let addresses = Some(texts.join(",")).filter(|_| !texts.is_empty());
    set("eip.openelb.kubesphere.io/v1alpha1", addresses);
    set("eip.openelb.kubesphere.io/v1alpha2", eip.map(|it| format!("e{it}")));
    set(NODE_PROXY, None);
}
