//! What statuses say in words.

use super::*;
use crate::standing::{Problem, Standing};

pub(super) fn ready(announces: &[&str]) -> Standing {
    Standing {
        ready: true,
        announces: announces.iter().map(|text| address(text)).collect(),
        ..Standing::default()
    }
}

pub(super) fn problem(service: &str, reason: &str) -> Problem {
    Problem {
        service: key(service),
        field: "spec.selector".into(),
        reason: reason.into(),
        message: "nothing is there".into(),
    }
}

impl Objects {
    pub(super) fn says(&mut self, node: &str, eip: &str, standing: Standing) {
        let object = &mut self.eips.get_mut(eip).unwrap().1;
        object.nodes.insert(node.into(), standing);
    }

    /// What the Service's status says, after all has been told.
    #[track_caller]
    fn served(&mut self, name: &str) -> Option<(bool, String, String)> {
        self.settle();
        let telling = plan(&self.world()).telling;
        assert_eq!(telling, [], "told again");
        let served = self.services[&key(name)].1.served.clone();
        served.map(|served| (served.holds, served.reason, served.message))
    }

    #[track_caller]
    fn ready(&mut self, name: &str) -> (bool, String, String) {
        self.settle();
        let (flag, ready) = self.eips[name].1.ready.clone();
        let ready = ready.unwrap();
        assert_eq!(flag, ready.holds);
        (ready.holds, ready.reason, ready.message)
    }
}

pub(super) fn one_service() -> Objects {
    let mut objects = Objects::with(&[("pool", eip("10.1.0.8/30"))], &[("web", service(&[(POOL, "pool")]))]);
    objects.nodes = vec!["a".into(), "b".into()];
    objects.settle();
    objects
}

/// B22, B25: what is well is not written to, and what nobody knows is not said.
#[test]
fn a_service_that_is_served_has_no_condition() {
    let mut objects = one_service();
    assert_eq!(objects.served("web"), None);
    objects.says("a", "pool", ready(&["10.1.0.8"]));
    assert_eq!(objects.served("web"), None);
}

#[test]
fn a_service_without_an_address_is_told_why() {
    let mut objects = Objects::with(&[], &[("web", service(&[(POOL, "none")]))]);
    let (holds, reason, message) = objects.served("web").unwrap();
    assert_eq!((holds, &*reason), (false, "UnknownEip"));
    assert!(
        message.starts_with("metadata.annotations[") && message.contains("there is no Eip none"),
        "{message}"
    );
    // With room, it is told that too, as it was told before; and nothing more once it is none of ours.
    objects
        .eips
        .insert("none".into(), (eip("10.1.0.8/30"), EipObject::default()));
    let (holds, reason, message) = objects.served("web").unwrap();
    assert_eq!(
        (holds, &*reason, &*message),
        (true, "Served", "10.1.0.8 of Eip none is served.")
    );
    objects.service("web").annotations.clear();
    assert_eq!(objects.served("web"), None);
}

#[test]
fn an_address_that_no_node_announces_is_told_with_what_nodes_say() {
    let mut objects = one_service();
    objects.says("a", "pool", ready(&[]));
    // One that has said nothing yet may be about to.
    assert_eq!(objects.served("web"), None);
    let unready = Standing {
        message: "Interface eth7: there is none.".into(),
        ..Standing::default()
    };
    objects.says("b", "pool", unready);
    let (holds, reason, message) = objects.served("web").unwrap();
    assert_eq!((holds, &*reason), (false, "NotAnnounced"));
    assert_eq!(
        message,
        "no node announces 10.1.0.8; b says: Interface eth7: there is none."
    );
    objects.says("a", "pool", ready(&["10.1.0.8"]));
    assert_eq!(objects.served("web").unwrap().1, "Served");
}

