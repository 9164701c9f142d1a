//! Who answers for an address, and when nobody does.

use crate::scene::{Scene, web};
use anyhow::{Result, ensure};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tests::lab::{
    FAMILIES, Family, Shape,
    address::{self, vip},
    client,
    frames::Wire,
    manifests::Service,
    traffic::Requests,
    wait,
};

/// Three nodes, so that there are two that have to keep quiet.
const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 1,
    mtu: 1500,
    pod_offload: true,
};

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// [E01 E02 E09] The node that OpenELB would elect: smallest SHA-256 of `node#address`.
#[test]
fn exactly_the_elected_node_answers_for_a_vip() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let wire = Wire::of_stranger(&scene.lab)?;
        for (family, elected, reason) in [
            (Family::V4, "node-1", "arp_reply"),
            (Family::V6, "node-3", "neighbor_advertisement"),
        ] {
            let node = scene.lab.node(elected)?;
            let before = scene.status(node)?.reason(reason)?;
            let questions = [address::stranger(family), unspecified(family)];
            for asker in questions {
                let answers = wire.who_has(vip(family, 2), asker)?;
                ensure!(answers == [node.mac()], "{family}, asked from {asker}: {answers:?}");
            }
            let after = scene.status(node)?.reason(reason)?;
            ensure!(
                after >= before + questions.len() as u64,
                "{reason} went from {before} to {after}"
            );
        }
        Ok(())
    })
}

#[test]
fn nobody_answers_for_an_address_that_is_not_given_out() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let wire = Wire::of_stranger(&scene.lab)?;
        for family in FAMILIES {
            let answers = wire.who_has(vip(family, 77), address::stranger(family))?;
            ensure!(answers.is_empty(), "{family}: {answers:?}");
            // The nodes' own addresses are still theirs, and only theirs.
            for node in &scene.lab.nodes {
                let answers = wire.who_has(node.address(family), address::stranger(family))?;
                ensure!(answers == [node.mac()], "{family}, {}: {answers:?}", node.name);
            }
        }
        Ok(())
    })
}

/// Waits until so many nodes answer for the VIP of the Service, in both families.
fn is_answered(wire: &Wire, number: usize) -> Result<()> {
    wait::until(&format!("{number} answers"), || {
        for family in FAMILIES {
            let answers = wire.who_has(vip(family, 2), address::stranger(family))?;
            ensure!(answers.len() == number, "{family}: {answers:?}");
        }
        Ok(())
    })
}

/// [E12]
#[test]
fn nobody_answers_once_a_service_or_its_pods_or_its_eip_are_gone() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let wire = Wire::of_stranger(&scene.lab)?;
        let answers = |number| is_answered(&wire, number);
        let all = web().with(scene.lab.pods());
        answers(1)?;
        scene.lab.apply("web.yaml", &web().with([]))?;
        answers(0)?;
        scene.lab.apply("web.yaml", &all)?;
        answers(1)?;
        scene.lab.retract("eips.yaml")?;
        answers(0)?;
        scene.lab.apply("eips.yaml", &crate::scene::eips())?;
        answers(1)?;
        scene.lab.retract("web.yaml")?;
        answers(0)
    })
}

