//! Events that wait to be sent, and which of them may be sent beside each other.
//!
//! Those about one object are sent one after the other, in their order. Namespaces take turns, and one whose events are not
//! taken (a webhook that fails there, say) has no more than one under way until one is, and all such no more than
//! [`FAILING`], so that they do not hold up the others.

use std::collections::{BTreeMap, VecDeque};
use weir_core::model::ObjectRef;

/// Events that wait at most; more are dropped, as they are but news.
const PLACES: usize = 16384;
/// Of these, in one namespace.
const PLACES_OF_ONE: usize = PLACES / 2;

/// Under way at most in namespaces whose last attempt failed, all together.
const FAILING: usize = 2;

/// Events that wait, as what `T` each is kept.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    /// By namespace; each has an object.
    spaces: BTreeMap<String, Space<T>>,
    /// Namespaces with something ready, in turn.
    turns: VecDeque<String>,
    waiting: usize,
}

#[derive(Debug)]
struct Space<T> {
    /// What waits by object; an object that is here and not among the ready ones has one under way, or rests.
    objects: BTreeMap<ObjectRef, VecDeque<T>>,
    ready: VecDeque<ObjectRef>,
    waiting: usize,
    under_way: usize,
    /// Whether the last attempt failed.
    fails: bool,
}

impl<T> Default for Space<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
            under_way: 0,
            fails: false,
        }
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            spaces: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
        }
    }
}

impl<T> Outbox<T> {
    /// Puts one behind the others about this object; says whether there was room.
    pub(super) fn push(&mut self, object: ObjectRef, event: T) -> bool {
        let of_one = self.spaces.get(&object.namespace).map_or(0, |space| space.waiting);
        if self.waiting >= PLACES || of_one >= PLACES_OF_ONE {
            return false;
        }
        self.waiting += 1;
        let space = self.spaces.entry(object.namespace.clone()).or_default();
        space.waiting += 1;
        if let Some(queue) = space.objects.get_mut(&object) {
            queue.push_back(event);
        } else {
            space.objects.insert(object.clone(), VecDeque::from([event]));
            self.ready(object);
        }
        true
    }

    /// The next that may be sent now; it is under way until it is told of.
    pub(super) fn next(&mut self) -> Option<(ObjectRef, T)> {
        let failing = self.spaces.values().filter(|space| space.fails);
        let failing: usize = failing.map(|space| space.under_way).sum();
        for _ in 0..self.turns.len() {
            let namespace = self.turns.pop_front()?;
            let space = self.spaces.get_mut(&namespace)?;
            if space.fails && (space.under_way > 0 || failing >= FAILING) {
                self.turns.push_back(namespace);
                continue;
            }
            let object = space.ready.pop_front()?;
            let event = space.objects.get_mut(&object)?.pop_front()?;
            space.under_way += 1;
            space.waiting -= 1;
            self.waiting -= 1;
            if !space.ready.is_empty() {
                self.turns.push_back(namespace);
            }
            return Some((object, event));
        }
        None
    }

    /// One about `object` is no longer under way; `taken`: the API server has answered as it does to any other.
    pub(super) fn done(&mut self, object: &ObjectRef, taken: bool) {
        let Some(space) = self.spaces.get_mut(&object.namespace) else {
            return;
        };
        space.under_way -= 1;
        space.fails = !taken;
        if space.objects.get(object).is_some_and(|queue| !queue.is_empty()) {
            self.ready(object.clone());
            return;
        }
        space.objects.remove(object);
        if space.objects.is_empty() {
            self.spaces.remove(&object.namespace);
        }
    }

    /// One about `object` was not taken. It, and what waits behind it, rests until [`Self::wake`].
    pub(super) fn rest(&mut self, object: &ObjectRef, event: T) {
        let Some(space) = self.spaces.get_mut(&object.namespace) else {
            return;
        };
        space.under_way -= 1;
        space.fails = true;
        space.waiting += 1;
        self.waiting += 1;
        if let Some(queue) = space.objects.get_mut(object) {
            queue.push_front(event);
        }
    }

    /// The rest of `object` is over.
    pub(super) fn wake(&mut self, object: ObjectRef) {
        self.ready(object);
    }

