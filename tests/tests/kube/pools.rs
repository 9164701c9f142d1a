//! Eips and a controller: the figures and the book of each, and what becomes of addresses when an Eip grows, changes or goes.

use crate::controlled::{ADDRESS, Cluster, LABEL, eip, left_alone, pool, service, with_spec};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::lab::wait;

const EIP_FINALIZER: &str = "finalizer.ipam.kubesphere.io/v1alpha1";

/// Name, addresses, and the figures that follow from them: how many, the first, the last.
const POOLS: [(&str, &str, i64, &str, &str); 6] = [
    ("one", "10.5.0.9", 1, "10.5.0.9", "10.5.0.9"),
    ("net", "10.5.1.10/30", 4, "10.5.1.8", "10.5.1.11"),
    ("span", "10.5.2.255-10.5.3.0", 2, "10.5.2.255", "10.5.3.0"),
    // Of more addresses than the field can say.
    (
        "six",
        "fd00:7::5/64",
        i64::MAX,
        "fd00:7::",
        "fd00:7::ffff:ffff:ffff:ffff",
    ),
    ("some", "fd00:8::fffe/127", 2, "fd00:8::fffe", "fd00:8::ffff"),
    ("few", "fd00:9::a-fd00:9::c", 3, "fd00:9::a", "fd00:9::c"),
];

fn has_figures(cluster: &Cluster, name: &str, size: i64, first: &str, last: &str) -> Result<Value> {
    wait::until("the figures of an Eip", || {
        let found = cluster.kubectl().get(&format!("eip {name}"))?;
        let status = &found["status"];
        let shown = ["poolSize", "firstIP", "lastIP", "v4"].map(|field| &status[field]);
        let v4 = !first.contains(':');
        ensure!(
            shown == [&json!(size), &json!(first), &json!(last), &json!(v4)],
            "{name}: {status}"
        );
        Ok(found)
    })
}

#[test]
fn a05_a07_a14_a15_b11_an_eip_has_figures_and_a_book_and_gives_out_all_it_has_from_the_lowest() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let all = POOLS.map(|(name, address, ..)| eip(name, &json!({"address": address}), &json!({})));
    kubectl.apply(&all.concat())?;
    let _controller = cluster.start_with("one", &["--no-webhook"])?;
    for (name, _, size, first, last) in POOLS {
        let found = has_figures(&cluster, name, size, first, last)?;
        ensure!(found["metadata"]["finalizers"] == json!([EIP_FINALIZER]), "{found}");
        let figures = ["usage", "occupied"].map(|field| &found["status"][field]);
        ensure!(figures == [&json!(0), &json!(false)], "{found}");
    }

    // Every address of each, network and broadcast as well, and those that end in 0 and 255.
    let four = |name: &str, eip: &str| service(name, &[(LABEL, eip)]);
    let single = json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"});
    let six = |name: &str, eip: &str| with_spec(name, &[(LABEL, eip)], &single);
    let given = [
        ("one", four("one", "one"), "10.5.0.9"),
        ("net-0", four("net-0", "net"), "10.5.1.8"),
        ("net-1", four("net-1", "net"), "10.5.1.9"),
        ("net-2", four("net-2", "net"), "10.5.1.10"),
        ("net-3", four("net-3", "net"), "10.5.1.11"),
        ("span-0", four("span-0", "span"), "10.5.2.255"),
        ("span-1", four("span-1", "span"), "10.5.3.0"),
        ("six-0", six("six-0", "six")?, "fd00:7::"),
        ("six-1", six("six-1", "six")?, "fd00:7::1"),
        ("some-0", six("some-0", "some")?, "fd00:8::fffe"),
        ("some-1", six("some-1", "some")?, "fd00:8::ffff"),
    ];
    let manifests = given.iter().map(|(_, manifest, _)| manifest.as_str());
    kubectl.apply(&manifests.collect::<String>())?;
    cluster.show(given.iter().map(|(name, _, address)| (*name, *address)))?;
    let six = json!({"fd00:7::": "default/six-0", "fd00:7::1": "default/six-1"});
    cluster.has_book("six", &six)?;
    let net = |second: &str, last: &str| {
        json!({
            "10.5.1.8": "default/net-0", "10.5.1.9": second, "10.5.1.10": "default/net-2", "10.5.1.11": last,
        })
    };
    let full = cluster.has_book("net", &net("default/net-1", "default/net-3"))?;
    ensure!(full["status"]["occupied"] == true, "{}", full["status"]);

    // Who shares an address makes it no more of them; who asks for any when there is none waits for one that is given back.
    let https = json!({"ports": [{"name": "https", "port": 443, "protocol": "TCP"}]});
    kubectl.apply(&with_spec("shares", &[(ADDRESS, "10.5.1.11")], &https)?)?;
    cluster.has_book("net", &net("default/net-1", "default/net-3;default/shares"))?;
    cluster.show([("shares", "10.5.1.11")])?;
    kubectl.apply(&four("waits", "net"))?;
    let none_left = "every address of Eip net is given out";
    cluster.has_event("waits", "Warning", "AssignIPFailed", none_left)?;
    kubectl.run("delete service net-1 net-3")?;
    cluster.show([("waits", "10.5.1.9")])?;
    cluster.has_book("net", &net("default/waits", "default/shares"))?;
    // The lowest that is free, not the one after the last.
    kubectl.run("delete service net-0 shares")?;
    let left = json!({"10.5.1.9": "default/waits", "10.5.1.10": "default/net-2"});
    let left = cluster.has_book("net", &left)?;
    ensure!(left["status"]["occupied"] == false, "{}", left["status"]);
    kubectl.apply(&four("next", "net"))?;
    cluster.show([("next", "10.5.1.8")])
}

