//! The definitions themselves: what is shown, kept, and read in the other version, and taking over from earlier ones.

use crate::objects::{control_plane, manifest, of_version, spec};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{
    kube::{ControlPlane, Kubectl, wait_for_definitions},
    lab::wait,
};
use weir_crds::convert::{V1ALPHA1, V1ALPHA2, convert, settle};

#[test]
fn a01_the_definitions_are_served_as_openelbs_were() -> Result<()> {
    let kubectl = control_plane()?.kubectl();
    let served = |version: &str| -> Result<Value> {
        let all = kubectl.run(&format!("get --raw /apis/network.kubesphere.io/{version}"))?;
        Ok(serde_json::from_str(&all)?)
    };
    let versions = [served("v1alpha1")?, served("v1alpha2")?];
    for (plural, kind, categories) in [
        ("bgpconfs", "BgpConf", Value::Null),
        ("bgppeers", "BgpPeer", Value::Null),
        ("eips", "Eip", json!(["networking"])),
    ] {
        for version in &versions {
            let mut resources = version["resources"].as_array().into_iter().flatten();
            let found = resources.find(|resource| resource["name"] == plural);
            let found = found.with_context(|| format!("no {plural} in {version}"))?;
            ensure!(found["kind"] == kind && found["namespaced"] == false, "{found}");
            ensure!(found["categories"] == categories, "{found}");
            ensure!(found["shortNames"] == Value::Null, "{found}");
        }
        let mut newer = versions[1]["resources"].as_array().into_iter().flatten();
        let status = format!("{plural}/status");
        ensure!(newer.any(|resource| resource["name"] == *status), "{}", versions[1]);
        let definition = kubectl.get(&format!("crd {plural}.network.kubesphere.io"))?;
        ensure!(
            definition["status"]["storedVersions"] == json!(["v1alpha2"]),
            "{definition}"
        );
        let conditions = definition["status"]["conditions"].to_string();
        ensure!(!conditions.contains("NonStructuralSchema"), "{conditions}");
    }
    kubectl.apply(&manifest("Eip", "a01", "{address: 10.1.0.0/24}"))?;
    kubectl.patch_status("eip a01", &json!({"usage": 3, "poolSize": 256}))?;
    for what in ["eips", "eips.v1alpha1.network.kubesphere.io", "networking"] {
        let table = kubectl.run(&format!("get {what}"))?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(rows[0] == ["NAME", "CIDR", "USAGE", "TOTAL"], "{table}");
        let name = if what == "networking" {
            "eip.network.kubesphere.io/a01"
        } else {
            "a01"
        };
        let row = rows.iter().find(|row| row[0] == name || row[0] == "a01");
        ensure!(
            row.is_some_and(|row| row[1..] == ["10.1.0.0/24", "3", "256"]),
            "{table}"
        );
    }
    Ok(())
}

