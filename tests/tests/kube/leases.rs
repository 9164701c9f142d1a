//! Leading by the Lease that the chart names, with the rights that the chart gives.

use crate::{
    cluster::Cluster,
    deploy::{self, NAMESPACE},
    names::NameServer,
};
use anyhow::{Context, Result, ensure};
use tests::{kube::Image, lab::wait};

/// [G06] The name that it has by default, another, and that again: whoever may use one may not use the other.
#[test]
fn g06_a_controller_leads_by_the_lease_that_the_chart_names() -> Result<()> {
    Cluster::play(|cluster| {
        let helm = cluster.control_plane.helm()?;
        let kubectl = cluster.control_plane.kubectl().clone();
        let image = Image::unpack(deploy::NATIVE, &cluster.lab.directory().join("image"))?;
        let server = deploy::api_server_address(cluster)?;
        let names = NameServer::start(cluster.control_plane.namespace(), deploy::API_SERVER, server.parse()?)?;
        for (set, lease) in [
            ("controller.replicas=2", "weir-controller"),
            ("controller.lease=of.another-name", "of.another-name"),
        ] {
            let rendered = helm.render(NAMESPACE, &["--set", set])?;
            kubectl.run_with("apply --server-side --force-conflicts", &rendered.list())?;
            let around = deploy::beside_the_api(&image, cluster, &names)?;
            let mut leader = deploy::start_controller(&rendered, &around)?;
            let holder = || -> Result<String> {
                let held = kubectl.get(&format!("lease {lease} -n {NAMESPACE}"))?;
                let holder = held["spec"]["holderIdentity"].as_str();
                holder.map(str::to_owned).context("nobody holds it")
            };
            let held = wait::until("somebody to lead", holder).with_context(|| leader.log())?;
            ensure!(held == "weir-controller-0", "{held} leads");
            leader.kill()?;
            let account = format!("--as=system:serviceaccount:{NAMESPACE}:weir-controller -n {NAMESPACE}");
            for name in ["weir-controller", "of.another-name"] {
                let may = kubectl.run(&format!("auth can-i patch lease/{name} {account}"));
                ensure!(may.is_ok() == (name == lease), "{set}, and {name}: {may:?}");
            }
        }
        Ok(())
    })
}
