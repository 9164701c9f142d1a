//! The webhooks of `weir controller`, which runs with the rights it is delivered with: what the API server refuses and converts
//! when it asks there, and what goes on when nobody answers.

use crate::{
    controlled::{Cluster, DEFAULT, LABEL, pool, service},
    objects::{manifest, of_version, patch_refusal, spec},
};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tests::{
    kube::Kubectl,
    lab::{process::Process, wait},
};

/// Where the API server finds the first controller, and the second.
const FIRST: [&str; 2] = ["--webhook-url", "https://127.0.0.1:9443"];
const SECOND: [&str; 6] = [
    "--webhook",
    "[::]:9444",
    "--webhook-url",
    "https://127.0.0.1:9444",
    "--metrics",
    "off",
];
const SECRET: &str = "secret -n weir-system weir-controller-webhook";
const GROUP: &str = "network.kubesphere.io";
const CONVERTED: [&str; 2] = ["bgpconfs", "bgppeers"];

/// What is said about an Eip with these addresses when it is created; empty if it is taken.
fn refusal(kubectl: &Kubectl, name: &str, metadata: &str, address: &str) -> String {
    let manifest = manifest("Eip", name, &format!("{{address: {}}}", json!(address)))
        .replace("{name: ", &format!("{{{metadata}name: "));
    let refused = kubectl.run_with("create --dry-run=server", &manifest).err();
    refused.map(|error| format!("{error:#}")).unwrap_or_default()
}

/// Waits until the API server asks about Eips: it is told, and some time later it does.
fn wait_until_asked(kubectl: &Kubectl, taken: &str) -> Result<()> {
    wait::until("the first refusal", || {
        let said = refusal(kubectl, "first-refusal", "", taken);
        ensure!(said.contains("addresses in common"), "nobody asks: {said:?}");
        Ok(())
    })
}

/// Whom the API server asks for conversions, and whom it trusts there.
fn conversions(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let of = |plural| Ok(kubectl.get(&format!("crd {plural}.{GROUP}"))?["spec"]["conversion"].clone());
    CONVERTED.into_iter().map(of).collect()
}

fn wait_for_conversions(kubectl: &Kubectl, url: &str) -> Result<Vec<Value>> {
    wait::until("conversions by a webhook", || {
        let conversions = conversions(kubectl)?;
        let by = |it: &Value| it["strategy"] == "Webhook" && it["webhook"]["clientConfig"]["url"] == url;
        ensure!(conversions.iter().all(by), "{conversions:?}");
        Ok(conversions)
    })
}

fn stop(mut controller: Process) -> Result<()> {
    ensure!(controller.stop(wait::patience())?.success(), "{}", controller.log());
    Ok(())
}