/// [A11] With `bgp`, which is not spoken, nobody answers any more; with `layer2` and `vip` the elected node does, without a gap when
/// one becomes the other. The addresses stay, whatever is written.
#[test]
fn a11_answers_follow_the_protocol_and_addresses_stay() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let wire = Wire::of_stranger(&scene.lab)?;
        let owners = || FAMILIES.map(|family| wire.who_has(vip(family, 2), address::stranger(family)).ok());
        is_answered(&wire, 1)?;
        let before = owners();
        let same = |protocol: &str| {
            wait::until("the same answers", || {
                let now = owners();
                ensure!(now == before, "{protocol}: {now:?}, not {before:?}");
                Ok(())
            })
        };
        let write = |protocol: &str| -> Result<()> {
            let eips = crate::scene::eips().replace("protocol: layer2", &format!("protocol: {protocol}"));
            scene.lab.apply("eips.yaml", &eips)
        };
        // What is written later is read no sooner.
        let seen = |mark: u8| -> Result<()> {
            let name = format!("mark-{mark}");
            let mark = Service::new(&name).at([vip(Family::V4, mark)]);
            scene.lab.apply(&format!("{name}.yaml"), &mark.with(scene.lab.pods()))?;
            wait::until("the nodes to have read it", || {
                for node in &scene.lab.nodes {
                    let status = scene.status(node)?;
                    ensure!(!status.addresses_of(&name).is_empty(), "{} has not", node.name);
                    let shown: BTreeSet<IpAddr> = status.addresses_of("web").into_iter().collect();
                    ensure!(
                        shown == FAMILIES.map(|family| vip(family, 2)).into(),
                        "{}: {shown:?}",
                        node.name
                    );
                }
                Ok(())
            })
        };
        let requests = FAMILIES.map(|family| Requests::start(&scene.lab.client, Scene::http(family)));
        for (mark, protocol) in [(10, "vip"), (11, "layer2")] {
            write(protocol)?;
            seen(mark)?;
            same(protocol)?;
        }
        for requests in requests {
            let tally = requests.finish()?;
            ensure!(tally.failures.is_empty() && tally.total() > 0, "{tally:?}");
        }
        for (mark, protocol) in [(12, "vip"), (14, "layer2")] {
            write("bgp")?;
            is_answered(&wire, 0)?;
            seen(mark)?;
            for (node, family) in scene.lab.nodes.iter().zip(FAMILIES.into_iter().cycle()) {
                let eip = format!("lan-{family}").to_lowercase();
                scene.status(node)?.condition("Eip", &eip, "NotAnnounced")?;
            }
            write(protocol)?;
            is_answered(&wire, 1)?;
            seen(mark + 1)?;
            same(protocol)?;
        }
        FAMILIES
            .into_iter()
            .try_for_each(|family| scene.lab.client.run(|| client::ask(Scene::http(family))).map(drop))
    })
}

/// [A25] An Eip whose label leaves it to the CNI to bring the traffic: given out, served, and no node answers for it.
#[test]
fn a25_nobody_answers_for_what_is_left_to_the_cni_and_what_comes_is_served() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        let wire = Wire::of_stranger(&scene.lab)?;
        let answers = |number| is_answered(&wire, number);
        answers(1)?;
        let label = "metadata:\n  labels: {openelb.kubesphere.io/cni: calico}\n";
        scene
            .lab
            .apply("eips.yaml", &crate::scene::eips().replace("metadata:\n", label))?;
        answers(0)?;
        for family in FAMILIES {
            // Somebody else's routes, to each node in turn.
            for node in &scene.lab.nodes {
                // Nodes that have not answered before may be later to read it.
                let status = wait::until("a word on it", || {
                    let status = scene.status(node)?;
                    status.condition("Eip", &format!("lan-{family}").to_lowercase(), "AnnouncedByOthers")?;
                    Ok(status)
                })?;
                let vip = vip(family, 2);
                let route = format!("route replace {vip} via {}", node.address(family));
                scene.lab.router.ip_batch(&route)?;
                for _ in 0..10 {
                    scene.lab.client.run(|| client::ask(Scene::http(family)))?;
                }
                scene.lab.router.ip_batch(&format!("route del {vip}"))?;
                let after = scene.status(node)?;
                ensure!(
                    after.reason("local")? + after.reason("tunnel")?
                        > status.reason("local")? + status.reason("tunnel")?,
                    "{} forwards nothing",
                    node.name
                );
            }
        }
        answers(0)?;
        scene.lab.apply("eips.yaml", &crate::scene::eips())?;
        answers(1)?;
        FAMILIES
            .into_iter()
            .try_for_each(|family| scene.lab.client.run(|| client::ask(Scene::http(family))).map(drop))
    })
}

/// [C09]
#[test]
fn a_vip_answers_echo_requests() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        for family in FAMILIES {
            for size in [0, 56, 1400] {
                let line = format!("ping -q -c 3 -i 0.05 -W 15 -s {size} {}", vip(family, 2));
                let said = scene.lab.client.output(&line)?;
                ensure!(said.contains("3 received"), "{said}");
            }
            let owner = scene.status(scene.owner(family)?)?;
            ensure!(owner.reason("echo_reply")? >= 9, "{}", owner.reason("echo_reply")?);
        }
        Ok(())
    })
}
