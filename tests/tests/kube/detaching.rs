//! Taking Weir off the nodes, as the chart does with `agent.detach`.

use crate::{
    cluster::Cluster,
    deploy::{self, NAMESPACE},
};
use anyhow::{Result, ensure};
use tests::{
    kube::{Container, Image},
    lab::{foreign, wait},
};

/// [G04] The container takes programs and pins away, and whenever it is started again finds nothing and succeeds; it needs neither
/// the API server nor probes.
#[test]
fn g04_agents_that_are_to_detach_leave_nothing_on_their_nodes() -> Result<()> {
    Cluster::play(|cluster| {
        let image = Image::unpack(deploy::NATIVE, &cluster.lab.directory().join("image"))?;
        let manifests = deploy::apply(cluster)?;
        let serving = Container::of(manifests.object("DaemonSet", "weir-agent")?, "containers")?;
        for node in &cluster.lab.nodes {
            let mut agent = deploy::start_agent(&serving, &image, cluster, node)?;
            agent.kill()?;
        }

        let helm = cluster.control_plane.helm()?;
        let rendered = helm.render(NAMESPACE, &["--set=agent.detach=true"])?;
        let kubectl = cluster.control_plane.kubectl();
        kubectl.run_with("apply --server-side --force-conflicts", &rendered.list())?;
        let applied = kubectl.get(&format!("daemonset weir-agent -n {NAMESPACE}"))?;
        let pod = &applied["spec"]["template"]["spec"];
        ensure!(
            pod["initContainers"].is_null(),
            "a check would keep it from starting: {pod}"
        );
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            ensure!(pod["containers"][0][probe].is_null(), "{probe} of what ends at once");
        }
        let detaching = Container::of(&applied, "containers")?;
        for node in &cluster.lab.nodes {
            let pins = cluster.lab.pin_directory(node).join("weir");
            let attached = foreign::count(&node.namespace, "eth0")?;
            ensure!(pins.exists() && attached == [1, 1], "{attached:?}");
            let around = deploy::on_node(&image, &cluster.lab, node)?;
            let said = detaching.finish("weir-detach", &around)?;
            ensure!(said.contains("eth0"), "{said}");
            ensure!(!pins.exists(), "{} is still there", pins.display());
            // The kernel takes a program off its device a moment after the last reference is gone.
            wait::until("the programs to be gone", || {
                let left = foreign::count(&node.namespace, "eth0")?;
                ensure!(left == [0, 0], "{left:?} are left on {}", node.name);
                Ok(())
            })?;
            detaching.finish("weir-detach-again", &around)?;
        }
        Ok(())
    })
}
