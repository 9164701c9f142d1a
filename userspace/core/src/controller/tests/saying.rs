//! What is said, when, and how often (B25): warnings, and that Eips are served or not.

use super::{
    telling::{one_service, ready},
    *,
};
use crate::{model::ObjectRef, standing::Standing};
use std::time::Duration;

/// Objects, who speaks of them, and a clock.
pub(super) struct Scene {
    pub(super) objects: Objects,
    news: News,
    now: Duration,
    /// When to look again with nothing having changed.
    next: Option<Duration>,
    said: Vec<String>,
    /// The reasons that are looked at; empty: all.
    only: &'static [&'static str],
}

impl Scene {
    /// A controller that begins to lead.
    pub(super) fn of(objects: Objects, only: &'static [&'static str]) -> Self {
        let mut scene = Self {
            objects,
            news: News::default(),
            now: Duration::from_secs(1000),
            next: None,
            said: Vec::new(),
            only,
        };
        scene.look();
        scene
    }

    pub(super) fn look(&mut self) {
        let world = self.objects.world();
        let (events, next) = self.news.look(self.now, &world, &plan(&world));
        assert!(next.is_none_or(|next| next > self.now), "{next:?} is no later");
        self.next = next;
        let events = events
            .iter()
            .filter(|event| self.only.is_empty() || self.only.contains(&&*event.reason));
        self.said.extend(events.map(|event| {
            let kind = if event.warning { "Warning" } else { "Normal" };
            format!("{} {kind} {}: {}", event.object, event.reason, event.message)
        }));
    }

    /// Looks for so many seconds whenever it is asked for, and only then; gives what is said.
    pub(super) fn pass(&mut self, seconds: u64) -> Vec<String> {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(next) = self.next.filter(|next| *next <= end) {
            self.now = next;
            self.look();
        }
        self.now = end;
        std::mem::take(&mut self.said)
    }

    /// Makes all that is planned.
    pub(super) fn settle(&mut self) -> &mut Self {
        self.objects.settle();
        self.look();
        self
    }

    /// Another begins to lead, who knows the objects alone.
    pub(super) fn another_leads(&mut self) {
        self.news = News::default();
        self.look();
    }
}

const NOWHERE: &str = "Service apps/web Warning AssignIPFailed: metadata.annotations[eip.openelb.kubesphere.io/v1alpha2]: there \
                       is no Eip pool";

/// A Service of an Eip that is not there.
fn nowhere() -> Scene {
    Scene::of(Objects::with(&[], &[("web", service(&[(POOL, "pool")]))]), &[])
}

impl Scene {
    /// Whether the Eip is there.
    fn pool(&mut self, is_there: bool) -> &mut Self {
        self.objects.eips.clear();
        if is_there {
            let pool = (eip("10.1.0.0/24"), EipObject::default());
            self.objects.eips.insert("pool".into(), pool);
        }
        self.look();
        self
    }
}

#[test]
fn b25_a_warning_is_said_once_until_it_is_over() {
    let mut scene = nowhere();
    let said = scene.pass(1);
    assert!(said.len() == 1 && said[0].starts_with(NOWHERE), "{said:?}");
    assert_eq!(scene.pass(5000), [""; 0]);
    assert_eq!(scene.pool(true).pass(5000), [""; 0]);
    assert_eq!(scene.pool(false).pass(1), said);
    // What passes is not said.
    assert_eq!(scene.pool(true).pass(100), [""; 0]);
    scene.pool(false);
    assert_eq!(scene.pool(true).pass(5000), [""; 0]);
}

#[test]
fn b25_a_service_that_flaps_is_warned_of_the_seldomer_the_longer_it_flaps() {
    let mut scene = nowhere();
    let mut said = Vec::new();
    for _ in 0..900 {
        said.extend(scene.pool(false).pass(2));
        said.extend(scene.pool(true).pass(2));
    }
    // In an hour.
    assert!((4..=12).contains(&said.len()), "{said:?}");
    // What it comes to is said in the end, and once.
    assert_eq!(scene.pool(false).pass(1000).len(), 1);
    assert_eq!(scene.pool(true).pass(5000), [""; 0]);
    // Quiet for long enough, it is said at once again.
    assert_eq!(scene.pool(false).pass(1).len(), 1);
}

#[test]
fn b25_what_is_wrong_by_turns_is_one_thing_with_one_pause() {
    let mut scene = nowhere();
    scene.pass(1);
    let asks = |scene: &mut Scene, eip: &str| {
        let service = scene.objects.service("web");
        service.annotations.insert(POOL.into(), eip.into());
        scene.look();
    };
    asks(&mut scene, "other");
    assert_eq!(scene.pass(14), [""; 0]);
    let said = scene.pass(1);
    assert!(said.len() == 1 && said[0].contains("no Eip other"), "{said:?}");
    assert_eq!(scene.pass(5000), [""; 0]);
    // Of another reason there is nothing to wait for, nor of another object of the name.
    asks(&mut scene, "pool");
    scene.pass(1);
    scene.objects.service("web").annotations.remove(POOL);
    scene.look();
    let said = scene.pass(1);
    assert!(
        said.len() == 1 && said[0].contains("Warning ConstructRequest"),
        "{said:?}"
    );
    scene.objects.services.get_mut(&key("web")).unwrap().1.uid = "another".into();
    scene.look();
    assert_eq!(scene.pass(1), said);
}

