//! Events about who announces what (B25).

use super::{
    saying::Scene,
    telling::{one_service, problem, ready},
    *,
};
use crate::standing::Standing;

impl Scene {
    /// One Service at 10.1.0.8, two nodes, and a controller that begins to lead.
    fn begin() -> Self {
        Self::of(one_service(), &["SetBalancer", "DelBalancer"])
    }

    /// The two nodes announce these now.
    fn announce(&mut self, a: &[&str], b: &[&str]) -> &mut Self {
        self.objects.says("a", "pool", ready(a));
        self.objects.says("b", "pool", ready(b));
        self.look();
        self
    }
}

const A: &str = "Service apps/web Normal SetBalancer: 10.1.0.8 is announced by a";
const B: &str = "Service apps/web Normal SetBalancer: 10.1.0.8 is announced by b";
const GONE: &str = "Service apps/web Normal DelBalancer: 10.1.0.8 is announced no longer";

#[test]
fn b25_one_event_per_change_of_who_announces() {
    let mut scene = Scene::begin();
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1), [A]);
    assert_eq!(scene.pass(1000), [""; 0], "said once");
    // The one that begins speaks first, or the one that ends; between them are two, or none.
    scene.announce(&["10.1.0.8"], &["10.1.0.8"]).pass(4);
    assert_eq!(scene.announce(&[], &["10.1.0.8"]).pass(1000), [B]);
    scene.announce(&[], &[]).pass(4);
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1000), [A]);
    // What passes is not said.
    scene.announce(&[], &[]).pass(4);
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1000), [""; 0]);
}

#[test]
fn b25_a_controller_that_begins_says_nothing_of_what_is_so() {
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.another_leads();
    assert_eq!(scene.pass(1000), [""; 0]);
    assert_eq!(scene.announce(&[], &["10.1.0.8"]).pass(10), [B]);
    // Nor what the status says, and what has no say is no event.
    scene.announce(&[], &[]).pass(12);
    scene.settle();
    assert!(!scene.objects.services[&key("web")].1.served.as_ref().unwrap().holds);
    scene.another_leads();
    assert_eq!(scene.pass(1000), [""; 0]);
    assert_eq!(scene.announce(&[], &["10.1.0.8"]).pass(10), [B]);
}

#[test]
fn b25_a_flapping_announcer_is_said_the_seldomer_the_longer_it_flaps() {
    let mut scene = Scene::begin();
    let mut said = Vec::new();
    for _ in 0..900 {
        said.extend(scene.announce(&["10.1.0.8"], &[]).pass(2));
        said.extend(scene.announce(&[], &["10.1.0.8"]).pass(2));
    }
    assert!((2..=12).contains(&said.len()), "in an hour: {said:?}");
    // What it comes to is said in the end, if it is not what was said last, and no more.
    let last = scene.pass(1000);
    assert!(last.len() <= 1, "{last:?}");
    assert_eq!(said.iter().chain(&last).next_back().unwrap(), B);
    assert_eq!(scene.pass(1000), [""; 0]);
    // Quiet for long enough, it is told at once again.
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1), [A]);
}

#[test]
fn b25_an_address_that_comes_and_goes_is_said_the_seldomer_the_longer_it_does() {
    let mut scene = Scene::begin();
    let mut said = Vec::new();
    let shows = |scene: &mut Scene, shows: bool| {
        scene.objects.eips.get_mut("pool").unwrap().0.left_to_cni = !shows;
        scene.announce(if shows { &["10.1.0.8"] } else { &[] }, &[]);
    };
    for _ in 0..900 {
        shows(&mut scene, true);
        said.extend(scene.pass(2));
        shows(&mut scene, false);
        said.extend(scene.pass(2));
    }
    assert!((4..=12).contains(&said.len()), "in an hour: {said:?}");
    // What it comes to is said in the end, and once.
    said.extend(scene.pass(1000));
    assert_eq!(said.last().unwrap(), GONE);
    assert_eq!(scene.pass(5000), [""; 0]);
    // Quiet for long enough, it is told at once again.
    shows(&mut scene, true);
    assert_eq!(scene.pass(1), [A]);
}

