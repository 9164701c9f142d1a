//! What `weir status` says.

use crate::scene::Scene;
use anyhow::{Result, ensure};
use tests::lab::{FAMILIES, Family, Shape, agent, traffic, wait};

const SHAPE: Shape = Shape {
    nodes: 2,
    pods_per_node: 2,
    mtu: 1500,
    pod_offload: true,
};

#[test]
fn status_tells_owners_frontends_backends_and_counts() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        const REQUESTS: usize = 60;
        for family in FAMILIES {
            traffic::spread(&scene.lab.client, Scene::http(family), REQUESTS)?;
            let owner = scene.owner(family)?;
            for node in &scene.lab.nodes {
                // The last packets of connections may come between two of its counters.
                wait::until("a status that is whole", || {
                    let status = scene.status(node)?;
                    ensure!(
                        status.agent_alive && status.node == node.name && status.layout_version > 0,
                        "{status:?}"
                    );
                    ensure!(
                        status
                            .interfaces
                            .iter()
                            .all(|it| it.xdp_mode.as_deref() == Some("native")),
                        "{status:?}"
                    );
                    ensure!(status.conditions.is_empty(), "{:?}", status.conditions);
                    let vip = status.vip(Scene::http(family).ip())?;
                    ensure!(vip.owner.as_ref() == Some(&owner.name), "{vip:?}");
                    ensure!(
                        vip.owned == (owner.name == node.name) && vip.services == ["default/web"],
                        "{vip:?}"
                    );
                    let frontend = status.tcp(Scene::http(family))?;
                    ensure!(frontend.backends.len() == 4, "{frontend:?}");
                    ensure!(
                        frontend.backends.iter().all(|backend| backend.state == "serving"),
                        "{frontend:?}"
                    );
                    if vip.owned {
                        ensure!(frontend.syns >= REQUESTS as u64, "{frontend:?}");
                        ensure!(
                            frontend.packets > frontend.syns && frontend.bytes > 40 * frontend.packets,
                            "{frontend:?}"
                        );
                        let sent: u64 = frontend.backends.iter().map(|backend| backend.packets).sum();
                        ensure!(sent == frontend.packets, "{sent} went to backends of {frontend:?}");
                        ensure!(
                            status.reason("local")? > 0 && status.reason("tunnel")? > 0,
                            "{:?}",
                            status.reasons
                        );
                    } else {
                        ensure!(frontend.packets == 0, "{frontend:?}");
                        ensure!(status.reason("decapsulated")? > 0, "{:?}", status.reasons);
                    }
                    ensure!(status.reason("egress_reply")? > 0, "{:?}", status.reasons);
                    Ok(())
                })?;
            }
        }
        Ok(())
    })
}

#[test]
fn the_table_shows_what_people_look_for_also_without_an_agent() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        traffic::spread(&scene.lab.client, Scene::http(Family::V4), 10)?;
        let owner = scene.owner(Family::V4)?.name.clone();
        for alive in [true, false] {
            if !alive {
                scene.agents.clear();
            }
            let table = agent::status_table(&scene.lab, scene.lab.node(&owner)?)?;
            let state = if alive { "running" } else { "not running" };
            for part in [
                state,
                "native",
                "10.10.1.2",
                "10.244.1.11",
                "default/web",
                "serving",
                "arp_reply",
                &owner,
            ] {
                ensure!(table.contains(part), "no {part} in:\n{table}");
            }
        }
        Ok(())
    })
}
