//! Events about which Eips are served: that one is, and what nodes say that do not.
//!
//! Nodes come and go, as when a DaemonSet is rolled out, and what an Eip's condition says of them changes with each. An event is
//! what fails ([`Failure`]), not where.

use super::{
    Event, StatusCondition,
    news::{Pace, SETTLED, Turn},
};
use crate::standing::Failure;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How an Eip is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetUp {
    pub uid: String,
    /// What its condition is to say.
    pub ready: StatusCondition,
    /// What it says.
    pub told: Option<StatusCondition>,
    /// What fails on nodes that do not serve it.
    pub fails: BTreeSet<Failure>,
    /// Whether it is for nodes to say why it is not served, if it is not; it is not refused.
    pub expected: bool,
}

/// Eips by name.
pub(super) type All = BTreeMap<String, SetUp>;

/// What has been said of one Eip.
#[derive(Clone, Debug)]
struct Entry {
    uid: String,
    /// Whether a node serves it.
    serves: bool,
    fails: BTreeSet<Failure>,
    /// That it is served, and that it is not, somewhere or at all.
    begins: Word,
    failed: Word,
}

/// Something that is said from time to time.
#[derive(Clone, Debug, Default)]
struct Word {
    /// Since when it is to be said.
    since: Option<Duration>,
    pace: Pace,
}

impl Word {
    /// Whether to say it now, if it `is_news`.
    fn is_due(&mut self, turn: &mut Turn, is_news: bool) -> bool {
        if !is_news {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(turn.now());
        let is_due = turn.is_time((since + SETTLED).max(self.pace.not_before()));
        if is_due {
            self.since = None;
            self.pace.is_said(turn.now());
        }
        is_due
    }
}

/// What has been said of Eips.
#[derive(Clone, Debug, Default)]
pub(super) struct SetUps {
    entries: BTreeMap<String, Entry>,
}

impl SetUps {
    /// Takes in how Eips are served. Of one that is looked at first, what its status says is said.
    pub(super) fn look(&mut self, turn: &mut Turn, set_ups: &All) {
        let mut former = std::mem::take(&mut self.entries);
        for (eip, set_up) in set_ups {
            let entry = former.remove(eip).filter(|entry| entry.uid == set_up.uid);
            let mut entry = entry.unwrap_or_else(|| Entry::told(set_up));
            entry.look(turn, eip, set_up);
            self.entries.insert(eip.clone(), entry);
        }
    }
}

impl Entry {
    fn told(set_up: &SetUp) -> Self {
        let told = set_up.told.as_ref();
        let fails = set_up.fails.iter();
        Self {
            uid: set_up.uid.clone(),
            serves: told.is_some_and(|told| told.holds),
            fails: fails
                .filter(|failure| told.is_some_and(|told| failure.is_in(&told.message)))
                .cloned()
                .collect(),
            begins: Word::default(),
            failed: Word::default(),
        }
    }

    fn look(&mut self, turn: &mut Turn, eip: &str, set_up: &SetUp) {
        let holds = set_up.ready.holds;
        let event = |warning| Event::set_up(eip, &set_up.uid, warning, set_up.ready.message.clone());
        if self.begins.is_due(turn, holds && !self.serves) {
            turn.say(event(false));
            self.serves = true;
        }
        let ends = self.serves && !holds && set_up.expected;
        if self.failed.is_due(turn, ends || !set_up.fails.is_subset(&self.fails)) {
            turn.say(event(true));
            self.fails.extend(set_up.fails.iter().cloned());
            self.serves &= holds;
        }
        // What is over is news when it comes again.
        self.fails.retain(|failure| set_up.fails.contains(failure));
        self.serves &= holds || set_up.expected;
    }
}
