//! Events about who announces the addresses of Services: one for each change, for the whole cluster.
//!
//! What nodes say in the statuses of Eips comes one by one, and a change of the announcing node is two words: of the one that
//! begins and of the one that ends. So what is so is said when it has been so for a while, and after it nothing for a while:
//! the longer, the more often it changes. Whoever begins to lead takes what is so then for said.

use super::{
    Event, ServiceObject,
    news::{Pace, SETTLED, Turn},
};
use crate::model::ServiceKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// How long what rests on what nodes do not say has to be so: twice as long as one may keep it to itself, at least and for each
/// node.
const SILENCE: (Duration, Duration) = (Duration::from_secs(12), Duration::from_millis(500));

/// How long nodes, of so many, are waited for before what they do not say counts.
#[must_use]
pub fn silence(nodes: u32) -> Duration {
    SILENCE.0.max(SILENCE.1 * nodes)
}

/// An address that a Service has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    address: IpAddr,
    service: ServiceKey,
    uid: String,
}

/// What there is to see of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The Eip it is of, in whose status nodes say that they announce it.
    pub eip: String,
    /// Whether one node is to announce it, and no other.
    pub elected: bool,
    /// What is to be said when nobody announces it, if anything: that it should be.
    pub missed: Option<String>,
    /// Whether the Service's status says so already.
    pub told: bool,
}

/// Who announces what, in one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announcing {
    shown: BTreeMap<Held, Seen>,
    /// Nodes by address, whoever has it.
    by: BTreeMap<IpAddr, BTreeSet<String>>,
    /// The Eips that there are.
    eips: BTreeSet<String>,
    /// Nodes that do not say what they do.
    unheard: BTreeSet<String>,
    nodes: u32,
}

impl Announcing {
    /// Who announces each address by what is said in the statuses of these Eips, of a cluster of so many nodes, of which these
    /// are not heard of.
    pub(super) fn new(
        by: BTreeMap<IpAddr, BTreeSet<String>>,
        eips: BTreeSet<String>,
        unheard: BTreeSet<String>,
        nodes: u32,
    ) -> Self {
        Self {
            shown: BTreeMap::new(),
            by,
            eips,
            unheard,
            nodes,
        }
    }

    /// A Service shows an address.
    pub(super) fn show(&mut self, service: &ServiceKey, object: &ServiceObject, address: IpAddr, seen: Seen) {
        let held = Held {
            address,
            service: service.clone(),
            uid: object.uid.clone(),
        };
        self.shown.insert(held, seen);
    }

    fn by(&self, address: IpAddr) -> BTreeSet<String> {
        self.by.get(&address).cloned().unwrap_or_default()
    }

    /// Whether any Service has it.
    fn is_held(&self, address: IpAddr) -> bool {
        let first = Held {
            address,
            service: ServiceKey {
                namespace: String::new(),
                name: String::new(),
            },
            uid: String::new(),
        };
        let next = self.shown.range(first..).next();
        next.is_some_and(|(held, _)| held.address == address)
    }
}

/// What has been said of one address of a Service.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Who announces it; nothing at first, nor when it was withdrawn.
    said: Option<BTreeSet<String>>,
    /// The Eip that it is of, or was.
    eip: String,
    /// What else is so, and since when.
    otherwise: Option<(Otherwise, Duration)>,
    /// Whether it was warned of those that go on announcing it.
    warned: bool,
    pace: Pace,
}

/// What is otherwise than it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Otherwise {
    /// These announce it.
    By(BTreeSet<String>),
    /// The Service has it no longer, and it is not announced for it.
    Withdrawn,
    /// The Service has it no longer, and it is announced for nobody.
    Left,
}

impl Entry {
    /// When that can be said that is otherwise now.
    fn due(&mut self, now: Duration, otherwise: Otherwise, after: Duration) -> Duration {
        let since = match self.otherwise.take() {
            Some((before, since)) if before == otherwise => since,
            _ => now,
        };
        self.otherwise = Some((otherwise, since));
        since + after
    }

    fn is_said(&mut self, by: Option<BTreeSet<String>>, now: Duration) {
        self.pace.is_said(now);
        self.otherwise = None;
        self.said = by;
    }
}

/// What has been said of who announces what.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcers {
    /// `None` before the first look.
    entries: Option<BTreeMap<Held, Entry>>,
}

impl Announcers {
    /// Takes in what there is to see, and says what is to be said.
    pub(super) fn look(&mut self, turn: &mut Turn, announcing: &Announcing) {
        let Some(mut former) = self.entries.take() else {
            self.entries = Some(begin(announcing));
            return;
        };
        let mut look = Look { turn, announcing };
        let mut entries = BTreeMap::new();
        for (held, seen) in &announcing.shown {
            let mut entry = former.remove(held).unwrap_or_default();
            look.shown(held, seen, &mut entry);
            entries.insert(held.clone(), entry);
        }
        for (held, mut entry) in former {
            if look.is_gone(&held, &mut entry) {
                entries.insert(held, entry);
            }
        }
        self.entries = Some(entries);
    }
}

/// What is so when we begin.
fn begin(announcing: &Announcing) -> BTreeMap<Held, Entry> {
    let entries = announcing.shown.iter().map(|(held, seen)| {
        let by = announcing.by(held.address);
        let known = !by.is_empty() || seen.told;
        let entry = Entry {
            said: known.then_some(by),
            eip: seen.eip.clone(),
            ..Entry::default()
        };
        (held.clone(), entry)
    });
    entries.collect()
}

struct Look<'a> {
    turn: &'a mut Turn,
    announcing: &'a Announcing,
}

