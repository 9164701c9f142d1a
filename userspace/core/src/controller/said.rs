//! Which warnings have been said, so that each is said once for as long as it holds.

use super::{
    Event, World,
    news::{Pace, SETTLED, Turn},
};
use crate::model::ObjectRef;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What one pause is for: an object, its uid, and a reason. Texts may differ, as when one thing after another is in the way.
type Topic = (ObjectRef, String, String);

/// The warnings of one topic.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Those that hold, by text: since when something is to be said in their place, if they are still to be said.
    texts: BTreeMap<String, Option<Duration>>,
    pace: Pace,
}

/// What has been warned of.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// `None` before the first look.
    topics: Option<BTreeMap<Topic, Entry>>,
}

impl Said {
    /// Takes in the warnings that hold, and says those that have become so. At first those that statuses of `world` have in
    /// them count as said. One that is over and comes again is said again, after a pause.
    pub(super) fn look(&mut self, turn: &mut Turn, world: &World, warnings: &[Event]) {
        let begins = self.topics.is_none();
        let mut former = self.topics.take().unwrap_or_default();
        let mut now: BTreeMap<Topic, BTreeSet<&Event>> = BTreeMap::new();
        for event in warnings {
            let topic = (event.object.clone(), event.uid.clone(), event.reason.clone());
            now.entry(topic).or_default().insert(event);
        }
        let mut topics = BTreeMap::new();
        for (topic, events) in now {
            let mut entry = former.remove(&topic).unwrap_or_default();
            entry.look(turn, &events, |event| begins && event.is_told(world));
            topics.insert(topic, entry);
        }
        for (topic, mut entry) in former {
            entry.texts.clear();
            if !entry.pace.is_new(turn.now()) {
                topics.insert(topic, entry);
            }
        }
        self.topics = Some(topics);
    }
}

impl Entry {
    fn look(&mut self, turn: &mut Turn, events: &BTreeSet<&Event>, is_told: impl Fn(&Event) -> bool) {
        let mut former = std::mem::take(&mut self.texts);
        let known: Vec<_> = events.iter().map(|event| former.remove(&event.message)).collect();
        // A text that never stays as it is, for a count in it, say, is no reason to say nothing.
        let since = former.into_values().flatten().min().unwrap_or(turn.now());
        let (mut is_said, mut is_left) = (false, false);
        for (event, known) in events.iter().zip(known) {
            let mut unsaid = known.unwrap_or_else(|| (!is_told(event)).then_some(since));
            if let Some(since) = unsaid {
                let at = (since + SETTLED).max(self.pace.not_before());
                if turn.is_time(at) {
                    turn.say((*event).clone());
                    is_said = true;
                    unsaid = None;
                } else {
                    is_left |= at <= turn.now();
                }
            }
            self.texts.insert(event.message.clone(), unsaid);
        }
        // What is left of what is due waits for its turn, not for the pause.
        if is_said && !is_left {
            self.pace.is_said(turn.now());
        }
    }
}
