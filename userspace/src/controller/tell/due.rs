//! When each telling is due, and what follows from how it went. Whoever asks says what time it is.

use crate::controller::{telemetry::Result, write::Object};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use weir_core::controller::{Telling, silence};

/// How long something has to be so before it is told.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two writes to one object.
const PAUSE: Duration = Duration::from_secs(5);
/// The same after a refusal.
const REFUSED: Duration = Duration::from_secs(60);
/// What could be told, and was not for there were too many, waits for this long.
const CROWDED: Duration = Duration::from_millis(250);

/// What waits to be told, and what was told of late.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Since when an object's status says something else than it should.
    since: BTreeMap<Object, Instant>,
    /// Before when an object is not written again.
    not_before: BTreeMap<Object, Instant>,
}

impl Due {
    /// Nothing is known of what was told, as when another has led.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Those of `tellings`, which are all there are, that are to be told at `now`, `most` at the most; and when to come again
    /// with the others, if there are any.
    pub(super) fn take(
        &mut self,
        tellings: Vec<Telling>,
        now: Instant,
        most: usize,
    ) -> (Vec<(Object, Telling)>, Option<Instant>) {
        let mut former = std::mem::take(&mut self.since);
        self.not_before.retain(|_, until| *until > now);
        let (mut due, mut next) = (Vec::new(), None);
        for telling in tellings {
            let object = object(&telling);
            let since = former.remove(&object).unwrap_or(now);
            let settled = since + settled(&telling);
            let at = self
                .not_before
                .get(&object)
                .map_or(settled, |until| settled.max(*until));
            if at <= now && due.len() < most {
                due.push((object, telling));
            } else {
                next = earliest(next, at.max(now + CROWDED));
                self.since.insert(object, since);
            }
        }
        (due, next)
    }

    /// How those went that were taken, which is known at `now`; gives when to come again for them, if nothing else makes
    /// anybody come.
    pub(super) fn went(&mut self, results: Vec<(Object, Result)>, now: Instant) -> Option<Instant> {
        let mut next = None;
        for (object, result) in results {
            let until = match result {
                // Nothing has been written, so no snapshot comes of it.
                Result::Refused => {
                    next = Some(now + REFUSED);
                    now + REFUSED
                }
                Result::Written | Result::TooOld => now + PAUSE,
            };
            self.not_before.insert(object, until);
        }
        next
    }
}

/// The earlier of both, if there are two.
pub(super) fn earliest(one: Option<Instant>, other: impl Into<Option<Instant>>) -> Option<Instant> {
    one.into_iter().chain(other.into()).min()
}

fn settled(telling: &Telling) -> Duration {
    match telling {
        Telling::Service {
            silent_nodes: Some(nodes),
            ..
        } => silence(*nodes),
        Telling::Service { .. } | Telling::Eip { .. } => SETTLED,
    }
}