impl Look<'_> {
    fn shown(&mut self, held: &Held, seen: &Seen, entry: &mut Entry) {
        let by = self.announcing.by(held.address);
        entry.warned = false;
        entry.eip.clone_from(&seen.eip);
        if entry.said.as_ref() == Some(&by) || by.is_empty() && seen.missed.is_none() {
            entry.otherwise = None;
            return;
        }
        // While another is about to begin or to end, it is none, or two.
        let after = if seen.elected && by.len() == 1 {
            SETTLED
        } else {
            silence(self.announcing.nodes)
        };
        let at = entry.due(self.turn.now(), Otherwise::By(by.clone()), after);
        if self.turn.is_time(at.max(entry.pace.not_before())) {
            let Held { address, service, uid } = held;
            let event = match &seen.missed {
                Some(missed) if by.is_empty() => Event::missed(service, uid, missed.clone()),
                _ => Event::announced(service, uid, *address, &by),
            };
            self.turn.say(event);
            entry.is_said(Some(by), self.turn.now());
        }
    }

    /// Of what a Service has no longer; whether there is more to say of it, or it is too early to forget what was said.
    fn is_gone(&mut self, held: &Held, entry: &mut Entry) -> bool {
        if entry.said.as_ref().is_none_or(BTreeSet::is_empty) {
            entry.said = None;
            entry.otherwise = None;
            return !entry.pace.is_new(self.turn.now());
        }
        let Held { address, service, uid } = held;
        // A program goes on without its agent, and who is not heard of may be cut off alone.
        let unheard = entry
            .said
            .iter()
            .flatten()
            .filter(|node| self.announcing.unheard.contains(*node));
        let by: BTreeSet<String> = self
            .announcing
            .by(*address)
            .into_iter()
            .chain(unheard.cloned())
            .collect();
        let others = self.announcing.is_held(*address) && !by.is_empty();
        if by.is_empty() || others {
            let at = entry.due(self.turn.now(), Otherwise::Withdrawn, SETTLED);
            if self.turn.is_time(at.max(entry.pace.not_before())) {
                let event = match &entry.said {
                    // That nobody says that he announces it is nobody's word.
                    Some(last) if !others && !self.announcing.eips.contains(&entry.eip) => {
                        Event::let_go(service, uid, *address, &entry.eip, last)
                    }
                    _ => Event::withdrawn(service, uid, *address, others),
                };
                self.turn.say(event);
                entry.is_said(None, self.turn.now());
            }
            return true;
        }
        let at = entry.due(self.turn.now(), Otherwise::Left, silence(self.announcing.nodes));
        if !entry.warned && self.turn.is_time(at.max(entry.pace.not_before())) {
            self.turn.say(Event::not_withdrawn(service, uid, *address, &by));
            entry.pace.is_said(self.turn.now());
            entry.warned = true;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{super::news::AT_ONCE, *};

    fn held(number: u8) -> Held {
        Held {
            address: [10, 1, 0, number].into(),
            service: ServiceKey {
                namespace: "apps".into(),
                name: "web".into(),
            },
            uid: String::new(),
        }
    }

    #[test]
    fn b25_what_was_said_of_an_address_that_is_gone_is_forgotten_when_its_pause_is_over() {
        let seen = Seen {
            elected: true,
            missed: Some("nobody does".into()),
            ..Seen::default()
        };
        // Nobody announces the second; the third goes before anything is said of it.
        let by: BTreeMap<_, _> = [(held(1).address, ["a".to_owned()].into())].into();
        let nobody = Announcing::new(BTreeMap::new(), [String::new()].into(), BTreeSet::new(), 1);
        let mut shown = Announcing::new(by, [String::new()].into(), BTreeSet::new(), 1);
        shown.shown = [1, 2].map(|number| (held(number), seen.clone())).into();
        let mut announcers = Announcers::default();
        let mut look = |seconds, announcing: &Announcing| {
            let mut turn = Turn::at(Duration::from_secs(seconds));
            announcers.look(&mut turn, announcing);
            let reasons = turn.end().0.into_iter().map(|event| event.reason);
            (reasons.collect::<Vec<_>>(), announcers.entries.as_ref().unwrap().len())
        };
        look(0, &nobody);
        look(1, &shown);
        assert_eq!(look(13, &shown), (vec!["SetBalancer".into(), "SetBalancer".into()], 2));
        shown.shown.insert(held(3), seen.clone());
        assert_eq!(look(14, &shown), (vec![], 3));
        assert_eq!(look(15, &nobody), (vec![], 2));
        assert_eq!(look(28, &nobody), (vec!["DelBalancer".into()], 2));
        assert_eq!(look(43, &nobody), (vec![], 1));
        assert_eq!(look(87, &nobody), (vec![], 1));
        assert_eq!(look(88, &nobody), (vec![], 0));
    }

    #[test]
    fn b25_many_changes_at_once_are_said_by_and_by() {
        let shown = |number: u8| {
            let seen = Seen {
                elected: true,
                ..Seen::default()
            };
            (held(number), seen)
        };
        let by = (0..200).map(|number| ([10, 1, 0, number].into(), ["a".to_owned()].into()));
        let mut announcing = Announcing::new(by.collect(), BTreeSet::new(), BTreeSet::new(), 1);
        let mut announcers = Announcers::default();
        announcers.look(&mut Turn::at(Duration::ZERO), &announcing);
        for number in 0..200 {
            let (held, seen) = shown(number);
            announcing.shown.insert(held, seen);
        }
        let (mut now, mut said) = (Duration::from_secs(1), Vec::new());
        loop {
            let mut turn = Turn::at(now);
            announcers.look(&mut turn, &announcing);
            let (events, next) = turn.end();
            assert!(events.len() <= AT_ONCE);
            said.extend(events);
            let Some(next) = next else { break };
            now = next;
        }
        assert_eq!(said.len(), 200);
    }
}