#[test]
fn a08_a12_what_an_eip_says_about_others_is_refused_where_it_makes_things_worse() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/24"))?;
    // While nobody is asked it is taken, and said later.
    kubectl.apply(&manifest("Eip", "wrong", "{address: 10.10.1.128/25}"))?;
    let controller = cluster.start_with("first", &FIRST)?;
    cluster.has_event("wrong", "Warning", "add/update eip", "Eip pool")?;
    wait_until_asked(kubectl, "10.10.1.7")?;

    let said = refusal(kubectl, "a08", "", "10.10.0.0-10.10.1.0");
    ensure!(
        said.contains(
            "spec.address: 10.10.0.0-10.10.1.0 has addresses in common with Eip pool (10.10.1.0-10.10.1.255)"
        ),
        "{said}"
    );
    ensure!(refusal(kubectl, "a08", "", "10.10.2.0/24").is_empty());
    // In the other version, too.
    let older = of_version("v1alpha1", "Eip", "a08", "{address: 10.10.1.1}");
    let said = kubectl.run_with("create --dry-run=server", &older).err();
    ensure!(said.is_some_and(|said| format!("{said:#}").contains("Eip pool")));
    // The one that is wrong already can be changed in every other respect, and be mended.
    kubectl.run("annotate eip wrong why=mistake")?;
    kubectl.patch("eip wrong", &json!({"spec": {"priority": 3, "resizable": true}}))?;
    kubectl.patch("eip wrong", &json!({"spec": {"address": "10.10.3.0/24"}}))?;
    let said = patch_refusal(kubectl, "eip wrong", &json!({"address": "10.10.1.0/25"}))?;
    ensure!(said.contains("Eip pool"), "{said}");

    kubectl.run(&format!("annotate eip wrong {DEFAULT}=TRUE"))?;
    let metadata = format!("annotations: {{{DEFAULT}: 'true'}}, ");
    let said = refusal(kubectl, "a12", &metadata, "10.12.0.0/24");
    ensure!(said.contains("Eip wrong is already the default for IPv4"), "{said}");
    ensure!(refusal(kubectl, "a12", &metadata, "fd00:12::/64").is_empty());
    ensure!(refusal(kubectl, "a12", &metadata.replace("true", "no"), "10.12.0.0/24").is_empty());
    let said = kubectl.run(&format!("annotate eip pool {DEFAULT}=True")).err();
    let said = said.map(|said| format!("{said:#}")).unwrap_or_default();
    ensure!(said.contains("Eip wrong is already the default"), "{said}");

    // [A10] Addresses in use stay where they are.
    kubectl.apply(&service(
        "web",
        &[(LABEL, "wrong"), ("eip.openelb.kubesphere.io/v1alpha1", "10.10.3.200")],
    ))?;
    cluster.shows("web", Some("10.10.3.200"))?;
    let said = patch_refusal(kubectl, "eip wrong", &json!({"address": "10.10.3.0/25"}))?;
    ensure!(said.contains("10.10.3.200 (default/web)"), "{said}");
    kubectl.patch("eip wrong", &json!({"spec": {"address": "10.10.3.128/25"}}))?;
    cluster.shows("web", Some("10.10.3.200"))?;

    // [A17] What does nothing is taken, and said.
    let conf = manifest("BgpConf", "other", "{as: 65000}");
    let said = kubectl.run_with("create --warnings-as-errors", &conf).err();
    ensure!(
        said.is_some_and(|said| format!("{said:#}").contains("only the one named default counts")),
        "no warning"
    );
    let told = cluster.asks(9471, "/metrics")?;
    ensure!(
        told.contains("weir_controller_reviews_total{review=\"admission\",result=\"refused\"}"),
        "{told}"
    );
    stop(controller)
}

#[test]
fn a27_without_anybody_who_answers_services_go_on_and_eips_as_it_was_chosen() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/24"))?;
    let overlap = |name: &str| manifest("Eip", name, "{address: 10.10.1.0/28}");
    for (policy, made) in [("Ignore", true), ("Fail", false)] {
        let mut controller =
            cluster.start_with(policy, &[&FIRST[..], &["--webhook-failure-policy", policy]].concat())?;
        wait::until("the policy", || {
            let found = kubectl.get("validatingwebhookconfiguration weir")?;
            ensure!(found["webhooks"][0]["failurePolicy"] == policy, "{found}");
            Ok(())
        })?;
        wait_until_asked(kubectl, "10.10.1.7")?;
        controller.kill()?;

        kubectl.apply(&service(&format!("while-{policy}").to_lowercase(), &[(LABEL, "pool")]))?;
        let name = format!("second-{policy}").to_lowercase();
        wait::until("the policy to be followed", || {
            let created = kubectl.run_with("create", &overlap(&name));
            match created {
                Ok(_) if made => {}
                Ok(_) => {
                    // Or the next attempt would be refused because it is there.
                    kubectl.run(&format!("delete eip {name} --timeout=60s"))?;
                    bail!("it was made");
                }
                Err(error) => {
                    let said = format!("{error:#}");
                    ensure!(!made && said.contains("failed calling webhook"), "{said}");
                }
            }
            Ok(())
        })?;
        if made {
            kubectl.run(&format!("delete eip {name} --timeout=60s"))?;
        }
    }
    // What is not worth asking about can be written all the same: labels, finalizers, status.
    kubectl.run("label eip pool looked-at=yes")?;
    kubectl.patch_status("eip pool", &json!({"ready": true}))?;
    // Whoever comes next makes up for it.
    let controller = cluster.start_with("next", &FIRST)?;
    cluster.shows("while-ignore", Some("10.10.1.0"))?;
    cluster.shows("while-fail", Some("10.10.1.1"))?;
    stop(controller)
}

