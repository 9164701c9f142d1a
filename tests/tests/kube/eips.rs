//! Eips as the API server takes, refuses and keeps them.

use crate::objects::{check, control_plane, manifest, patch_refusal, spec};
use anyhow::{Result, bail, ensure};
use serde_json::json;
use std::net::Ipv6Addr;
use tests::kube::Kubectl;
use weir_core::ipam::{AddressRange, RangeError};

/// Texts that are addresses.
const ADDRESSES: [&str; 13] = [
    "10.1.0.5",
    "10.1.0.10/24",
    "10.1.0.7/32",
    "10.1.0.10-10.1.1.9",
    "10.1.0.1-10.1.0.1",
    "10.1.0.9-10.1.0.10",
    " 10.1.0.1 - 10.1.0.2 ",
    "fd00::2",
    "fd00::1:5/120",
    "fd00::5-fd00::a",
    "fd00::ffff-fd00::1:0",
    "fd00:0:0:0:0:0:0:1-FD00::0002",
    "1::-1:0:0:0:0:0:0:1",
];

/// Texts that are none, and words of what is said.
const NONE: [(&str, &str); 17] = [
    ("", "write one address"),
    ("ten", "write one address"),
    ("10.1.0", "write one address"),
    ("10.1.0.1-", "write one address"),
    ("10.1.0.1-5", "write one address"),
    ("10.1.0.1-10.1.0.2-10.1.0.3", "write one address"),
    ("10.1.0.1,10.1.0.2", "write one address"),
    ("10.1.0.0/33", "write one address"),
    ("10.1.0.0/255.255.255.0", "write one address"),
    ("10.1.0.0/24-10.2.0.0/24", "write one address"),
    ("fd00::/129", "write one address"),
    ("fe80::1%eth0", "write one address"),
    ("::ffff:10.0.0.1", "write one address"),
    ("10.1.0.1-fd00::1", "of different families"),
    ("10.1.0.10-10.1.0.9", "the last address is before the first"),
    ("fd00::a-fd00::5", "the last address is before the first"),
    ("fd00::1:0-fd00::ffff", "the last address is before the first"),
];

fn kubectl() -> Result<&'static Kubectl> {
    Ok(control_plane()?.kubectl())
}

fn at(address: &str) -> String {
    format!("{{address: {}}}", json!(address))
}

#[test]
fn a05_a06_addresses_are_taken_as_they_are_read() -> Result<()> {
    let taken: Vec<String> = ADDRESSES.iter().map(|text| at(text)).collect();
    let refused: Vec<(String, [&str; 2])> = NONE
        .iter()
        .map(|(text, said)| (at(text), ["spec.address", *said]))
        .collect();
    let mut cases: Vec<(&str, &[&str])> = taken.iter().map(|spec| (spec.as_str(), &[] as &[&str])).collect();
    cases.extend(refused.iter().map(|(spec, words)| (spec.as_str(), words.as_slice())));
    check(kubectl()?, "v1alpha2", "Eip", &cases)?;
    check(kubectl()?, "v1alpha1", "Eip", &cases)?;

    // Whoever reads the Eip agrees.
    for text in ADDRESSES {
        ensure!(text.parse::<AddressRange>().is_ok(), "{text}");
    }
    for (text, _) in NONE {
        ensure!(text.parse::<AddressRange>().is_err(), "{text}");
    }
    Ok(())
}

