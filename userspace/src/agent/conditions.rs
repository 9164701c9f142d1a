//! What is wrong now, said once when it begins and once when it ends.

use std::collections::BTreeSet;
use tracing::{info, warn};
use weir_core::model::Condition;

/// The conditions of the last plan.
#[derive(Debug, Default)]
pub struct Conditions {
    current: BTreeSet<Condition>,
}

/// What to say about a change.
#[derive(Debug, PartialEq, Eq)]
struct Change<'a> {
    begun: Vec<&'a Condition>,
    ended: Vec<&'a Condition>,
}

impl Conditions {
    /// Those of now, in order.
    pub fn current(&self) -> impl Iterator<Item = &Condition> + Clone {
        self.current.iter()
    }

    /// Takes over the conditions of now, and logs what has begun and what has ended.
    pub fn replace(&mut self, conditions: impl IntoIterator<Item = Condition>) {
        let next: BTreeSet<Condition> = conditions.into_iter().collect();
        let Change { begun, ended } = compare(&self.current, &next);
        for Condition {
            object,
            field,
            reason,
            message,
        } in begun
        {
            warn!(%object, field, reason, "{message}");
        }
        for Condition {
            object, field, reason, ..
        } in ended
        {
            info!(%object, field, reason, "resolved");
        }
        self.current = next;
    }
}

/// A condition whose message alone changed has begun anew, but not ended.
fn compare<'a>(former: &'a BTreeSet<Condition>, next: &'a BTreeSet<Condition>) -> Change<'a> {
    let same_matter =
        |a: &Condition, b: &Condition| (&a.object, &a.field, &a.reason) == (&b.object, &b.field, &b.reason);
    Change {
        begun: next.difference(former).collect(),
        ended: former
            .difference(next)
            .filter(|old| !next.iter().any(|new| same_matter(old, new)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::model::ObjectRef;

    fn condition(name: &str, message: &str) -> Condition {
        Condition::new(
            ObjectRef::cluster_scoped("Eip", name),
            "spec.address",
            "Overlap",
            message.into(),
        )
    }

    #[test]
    fn each_is_said_once() {
        let (a, b) = (condition("a", "one"), condition("b", "two"));
        let first = BTreeSet::from([a.clone()]);
        let both = BTreeSet::from([a.clone(), b.clone()]);
        assert_eq!(
            compare(&BTreeSet::new(), &first),
            Change {
                begun: vec![&a],
                ended: vec![]
            }
        );
        assert_eq!(
            compare(&first, &both),
            Change {
                begun: vec![&b],
                ended: vec![]
            }
        );
        assert_eq!(
            compare(&both, &first),
            Change {
                begun: vec![],
                ended: vec![&b]
            }
        );
    }

    #[test]
    fn another_message_is_no_end() {
        let (former, next) = (condition("a", "3 of 4"), condition("a", "4 of 4"));
        let (before, after) = (BTreeSet::from([former]), BTreeSet::from([next.clone()]));
        assert_eq!(
            compare(&before, &after),
            Change {
                begun: vec![&next],
                ended: vec![]
            }
        );
    }
}
