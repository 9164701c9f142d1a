//! Which address a Service gets, on every node and for how long.

use crate::scene::Scene;
use anyhow::{Result, ensure};
use std::{collections::BTreeSet, net::IpAddr};
use tests::lab::{Agent, FAMILIES, Family, Shape, address::vip, manifests::Service, traffic, wait};

const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

fn addresses(scene: &Scene, service: &str) -> Result<BTreeSet<Vec<IpAddr>>> {
    scene
        .lab
        .nodes
        .iter()
        .map(|node| Ok(scene.status(node)?.addresses_of(service)))
        .collect()
}

/// Waits until all nodes say the same about a Service, and returns it.
fn agreed(scene: &Scene, service: &str) -> Result<IpAddr> {
    wait::until("all nodes to agree", || {
        let said: Vec<_> = addresses(scene, service)?.into_iter().collect();
        match said.as_slice() {
            [one] if one.len() == 1 => Ok(one[0]),
            _ => anyhow::bail!("{service} has {said:?}"),
        }
    })
}

/// [B11 B20 C11] Nodes that never speak to each other give out the same addresses, and keep them when others come, and
/// when they start again.
#[test]
fn nodes_agree_on_addresses_and_keep_them() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let pods: Vec<_> = scene.lab.pods().collect();
        let service = |name: &str| {
            Service::new(name)
                .from_eip("lan-ipv4", Family::V4)
                .with(pods.iter().copied())
        };
        scene.lab.apply("m.yaml", &service("middle"))?;
        let middle = agreed(scene, "middle")?;
        scene.lab.apply("z.yaml", &service("later"))?;
        let later = agreed(scene, "later")?;
        ensure!(
            middle != later && ![middle, later].contains(&vip(Family::V4, 2)),
            "{middle} {later}"
        );

        // Sorts before the others; if addresses were dealt out anew, it would get middle's.
        scene.lab.apply("a.yaml", &service("another"))?;
        let another = agreed(scene, "another")?;
        scene.agents.drain(..).try_for_each(Agent::stop)?;
        scene.agents = Agent::start_everywhere(&scene.lab)?;
        for (name, address) in [("middle", middle), ("later", later), ("another", another)] {
            ensure!(agreed(scene, name)? == address, "{name} had {address}");
            let served = traffic::spread(&scene.lab.client, (address, 80).into(), 60)?;
            ensure!(served.len() == 3, "{name}: {served:?}");
        }
        Ok(())
    })
}

/// [B05 B15]
#[test]
fn requested_addresses_are_given_in_both_families() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let said = addresses(scene, "web")?;
        let wanted = BTreeSet::from([FAMILIES.map(|family| vip(family, 2)).to_vec()]);
        ensure!(said == wanted, "{said:?}");
        Ok(())
    })
}