#[test]
fn what_nodes_find_wrong_is_told_once_and_warned_of() {
    let mut objects = one_service();
    let with_problem = |announces: &[&str]| Standing {
        problems: vec![problem("web", "NoEndpoints"), problem("gone", "NoEndpoints")],
        ..ready(announces)
    };
    objects.says("a", "pool", with_problem(&[]));
    objects.says("b", "pool", with_problem(&[]));
    let told = (
        false,
        "NoEndpoints".to_owned(),
        "spec.selector: nothing is there".to_owned(),
    );
    assert_eq!(objects.served("web"), Some(told));
    assert_eq!(objects.warnings(), ["Service apps/web NoEndpoints"]);
    // Whether a node draws the traffic of the address, which the Service may share.
    objects.says("a", "pool", with_problem(&["10.1.0.8"]));
    assert!(!objects.served("web").unwrap().0);
    // But some of what is said is no more than a word.
    let with_word = Standing {
        problems: vec![problem("web", "StoodAside")],
        ..ready(&["10.1.0.8"])
    };
    objects.says("a", "pool", with_word.clone());
    objects.says("b", "pool", ready(&[]));
    assert_eq!(objects.served("web").unwrap().1, "StoodAside");
    assert!(objects.served("web").unwrap().0);
    objects.says(
        "a",
        "pool",
        Standing {
            announces: BTreeSet::new(),
            ..with_word
        },
    );
    let (holds, reason, message) = objects.served("web").unwrap();
    assert_eq!((holds, &*reason), (false, "NotAnnounced"));
    assert!(
        message.starts_with("no node announces 10.1.0.8") && message.contains("nothing is there"),
        "{message}"
    );
}

/// A12: it is served like others, and is not the default.
#[test]
fn a12_what_says_neither_that_it_is_the_default_nor_that_it_is_not_is_told_beside_how_it_is_served() {
    let key = "eip.openelb.kubesphere.io/is-default-eip";
    let unclear = Eip {
        annotations: [(key.into(), "yes".into())].into(),
        ..eip("10.1.0.0/24")
    };
    let mut objects = Objects::with(&[("pool", unclear)], &[]);
    objects.nodes = vec!["a".into()];
    objects.says("a", "pool", ready(&[]));
    let words = format!("metadata.annotations[{key}]: `yes` is neither true nor false");
    let (holds, reason, message) = objects.ready("pool");
    assert_eq!((holds, &*reason), (true, "UnclearDefault"));
    assert!(
        message.starts_with("One node serves it. ") && message.contains(&words),
        "{message}"
    );
    let warned: Vec<_> = plan(&objects.world()).warnings;
    assert!(
        matches!(&warned[..], [event] if event.reason == "UnclearDefault" && event.message.starts_with(&words)),
        "{warned:?}"
    );
    objects.eips.get_mut("pool").unwrap().0.annotations.clear();
    assert_eq!(objects.ready("pool").1, "Ready");
}

/// A12: it is served, and is not what it says it is, for as long as another is.
#[test]
fn a12_a_second_default_is_told_beside_how_it_is_served() {
    let default = |address: &str| Eip {
        annotations: [("eip.openelb.kubesphere.io/is-default-eip".into(), "true".into())].into(),
        ..eip(address)
    };
    let mut objects = Objects::with(&[("one", default("10.1.0.0/24")), ("two", default("10.2.0.0/24"))], &[]);
    let words =
        "metadata.annotations[eip.openelb.kubesphere.io/is-default-eip]: Eip one is already the default for IPv4";
    objects.nodes = vec!["a".into()];
    let (holds, reason, message) = objects.ready("two");
    assert_eq!((holds, &*reason), (false, "NoNode"));
    assert!(message.contains(words), "{message}");
    for name in ["one", "two"] {
        objects.says("a", name, ready(&[]));
    }
    assert_eq!(objects.ready("one").1, "Ready");
    let (holds, reason, message) = objects.ready("two");
    assert_eq!((holds, &*reason), (true, "SecondDefault"));
    assert!(
        message.starts_with("One node serves it. ") && message.contains(words),
        "{message}"
    );
    objects.eips.get_mut("two").unwrap().0.disabled = true;
    let (_, reason, message) = objects.ready("two");
    assert!(reason == "Disabled" && message.contains(words), "{reason}: {message}");
    objects.eips.get_mut("one").unwrap().0.annotations.clear();
    objects.eips.get_mut("two").unwrap().0.disabled = false;
    assert_eq!(
        objects.ready("two"),
        (true, "Ready".into(), "One node serves it.".into())
    );
}

