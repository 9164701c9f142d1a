//! Watches `FLOWS`: whether it has room, and which pods of this node have flows that go on.
//!
//! A look takes milliseconds, so it is taken beside the agent's own work. A backend that goes meanwhile counts as one that
//! has flows until a look that began later says otherwise.

use crate::{
    apply::bpf::{
        self, config,
        counters::Counters,
        fill,
        pins::PinDir,
        sweep::{self, Swept},
    },
    causes::error_text,
};
use std::{
    collections::BTreeSet,
    mem,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};
use weir_common::verdict::Reason;
use weir_core::{
    model::{Condition, ObjectRef},
    tables::LivePod,
};

/// How often it is looked at.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// For how long a refusal is told.
const TELL: Duration = Duration::from_secs(60);

/// What was found last.
#[derive(Debug)]
pub struct FlowTable {
    node: String,
    pin_dir: PathBuf,
    /// Packets of new flows refused so far; none before the first look.
    refused: Option<u64>,
    last_refusal: Option<Instant>,
    /// Pods that were seen to have flows.
    seen: BTreeSet<LivePod>,
    /// Pods of which that is assumed: since before the look under way began, and since.
    assumed: [BTreeSet<LivePod>; 2],
    under_way: Option<JoinHandle<Result<Looked, bpf::Error>>>,
    /// Why it is filling up, as of the last look that succeeded.
    full: Option<&'static str>,
    /// Why the last look failed.
    unread: Option<String>,
}

/// What one look finds.
#[derive(Debug)]
struct Looked {
    swept: Swept,
    /// Packets of new flows refused so far.
    refused: u64,
}

impl FlowTable {
    /// Of `node`, pinned under `pin_dir`.
    #[must_use]
    pub const fn new(node: String, pin_dir: PathBuf) -> Self {
        Self {
            node,
            pin_dir,
            refused: None,
            last_refusal: None,
            seen: BTreeSet::new(),
            assumed: [const { BTreeSet::new() }; 2],
            under_way: None,
            full: None,
            unread: None,
        }
    }

    /// Pods of this node that have flows which go on.
    pub fn live(&self) -> impl Iterator<Item = &LivePod> {
        self.seen.iter().chain(self.assumed.iter().flatten())
    }

    /// These have flows, until a look that begins later says otherwise.
    pub fn assume(&mut self, pods: impl IntoIterator<Item = LivePod>) {
        let [_, since] = &mut self.assumed;
        since.extend(pods);
    }

    /// Looks now, and waits for it. Whether another step is due, or [`Self::conditions`] are others.
    pub fn look(&mut self) -> bool {
        self.under_way = None;
        self.enter_assumed();
        let looked = look(&self.pin_dir);
        self.take(looked.map_err(|problem| error_text(&problem)), Instant::now())
    }

    /// Begins to look, unless a look is under way. Needs a runtime.
    pub fn begin(&mut self) {
        if self.under_way.is_none() {
            self.enter_assumed();
            let pin_dir = self.pin_dir.clone();
            self.under_way = Some(spawn_blocking(move || look(&pin_dir)));
        }
    }

    /// Waits until the look under way ends, for ever if there is none; gives what [`Self::look`] does. May be dropped at any
    /// time.
    pub async fn ended(&mut self) -> bool {
        let Some(task) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let ended = task.await;
        self.under_way = None;
        let looked = match ended {
            Ok(looked) => looked.map_err(|problem| error_text(&problem)),
            Err(_) => Err("the look panicked, and the log says where".to_owned()),
        };
        self.take(looked, Instant::now())
    }

    fn enter_assumed(&mut self) {
        let [before, since] = &mut self.assumed;
        before.append(since);
    }

    fn take(&mut self, looked: Result<Looked, String>, now: Instant) -> bool {
        let (entered, unread) = match looked {
            Ok(Looked { swept, refused }) => (self.enter(swept, refused, now), None),
            Err(problem) => (false, Some(problem)),
        };
        let changed = self.unread != unread;
        self.unread = unread;
        entered || changed
    }

    fn enter(&mut self, swept: Swept, refused: u64, now: Instant) -> bool {
        if self.refused.replace(refused).is_some_and(|before| refused > before) {
            self.last_refusal = Some(now);
        }
        let full = if self.last_refusal.is_some_and(|last| now.duration_since(last) < TELL) {
            Some("new flows to this node's backends were refused, because there is no room for them")
        } else if swept.total() > swept.capacity / 10 * 9 {
            Some("more than nine tenths of the places for flows of this node's backends are taken")
        } else {
            None
        };
        let changed = self.full != full;
        self.full = full;
        self.seen = swept.pods;
        let [before, _] = &mut self.assumed;
        let assumed = mem::take(before);
        // What is kept for those that were taken for live can go. Who else is live needs no step of its own: what has to stay
        // is there, and what may go can wait for the next one.
        changed || !assumed.is_subset(&self.seen)
    }