#[test]
fn b25_a_node_that_withdraws_late_each_time_is_warned_of_the_seldomer() {
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    let mut said = Vec::new();
    for _ in 0..120 {
        for left_to_cni in [true, false] {
            scene.objects.eips.get_mut("pool").unwrap().0.left_to_cni = left_to_cni;
            scene.look();
            said.extend(scene.pass(15));
        }
    }
    assert!((4..=12).contains(&said.len()), "in an hour: {said:?}");
    assert!(said.iter().all(|said| said.contains("Warning DelBalancer")), "{said:?}");
}

#[test]
fn b25_an_address_that_nobody_announces_is_warned_of_once_all_had_their_say() {
    let mut scene = Scene::begin();
    scene.objects.says("a", "pool", ready(&[]));
    scene.look();
    assert_eq!(scene.pass(1000), [""; 0], "b has said nothing");
    let unready = Standing {
        message: "Interface eth7: there is none.".into(),
        ..Standing::default()
    };
    scene.objects.says("b", "pool", unready);
    scene.look();
    assert_eq!(scene.pass(11), [""; 0]);
    let said = scene.pass(1000);
    let missed =
        "Service apps/web Warning SetBalancer: no node announces 10.1.0.8; b says: Interface eth7: there is none.";
    assert_eq!(said, [missed]);
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1), [A]);
    // Nothing beside what nodes say is wrong with the Service.
    let explained = Standing {
        problems: vec![problem("web", "NoEndpoints")],
        ..ready(&[])
    };
    scene.objects.says("a", "pool", explained);
    scene.look();
    assert_eq!(scene.pass(1000), [""; 0]);
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1000), [""; 0]);
}

#[test]
fn b25_what_a_service_has_no_longer_is_said_when_it_is_withdrawn() {
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.objects.service("web").annotations.clear();
    assert_eq!(scene.settle().pass(4), [""; 0], "still announced");
    assert_eq!(scene.announce(&[], &[]).pass(1000), [GONE]);

    // The same of one that is gone at once.
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.objects.service("web").deleting = true;
    scene.settle();
    assert!(scene.objects.services.is_empty());
    // A node that does not withdraw it is named, once.
    let left = "Service apps/web Warning DelBalancer: 10.1.0.8 is no longer this Service's nor any other's, and, as far as is \
                known, still announced by a; see whether `weir agent` there can reach the API server";
    assert_eq!(scene.pass(1000), [left]);
    assert_eq!(scene.announce(&[], &[]).pass(1000), [GONE]);

    // One that is not heard of any more has not said that it withdraws it.
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.objects.silent = ["a".to_owned()].into();
    scene.objects.service("web").annotations.clear();
    assert_eq!(scene.settle().pass(1000), [left]);
    scene.objects.silent.clear();
    assert_eq!(scene.announce(&[], &[]).pass(1000), [GONE]);

    // What nobody has announced is not withdrawn.
    let mut scene = Scene::begin();
    scene.objects.service("web").annotations.clear();
    assert_eq!(scene.settle().pass(1000), [""; 0]);
}

/// A13: what nodes said is gone with it.
#[test]
fn b25_of_an_eip_that_is_gone_nobody_says_that_its_addresses_are_withdrawn() {
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    let eip = scene.objects.eips.remove("pool").unwrap();
    let gone = "Service apps/web Normal DelBalancer: 10.1.0.8 is no longer this Service's, and Eip pool is gone, in whose status \
                nodes said that they announce it; the last that did: a";
    assert_eq!(scene.settle().pass(1000), [gone]);

    // One that is there again has what nodes say now.
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.objects.service("web").annotations.clear();
    scene.settle().pass(4);
    scene.objects.eips.remove("pool");
    scene.look();
    scene.objects.eips.insert("pool".into(), eip);
    assert_eq!(scene.announce(&[], &[]).pass(1000), [GONE]);

    // Who is not heard of may announce it for ever.
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.objects.silent = ["a".to_owned()].into();
    scene.objects.eips.remove("pool");
    let said = scene.settle().pass(1000);
    assert!(
        matches!(&said[..], [left] if left.contains("Warning DelBalancer") && left.contains("still announced by a;")),
        "{said:?}"
    );
}

