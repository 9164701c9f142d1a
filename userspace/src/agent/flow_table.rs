//! Watches `FLOWS`: whether it has room, and which pods of this node have flows that go on.

use crate::apply::bpf::{
    self, config,
    counters::Counters,
    fill,
    pins::PinDir,
    sweep::{self, Swept},
};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};
use tokio::time::Instant;
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
    live: BTreeSet<LivePod>,
    problem: Option<&'static str>,
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
            live: BTreeSet::new(),
            problem: None,
        }
    }

    /// Pods of this node that have flows which go on.
    #[must_use]
    pub const fn live(&self) -> &BTreeSet<LivePod> {
        &self.live
    }

    /// Looks now. Whether [`Self::condition`] is another.
    ///
    /// # Errors
    ///
    /// What the maps say; then all is as it was.
    pub fn look(&mut self) -> Result<bool, bpf::Error> {
        let config = fill::read_config(&PinDir::new(&self.pin_dir))?;
        let refused = Counters::open(&self.pin_dir)?
            .read(0, 0)?
            .reason(Reason::FlowTableFull)
            .packets;
        let swept = sweep::sweep(&self.pin_dir, &config, config::now())?;
        Ok(self.take(swept, refused, Instant::now()))
    }

    fn take(&mut self, swept: Swept, refused: u64, now: Instant) -> bool {
        if self.refused.replace(refused).is_some_and(|before| refused > before) {
            self.last_refusal = Some(now);
        }
        let problem = if self.last_refusal.is_some_and(|last| now.duration_since(last) < TELL) {
            Some("new flows to this node's backends were refused, because there is no room for them")
        } else if swept.total() > swept.capacity / 10 * 9 {
            Some("more than nine tenths of the places for flows of this node's backends are taken")
        } else {
            None
        };
        // Who is live needs no step of its own: what has to stay is there, and what may go can wait for the next one.
        let changed = self.problem != problem;
        self.problem = problem;
        self.live = swept.pods;
        changed
    }

    /// What is wrong.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        let message = format!(
            "{}. Established flows are kept; raise --max-flow-buckets, a power of two: a bucket is four flows, and flows \
             move to the new table.",
            self.problem?
        );
        let object = ObjectRef::cluster_scoped("Node", &self.node);
        Some(Condition::new(object, "--max-flow-buckets", "FlowTableFull", message))
    }
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

    #[test]
    fn a_full_table_is_a_condition_that_names_the_remedy() {
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        let now = Instant::now();
        assert!(!table.take(swept(90), 7, now), "what was refused before is no news");
        assert_eq!(table.condition(), None);
        assert!(table.take(swept(91), 7, now));
        let condition = table.condition().unwrap();
        assert_eq!(
            (&*condition.reason, &*condition.field),
            ("FlowTableFull", "--max-flow-buckets")
        );
        assert!(table.take(swept(10), 7, now) && table.condition().is_none());
    }

    #[test]
    fn a_refusal_is_told_for_a_while() {
        let mut table = FlowTable::new("node-1".into(), "/nowhere".into());
        let now = Instant::now();
        table.take(swept(1), 7, now);
        assert!(table.take(swept(1), 8, now));
        assert!(table.condition().unwrap().message.contains("refused"));
        assert!(!table.take(swept(1), 8, now + TELL / 2));
        assert!(table.take(swept(1), 8, now + TELL) && table.condition().is_none());
    }
}
