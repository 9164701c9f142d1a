//! Agents, servers and clients over devices that not every kernel has. Run in guests by `cargo xtask kernels`.

use anyhow::{Context, Result, ensure};
use std::{collections::BTreeSet, net::SocketAddr};
use tests::lab::{
    Agent, FAMILIES, Family, Lab, Shape,
    address::{self, vip},
    agent,
    client::{self, Answer},
    manifests::{self, DNS, HTTP, Service},
    servers::{self, Echo, Web},
    stacked::{self, BOND, TAGGED},
    status::Status,
    traffic::Download,
    wait,
};

/// Finished checksums and no large packets: every packet counts as one.
const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: false,
};
/// Maps of the usual capacities do not fit twice into a small guest.
const SMALL: [&str; 8] = [
    "--max-rows",
    "16384",
    "--max-flow-buckets",
    "4096",
    "--max-cache-buckets",
    "4096",
    "--max-backends",
    "1024",
];
/// So many requests leave out one of two pods less than once in 10^9 runs.
const MANY: usize = 30;
/// Bytes of the files: ten seconds each, time enough for a bond to fail over meanwhile.
const LENGTH: usize = 10_000_000;

/// A lab that serves one Service at both families' VIPs.
struct Scene {
    agents: Vec<Agent>,
    _webs: Vec<Web>,
    _echoes: Vec<Echo>,
    lab: Lab,
}

impl Scene {
    /// Runs `act` with an agent on `interface` of every node, once `change` has been done to the lab.
    fn play(
        interface: &str,
        change: impl FnOnce(&Lab) -> Result<()>,
        act: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let lab = Lab::new(SHAPE)?;
        change(&lab)?;
        let service = Service::new("web").with_udp().at(FAMILIES.map(|family| vip(family, 2)));
        let eips = FAMILIES.map(|family| {
            let name = format!("lan-{family}").to_lowercase();
            manifests::eip_on(&name, address::vip_network(family), interface)
        });
        lab.apply("eips.yaml", &eips.concat())?;
        lab.apply("web.yaml", &service.with(lab.pods()))?;
        servers::make_file(&lab, "file", LENGTH)?;
        let mut scene = Self {
            agents: Vec::new(),
            _webs: servers::start_web_everywhere(&lab)?,
            _echoes: lab.pods().map(Echo::start).collect::<Result<_>>()?,
            lab,
        };
        let outcome = scene.start_agents(interface).and_then(|()| act(&mut scene));
        outcome.map_err(|error| error.context(agent::last_words(&scene.lab)))
    }

    /// One after the other: each has the object verified, which takes a slow machine seconds.
    fn start_agents(&mut self, interface: &str) -> Result<()> {
        for node in &self.lab.nodes {
            let arguments: Vec<&str> = ["--interface", interface].into_iter().chain(SMALL).collect();
            self.agents.push(Agent::start_with(&self.lab, node, &arguments)?);
        }
        Ok(())
    }

    /// TCP and UDP of both families reach both pods, which see the client's own address.
    fn reaches_both_pods(&self) -> Result<()> {
        let pods: BTreeSet<&str> = self.lab.pods().map(|pod| pod.name.as_str()).collect();
        let ask_often = |address: SocketAddr, ask: fn(SocketAddr) -> Result<Answer>| {
            self.lab
                .client
                .run(|| (0..MANY).map(|_| ask(address)).collect::<Result<Vec<Answer>>>())
        };
        for family in FAMILIES {
            for (what, answers) in [
                ("TCP", ask_often(http(family), client::ask)),
                ("UDP", ask_often(SocketAddr::new(vip(family, 2), DNS), client::ask_udp)),
            ] {
                let answers = answers.with_context(|| format!("{family} {what}"))?;
                let seen: BTreeSet<&str> = answers.iter().map(|answer| answer.pod.as_str()).collect();
                ensure!(seen == pods, "{family} {what} reached only {seen:?}");
                let strange = answers.iter().find(|answer| answer.client != answer.local);
                ensure!(
                    strange.is_none(),
                    "{family} {what}, not the client's own address: {strange:?}"
                );
            }
        }
        Ok(())
    }