/// A16.
#[test]
fn an_eip_is_ready_when_a_node_is() {
    let mut objects = one_service();
    let (holds, reason, _) = objects.ready("pool");
    assert_eq!((holds, &*reason), (false, "NoNode"));
    // B22: unless OpenELB has said that it is ready.
    objects.eips.get_mut("pool").unwrap().1.ready = (true, None);
    objects.settle();
    assert_eq!(objects.eips["pool"].1.ready, (true, None));
    objects.says("a", "pool", ready(&[]));
    assert_eq!(
        objects.ready("pool"),
        (true, "Ready".into(), "One node serves it.".into())
    );
    let unready = || Standing {
        message: "Interface eth7: there is none.".into(),
        ..Standing::default()
    };
    objects.says("b", "pool", unready());
    let (holds, _, message) = objects.ready("pool");
    assert!(
        holds && message.ends_with("b: Interface eth7: there is none."),
        "{message}"
    );
    objects.says("a", "pool", unready());
    assert_eq!(objects.ready("pool").1, "NotReady");
    // Refused, it is not ready whatever nodes say.
    objects.eips.get_mut("pool").unwrap().0.interface = None;
    assert_eq!(objects.ready("pool").1, "InvalidInterface");
}

#[test]
fn nodes_that_are_gone_have_no_say() {
    let mut objects = one_service();
    objects.says("a", "pool", ready(&["10.1.0.8"]));
    objects.says("c", "pool", ready(&["10.1.0.8"]));
    assert!(objects.ready("pool").0);
    assert_eq!(objects.eips["pool"].1.nodes.len(), 1);
    objects.nodes.clear();
    assert!(!objects.ready("pool").0);
}

/// A16: an agent that is silent has no say, whatever it once said, and its entry goes; when all are, nobody serves.
#[test]
fn silent_agents_have_no_say() {
    let mut objects = one_service();
    objects.says("a", "pool", ready(&["10.1.0.8"]));
    objects.says("b", "pool", ready(&[]));
    assert_eq!(objects.ready("pool").2, "2 nodes serve it.");
    assert_eq!(objects.served("web"), None);

    objects.silent = ["a".to_owned()].into();
    assert_eq!(objects.ready("pool").2, "One node serves it.");
    assert!(objects.eips["pool"].1.nodes.keys().eq(["b"]));
    let (holds, reason, _) = objects.served("web").unwrap();
    assert_eq!((holds, &*reason), (false, "NotAnnounced"));

    objects.silent.insert("b".into());
    assert_eq!(objects.ready("pool").1, "NoNode");
    let (_, _, message) = objects.served("web").unwrap();
    assert_eq!(
        message,
        "no node announces 10.1.0.8; no agent has been heard of lately, see whether `weir agent` runs on the nodes."
    );

    objects.silent.clear();
    objects.says("a", "pool", ready(&["10.1.0.8"]));
    assert!(objects.ready("pool").0 && objects.served("web").unwrap().0);
}

/// B22: while OpenELB serves, that no agent has ever been heard of is no news.
#[test]
fn what_openelb_serves_is_not_called_unserved() {
    let mut objects = one_service();
    objects.eips.get_mut("pool").unwrap().1.ready = (true, None);
    objects.silent = ["a".to_owned(), "b".to_owned()].into();
    assert_eq!(objects.served("web"), None);
    assert_eq!(objects.eips["pool"].1.ready, (true, None));
}

/// A25: somebody else brings the traffic; that is said, and nothing is wrong.
#[test]
fn a25_what_is_left_to_the_cni_is_served_and_said_not_to_be_announced() {
    let mut objects = one_service();
    objects.eips.get_mut("pool").unwrap().0.left_to_cni = true;
    objects.says("a", "pool", ready(&[]));
    // What is so without our agents is not written.
    assert_eq!(objects.served("web"), None);
    objects.says("b", "pool", ready(&[]));
    let left = "that is left to somebody else by the label openelb.kubesphere.io/cni";
    let told = format!("10.1.0.8 is served and not announced: {left} of Eip pool.");
    let reason = || "AnnouncedByOthers".to_owned();
    assert_eq!(objects.served("web"), Some((true, reason(), told)));
    let told = format!("2 nodes serve it. Its addresses are not announced: {left}.");
    assert_eq!(objects.ready("pool"), (true, reason(), told));
    // What is wrong counts all the same.
    let wrong = Standing {
        problems: vec![problem("web", "NoEndpoints")],
        ..ready(&[])
    };
    objects.says("a", "pool", wrong);
    let (holds, reason, message) = objects.served("web").unwrap();
    assert_eq!((holds, &*reason), (false, "NoEndpoints"));
    assert!(message.contains(left), "{message}");
    // Announced again, it is served like any other.
    objects.eips.get_mut("pool").unwrap().0.left_to_cni = false;
    objects.says("a", "pool", ready(&["10.1.0.8"]));
    assert_eq!(objects.served("web").unwrap().1, "Served");
    assert_eq!(objects.ready("pool").1, "Ready");
}
