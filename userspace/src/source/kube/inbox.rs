//! Where followers leave what they are told until it is taken in: of each object only the last word.
//!
//! Leaving something never waits. Whoever is slow to take it in, because it plans or writes, does not keep a watch from
//! being read (an API server ends those that are not), and finds a storm of changes as one change of each object.

use super::{contents::Entry, follow::Followed};
use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use weir_core::model::ObjectRef;

/// What has been told and not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    told: Mutex<Told>,
    filled: Notify,
}

/// All of it. Lists come first, then objects, then what became of each follower's last attempt.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// All objects of a kind.
    pub(super) lists: BTreeMap<Followed, Vec<Entry>>,
    /// Objects that are new or others since; none for those that are gone.
    pub(super) objects: BTreeMap<ObjectRef, Option<Entry>>,
    pub(super) attempts: BTreeMap<Followed, Attempt>,
}

/// What became of an attempt to follow a kind: the API server has begun to tell changes, or could not be asked.
pub(super) type Attempt = Result<(), Box<kube::Error>>;

impl Inbox {
    /// All objects of a kind; what was told of them before is void.
    pub(super) fn list(&self, kind: Followed, entries: Vec<Entry>) {
        let mut told = self.told();
        told.objects.retain(|identity, _| identity.kind != kind.kind());
        told.lists.insert(kind, entries);
        self.filled.notify_one();
    }

    /// An object is new or another.
    pub(super) fn set(&self, mut entry: Entry) {
        let mut told = self.told();
        let former = told.objects.remove(&entry.identity);
        if let (None, Some(Some(former))) = (&entry.object, former) {
            // What cannot be read leaves what was read before, taken in or not.
            entry.object = former.object;
            entry.record = former.record;
        }
        told.objects.insert(entry.identity.clone(), Some(entry));
        self.filled.notify_one();
    }

    /// An object is gone.
    pub(super) fn gone(&self, identity: ObjectRef) {
        self.told().objects.insert(identity, None);
        self.filled.notify_one();
    }

    /// What became of the last attempt to follow a kind.
    pub(super) fn attempt(&self, kind: Followed, attempt: Attempt) {
        self.told().attempts.insert(kind, attempt);
        self.filled.notify_one();
    }

    /// Takes everything.
    pub(super) fn take(&self) -> Told {
        mem::take(&mut *self.told())
    }

    /// Waits until something may have been left since it was last waited for. May be dropped at any time.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Nothing here panics half way.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::objects::Object;

    fn entry(kind: &str, name: &str) -> Entry {
        Entry {
            identity: ObjectRef::cluster_scoped(kind, name),
            object: None,
            record: None,
            faults: Vec::new(),
        }
    }

    #[test]
    fn the_last_word_about_an_object_counts_and_a_list_voids_what_came_before_it() {
        let inbox = Inbox::default();
        inbox.set(entry("Node", "a"));
        inbox.set(entry("Service", "a"));
        inbox.list(Followed::Nodes, vec![entry("Node", "b")]);
        inbox.set(entry("Node", "c"));
        inbox.gone(ObjectRef::cluster_scoped("Node", "c"));
        let told = inbox.take();
        assert_eq!(told.lists[&Followed::Nodes].len(), 1);
        let names: Vec<_> = told
            .objects
            .iter()
            .map(|(identity, entry)| (&*identity.kind, &*identity.name, entry.is_none()))
            .collect();
        assert_eq!(names, [("Node", "c", true), ("Service", "a", false)]);
        assert!(inbox.take().objects.is_empty());
    }

    #[test]
    fn what_cannot_be_read_leaves_what_was_read_before() {
        let inbox = Inbox::default();
        let object = Object::Namespace(BTreeMap::new());
        inbox.set(Entry {
            object: Some(object.clone()),
            ..entry("Namespace", "a")
        });
        inbox.set(entry("Namespace", "a"));
        let mut told = inbox.take().objects.into_values();
        assert_eq!(told.next().flatten().and_then(|entry| entry.object), Some(object));
    }

    #[test]
    fn of_many_attempts_the_last_of_each_kind_is_told() {
        let inbox = Inbox::default();
        for _ in 0..100 {
            inbox.attempt(
                Followed::Nodes,
                Err(kube::Error::LinesCodecMaxLineLengthExceeded.into()),
            );
            inbox.attempt(Followed::Eips, Ok(()));
        }
        inbox.attempt(Followed::Nodes, Ok(()));
        let attempts = inbox.take().attempts;
        assert!(attempts.len() == 2 && attempts.values().all(Result::is_ok));
    }

    #[tokio::test]
    async fn what_is_left_before_somebody_waits_is_not_missed() {
        let inbox = Inbox::default();
        inbox.set(entry("Node", "a"));
        inbox.filled().await;
        assert_eq!(inbox.take().objects.len(), 1);
    }
}