/// A25.
#[test]
fn a25_b25_what_is_left_to_the_cni_is_withdrawn_and_not_missed() {
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    scene.objects.eips.get_mut("pool").unwrap().0.left_to_cni = true;
    assert_eq!(scene.announce(&[], &[]).pass(1000), [GONE]);
    scene.objects.eips.get_mut("pool").unwrap().0.left_to_cni = false;
    assert_eq!(scene.announce(&["10.1.0.8"], &[]).pass(1000), [A]);
}

/// Services `web`, whose address is announced, and `other`, which asks for the same one.
fn shared() -> Scene {
    let mut scene = Scene::begin();
    scene.announce(&["10.1.0.8"], &[]).pass(10);
    let mut other = service(&[(ADDRESS, "10.1.0.8")]);
    other.ports[0].port = 443;
    let other = (other, ServiceObject::default());
    scene.objects.services.insert(key("other"), other);
    scene
}

/// B12.
#[test]
fn b25_who_leaves_a_shared_address_is_told_that_others_have_it() {
    let mut scene = shared();
    let to_other = "Service apps/other Normal SetBalancer: 10.1.0.8 is announced by a";
    assert_eq!(scene.settle().pass(10), [to_other]);
    scene.objects.service("web").annotations.clear();
    let gone = "Service apps/web Normal DelBalancer: 10.1.0.8 is announced for other Services that have it, and no longer for \
                this one";
    assert_eq!(scene.settle().pass(1000), [gone]);
}

/// B12: others that have it are none that it is announced for.
#[test]
fn b25_who_leaves_a_shared_address_that_nobody_announces_is_told_so() {
    let mut scene = shared();
    scene.settle().pass(10);
    scene.objects.service("web").annotations.clear();
    scene.objects.settle();
    assert_eq!(scene.objects.service("other").ingress, [address("10.1.0.8")]);
    let mut said = scene.announce(&[], &[]).pass(1000);
    said.retain(|said| said.contains("apps/web"));
    assert_eq!(said, [GONE]);
}

/// B09.
#[test]
fn b25_a_request_that_cannot_be_made_out_and_one_that_is_refused_have_openelbs_reasons() {
    let services = [
        ("nowhere", service(&[])),
        ("odd", service(&[(ADDRESS, "10.1.0")])),
        ("late", service(&[(POOL, "none")])),
    ];
    let objects = Objects::with(&[("pool", eip("10.1.0.8/30")), ("more", eip("10.1.0.9"))], &services);
    let mut warnings = objects.warnings();
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "Eip pool add/update eip",
            "Service apps/late AssignIPFailed",
            "Service apps/nowhere ConstructRequest",
            "Service apps/odd ConstructRequest",
        ]
    );
}

#[test]
fn b25_a_write_that_is_refused_has_the_reason_of_what_fails() {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
    let mut reasons = Vec::new();
    let mut refuse = |objects: &mut Objects| loop {
        let world = objects.world();
        let actions = plan(&world).actions;
        let refused = actions.iter().filter_map(|action| Event::refused(&world, action, "no"));
        reasons.extend(refused.map(|event| format!("{} {}", event.object, event.reason)));
        if objects.round().is_empty() {
            break;
        }
    };
    refuse(&mut objects);
    objects.service("web").annotations.clear();
    refuse(&mut objects);
    assert_eq!(
        reasons,
        [
            "Eip pool add/update eip",
            "Eip pool add/update eip",
            "Service apps/web AssignIPFailed",
            "Service apps/web UpdateServiceStatus",
            "Service apps/web ReleaseIPFailed",
            "Service apps/web ReleaseIPFailed",
            "Eip pool add/update eip",
        ]
    );
}
