//! A real Kubernetes control plane: etcd, kube-apiserver and controllers in a network namespace of their own, and kube-proxy
//! where it is asked for.
//!
//! On a lab's LAN ([`ControlPlane::start_in`]) nodes reach it at [`address::control_plane`]; without a lab
//! ([`ControlPlane::start`]) only what enters its namespace does, as [`Kubectl`] always does. It has no nodes, kubelets or
//! scheduler: Nodes, Pods and EndpointSlices are written by whoever wants some. Dropping it ends it and removes what it kept.

mod access;
mod audit;
mod certificates;
mod container;
mod helm;
mod image;
mod kubectl;
mod programs;
mod proxy;
mod servers;
mod weir;

pub use access::Mounted;
pub use audit::Asked;
pub use container::{Container, Running, Surroundings};
pub use helm::{CHART, Helm, Manifests};
pub use image::Image;
pub use kubectl::Kubectl;
pub use programs::program;
pub use proxy::{KubeProxy, ProxyMode};
pub use weir::NAMESPACE as WEIR_NAMESPACE;

use crate::lab::{
    FAMILIES, Family, Lab, Namespace, address, client, manifests, namespace, process::Process, remains, topology, wait,
};
use anyhow::{Context, Result, anyhow, ensure};
use certificates::Certificates;
use serde_json::Value;
use servers::Place;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Role of its namespace, and its device in the router.
const ROLE: &str = "control-plane";

/// A running control plane.
///
/// Fields are in the order they are dropped in: an API server with watches open takes long to stop, so what watches goes
/// first.
#[derive(Debug)]
pub struct ControlPlane {
    controllers: Process,
    api_server: Process,
    etcd: Process,
    admin: Kubectl,
    certificates: Certificates,
    server: String,
    remains: Remains,
}

/// What is to be removed after the processes are gone.
#[derive(Debug)]
struct Remains {
    namespace: Namespace,
    directory: PathBuf,
    /// Name of a lab that is nothing but this control plane.
    lab: Option<String>,
}

impl Drop for Remains {
    fn drop(&mut self) {
        match &self.lab {
            Some(lab) => remains::remove(lab),
            None => {
                remains::remove_namespace(&self.namespace);
                remains::remove_folder(&self.directory);
            }
        }
    }
}

impl ControlPlane {
    /// Starts one without a lab and returns when it serves.
    ///
    /// # Errors
    /// When not root, when a program is missing, or when one does not come up; with what it said.
    pub fn start() -> Result<Self> {
        let (lab, directory) = remains::begin()?;
        let remains = Remains {
            namespace: Namespace::named(format!("{lab}-{ROLE}")),
            directory: directory.join(ROLE),
            lab: Some(lab),
        };
        namespace::ip_batch(&[], &format!("netns add {}\n", remains.namespace.name()))?;
        let addresses = FAMILIES
            .map(|family| topology::add_address(address::control_plane(family), address::host_length(family), "lo"));
        remains
            .namespace
            .ip_batch(&(topology::up(&["lo"]) + &addresses.concat()))?;
        Self::start_at(remains)
    }