#[test]
fn b25_who_leads_next_does_not_repeat_what_statuses_say() {
    let mut scene = nowhere();
    let said = scene.settle().pass(1);
    assert_eq!(said.len(), 1);
    scene.another_leads();
    assert_eq!(scene.settle().pass(5000), [""; 0]);
    // It says what comes, and what was over before it comes again.
    assert_eq!(scene.pool(true).settle().pass(5000), [""; 0]);
    assert_eq!(scene.pool(false).pass(1), said);

    // The same of an Eip.
    let pools = [("pool", eip("10.1.0.8/30")), ("more", eip("10.1.0.9"))];
    let mut scene = Scene::of(Objects::with(&pools, &[]), &[]);
    let said = scene.settle().pass(1);
    assert!(
        said.len() == 1 && said[0].starts_with("Eip pool Warning add/update eip"),
        "{said:?}"
    );
    scene.another_leads();
    assert_eq!(scene.settle().pass(5000), [""; 0]);
}

#[test]
fn b25_who_leads_next_says_again_what_no_status_says() {
    // Not told yet.
    let mut scene = nowhere();
    let said = scene.pass(1);
    scene.another_leads();
    assert_eq!(scene.pass(5000), said);
    // Told in other words.
    scene.settle();
    scene
        .objects
        .service("web")
        .annotations
        .insert(POOL.into(), "other".into());
    scene.another_leads();
    assert!(scene.pass(5000)[0].contains("no Eip other"));

    // In the status of another's Service nothing is said.
    let mut other = service(&[]);
    other.load_balancer_class = Some("example.com/other".into());
    let mut scene = Scene::of(Objects::with(&[], &[("web", other)]), &[]);
    let said = scene.settle().pass(1);
    assert!(said.len() == 1 && said[0].contains("Warning OtherClass"), "{said:?}");
    for _ in 0..2 {
        scene.another_leads();
        assert_eq!(scene.settle().pass(5000), said);
    }
}

fn unready(message: &str) -> Standing {
    Standing {
        message: message.into(),
        ..Standing::default()
    }
}

const NO_INTERFACE: &str = "Interface eth7: there is none.";

/// What is said of the Eip that [`one_service`] has.
fn of_pool(kind: &str, reason: &str, message: &str) -> String {
    format!("Eip pool {kind} {reason}: {message}")
}

fn failed(message: &str) -> String {
    of_pool("Warning", "ConfigSpeakerFailed", message)
}

fn set_ups() -> Scene {
    Scene::of(one_service(), &["ConfigSpeaker", "ConfigSpeakerFailed"])
}

impl Scene {
    fn says(&mut self, node: &str, standing: Standing) -> &mut Self {
        self.objects.says(node, "pool", standing);
        self.settle()
    }
}

#[test]
fn b25_an_eip_is_said_to_be_set_up_once_and_what_fails_there_once() {
    let mut scene = set_ups();
    assert_eq!(scene.settle().pass(100), [""; 0], "nobody has said anything");
    let set_up = of_pool("Normal", "ConfigSpeaker", "One node serves it.");
    assert_eq!(scene.says("a", ready(&[])).pass(1), std::slice::from_ref(&set_up));
    // More nodes are no other event, nor is another leader.
    assert_eq!(scene.says("b", ready(&[])).pass(100), [""; 0]);
    scene.another_leads();
    assert_eq!(scene.says("b", ready(&[])).pass(100), [""; 0]);
    let one = failed("1 of the nodes serve it. b: Interface eth7: there is none.");
    assert_eq!(scene.says("b", unready(NO_INTERFACE)).pass(1), [one]);
    // What others do meanwhile does not repeat it, nor does another leader.
    scene.objects.nodes.push("c".into());
    assert_eq!(scene.says("c", ready(&[])).pass(100), [""; 0]);
    scene.another_leads();
    assert_eq!(scene.settle().pass(100), [""; 0]);
    scene.objects.silent = ["a", "b", "c"].map(str::to_owned).into();
    let nobody = failed("no node has said that it serves this Eip; see whether `weir agent` runs on the nodes.");
    assert_eq!(scene.settle().pass(100), [nobody]);
    scene.another_leads();
    assert_eq!(scene.settle().pass(100), [""; 0]);
    scene.objects.silent.clear();
    assert_eq!(scene.says("a", ready(&[])).pass(1), [set_up]);

    // Where one node serves it from the first and another does not, both is said.
    let mut scene = set_ups();
    scene.objects.says("a", "pool", ready(&[]));
    let said = scene.says("b", unready(NO_INTERFACE)).pass(1);
    let message = "1 of the nodes serve it. b: Interface eth7: there is none.";
    assert_eq!(said, [of_pool("Normal", "ConfigSpeaker", message), failed(message)]);
}