/// Whose status it is about.
pub(super) fn object(telling: &Telling) -> Object {
    match telling {
        Telling::Service { service, .. } => Object::Service(service.clone()),
        Telling::Eip { eip, .. } => Object::Eip(eip.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::{controller::StatusCondition, model::ServiceKey};

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn eip(name: &str, says: &str) -> Telling {
        Telling::Eip {
            eip: name.into(),
            ready: StatusCondition {
                holds: false,
                reason: "NotReady".into(),
                message: says.into(),
            },
            gone: Vec::new(),
        }
    }

    fn silent(nodes: u32) -> Telling {
        Telling::Service {
            service: ServiceKey {
                namespace: "default".into(),
                name: "web".into(),
            },
            served: None,
            silent_nodes: Some(nodes),
        }
    }

    /// Somebody who comes with the same tellings again and again.
    struct Caller {
        due: Due,
        begin: Instant,
    }

    impl Caller {
        fn new() -> Self {
            Self {
                due: Due::default(),
                begin: Instant::now(),
            }
        }

        /// Which are taken so long after the beginning, and how long after it to come again.
        fn comes(&mut self, after: Duration, tellings: &[Telling]) -> (Vec<Telling>, Option<Duration>) {
            let (due, next) = self.due.take(tellings.to_vec(), self.begin + after, 100);
            let taken = due.into_iter().map(|(_, telling)| telling).collect();
            (taken, next.map(|next| next - self.begin))
        }

        fn went(&mut self, after: Duration, name: &str, result: Result) -> Option<Duration> {
            let results = vec![(Object::Eip(name.into()), result)];
            let next = self.due.went(results, self.begin + after);
            next.map(|next| next - self.begin)
        }
    }

    #[test]
    fn what_has_been_so_for_a_second_is_told() {
        let (mut caller, telling) = (Caller::new(), [eip("pool", "")]);
        assert_eq!(caller.comes(seconds(0), &telling), (vec![], Some(seconds(1))));
        let late = Duration::from_millis(900);
        assert_eq!(
            caller.comes(late, &telling),
            (vec![], Some(late + CROWDED)),
            "no look follows another at once"
        );
        assert_eq!(caller.comes(seconds(1), &telling), (telling.to_vec(), None));
    }

    #[test]
    fn what_nodes_have_not_said_waits_for_them() {
        let (mut caller, telling) = (Caller::new(), [silent(100)]);
        let (none, next) = caller.comes(seconds(0), &telling);
        assert_eq!((none, next), (vec![], Some(silence(100))));
        assert!(silence(100) > seconds(12));
        assert_eq!(caller.comes(silence(100), &telling).0, telling);
    }

    #[test]
    fn what_says_something_else_meanwhile_has_waited_as_long() {
        let mut caller = Caller::new();
        caller.comes(seconds(0), &[eip("pool", "one node fails")]);
        caller.comes(Duration::from_millis(600), &[eip("pool", "two nodes fail")]);
        let now = [eip("pool", "three nodes fail")];
        assert_eq!(caller.comes(seconds(1), &now).0, now);
    }

    #[test]
    fn what_was_right_meanwhile_begins_anew() {
        let (mut caller, telling) = (Caller::new(), [eip("pool", "")]);
        caller.comes(seconds(0), &telling);
        assert_eq!(caller.comes(Duration::from_millis(500), &[]), (vec![], None));
        let again = Duration::from_millis(700);
        assert_eq!(caller.comes(again, &telling), (vec![], Some(again + SETTLED)));
    }

    #[test]
    fn what_is_refused_is_told_again_after_a_minute_by_itself() {
        let (mut caller, telling) = (Caller::new(), [eip("pool", "")]);
        caller.comes(seconds(0), &telling);
        assert_eq!(caller.comes(seconds(1), &telling).0, telling);
        assert_eq!(caller.went(seconds(2), "pool", Result::Refused), Some(seconds(62)));
        // A snapshot that comes for something else.
        assert_eq!(caller.comes(seconds(10), &telling), (vec![], Some(seconds(62))));
        assert_eq!(caller.comes(seconds(62), &telling), (telling.to_vec(), None));
    }

    #[test]
    fn what_is_written_or_another_by_then_is_not_written_again_for_five_seconds() {
        for result in [Result::Written, Result::TooOld] {
            let (mut caller, telling) = (Caller::new(), [eip("pool", "")]);
            caller.comes(seconds(0), &telling);
            assert_eq!(caller.comes(seconds(1), &telling).0, telling);
            // The snapshot that comes of it says whether there is more to tell.
            assert_eq!(caller.went(seconds(2), "pool", result), None, "{result:?}");
            let others = [eip("pool", "again"), eip("other", "")];
            let soon = Duration::from_millis(3500);
            assert_eq!(caller.comes(soon, &others), (vec![], Some(soon + SETTLED)));
            assert_eq!(
                caller.comes(seconds(5), &others),
                (vec![eip("other", "")], Some(seconds(7)))
            );
            assert_eq!(caller.comes(seconds(7), &others[..1]).0, others[..1]);
        }
    }

    #[test]
    fn a_refusal_of_one_is_not_what_others_wait_for() {
        let mut caller = Caller::new();
        let results = vec![
            (Object::Eip("a".into()), Result::Written),
            (Object::Eip("b".into()), Result::Refused),
            (Object::Eip("c".into()), Result::TooOld),
        ];
        let next = caller.due.went(results, caller.begin);
        assert_eq!(next, Some(caller.begin + REFUSED));
        let all = [eip("a", ""), eip("b", ""), eip("c", "")];
        assert_eq!(caller.comes(seconds(0), &all).1, Some(seconds(5)));
        assert_eq!(
            caller.comes(seconds(5), &all),
            (vec![eip("a", ""), eip("c", "")], Some(seconds(60)))
        );
    }

    #[test]
    fn no_more_than_the_most_are_told_in_one_go_and_the_others_soon() {
        let mut caller = Caller::new();
        let names: Vec<String> = (0..250).map(|number| format!("pool-{number:03}")).collect();
        let mut tellings: Vec<Telling> = names.iter().map(|name| eip(name, "")).collect();
        caller.comes(seconds(0), &tellings);
        let mut at = seconds(1);
        for number in [100, 100, 50] {
            let (taken, next) = caller.comes(at, &tellings);
            assert_eq!(taken, tellings[..number]);
            tellings.drain(..number);
            let soon = at + Duration::from_millis(250);
            assert_eq!(next, (!tellings.is_empty()).then_some(soon));
            at = soon;
        }
    }

    #[test]
    fn what_is_forgotten_is_neither_waited_with_nor_for() {
        let mut caller = Caller::new();
        caller.comes(seconds(0), &[eip("settled", "")]);
        caller.went(seconds(0), "refused", Result::Refused);
        caller.due.forget();
        let both = [eip("refused", ""), eip("settled", "")];
        assert_eq!(caller.comes(seconds(1), &both), (vec![], Some(seconds(2))));
        assert_eq!(caller.comes(seconds(2), &both).0, both);
    }

    #[test]
    fn who_may_tell_nothing_comes_again_with_all() {
        let (mut caller, telling) = (Caller::new(), [eip("pool", "")]);
        caller.comes(seconds(0), &telling);
        let now = caller.begin + seconds(3);
        let (due, next) = caller.due.take(telling.to_vec(), now, 0);
        assert_eq!((due.len(), next), (0, Some(now + CROWDED)));
        assert_eq!(caller.comes(seconds(3), &telling).0, telling);
    }
}