/// Many pairs of addresses in many notations, in order and not: the rule of the API server and our reader are of one mind.
#[test]
fn a06_whoever_judges_the_order_of_addresses_judges_alike() -> Result<()> {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        // Knuth's constants for a linear congruential generator; its upper bits are good enough to choose.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut address = |v6: bool| {
        // Mostly small parts and zeros, so that `::` is everywhere and many pairs begin alike.
        let mut part = |largest: u64| [0, 0, 1, 9, 10, random(largest)][usize::try_from(random(6)).unwrap_or_default()];
        if v6 {
            let parts: Vec<u64> = (0..7).map(|_| part(0x1_0000)).collect();
            let text = |width: usize| {
                let all: Vec<String> = parts.iter().map(|part| format!("{part:0width$x}")).collect();
                format!("fd00:{}", all.join(":"))
            };
            let long = [text(1), text(4), text(1).to_uppercase()];
            match random(4) {
                3 => long[0]
                    .parse::<Ipv6Addr>()
                    .map_or_else(|_| long[0].clone(), |short| short.to_string()),
                which => long[usize::try_from(which).unwrap_or_default()].clone(),
            }
        } else {
            format!("10.{}.{}.{}", part(256), part(256), part(256))
        }
    };
    let texts: Vec<String> = (0..200)
        .map(|index| format!("{}-{}", address(index % 4 != 0), address(index % 4 != 0)))
        .collect();
    let specs: Vec<String> = texts.iter().map(|text| at(text)).collect();
    let reversed: &[&str] = &["spec.address", "the last address is before the first"];
    let mut cases: Vec<(&str, &[&str])> = Vec::new();
    for (text, spec) in texts.iter().zip(&specs) {
        cases.push(match text.parse::<AddressRange>() {
            Ok(_) => (spec, &[]),
            Err(RangeError::Reversed) => (spec, reversed),
            Err(error) => bail!("{text}: {error}"),
        });
    }
    let refused = cases.iter().filter(|(_, words)| !words.is_empty()).count();
    ensure!((50..150).contains(&refused), "{refused} of 200 are reversed");
    check(kubectl()?, "v1alpha2", "Eip", &cases)
}

#[test]
fn a05_an_address_is_kept_as_it_was_written() -> Result<()> {
    let kubectl = kubectl()?;
    kubectl.apply(&manifest("Eip", "a05", &at("10.5.0.10/24")))?;
    ensure!(spec(kubectl, "eip a05")?["address"] == "10.5.0.10/24");
    Ok(())
}

#[test]
fn a09_announcing_on_a_network_needs_an_interface() -> Result<()> {
    let kubectl = kubectl()?;
    let needed: &[&str] = &["spec.interface", "name the nodes' interface"];
    let wrong: &[&str] = &["spec.interface", "can_reach:10.0.0.1"];
    let fine: &[&str] = &[];
    let cases = [
        ("{address: 10.9.0.1, protocol: layer2}", needed),
        ("{address: 10.9.0.1, protocol: vip}", needed),
        ("{address: 10.9.0.1, protocol: layer2, interface: ''}", needed),
        ("{address: 10.9.0.1, protocol: layer2, interface: ' '}", needed),
        ("{address: 10.9.0.1, protocol: layer2, interface: lo}", wrong),
        (
            "{address: 10.9.0.1, protocol: layer2, interface: 'can_reach:somewhere'}",
            wrong,
        ),
        ("{address: 10.9.0.1, protocol: vip, interface: 'eth0:1'}", wrong),
        (
            "{address: 10.9.0.1, protocol: layer3, interface: eth0}",
            &["spec.protocol", "\"bgp\", \"layer2\", \"vip\""],
        ),
        ("{address: 10.9.0.1, protocol: layer2, interface: eth0}", fine),
        (
            "{address: 10.9.0.1, protocol: vip, interface: 'can_reach:10.0.0.1'}",
            fine,
        ),
        (
            "{address: 10.9.0.1, protocol: layer2, interface: 'can_reach:fd00::1'}",
            fine,
        ),
        ("{address: 10.9.0.1, protocol: bgp}", fine),
        ("{address: 10.9.0.1, protocol: bgp, interface: lo}", fine),
        ("{address: 10.9.0.1}", fine),
    ];
    check(kubectl, "v1alpha2", "Eip", &cases)?;

    // And on update.
    kubectl.apply(&manifest(
        "Eip",
        "a09",
        "{address: 10.9.0.0/24, protocol: layer2, interface: eth0}",
    ))?;
    for spec in [json!({"interface": ""}), json!({"interface": null})] {
        let said = patch_refusal(kubectl, "eip a09", &spec)?;
        ensure!(said.contains("name the nodes' interface"), "{said}");
    }
    Ok(())
}

