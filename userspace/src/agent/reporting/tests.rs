use super::*;
use crate::report;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tokio::time::timeout;
use weir_core::{
    plan::{Frontend, FrontendKey},
    tables,
};

/// Much longer than a report that is put off waits here.
const LONG: Duration = Duration::from_secs(600);

/// A folder that goes with this, and what reports into it.
struct Scene {
    folder: PathBuf,
    reporting: Reporting,
}

impl Scene {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-reporting-{name}-{}", std::process::id()));
        let reporter = Reporter::new(&folder, "node-1", Path::new("/pins"), 6081, false);
        Self {
            reporting: Reporting::new(reporter, Telemetry::default()),
            folder,
        }
    }

    /// The reason of the one condition in the file.
    fn written(&self) -> String {
        let report = report::read(&self.folder).unwrap().expect("a report is written");
        assert_eq!(report.conditions.len(), 1);
        report.conditions[0].reason.clone()
    }

    fn problem(&self) -> Option<String> {
        let this = ThisNode { name: "node-1".into() };
        self.reporting.condition(&this).map(|condition| condition.reason)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A report that is known by `reason`, of so many frontends.
fn contents(reason: &str, frontends: u16) -> Contents {
    let tables = tables::Tables::adopt(&tables::Contents {
        filter: &[],
        displacement: &[],
        directory: &[],
        rows: &[],
        history: &[],
        backends: &[],
        nodes: &[],
        responders: &[],
        sources: &[],
    });
    let frontend = |port| {
        let key = FrontendKey {
            address: [10, 1, 0, 1].into(),
            port,
            protocol: weir_core::model::Protocol::Tcp,
        };
        let frontend = Frontend {
            service: "web/shop".parse().unwrap(),
            port_name: String::new(),
            backends: BTreeMap::new(),
            draining: BTreeMap::new(),
            policy: weir_core::plan::Policy::default(),
        };
        (key, Arc::new(frontend))
    };
    let plan = Plan {
        frontends: (0..frontends).map(frontend).collect(),
        ..Plan::default()
    };
    let object = ObjectRef::cluster_scoped("Node", "node-1");
    Contents {
        plan: Arc::new(plan),
        programmed: tables.programmed(),
        network: Arc::default(),
        interfaces: Vec::new(),
        conditions: vec![Condition::new(object, "", reason, String::new())],
    }
}

#[tokio::test]
async fn what_comes_while_one_is_written_is_reported_after_it_and_asked_for_once() {
    let mut scene = Scene::new("newest");
    let reporting = &mut scene.reporting;
    assert!(reporting.may_begin());
    reporting.begin(contents("First", 1));
    // However much changes meanwhile.
    assert!(!reporting.may_begin() && !reporting.may_begin());
    timeout(LONG, reporting.ready()).await.expect("it is asked for");
    assert_eq!(scene.written(), "First");

    let reporting = &mut scene.reporting;
    assert!(reporting.may_begin());
    reporting.begin(contents("Newest", 1));
    reporting.ended().await;
    let again = timeout(Duration::ZERO, reporting.ready()).await;
    assert!(again.is_err(), "nothing was put off since");
    assert_eq!(scene.written(), "Newest");
}

#[tokio::test]
async fn only_a_large_report_is_followed_by_a_pause() {
    let mut scene = Scene::new("pause");
    for (frontends, pauses) in [(1, false), (MANY as u16 + 1, true)] {
        scene.reporting.begin(contents("Any", frontends));
        let written = scene.reporting.under_way.take().expect("it was begun").await.unwrap();
        assert_eq!(written.pause > Duration::ZERO, pauses);
    }
}

#[tokio::test]
async fn at_the_end_what_was_put_off_is_written_without_a_pause() {
    let mut scene = Scene::new("last");
    let reporting = &mut scene.reporting;
    reporting.begin(contents("First", 1));
    reporting.ended().await;
    reporting.free += LONG;
    assert!(!reporting.may_begin(), "it is put off");
    assert!(reporting.last().await && reporting.may_begin());
    reporting.begin(contents("Last", 1));
    reporting.ended().await;
    assert!(!reporting.last().await, "there is nothing else");
    assert_eq!(scene.written(), "Last");
}

#[tokio::test]
async fn the_end_waits_for_what_is_being_written() {
    let mut scene = Scene::new("end");
    scene.reporting.begin(contents("Only", 200));
    assert!(!scene.reporting.last().await, "nothing was put off");
    assert_eq!(scene.written(), "Only");
}

#[tokio::test]
async fn one_that_cannot_be_written_is_a_condition_and_is_tried_again() {
    let mut scene = Scene::new("failed");
    // A folder in the place of the file cannot be replaced by a file.
    let path = report::path(&scene.folder);
    fs::create_dir_all(&path).unwrap();
    scene.reporting.begin(contents("First", 1));
    scene.reporting.ended().await;
    assert_eq!(scene.problem().as_deref(), Some("ReportNotWritten"));
    scene.reporting.free += LONG;
    assert!(!scene.reporting.may_begin(), "not at once");
    assert!(scene.reporting.last().await, "but before the agent goes");

    fs::remove_dir(&path).unwrap();
    scene.reporting.ready().await;
    assert!(scene.reporting.may_begin());
    scene.reporting.begin(contents("WithTheCondition", 1));
    scene.reporting.ended().await;
    assert_eq!(scene.problem(), None);
    scene.reporting.ready().await;
    assert_eq!(
        scene.written(),
        "WithTheCondition",
        "so there is one more to come, without it"
    );
}

#[tokio::test]
async fn that_nothing_is_true_yet_is_told_until_it_is_written() {
    let mut scene = Scene::new("waiting");
    let path = report::path(&scene.folder);
    fs::create_dir_all(&path).unwrap();
    assert!(!scene.reporting.waiting("Services".into(), Vec::new()));
    fs::remove_dir(&path).unwrap();
    assert!(scene.reporting.waiting("Services".into(), Vec::new()));
    let waiting = report::read(&scene.folder).unwrap().and_then(|report| report.waiting);
    assert_eq!(waiting.expect("it waits").awaited, "Services");
}