#[test]
fn b25_which_nodes_fail_and_how_many_is_no_news_while_agents_are_rolled_out() {
    let mut scene = set_ups();
    scene.objects.nodes = (0..9).map(|number| format!("n{number}")).collect();
    for number in 0..9 {
        scene.says(&format!("n{number}"), ready(&[]));
    }
    assert_eq!(scene.pass(1).len(), 1);
    // One after another, the next before the last is done, and some at a time.
    let not_taken = |node: usize| {
        unready(&format!(
            "Node n{node}: MapNotWritten: {node} rows of the map are missing"
        ))
    };
    let mut said = Vec::new();
    for round in 0..9 {
        let down = round..round + 1 + round % 3;
        let (go, come): (Vec<usize>, Vec<usize>) = (0..9).partition(|node| down.contains(node));
        for node in go {
            scene.says(&format!("n{node}"), not_taken(node));
        }
        for node in come {
            scene.says(&format!("n{node}"), ready(&[]));
        }
        said.extend(scene.pass(5));
    }
    let message = "8 of the nodes serve it. n0: Node n0: MapNotWritten: 0 rows of the map are missing";
    assert_eq!(said, [failed(message)]);
    // With something else, it is another thing, after a pause.
    let other = scene.says("n3", unready(NO_INTERFACE)).pass(15);
    assert!(other.len() == 1 && other[0].contains("n3: Interface eth7"), "{other:?}");
    // Nobody left is another, too.
    for node in 0..9 {
        scene.says(&format!("n{node}"), not_taken(node));
    }
    let nobody = scene.pass(100);
    assert!(
        nobody.len() == 1 && nobody[0].contains("And 6 more nodes are not ready."),
        "{nobody:?}"
    );
    scene.another_leads();
    assert_eq!(scene.settle().pass(100), [""; 0]);
}

#[test]
fn b25_an_eip_that_flaps_is_spoken_of_the_seldomer_the_longer_it_flaps() {
    let mut scene = set_ups();
    let mut said = Vec::new();
    for _ in 0..450 {
        said.extend(scene.says("a", ready(&[])).pass(4));
        said.extend(scene.says("a", unready(NO_INTERFACE)).pass(4));
    }
    // In an hour.
    assert!((4..=24).contains(&said.len()), "{said:?}");
    // What it comes to is said in the end, if it was not said last.
    said.extend(scene.pass(1000));
    assert_eq!(said.last(), Some(&failed("a: Interface eth7: there is none.")));
    assert_eq!(scene.pass(1000), [""; 0]);
}

/// A warning of one topic.
fn wrong(message: &str) -> Event {
    Event {
        object: ObjectRef::cluster_scoped("Eip", "pool"),
        uid: String::new(),
        warning: true,
        reason: "Wrong".into(),
        message: message.into(),
    }
}

#[test]
fn b25_what_is_left_of_many_warnings_of_one_topic_is_said_a_moment_later() {
    let world = Objects::with(&[], &[]).world();
    let mut planned = plan(&world);
    planned.warnings = (0..120).map(|number| wrong(&format!("{number:03}"))).collect();
    let (mut news, mut now) = (News::default(), Duration::ZERO);
    let mut said = Vec::new();
    let mut counts = Vec::new();
    loop {
        let (events, next) = news.look(now, &world, &planned);
        counts.push((now.as_millis(), events.len()));
        said.extend(events);
        let Some(next) = next else { break };
        now = next;
    }
    assert_eq!(counts, [(0, 0), (1000, 50), (1250, 50), (1500, 20)]);
    assert_eq!(said, planned.warnings);
    // Then there is a pause.
    planned.warnings.push(wrong("more"));
    let (events, next) = news.look(now, &world, &planned);
    assert_eq!((events, next), (vec![], Some(now + Duration::from_secs(15))));
}

#[test]
fn b25_a_warning_whose_text_changes_all_the_time_is_said_now_and_then() {
    let world = Objects::with(&[], &[]).world();
    let mut planned = plan(&world);
    let mut news = News::default();
    let mut said = Vec::new();
    for count in 0..120 {
        let now = Duration::from_millis(500) * count;
        planned.warnings = vec![wrong(&format!("{count} rows are missing"))];
        let (events, _) = news.look(now, &world, &planned);
        said.extend(events.into_iter().map(|event| (now.as_secs(), event.message)));
    }
    let texts = [2, 32, 92].map(|count: u64| (count / 2, format!("{count} rows are missing")));
    assert_eq!(said, texts);
}