#[test]
fn a04_the_older_version_loses_nothing_through_the_webhook() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    // Written while nobody converts.
    kubectl.apply(&of_version("v1alpha1", "BgpConf", "early", "{as: 65000, port: 17900}"))?;
    let peer = "{config: {peerAs: 65001, neighborAddress: 10.0.0.9}}";
    kubectl.apply(&of_version("v1alpha1", "BgpPeer", "early", peer))?;
    let controller = cluster.start_with("first", &FIRST)?;
    wait_for_conversions(kubectl, "https://127.0.0.1:9443/convert")?;
    wait::until("fields with their newer names", || {
        let found = spec(kubectl, "bgpconf early")?;
        ensure!(found == json!({"as": 65000, "listenPort": 17900}), "{found}");
        Ok(())
    })?;
    // The API server does not convert by the webhook the moment it is told to, nor both kinds from the same moment.
    for (plural, older, newer) in [("bgpconfs", "port", "listenPort"), ("bgppeers", "config", "conf")] {
        wait::until("a conversion", || {
            let found = spec(kubectl, &format!("{plural}.{GROUP} early"))?;
            ensure!(found.get(newer).is_some(), "{found}");
            let found = spec(kubectl, &format!("{plural}.v1alpha1.{GROUP} early"))?;
            ensure!(found.get(older).is_some() && found.get(newer).is_none(), "{found}");
            Ok(())
        })?;
    }
    for (kind, older, newer) in [
        (
            "BgpConf",
            json!({"as": 4_200_000_001_u32, "port": 17900, "routerID": "10.0.0.1", "ofTomorrow": {"a": [1]}}),
            json!({"as": 4_200_000_001_u32, "listenPort": 17900, "routerId": "10.0.0.1", "ofTomorrow": {"a": [1]}}),
        ),
        (
            "BgpPeer",
            json!({"config": {"peerAs": 65001, "neighborAddress": "10.0.0.1"}, "addPaths": {"sendMax": 8},
                "transport": {"passiveMode": true, "remotePort": 1179}, "usingPortForward": true}),
            json!({"conf": {"peerAs": 65001, "neighborAddress": "10.0.0.1"},
                "afiSafis": [{"addPaths": {"config": {"sendMax": 8}}}],
                "transport": {"passiveMode": true, "remotePort": 1179}, "usingPortForward": true}),
        ),
        (
            "Eip",
            json!({"address": "10.4.0.0/24", "protocol": "bgp", "usingKnownIPs": true, "ofTomorrow": true}),
            json!({"address": "10.4.0.0/24", "protocol": "bgp", "usingKnownIPs": true, "ofTomorrow": true}),
        ),
    ] {
        let plural = format!("{}s.v1alpha1.{GROUP}", kind.to_lowercase());
        let (new, old) = (format!("{kind} a04"), format!("{plural} a04"));
        kubectl.apply(&of_version("v1alpha1", kind, "a04", &older.to_string()))?;
        ensure!(spec(kubectl, &new)? == newer, "{}", spec(kubectl, &new)?);
        ensure!(spec(kubectl, &old)? == older, "{}", spec(kubectl, &old)?);
        // A client of either version writes back what it has read, and more.
        kubectl.run(&format!("label {old} seen=yes"))?;
        kubectl.run(&format!("label {new} known=yes"))?;
        ensure!(spec(kubectl, &new)? == newer && spec(kubectl, &old)? == older);
        kubectl.apply(&of_version("v1alpha1", kind, "a04", &older.to_string()))?;
        ensure!(spec(kubectl, &new)? == newer && spec(kubectl, &old)? == older);
        // Written in the newer version with what the older one has no word for, and read in both.
        let list = kubectl.get(&plural)?;
        let all = list["items"].as_array().into_iter().flatten();
        ensure!(
            all.clone().count() >= 1
                && all
                    .clone()
                    .all(|it| it["apiVersion"] == "network.kubesphere.io/v1alpha1")
        );
    }
    let peer = json!({"conf": {"peerAs": 1, "neighborAddress": "10.0.0.2"}, "afiSafis": [
        {"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": true}, "addPaths": {"config": {"sendMax": 3}}},
        {"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}, "enabled": true}}]});
    kubectl.apply(&manifest("BgpPeer", "newer", &peer.to_string()))?;
    let older = "bgppeers.v1alpha1.network.kubesphere.io newer";
    ensure!(
        spec(kubectl, older)?["config"] == peer["conf"],
        "{}",
        spec(kubectl, older)?
    );
    kubectl.run(&format!("label {older} seen=yes"))?;
    ensure!(
        spec(kubectl, "bgppeer newer")? == peer,
        "{}",
        spec(kubectl, "bgppeer newer")?
    );
    // While nobody answers the version that is stored is there, whoever wrote it, and Eips are in both.
    stop(controller)?;
    for what in [
        "bgpconf a04",
        "bgppeer a04",
        "eip a04",
        "eips.v1alpha1.network.kubesphere.io a04",
    ] {
        spec(kubectl, what)?;
        if !what.contains("v1alpha1") {
            kubectl.run(&format!("label {what} alone=yes"))?;
        }
    }
    let said = spec(kubectl, "bgpconfs.v1alpha1.network.kubesphere.io a04").err();
    let said = said.map(|said| format!("{said:#}")).unwrap_or_default();
    ensure!(said.contains("conversion webhook"), "{said}");
    Ok(())
}

#[test]
fn a08_a04_controllers_share_a_certificate_and_say_again_what_somebody_unsaid() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    kubectl.apply(&pool("10.10.1.0/24"))?;
    let first = cluster.start_with("first", &FIRST)?;
    let before = wait_for_conversions(kubectl, "https://127.0.0.1:9443/convert")?;
    let made = kubectl.get(SECRET)?;
    // Time to renew it, for whoever looks first.
    kubectl.run(&format!(
        "annotate --overwrite {SECRET} lb.weir.dev/renew=2020-01-01T00:00:00Z"
    ))?;
    let second = cluster.start_with("second", &SECOND)?;
    wait::until("the second's server", || {
        ensure!(second.log().contains("serving webhooks"), "{}", second.log());
        Ok(())
    })?;
    let secret = kubectl.get(SECRET)?;
    let authority = &secret["data"]["ca.crt"];
    ensure!(made["data"]["ca.crt"] == *authority && made["data"]["tls.crt"] != secret["data"]["tls.crt"]);
    ensure!(
        before
            .iter()
            .all(|it| it["webhook"]["clientConfig"]["caBundle"] == *authority)
    );
    let names = secret["metadata"]["annotations"]["lb.weir.dev/names"].as_str();
    ensure!(names == Some("127.0.0.1,weir-controller.weir-system.svc"), "{names:?}");
    wait_until_asked(kubectl, "10.10.1.7")?;

    // Applied again, definitions leave alone what they do not speak of; put in place of it, they do not.
    cluster.control_plane.apply_definitions()?;
    ensure!(conversions(kubectl)? == before);
    let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/yaml");
    kubectl.run(&format!("replace -f {definitions}"))?;
    kubectl.run("delete validatingwebhookconfiguration weir")?;
    ensure!(wait_for_conversions(kubectl, "https://127.0.0.1:9443/convert")? == before);
    wait_until_asked(kubectl, "10.10.1.7")?;

    // The other one leads: it is asked by its own address, with the same authority.
    stop(first)?;
    let after = wait_for_conversions(kubectl, "https://127.0.0.1:9444/convert")?;
    ensure!(
        after
            .iter()
            .all(|it| it["webhook"]["clientConfig"]["caBundle"] == *authority)
    );
    wait_until_asked(kubectl, "10.10.1.7")?;
    stop(second)?;

    // Nobody is to be asked any more.
    let none = cluster.start_with("none", &["--no-webhook"])?;
    wait::until("the API server to ask nobody", || {
        ensure!(kubectl.get("validatingwebhookconfiguration weir").is_err());
        let conversions = conversions(kubectl)?;
        ensure!(
            conversions.iter().all(|it| *it == json!({"strategy": "None"})),
            "{conversions:?}"
        );
        Ok(())
    })?;
    stop(none)?;

    // By a Service, which has to be there; and there is another authority, beside which the one before is trusted.
    kubectl.run(&format!(
        "annotate --overwrite {SECRET} lb.weir.dev/renew-authority=2020-01-01T00:00:00Z"
    ))?;
    let inside = cluster.start("inside")?;
    wait::until("a word on the Service", || {
        ensure!(
            inside.log().contains("there is no Service weir-system/weir-controller"),
            "{}",
            inside.log()
        );
        Ok(())
    })?;
    ensure!(kubectl.get("validatingwebhookconfiguration weir").is_err());
    kubectl.run("create service clusterip weir-controller -n weir-system --tcp=443:9443")?;
    wait::until("the Service to be asked", || {
        let found = kubectl.get("validatingwebhookconfiguration weir")?;
        let asked = &found["webhooks"][0]["clientConfig"]["service"];
        let expected = json!({"name": "weir-controller", "namespace": "weir-system", "path": "/admit", "port": 443});
        ensure!(*asked == expected, "{found}");
        let trusted = &found["webhooks"][0]["clientConfig"]["caBundle"];
        let trusted = trusted.as_str().unwrap_or_default();
        // In base64 whatever follows is longer than what was there alone.
        ensure!(trusted.len() > authority.as_str().unwrap_or_default().len(), "{found}");
        ensure!(kubectl.get(SECRET)?["data"]["ca.crt"] == *trusted, "{found}");
        Ok(())
    })?;
    stop(inside)
}