    /// Every agent says so of the interface it was given.
    fn runs_natively_on(&self, interface: &str) -> Result<()> {
        for node in &self.lab.nodes {
            let interfaces = Status::of(&self.lab, node)?.interfaces;
            let right = interfaces
                .iter()
                .any(|found| found.name == interface && found.xdp_mode.as_deref() == Some("native"));
            ensure!(right, "{}: {interfaces:?}", node.name);
        }
        Ok(())
    }

    /// Downloads in progress, one of each family and pod.
    fn downloads(&self) -> Result<Vec<Download>> {
        let mut downloads = Vec::new();
        for family in FAMILIES {
            let mut missing: BTreeSet<&str> = self.lab.pods().map(|pod| pod.name.as_str()).collect();
            for _ in 0..MANY {
                if missing.is_empty() {
                    break;
                }
                let download = Download::start(&self.lab.client, http(family), "/slow/file")?;
                if missing.remove(download.pod.as_str()) {
                    downloads.push(download);
                }
            }
            ensure!(
                missing.is_empty(),
                "{family}: {MANY} connections, and none to {missing:?}"
            );
        }
        Ok(downloads)
    }
}

/// Waits for the ends of the downloads; every file is what its pod has.
fn come_whole(downloads: Vec<Download>) -> Result<()> {
    for download in downloads {
        let pod = download.pod.clone();
        ensure!(
            download.finish()? == servers::content(LENGTH),
            "the file from {pod} was harmed"
        );
    }
    Ok(())
}

fn http(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family, 2), HTTP)
}

fn as_it_is(_: &Lab) -> Result<()> {
    Ok(())
}

#[test]
fn both_pods_are_reached_over_plain_devices() -> Result<()> {
    Scene::play("eth0", as_it_is, |scene| {
        scene.runs_natively_on("eth0")?;
        scene.reaches_both_pods()
    })
}

/// XDP has no place on a VLAN device; its parent's frames have the tag.
#[test]
fn a_vip_is_served_over_vlan_devices() -> Result<()> {
    Scene::play(TAGGED, stacked::tag, |scene| {
        scene.runs_natively_on(TAGGED)?;
        scene.reaches_both_pods()
    })
}

#[test]
fn downloads_over_bonds_outlive_the_loss_of_the_active_cable() -> Result<()> {
    Scene::play(BOND, stacked::bond, |scene| {
        scene.runs_natively_on(BOND)?;
        scene.reaches_both_pods()?;
        let downloads = scene.downloads()?;
        for node in &scene.lab.nodes {
            ensure!(
                stacked::active_slave(node)? == "eth0",
                "{} does not use eth0",
                node.name
            );
            scene.lab.router.ip_batch(&format!("link set {} down\n", node.name))?;
        }
        for node in &scene.lab.nodes {
            wait::until("the bond to fail over", || {
                let slave = stacked::active_slave(node)?;
                ensure!(slave == "eth1", "it uses {slave}");
                Ok(())
            })?;
        }
        ensure!(
            downloads.iter().all(Download::is_running),
            "a download was over before the bond had failed over"
        );
        come_whole(downloads)?;
        scene.reaches_both_pods()
    })
}

#[test]
fn a_download_over_lossy_links_comes_whole() -> Result<()> {
    Scene::play("eth0", as_it_is, |scene| {
        let router = &scene.lab.router;
        let devices: Vec<&str> = scene.lab.nodes.iter().map(|node| node.name.as_str()).collect();
        stacked::lose(router, "client", 2)?;
        devices.iter().try_for_each(|device| stacked::lose(router, device, 2))?;
        come_whole(scene.downloads()?)?;
        for device in devices.into_iter().chain(["client"]) {
            ensure!(stacked::lost(router, device)? > 0, "{device} lost nothing");
        }
        Ok(())
    })
}
