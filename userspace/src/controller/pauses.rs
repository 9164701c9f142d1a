//! Objects that are not written for a while: those whose write was refused, and Eips that were written a moment ago.

use super::write::Object;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use weir_core::controller::Action;

/// Waits after a write that the API server refused for another reason than its age: the first, and the longest.
pub(super) const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After a write of an Eip it is left alone for so many times as long as that took, but no longer than this: the more addresses
/// are in its book, the more work each write is for the API server, and the more of what comes meanwhile goes into one.
const BOOK: (u32, Duration) = (3, Duration::from_secs(2));

/// What is left alone, and until when.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// With how long that was.
    refused: BTreeMap<Object, (Instant, Duration)>,
    written: BTreeMap<Object, Instant>,
}

impl Pauses {
    /// Those of `actions` that may be made now, and when to come again, if any may not.
    pub(super) fn pick(&mut self, mut actions: Vec<Action>, now: Instant) -> (Vec<Action>, Option<Instant>) {
        self.written.retain(|_, until| *until > now);
        let mut next = None;
        // One object that cannot be written, or not yet, is no reason to leave the others.
        actions.retain(|action| {
            let Some(until) = self.until(&Object::of(action)).filter(|until| *until > now) else {
                return true;
            };
            next = Some(next.map_or(until, |next: Instant| next.min(until)));
            false
        });
        (actions, next)
    }

    fn until(&self, object: &Object) -> Option<Instant> {
        let refused = self.refused.get(object).map(|(until, _)| *until);
        refused.max(self.written.get(object).copied())
    }

    /// An object was written, which took so long.
    pub(super) fn written(&mut self, object: &Object, took: Duration, now: Instant) {
        self.refused.remove(object);
        if matches!(object, Object::Eip(_)) {
            let (times, longest) = BOOK;
            self.written.insert(object.clone(), now + (took * times).min(longest));
        }
    }

    /// A write was refused; gives when it is tried again, and whether it is the first time in a row.
    pub(super) fn refused(&mut self, object: Object, now: Instant) -> (Instant, bool) {
        let before = self.refused.get(&object);
        let first = before.is_none();
        let pause = before.map_or(REFUSED.0, |(_, pause)| (*pause * 2).min(REFUSED.1));
        self.refused.insert(object, (now + pause, pause));
        (now + pause, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::controller::EipStatus;

    fn record(eip: &str) -> Action {
        Action::Record {
            eip: eip.into(),
            resource_version: "1".into(),
            status: EipStatus::default(),
        }
    }

    fn eip(name: &str) -> Object {
        Object::Eip(name.into())
    }

    fn seconds(seconds: f32) -> Duration {
        Duration::from_secs_f32(seconds)
    }

    #[test]
    fn a_book_that_takes_long_is_written_seldom_and_the_others_are_not_held_up() {
        let (mut pauses, now) = (Pauses::default(), Instant::now());
        let both = || vec![record("large"), record("small")];
        assert_eq!(pauses.pick(both(), now), (both(), None));
        pauses.written(&eip("large"), seconds(0.5), now);
        pauses.written(&eip("small"), seconds(0.0), now);
        let then = now + seconds(1.5);
        assert_eq!(pauses.pick(both(), now), (vec![record("small")], Some(then)));
        assert_eq!(pauses.pick(both(), then), (both(), None));
        pauses.written(&eip("large"), seconds(60.0), now);
        assert_eq!(pauses.pick(both(), now + BOOK.1), (both(), None));
        // A Service has no book.
        let service = Object::Service("default/web".parse().unwrap());
        pauses.written(&service, seconds(60.0), now);
        assert_eq!(pauses.until(&service), None);
    }

    #[test]
    fn b24_what_is_refused_is_tried_again_less_and_less_often_until_it_is_written() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        for (pause, first) in [1, 2, 4, 8, 16, 32, 60, 60]
            .into_iter()
            .zip([true].into_iter().chain([false; 7]))
        {
            let until = now + Duration::from_secs(pause);
            assert_eq!(pauses.refused(eip("pool"), now), (until, first));
            assert_eq!(pauses.pick(vec![record("pool")], now), (vec![], Some(until)));
            now = until;
            assert_eq!(pauses.pick(vec![record("pool")], now), (vec![record("pool")], None));
        }
        pauses.written(&eip("pool"), Duration::ZERO, now);
        assert_eq!(pauses.refused(eip("pool"), now), (now + REFUSED.0, true));
    }
}
