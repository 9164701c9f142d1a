//! The lab itself: without an agent it is a plain routed network.

use anyhow::{Result, ensure};
use std::net::SocketAddr;
use tests::lab::{
    Lab, Shape,
    address::{self, FAMILIES},
    client,
    frames::Wire,
    nat::Nat,
    servers::{self, ECHO_PORT, Echo, WEB_PORT},
    traffic,
};

#[test]
fn a_client_reaches_every_pod_at_its_own_address() -> Result<()> {
    let lab = Lab::new(Shape::default())?;
    let _webs = servers::start_web_everywhere(&lab)?;
    let _echoes: Vec<Echo> = lab.pods().map(Echo::start).collect::<Result<_>>()?;
    for family in FAMILIES {
        for pod in lab.pods() {
            let address = pod.address(family);
            let web = lab.client.run(|| client::ask(SocketAddr::new(address, WEB_PORT)))?;
            ensure!(web.pod == pod.name && web.client == web.local, "{}: {web:?}", pod.name);
            let echo = lab
                .client
                .run(|| client::ask_udp(SocketAddr::new(address, ECHO_PORT)))?;
            ensure!(
                echo.pod == pod.name && echo.client == echo.local,
                "{}: {echo:?}",
                pod.name
            );
        }
    }
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new(Shape {
        nodes: 1,
        pods_per_node: 1,
        ..Shape::default()
    })?;
    let _webs = servers::start_web_everywhere(&lab)?;
    let (name, directory) = (lab.name().to_owned(), lab.directory().to_owned());
    ensure!(
        std::fs::read_dir("/run/netns")?.count() >= 4,
        "the lab has no namespaces"
    );
    drop(lab);
    ensure!(!directory.exists(), "{} is still there", directory.display());
    for folder in ["/run/netns", "/sys/fs/bpf", "/etc/netns"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let entry = entry?.file_name();
            ensure!(
                !entry.to_string_lossy().starts_with(&format!("{name}-")),
                "{folder}/{entry:?} is still there"
            );
        }
    }
    Ok(())
}

#[test]
fn questions_on_the_wire_are_valid_to_the_kernel() -> Result<()> {
    let lab = Lab::new(Shape {
        nodes: 2,
        pods_per_node: 1,
        ..Shape::default()
    })?;
    let wire = Wire::of_stranger(&lab)?;
    for family in FAMILIES {
        let answers = wire.who_has(lab.nodes[1].address(family), address::stranger(family))?;
        ensure!(answers == [lab.nodes[1].mac()], "{family}: {answers:?}");
        let nobody = wire.who_has(address::vip(family, 9), address::stranger(family))?;
        ensure!(
            nobody.is_empty(),
            "{family}: {nobody:?} answer for an address nobody has"
        );
    }
    Ok(())
}

#[test]
fn nftables_serves_the_same_service_for_comparison() -> Result<()> {
    let lab = Lab::new(Shape::default())?;
    let _webs = servers::start_web_everywhere(&lab)?;
    let pods: Vec<_> = lab.pods().collect();
    for family in FAMILIES {
        let vip = address::vip(family, 9);
        let nat = Nat::start(&lab.nodes[0], vip, 80, &pods, WEB_PORT)?;
        let answers = traffic::spread(&lab.client, SocketAddr::new(vip, 80), 12)?;
        ensure!(answers.len() == 6, "not all pods are used: {answers:?}");
        let answer = lab.client.run(|| client::ask(SocketAddr::new(vip, 80)))?;
        ensure!(
            answer.client.ip() != answer.local.ip(),
            "nothing was translated: {answer:?}"
        );
        drop(nat);
    }
    Ok(())
}
