//! Pods come and go under traffic.

use crate::scene::{Scene, all_whole, web};
use anyhow::{Result, ensure};
use tests::lab::{
    FAMILIES, Family, Pod, Shape,
    manifests::Endpoint,
    servers::{self, SLOW_RATE},
    traffic::{self, Requests},
    wait,
};

const SHAPE: Shape = Shape {
    nodes: 3,
    pods_per_node: 2,
    mtu: 1500,
    pod_offload: true,
};
const DOWNLOAD: usize = 5 * SLOW_RATE;

/// Waits until exactly `pods` take new connections.
fn served_by(scene: &Scene, family: Family, pods: &[&Pod]) -> Result<()> {
    wait::until("new connections to go where they should", || {
        let answers = traffic::spread(&scene.lab.client, Scene::http(family), 90)?;
        let right = answers.len() == pods.len() && pods.iter().all(|pod| answers.contains_key(&pod.name));
        ensure!(right, "{family}: {answers:?}");
        Ok(())
    })
}

/// [C05 C10] Every pod but one stays; then the one comes back. Nobody notices, not even those at the pod that left.
#[test]
fn a_pod_that_leaves_and_comes_back_breaks_no_connection() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        servers::make_file(&scene.lab, "image", DOWNLOAD)?;
        for family in FAMILIES {
            let requests = Requests::start(&scene.lab.client, Scene::http(family));
            let downloads = scene.downloads(family, "image", |_| true)?;
            let all: Vec<&Pod> = scene.lab.pods().collect();
            let (_, staying) = all.split_last().expect("a lab has pods");
            scene.lab.apply("web.yaml", &web().with(staying.iter().copied()))?;
            served_by(scene, family, staying)?;
            scene.lab.apply("web.yaml", &web().with(all.iter().copied()))?;
            served_by(scene, family, &all)?;
            all_whole(downloads, DOWNLOAD)?;
            let tally = requests.finish()?;
            ensure!(
                tally.failures.is_empty(),
                "{family}: of {} requests: {:?}",
                tally.total(),
                tally.failures
            );
        }
        Ok(())
    })
}

/// [C05]
#[test]
fn a_terminating_pod_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        servers::make_file(&scene.lab, "image", DOWNLOAD)?;
        let all: Vec<&Pod> = scene.lab.pods().collect();
        for family in FAMILIES {
            let downloads = scene.downloads(family, "image", |pod| pod.name == all[0].name)?;
            let states: Vec<_> = all
                .iter()
                .map(|&pod| {
                    (
                        pod,
                        if pod.name == all[0].name {
                            Endpoint::Terminating
                        } else {
                            Endpoint::Ready
                        },
                    )
                })
                .collect();
            scene
                .lab
                .apply("web.yaml", &(web().yaml() + &web().endpoints_in_states(&states)))?;
            served_by(scene, family, &all[1..])?;
            let status = scene.status(scene.owner(family)?)?;
            let draining = status
                .tcp(Scene::http(family))?
                .backends
                .iter()
                .filter(|backend| backend.state == "draining");
            let draining: Vec<_> = draining.map(|backend| backend.address).collect();
            ensure!(draining == [all[0].address(family)], "draining: {draining:?}");
            all_whole(downloads, DOWNLOAD)?;
            scene.lab.apply("web.yaml", &web().with(all.iter().copied()))?;
            served_by(scene, family, &all)?;
        }
        Ok(())
    })
}

/// [C05] The readiness probe fails, twice, and the pod goes on with what it has begun.
#[test]
fn a_pod_that_is_not_ready_for_a_while_keeps_its_connections() -> Result<()> {
    Scene::play(SHAPE, |scene| {
        servers::make_file(&scene.lab, "image", DOWNLOAD)?;
        let all: Vec<&Pod> = scene.lab.pods().collect();
        for family in FAMILIES {
            let requests = Requests::start(&scene.lab.client, Scene::http(family));
            let downloads = scene.downloads(family, "image", |_| true)?;
            for round in 0..2 {
                let state = |&pod: &&Pod| match pod.name == all[round].name {
                    true => Endpoint::NotReady,
                    false => Endpoint::Ready,
                };
                let states: Vec<_> = all.iter().map(|pod| (*pod, state(pod))).collect();
                scene
                    .lab
                    .apply("web.yaml", &(web().yaml() + &web().endpoints_in_states(&states)))?;
                let ready: Vec<&Pod> = all.iter().copied().filter(|pod| pod.name != all[round].name).collect();
                served_by(scene, family, &ready)?;
                scene.lab.apply("web.yaml", &web().with(all.iter().copied()))?;
                served_by(scene, family, &all)?;
            }
            all_whole(downloads, DOWNLOAD)?;
            let tally = requests.finish()?;
            ensure!(
                tally.failures.is_empty(),
                "{family}: of {} requests: {:?}",
                tally.total(),
                tally.failures
            );
        }
        Ok(())
    })
}
