//! The lab: a small network of namespaces on this machine, with real servers, real clients and real agents.
//!
//! ```text
//! client --- router === LAN (a bridge inside router) === stranger
//!                                                    === node-1 --- node-1-pod-1, node-1-pod-2, ...
//!                                                    === node-2 --- node-2-pod-1, ...
//! ```
//!
//! It decides names, addresses ([`address`]) and device features ([`topology`]), gives handles to the namespaces and to
//! what runs in them, and takes everything away again when [`Lab`] is dropped, when the process is interrupted, or, if
//! the process was killed, when the next lab starts. It does not know what Weir is to do with a packet: that is for the
//! tests to say. Everything needs root.

pub mod address;
pub mod agent;
pub mod cable;
pub mod capture;
pub mod client;
pub mod foreign;
pub mod frames;
pub mod manifests;
pub mod metrics;
pub mod nat;
pub mod pinned;
pub mod process;
pub mod remains;
pub mod segments;
pub mod servers;
pub mod stacked;
pub mod status;
pub mod topology;
pub mod traffic;
pub mod wait;

mod port_program;

pub(crate) mod namespace;

pub use address::{FAMILIES, Family};
pub use agent::Agent;
pub use namespace::Namespace;

use anyhow::{Context, Result};
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// What a lab is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Nodes on the LAN, 1 to 9.
    pub nodes: u8,
    /// Pods behind each node, 1 to 9.
    pub pods_per_node: u8,
    /// MTU of every device, in bytes.
    pub mtu: u32,
    /// Whether pods leave checksums and segmentation to their device, as pods in a cluster do. Replies then cross the
    /// node's egress as large packets with unfinished checksums.
    pub pod_offload: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: 3,
            pods_per_node: 2,
            mtu: 1500,
            pod_offload: true,
        }
    }
}

/// A network of namespaces; dropping it removes all of it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
    shape: Shape,
    /// Where clients run.
    pub client: Namespace,
    /// Between client and LAN; its `lan` device is the bridge, its `node-N` devices are the switch ports.
    pub router: Namespace,
    /// Another host on the LAN, without a stack of its own: see [`frames`].
    pub stranger: Namespace,
    /// The nodes, in order.
    pub nodes: Vec<Node>,
}

/// One node of the lab.
#[derive(Clone, Debug)]
pub struct Node {
    /// `node-1` and up, also the Kubernetes name.
    pub name: String,
    /// Number, from 1.
    pub number: u8,
    /// Its namespace; `eth0` is on the LAN.
    pub namespace: Namespace,
    /// Its pods, in order.
    pub pods: Vec<Pod>,
}

impl Node {
    /// Its address on the LAN.
    pub fn address(&self, family: Family) -> IpAddr {
        address::node(family, self.number)
    }

    /// MAC address of its `eth0`, as `ip` prints it.
    pub fn mac(&self) -> String {
        address::node_mac(self.number)
    }
}

/// One pod of the lab.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `node-1-pod-1` and up.
    pub name: String,
    /// Name of its node.
    pub node: String,
    /// Its namespace; `eth0` leads to the node.
    pub namespace: Namespace,
    node_number: u8,
    number: u8,
}

impl Pod {
    /// Its address.
    pub fn address(&self, family: Family) -> IpAddr {
        address::pod(family, self.node_number, self.number)
    }
}

impl Lab {
    /// Builds the network and returns when every device is up.
    ///
    /// # Errors
    /// When not root, or when a command fails; what was made until then is removed.
    pub fn new(shape: Shape) -> Result<Self> {
        let (name, directory) = remains::begin()?;
        let namespace = |role: &str| Namespace::named(format!("{name}-{role}"));
        let nodes = (1..=shape.nodes)
            .map(|number| node(number, shape.pods_per_node, &namespace))
            .collect();
        let lab = Self {
            client: namespace("client"),
            router: namespace("router"),
            stranger: namespace("stranger"),
            nodes,
            name: name.clone(),
            directory,
            shape,
        };
        // From here on a failure drops `lab`, which removes what exists.
        topology::build(&lab)?;
        for node in &lab.nodes {
            fs::create_dir_all(lab.manifest_directory(node))?;
            fs::create_dir_all(lab.state_directory(node))?;
        }
        lab.apply("nodes.yaml", &manifests::nodes(&lab))?;
        Ok(lab)
    }

    /// Prefix of the names of everything that belongs to this lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was asked to be.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Folder for logs, captures and the files servers and agents use.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All pods, node by node.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.nodes.iter().flat_map(|node| &node.pods)
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name == name)
            .with_context(|| format!("the lab has no node {name}"))
    }

    /// Folder of manifests `node`'s agent reads.
    pub fn manifest_directory(&self, node: &Node) -> PathBuf {
        self.directory.join(&node.name).join("manifests")
    }

    /// Folder where `node`'s agent keeps its state.
    pub fn state_directory(&self, node: &Node) -> PathBuf {
        self.directory.join(&node.name).join("state")
    }

    /// Folder where `node`'s agent pins maps and links.
    pub fn pin_directory(&self, node: &Node) -> PathBuf {
        remains::pin_directory(&self.name, &node.name)
    }

    /// Writes a manifest file into every node's folder, each in one step, so that no agent reads half a file.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        self.nodes.iter().try_for_each(|node| self.apply_to(node, file, yaml))
    }

    /// Writes a manifest file into one node's folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn apply_to(&self, node: &Node, file: &str, yaml: &str) -> Result<()> {
        let target = self.manifest_directory(node).join(file);
        let draft = self.directory.join(&node.name).join(format!("{file}.draft"));
        fs::write(&draft, yaml).with_context(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, &target).with_context(|| format!("cannot put {} in place", target.display()))
    }

    /// Removes a manifest file from every node's folder.
    ///
    /// # Errors
    /// When a file is missing or cannot be removed.
    pub fn retract(&self, file: &str) -> Result<()> {
        self.nodes.iter().try_for_each(|node| {
            let target = self.manifest_directory(node).join(file);
            fs::remove_file(&target).with_context(|| format!("cannot remove {}", target.display()))
        })
    }
}

fn node(number: u8, pods: u8, namespace: &impl Fn(&str) -> Namespace) -> Node {
    let name = format!("node-{number}");
    let pods = (1..=pods)
        .map(|pod| {
            let pod_name = format!("{name}-pod-{pod}");
            Pod {
                namespace: namespace(&pod_name),
                name: pod_name,
                node: name.clone(),
                node_number: number,
                number: pod,
            }
        })
        .collect();
    Node {
        namespace: namespace(&name),
        name,
        number,
        pods,
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remains::remove(&self.name);
    }
}