    /// Starts one on the lab's LAN, with its Node objects, and returns when it serves. A lab has room for one at a time.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub fn start_in(lab: &Lab) -> Result<Self> {
        let remains = Remains {
            namespace: Namespace::named(format!("{}-{ROLE}", lab.name())),
            directory: lab.directory().join(ROLE),
            lab: None,
        };
        topology::add_host(lab, &remains.namespace, ROLE, address::control_plane)?;
        let control_plane = Self::start_at(remains)?;
        let nodes = manifests::nodes(lab);
        control_plane.kubectl().apply(&nodes)?;
        // Not applied by the server: to it, two addresses of one type are the same.
        control_plane
            .kubectl()
            .run_with("replace --subresource=status", &nodes)?;
        Ok(control_plane)
    }

    fn start_at(remains: Remains) -> Result<Self> {
        let Remains {
            namespace, directory, ..
        } = &remains;
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let own = FAMILIES.map(address::control_plane);
        let known: Vec<IpAddr> = own
            .into_iter()
            .chain([Ipv4Addr::LOCALHOST.into(), servers::OWN_CLUSTER_ADDRESS])
            .collect();
        let certificates = Certificates::make(directory, &known)?;
        let address = address::control_plane(Family::V4);
        let server = format!("https://{}", SocketAddr::new(address, servers::PORT));
        let kubeconfig = access::admin(directory, &server, &certificates)?;
        let admin = Kubectl::new(namespace, &kubeconfig, &directory.join("admin-cache"))?;
        let place = Place { namespace, directory };
        let etcd = place.etcd()?;
        let mut api_server = place.api_server(address, &certificates)?;
        wait_until_ready(&mut api_server, &admin)
            .with_context(|| format!("etcd said last:\n{}", etcd.last_words(10)))?;
        let mut controllers = place.controllers(servers::CONTROLLERS, &kubeconfig, &certificates)?;
        // The first thing they do that can be seen.
        controllers.wait_until("the controllers", || admin.run("get serviceaccount default -n default"))?;
        Ok(Self {
            controllers,
            api_server,
            etcd,
            admin,
            certificates,
            server,
            remains,
        })
    }

    /// kubectl as somebody who may do everything.
    pub fn kubectl(&self) -> &Kubectl {
        &self.admin
    }

    /// Applies the definitions of Eip, BgpConf and BgpPeer and returns when objects of them can be made.
    ///
    /// # Errors
    /// When the API server does not take them.
    pub fn apply_definitions(&self) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml");
        let folder = folder.display();
        self.admin.run(&format!("apply -f {folder}"))?;
        wait_for_definitions(&self.admin)
    }

    /// Starts what makes the pods of DaemonSets, and replaces them; nobody runs them.
    ///
    /// # Errors
    /// When the program is missing.
    pub fn start_daemon_sets(&self) -> Result<Process> {
        let Remains {
            namespace, directory, ..
        } = &self.remains;
        Place { namespace, directory }.controllers("daemonset-controller", self.admin.kubeconfig(), &self.certificates)
    }

    /// URL of the API server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.remains.namespace
    }

    /// Where its logs, keys and kubeconfigs are.
    pub fn directory(&self) -> &Path {
        &self.remains.directory
    }

    fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Kills the API server as a crash would; what etcd has stays.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.kill().map(drop)
    }

    /// Starts the API server again and returns when it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_api_server(&mut self) -> Result<()> {
        let Remains {
            namespace, directory, ..
        } = &self.remains;
        let place = Place { namespace, directory };
        self.api_server = place.api_server(address::control_plane(Family::V4), &self.certificates)?;
        wait_until_ready(&mut self.api_server, &self.admin)
    }

    /// Has its switch port on the lab's LAN drop everything both ways: no link is down and nobody is told.
    ///
    /// # Errors
    /// When it is in no lab.
    pub fn cut_off(&self, lab: &Lab) -> Result<()> {
        lab.router
            .output(&format!("bridge link set dev {ROLE} state 0"))
            .map(drop)
    }

    /// Takes that back.
    ///
    /// # Errors
    /// When it is in no lab.
    pub fn rejoin(&self, lab: &Lab) -> Result<()> {
        lab.router
            .output(&format!("bridge link set dev {ROLE} state 3"))
            .map(drop)
    }

    /// Makes etcd forget how what it has came about (compaction), so that no watch can go on from before.
    ///
    /// # Errors
    /// When it does not.
    pub fn forget_history(&self) -> Result<()> {
        let list: Value = serde_json::from_str(&self.admin.run("get --raw /api/v1/namespaces?limit=1")?)?;
        let revision = list["metadata"]["resourceVersion"].as_str().context("no version")?;
        let body = format!("{{\"revision\": \"{revision}\", \"physical\": true}}");
        let etcd = SocketAddr::from((Ipv4Addr::LOCALHOST, servers::ETCD_PORT));
        self.namespace()
            .run(|| client::post(etcd, "/v3/kv/compaction", &body))
            .context("etcd does not forget")
            .map(drop)
    }

    /// Whether all of its programs run.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        for process in [&mut self.etcd, &mut self.api_server, &mut self.controllers] {
            if process.ended()?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns when objects of Weir's and OpenELB's kinds can be made, by definitions that have been applied.
///
/// # Errors
/// When they cannot.
pub fn wait_for_definitions(kubectl: &Kubectl) -> Result<()> {
    let (group, plurals) = ("network.kubesphere.io", ["eips", "bgpconfs", "bgppeers"]);
    let names = plurals.map(|plural| format!("crd/{plural}.{group}")).join(" ");
    kubectl.run(&format!("wait --for=condition=Established --timeout=180s {names}"))?;
    // It is said a moment before it is so for whoever asks what there is, as kubectl does.
    wait::until("the kinds", || {
        for version in ["v1alpha1", "v1alpha2"] {
            let served = kubectl.run(&format!("get --raw /apis/{group}/{version}"))?;
            let missing = plurals.iter().find(|plural| !served.contains(&format!("\"{plural}\"")));
            ensure!(missing.is_none(), "no {missing:?} in {served}");
        }
        Ok(())
    })
}

fn wait_until_ready(api_server: &mut Process, admin: &Kubectl) -> Result<()> {
    api_server
        .wait_until("the API server", || admin.run("get --raw /readyz"))
        .map(drop)
}

/// One control plane without a lab, for all tests of a program that leave it as it was; it ends with the program.
///
/// # Errors
/// As [`ControlPlane::start`], each time.
pub fn shared() -> Result<&'static ControlPlane> {
    static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        remains::remove_at_exit();
        ControlPlane::start().map_err(|error| format!("{error:#}"))
    });
    shared.as_ref().map_err(|error| anyhow!("{error}"))
}