#[test]
fn a02_every_field_is_kept_and_those_of_tomorrow() -> Result<()> {
    let kubectl = control_plane()?.kubectl();
    for (kind, text) in [
        (
            "Eip",
            "{address: 10.2.0.0/24, protocol: layer2, interface: eth0, disable: true, usingKnownIPs: true, priority: -3, namespaces: [a], \
             namespaceSelector: {team: web}, ofTomorrow: {a: [1, {b: c}]}}",
        ),
        (
            "BgpConf",
            "{as: 65000, asPerRack: {left: 65001}, routerId: 10.0.0.1, listenPort: 17900, listenAddresses: [10.0.0.1], families: [65537], \
             useMultiplePaths: true, policy: p, gracefulRestart: {enabled: true, restartTime: 60, helperOnly: true, deferralTime: 1, \
             notificationEnabled: true, longlivedEnabled: true, staleRoutesTime: 2, peerRestartTime: 3, peerRestarting: true, \
             localRestarting: true, mode: m, ofTomorrow: 1}, ofTomorrow: true}",
        ),
        (
            "BgpPeer",
            "{conf: {neighborAddress: 10.0.0.1, peerAs: 65001, localAs: 65002, authPassword: p, description: d, peerGroup: g, peerType: 1, \
             removePrivateAs: NONE, routeFlapDamping: true, sendCommunity: 1, neighborInterface: eth0, vrf: v, allowOwnAs: 1, \
             replacePeerAs: true, adminDown: true, ofTomorrow: 1}, ebgpMultihop: {enabled: true, multihopTtl: 2}, timers: {config: {connectRetry: \
             '1', holdTime: '9', keepaliveInterval: '3', minimumAdvertisementInterval: '1'}}, transport: {mtuDiscovery: true, passiveMode: \
             true, remoteAddress: 10.0.0.1, remotePort: 1179, tcpMss: 1400}, gracefulRestart: {enabled: true}, afiSafis: \
             [{mpGracefulRestart: {config: {enabled: true}}, config: {family: {afi: AFI_IP, safi: SAFI_UNICAST}, enabled: true}, addPaths: \
             {config: {receive: true, sendMax: 3}}, ofTomorrow: {}}], nodeSelector: {matchLabels: {a: b}}, ofTomorrow: []}",
        ),
    ] {
        kubectl.apply(&manifest(kind, "a02", text))?;
        let expected: Value = serde_saphyr::from_str(text)?;
        // In either version, and after a client of the older one has written it back.
        let older = format!("{kind}.v1alpha1.network.kubesphere.io a02");
        ensure!(
            spec(kubectl, &format!("{kind} a02"))? == expected,
            "{}",
            spec(kubectl, &format!("{kind} a02"))?
        );
        ensure!(spec(kubectl, &older)? == expected, "{}", spec(kubectl, &older)?);
        kubectl.run(&format!("label {older} seen=yes"))?;
        ensure!(spec(kubectl, &format!("{kind} a02"))? == expected);
    }
    Ok(())
}

#[test]
fn a04_the_older_version_loses_nothing_while_nobody_converts() -> Result<()> {
    let kubectl = control_plane()?.kubectl();
    for (kind, text, expected) in [
        (
            "BgpConf",
            "{as: 4200000001, port: 17900, routerID: 10.0.0.1}",
            json!({"as": 4_200_000_001_u32, "listenPort": 17900, "routerId": "10.0.0.1"}),
        ),
        (
            "BgpPeer",
            "{config: {peerAs: 65001, neighborAddress: 10.0.0.1}, addPaths: {sendMax: 8}, transport: {passiveMode: true}, \
             usingPortForward: true}",
            json!({"conf": {"peerAs": 65001, "neighborAddress": "10.0.0.1"}, "afiSafis": [{"addPaths": {"config": {"sendMax": 8}}}],
                "transport": {"passiveMode": true}, "usingPortForward": true}),
        ),
        (
            "Eip",
            "{address: 10.4.0.0/24, protocol: layer2, usingKnownIPs: true}",
            json!({"address": "10.4.0.0/24", "protocol": "layer2", "usingKnownIPs": true}),
        ),
    ] {
        kubectl.apply(&of_version("v1alpha1", kind, "a04", text))?;
        let stored = kubectl.get(&format!("{kind} a04"))?;
        ensure!(
            stored["apiVersion"] == V1ALPHA2 && settle(stored.clone())["spec"] == expected,
            "{stored}"
        );
        // What a converting webhook will say of the same object.
        let older = kubectl.get(&format!("{kind}.v1alpha1.network.kubesphere.io a04"))?;
        ensure!(
            older["apiVersion"] == V1ALPHA1 && older["spec"] == serde_saphyr::from_str::<Value>(text)?,
            "{older}"
        );
        let converted = convert(older.clone(), V1ALPHA2)?;
        ensure!(converted["spec"] == expected, "{converted}");
        ensure!(convert(converted, V1ALPHA1)? == older);
        // Whoever looks after it can write what is theirs.
        write_as_its_keeper(kubectl, &format!("{kind} a04"))?;
        let stored = kubectl.get(&format!("{kind} a04"))?;
        // With the newer names it can be written, too.
        let settled = settle(stored).to_string();
        kubectl.run_with("replace", &settled)?;
        ensure!(spec(kubectl, &format!("{kind} a04"))? == expected);
    }
    Ok(())
}