    /// What is wrong.
    pub fn conditions(&self) -> impl Iterator<Item = Condition> {
        let object = || ObjectRef::cluster_scoped("Node", &self.node);
        let full = self.full.map(|full| {
            let message = format!(
                "{full}. Established flows are kept; raise --max-flow-buckets, a power of two: a bucket is four flows, and \
                 flows move to the new table.",
            );
            Condition::new(object(), "--max-flow-buckets", "FlowTableFull", message)
        });
        let unread = self.unread.as_ref().map(|problem| {
            let message = format!(
                "whether flows of this node's backends find room, and which backends have flows, cannot be read: {problem}. \
                 Packets are forwarded as before, but backends that go keep their places in the maps until it can be. It is \
                 tried again every {interval} seconds; check that the files in {folder} are as the agent left them and that \
                 the machine has memory, and if it goes on, start weir again.",
                interval = INTERVAL.as_secs(),
                folder = self.pin_dir.display(),
            );
            Condition::new(object(), "--pin-dir", "FlowTableUnreadable", message)
        });
        full.into_iter().chain(unread)
    }
}

fn look(pin_dir: &Path) -> Result<Looked, bpf::Error> {
    let config = fill::read_config(&PinDir::new(pin_dir))?;
    let refused = Counters::open(pin_dir)?
        .read(0, 0)?
        .reason(Reason::FlowTableFull)
        .packets;
    let swept = sweep::sweep(pin_dir, &config, config::now())?;
    Ok(Looked { swept, refused })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(live: u64) -> Swept {
        let mut swept = Swept {
            capacity: 100,
            ..Swept::default()
        };
        swept.live[2] = live;
        swept
    }

    fn said(table: &FlowTable) -> Option<Condition> {
        table.conditions().next()
    }

    #[test]
    fn a_full_table_is_a_condition_that_names_the_remedy() {
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        let now = Instant::now();
        assert!(!table.enter(swept(90), 7, now), "what was refused before is no news");
        assert_eq!(said(&table), None);
        assert!(table.enter(swept(91), 7, now));
        let condition = said(&table).unwrap();
        assert_eq!(
            (&*condition.reason, &*condition.field),
            ("FlowTableFull", "--max-flow-buckets")
        );
        assert!(table.enter(swept(10), 7, now) && said(&table).is_none());
    }

    #[test]
    fn a_refusal_is_told_for_a_while() {
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        let now = Instant::now();
        table.enter(swept(1), 7, now);
        assert!(table.enter(swept(1), 8, now));
        assert!(said(&table).unwrap().message.contains("refused"));
        assert!(!table.enter(swept(1), 8, now + TELL / 2));
        assert!(table.enter(swept(1), 8, now + TELL) && said(&table).is_none());
    }

    #[test]
    fn who_goes_counts_as_live_until_a_look_that_began_later() {
        let pod = LivePod {
            address: weir_common::abi::Address::from_v4([10, 0, 0, 1]),
            port: 80_u16.to_be_bytes(),
            protocol: 6,
        };
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        let now = Instant::now();
        let live = |table: &FlowTable| table.live().copied().collect::<Vec<_>>();

        table.enter_assumed();
        table.assume([pod]);
        assert!(!table.enter(swept(1), 7, now), "the look began before");
        assert_eq!(live(&table), [pod]);

        table.enter_assumed();
        assert_eq!(live(&table), [pod]);
        assert!(table.enter(swept(1), 7, now), "it has no flow, so a step is due");
        assert_eq!(live(&table), []);

        table.assume([pod]);
        table.enter_assumed();
        let with_flow = Swept {
            pods: BTreeSet::from([pod]),
            ..swept(1)
        };
        assert!(!table.enter(with_flow, 7, now));
        assert_eq!(live(&table), [pod]);
    }

    #[test]
    fn a_table_that_cannot_be_read_is_a_condition_until_it_can() {
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        let now = Instant::now();
        table.enter(swept(91), 7, now);
        assert!(table.look(), "there is something to say");
        let reasons = |table: &FlowTable| table.conditions().map(|it| it.reason).collect::<Vec<_>>();
        assert_eq!(reasons(&table), ["FlowTableFull", "FlowTableUnreadable"]);
        let unread = table.conditions().last().unwrap();
        assert_eq!((&*unread.object.name, &*unread.field), ("node-1", "--pin-dir"));
        assert!(unread.message.contains("/nowhere"), "{}", unread.message);
        assert!(!table.look(), "the same again is nothing new");

        let looked = Looked {
            swept: swept(91),
            refused: 7,
        };
        assert!(table.take(Ok(looked), now), "it is over");
        assert_eq!(reasons(&table), ["FlowTableFull"]);
    }

    #[tokio::test]
    async fn a_look_that_fails_beside_the_agent_is_told_as_well() {
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        table.begin();
        assert!(table.ended().await);
        assert_eq!(said(&table).unwrap().reason, "FlowTableUnreadable");
    }
}