#[test]
fn a10_a11_a13_a14_addresses_outlive_every_change_of_an_eip_but_its_end() -> Result<()> {
    let cluster = Cluster::new()?;
    let kubectl = cluster.kubectl();
    let ours =
        |priority: i64, address: &str| json!({"address": address, "namespaces": ["default"], "priority": priority});
    let eips = [
        pool("10.10.1.0/31"),
        eip("first", &ours(1, "10.13.1.0/24"), &json!({})),
        eip("second", &ours(2, "10.13.2.0/24"), &json!({})),
    ];
    kubectl.apply(&eips.concat())?;
    let _controller = cluster.start_with("one", &["--no-webhook"])?;
    grows(&cluster).context("an Eip grows")?;
    goes(&cluster).context("an Eip goes")?;
    changes(&cluster).context("an Eip changes")
}

/// [A10] Whoever waited gets one of the addresses that came.
fn grows(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let three = ["pool-0", "pool-1", "pool-2"].map(|name| service(name, &[(LABEL, "pool")]));
    kubectl.apply(&three.concat())?;
    let none_left = "every address of Eip pool is given out";
    cluster.has_event("pool-2", "Warning", "AssignIPFailed", none_left)?;
    cluster.show([("pool-0", "10.10.1.0"), ("pool-1", "10.10.1.1")])?;
    has_figures(cluster, "pool", 2, "10.10.1.0", "10.10.1.1")?;
    let mut before = cluster.has_caught_up(1)?;
    // The one that waits.
    before.remove("default/pool-2");
    kubectl.patch("eip pool", &json!({"spec": {"resizable": true}}))?;
    kubectl.patch("eip pool", &json!({"spec": {"address": "10.10.1.0-10.10.1.2"}}))?;
    cluster.show([("pool-2", "10.10.1.2")])?;
    has_figures(cluster, "pool", 3, "10.10.1.0", "10.10.1.2")?;
    cluster.has_book(
        "pool",
        &json!({"10.10.1.0": "default/pool-0", "10.10.1.1": "default/pool-1", "10.10.1.2": "default/pool-2"}),
    )?;
    left_alone(&before, &cluster.has_caught_up(2)?)
}

/// [A13 A14] Services lose what they have of it at once; one that named it waits, another gets an address elsewhere.
fn goes(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.apply(&service("named", &[(LABEL, "first")]))?;
    cluster.show([("named", "10.13.1.0")])?;
    kubectl.apply(&service("any", &[]))?;
    cluster.show([("any", "10.13.1.1")])?;
    let book = json!({"10.13.1.0": "default/named", "10.13.1.1": "default/any"});
    cluster.has_book("first", &book)?;

    kubectl.run("delete eip first --timeout=60s")?;
    let any = cluster.shows("any", Some("10.13.2.0"))?;
    ensure!(any["metadata"]["labels"][LABEL] == "second", "{any}");
    cluster.has_book("second", &json!({"10.13.2.0": "default/any"}))?;
    cluster.has_event("any", "Normal", "ReleaseIP", "10.13.1.1")?;
    let named = cluster.shows("named", None)?;
    let metadata = &named["metadata"];
    ensure!(
        metadata.get("finalizers").is_none() && metadata["labels"].get(LABEL).is_none(),
        "{metadata}"
    );
    ensure!(named["status"]["loadBalancer"] == json!({}), "{named}");
    cluster.has_event("named", "Normal", "ReleaseIP", "10.13.1.0")?;
    cluster.has_event("named", "Warning", "AssignIPFailed", "there is no Eip first")
}

/// [A11] Of all Services that have an address, none is written to.
fn changes(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let more = [
        service("by-name", &[(LABEL, "second")]),
        service("by-address", &[(ADDRESS, "10.13.2.99")]),
    ];
    kubectl.apply(&more.concat())?;
    cluster.show([
        ("any", "10.13.2.0"),
        ("by-name", "10.13.2.1"),
        ("by-address", "10.13.2.99"),
    ])?;
    let book = json!({
        "10.13.2.0": "default/any", "10.13.2.1": "default/by-name", "10.13.2.99": "default/by-address",
    });
    cluster.has_book("second", &book)?;
    let before = cluster.has_caught_up(3)?;
    for (number, change) in (4..).zip([
        json!({"protocol": "layer2", "interface": "eth0"}),
        json!({"interface": "can_reach:10.0.0.1", "priority": -7}),
        json!({"protocol": "vip", "namespaces": ["elsewhere"]}),
        json!({"protocol": "bgp", "interface": null, "namespaces": null, "namespaceSelector": {"team": "web"}}),
        json!({"disable": true}),
        json!({"disable": false, "namespaceSelector": null, "priority": null}),
    ]) {
        kubectl.patch("eip second", &json!({ "spec": change }))?;
        let now = cluster.has_caught_up(number)?;
        left_alone(&before, &now).with_context(|| change.to_string())?;
        cluster.has_book("second", &book).with_context(|| change.to_string())?;
    }
    Ok(())
}