/// Puts a finalizer on an object, writes its status, and takes the finalizer off.
fn write_as_its_keeper(kubectl: &Kubectl, what: &str) -> Result<()> {
    kubectl.patch(what, &json!({"metadata": {"finalizers": ["a.b/c"]}}))?;
    kubectl.patch_status(what, &json!({"later": 1}))?;
    kubectl.patch(what, &json!({"metadata": {"finalizers": null}}))
}

/// Definitions that check nothing, as of a cluster that has objects before ours come.
fn earlier_definitions() -> String {
    let of = |kind: &str| {
        let plural = format!("{}s", kind.to_lowercase());
        let version = |name: &str, stored: bool| {
            format!(
                "  - name: {name}\n    served: true\n    storage: {stored}\n    subresources: {{status: {{}}}}\n    schema: {{openAPIV3Schema: {{type: \
                 object, properties: {{spec: {{type: object, x-kubernetes-preserve-unknown-fields: true}}, status: {{type: object, \
                 x-kubernetes-preserve-unknown-fields: true}}}}}}}}\n"
            )
        };
        format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.network.kubesphere.io}}\nspec:\n  \
             group: network.kubesphere.io\n  scope: Cluster\n  names: {{kind: {kind}, plural: {plural}}}\n  versions:\n{}{}---\n",
            version("v1alpha1", false),
            version("v1alpha2", true)
        )
    };
    ["Eip", "BgpConf", "BgpPeer"].map(of).concat()
}

#[test]
fn a02_what_was_stored_before_our_definitions_goes_on() -> Result<()> {
    let control_plane = ControlPlane::start()?;
    let kubectl = control_plane.kubectl();
    kubectl.apply(&earlier_definitions())?;
    wait_for_definitions(kubectl)?;
    let objects = [
        (
            "Eip",
            "good",
            "{address: 10.1.0.0/24, protocol: layer2, interface: eth0}",
        ),
        // What ours would refuse, had it come later.
        ("Eip", "bad", "{address: ten, protocol: layer2}"),
        ("BgpConf", "default", "{as: 65000, listenPort: 70000}"),
        (
            "BgpPeer",
            "router",
            "{conf: {neighborAddress: router}, afiSafis: [{config: {family: {afi: AFI_OPAQUE}}}]}",
        ),
    ];
    for (kind, name, text) in objects {
        kubectl.apply(&manifest(kind, name, text))?;
    }
    kubectl.patch_status(
        "eip good",
        &json!({"used": {"10.1.0.1": "default/web"}, "usage": 1, "poolSize": 256}),
    )?;

    control_plane.apply_definitions()?;
    // They count some time later.
    let worse = "patch bgpconf default --type=merge --dry-run=server -p {\"spec\":{\"listenPort\":70001}}";
    wait::until("our definitions", || {
        let refusal = kubectl.run(worse).err().context("nobody refuses anything yet")?;
        // As the API server names the field; the patch does not.
        ensure!(format!("{refusal:#}").contains("spec.listenPort"), "{refusal:#}");
        Ok(())
    })?;
    for (kind, name, text) in objects {
        let what = format!("{kind} {name}");
        ensure!(
            spec(kubectl, &what)? == serde_saphyr::from_str::<Value>(text)?,
            "{what}"
        );
        // Whoever looks after it can write all but what is wrong.
        write_as_its_keeper(kubectl, &what)?;
    }
    ensure!(kubectl.get("eip good")?["status"]["used"]["10.1.0.1"] == "default/web");
    // Mending is possible piece by piece, making it worse is not.
    kubectl.patch("eip bad", &json!({"spec": {"interface": "eth0"}}))?;
    kubectl.patch(
        "eip bad",
        &json!({"spec": {"resizable": true, "address": "10.2.0.0/24"}}),
    )?;
    ensure!(
        kubectl
            .patch("bgpconf default", &json!({"spec": {"listenPort": 70001}}))
            .is_err()
    );
    kubectl.patch("bgpconf default", &json!({"spec": {"listenPort": 17900}}))?;
    Ok(())
}