    /// Number of events that wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    fn ready(&mut self, object: ObjectRef) {
        let Some(space) = self.spaces.get_mut(&object.namespace) else {
            return;
        };
        if space.ready.is_empty() {
            self.turns.push_back(object.namespace.clone());
        }
        space.ready.push_back(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, name: &str) -> ObjectRef {
        ObjectRef {
            kind: "Service".into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn filled(events: &[(&str, &str, u32)]) -> Outbox<u32> {
        let mut outbox = Outbox::default();
        for (namespace, name, event) in events {
            assert!(outbox.push(object(namespace, name), *event));
        }
        outbox
    }

    /// All that may be under way beside each other.
    fn together(outbox: &mut Outbox<u32>) -> Vec<u32> {
        std::iter::from_fn(|| outbox.next()).map(|(_, event)| event).collect()
    }

    const NONE: [u32; 0] = [];

    #[test]
    fn b25_what_is_about_one_object_goes_one_after_the_other() {
        let mut outbox = filled(&[("a", "web", 1), ("a", "web", 2), ("a", "db", 3), ("a", "web", 4)]);
        assert_eq!(together(&mut outbox), [1, 3]);
        outbox.done(&object("a", "web"), true);
        assert_eq!(together(&mut outbox), [2]);
        outbox.done(&object("a", "db"), true);
        // Not taken: it comes again before those behind it, once it has rested.
        outbox.rest(&object("a", "web"), 2);
        assert_eq!(together(&mut outbox), NONE);
        assert_eq!(outbox.waiting(), 2);
        outbox.wake(object("a", "web"));
        assert_eq!(together(&mut outbox), [2]);
        outbox.done(&object("a", "web"), true);
        assert_eq!(together(&mut outbox), [4]);
        outbox.done(&object("a", "web"), true);
        assert_eq!(outbox.waiting(), 0);
        assert!(outbox.spaces.is_empty() && outbox.turns.is_empty());
    }

    #[test]
    fn b25_namespaces_take_turns() {
        let mut outbox = filled(&[
            ("a", "1", 1),
            ("a", "2", 2),
            ("a", "3", 3),
            ("b", "1", 4),
            ("b", "2", 5),
        ]);
        assert_eq!(together(&mut outbox), [1, 4, 2, 5, 3]);
    }

    #[test]
    fn b25_a_namespace_that_takes_nothing_holds_up_no_other() {
        let mut outbox = filled(&[("a", "1", 1), ("a", "2", 2), ("a", "3", 3), ("b", "1", 4)]);
        assert_eq!(outbox.next(), Some((object("a", "1"), 1)));
        outbox.rest(&object("a", "1"), 1);
        // One of its others, and all of the other's.
        assert_eq!(together(&mut outbox), [4, 2]);
        outbox.rest(&object("a", "2"), 2);
        assert_eq!(together(&mut outbox), [3]);
        outbox.wake(object("a", "1"));
        outbox.wake(object("a", "2"));
        assert_eq!(together(&mut outbox), NONE);
        // Given up is no sign that it takes any.
        outbox.done(&object("a", "3"), false);
        assert_eq!(together(&mut outbox), [1]);
        outbox.done(&object("a", "1"), true);
        assert!(outbox.push(object("a", "4"), 6));
        assert_eq!(together(&mut outbox), [2, 6]);
    }

    #[test]
    fn b25_namespaces_that_take_nothing_hold_up_no_other_however_many_they_are() {
        let failing = ["a", "b", "c", "d", "e"];
        let mut outbox = filled(&failing.map(|namespace| (namespace, "1", 1)));
        assert_eq!(together(&mut outbox).len(), failing.len());
        for namespace in failing {
            outbox.rest(&object(namespace, "1"), 1);
            outbox.wake(object(namespace, "1"));
        }
        assert!(outbox.push(object("well", "1"), 2) && outbox.push(object("well", "2"), 3));
        assert_eq!(together(&mut outbox), [1, 1, 2, 3]);
        // As one ends the next one has its turn.
        outbox.done(&object("a", "1"), false);
        assert_eq!(together(&mut outbox), [1]);
    }

    #[test]
    fn b25_one_namespace_does_not_take_all_places() {
        let mut outbox = Outbox::default();
        let mut fill = |namespace: &str| {
            (0..PLACES as u32)
                .filter(|event| outbox.push(object(namespace, &event.to_string()), *event))
                .count()
        };
        assert_eq!([fill("a"), fill("b"), fill("c")], [PLACES_OF_ONE, PLACES_OF_ONE, 0]);
        assert!(outbox.next().is_some());
        assert!(outbox.push(object("c", "new"), 0));
    }
}