#[test]
fn a10_addresses_stay_unless_they_may_change() -> Result<()> {
    let kubectl = kubectl()?;
    kubectl.apply(&manifest("Eip", "a10", &at("10.10.0.0/24")))?;
    let wider = json!({"address": "10.10.0.0/23"});
    let said = patch_refusal(kubectl, "eip a10", &wider)?;
    ensure!(
        said.contains("spec.address") && said.contains("set spec.resizable to true first"),
        "{said}"
    );
    let said = patch_refusal(kubectl, "eips.v1alpha1.network.kubesphere.io a10", &wider)?;
    ensure!(said.contains("spec.address cannot be changed"), "{said}");

    kubectl.patch("eip a10", &json!({"spec": {"resizable": true}}))?;
    kubectl.patch("eip a10", &json!({ "spec": wider }))?;
    ensure!(spec(kubectl, "eip a10")?["address"] == "10.10.0.0/23");
    Ok(())
}

#[test]
fn a11_everything_else_may_be_written() -> Result<()> {
    let kubectl = kubectl()?;
    kubectl.apply(&manifest("Eip", "a11", &at("10.11.0.0/24")))?;
    for change in [
        json!({"protocol": "layer2", "interface": "eth0"}),
        json!({"interface": "eth1"}),
        json!({"protocol": "vip"}),
        json!({"protocol": "bgp", "interface": null}),
        json!({"disable": true}),
        json!({"priority": -7}),
        json!({"namespaces": ["a", "b"]}),
        json!({"namespaceSelector": {"team": "web"}}),
        json!({"usingKnownIPs": true}),
    ] {
        kubectl.patch("eip a11", &json!({ "spec": change }))?;
    }
    let expected = json!({"address": "10.11.0.0/24", "protocol": "bgp", "disable": true, "priority": -7, "namespaces": ["a", "b"],
        "namespaceSelector": {"team": "web"}, "usingKnownIPs": true});
    ensure!(spec(kubectl, "eip a11")? == expected, "{}", spec(kubectl, "eip a11")?);
    Ok(())
}

#[test]
fn a01_status_is_a_resource_of_its_own() -> Result<()> {
    let kubectl = kubectl()?;
    let with_status = |name: &str| manifest("Eip", name, &at("10.15.0.0/24")).replace("---\n", "status: {usage: 9}\n");
    kubectl.apply(&with_status("a15"))?;
    ensure!(kubectl.get("eip a15")?["status"]["usage"].is_null());
    let status = json!({"usage": 2, "occupied": true, "used": {"10.15.0.1": "a/b;c/d"}, "ready": true, "v4": true, "later": {"of": "us"}});
    kubectl.patch_status("eip a15", &status)?;
    // Neither version of a manifest touches it.
    kubectl.apply(&with_status("a15"))?;
    kubectl.run_with("replace", &with_status("a15").replace("v1alpha2", "v1alpha1"))?;
    let found = kubectl.get("eip a15")?["status"].clone();
    ensure!(found == status, "{found}");
    Ok(())
}

#[test]
fn a25_a28_labels_and_fields_without_effect_are_kept() -> Result<()> {
    let kubectl = kubectl()?;
    let yaml = manifest("Eip", "a28", "{address: 10.28.0.0/24, usingKnownIPs: true}");
    kubectl.apply(&yaml.replace(
        "{name: a28}",
        "{name: a28, labels: {openelb.kubesphere.io/cni: calico}}",
    ))?;
    let found = kubectl.get("eip a28")?;
    ensure!(found["spec"]["usingKnownIPs"] == true, "{found}");
    ensure!(
        found["metadata"]["labels"]["openelb.kubesphere.io/cni"] == "calico",
        "{found}"
    );
    Ok(())
}
