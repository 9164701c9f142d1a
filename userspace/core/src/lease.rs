//! Which of several controllers leads: whoever holds one Lease object (coordination.k8s.io).
//!
//! [`Candidate::decide`] takes the time and the Lease as the API server has it; gives a write to make, or how long to wait. As
//! every client of such Leases does, it never compares its clock with another's: a Lease has run out when *we* have seen it
//! unchanged for its duration. Whoever leads stops leading when it could not renew for a while that is shorter, so that there
//! is a gap between two leaders, not an overlap; what happens if a leader was suspended over it is
//! [`crate::controller`]'s to get right.

use std::time::Duration;

/// Times of a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others leave an unchanged Lease alone.
    pub lease: Duration,
    /// How long its holder leads without renewing it; shorter than `lease`.
    pub renew: Duration,
    /// Between two looks.
    pub retry: Duration,
}

impl Default for Timing {
    /// What Kubernetes' own controllers use.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// How long what a holder has sent may be on its way when it leads no more, and still arrive before another leads.
    #[must_use]
    pub const fn gap(&self) -> Duration {
        self.lease.saturating_sub(self.renew)
    }
}

/// A Lease as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `spec.holderIdentity`; empty if nobody holds it.
    pub holder: String,
    /// `spec.leaseDurationSeconds`, as its holder wrote it.
    pub duration: Duration,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write the Lease with us as its holder and the time of now, then say so ([`Candidate::written`]).
    Hold {
        /// Version that the write rests on; `None` creates it.
        resource_version: Option<String>,
        /// `spec.leaseTransitions`.
        transitions: i32,
        /// Whether we did not hold it before: then `spec.acquireTime` is now.
        acquired: bool,
    },
    /// Look again after this time.
    Wait(Duration),
}

/// One that would lead, or does.
#[derive(Clone, Debug)]
pub struct Candidate {
    id: String,
    timing: Timing,
    /// The version last seen, and when it was seen first.
    seen: Option<(String, Duration)>,
    /// When the last write was begun that made us the holder, or kept us.
    held: Option<Duration>,
}

impl Candidate {
    /// One with an identity that no other has.
    #[must_use]
    pub const fn new(id: String, timing: Timing) -> Self {
        Self {
            id,
            timing,
            seen: None,
            held: None,
        }
    }

    /// What to do at `now` (on a clock of our own that never goes back), the Lease being as `lease` says; `None` if there is
    /// none.
    pub fn decide(&mut self, now: Duration, lease: Option<&Lease>) -> Decision {
        let Some(lease) = lease else {
            self.held = None;
            return Decision::Hold {
                resource_version: None,
                transitions: 0,
                acquired: true,
            };
        };
        let since = match &self.seen {
            Some((version, since)) if *version == lease.resource_version => *since,
            _ => {
                self.seen = Some((lease.resource_version.clone(), now));
                now
            }
        };
        let ours = lease.holder == self.id;
        if !ours {
            self.held = None;
        }
        let free = lease.holder.is_empty() || now.saturating_sub(since) >= lease.duration;
        if ours || free {
            return Decision::Hold {
                resource_version: Some(lease.resource_version.clone()),
                transitions: lease.transitions.saturating_add(i32::from(!ours)),
                acquired: !ours,
            };
        }
        let left = (since + lease.duration).saturating_sub(now);
        Decision::Wait(left.min(self.timing.retry))
    }

    /// Takes note of a write that has been made, begun at `begun`; gives how long to wait before the next look.
    pub fn written(&mut self, begun: Duration) -> Duration {
        self.held = Some(begun);
        self.timing.retry
    }

    /// Whether we lead at `now`.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        self.held
            .is_some_and(|begun| now.saturating_sub(begun) < self.timing.renew)
    }

    /// The write that lets go of the Lease, for whoever ends in order: version that it rests on and transitions, the holder
    /// being empty. `None` if it is not ours.
    #[must_use]
    pub fn release(&self, lease: &Lease) -> Option<(String, i32)> {
        (lease.holder == self.id).then(|| (lease.resource_version.clone(), lease.transitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(version: &str, holder: &str, transitions: i32) -> Lease {
        Lease {
            resource_version: version.into(),
            holder: holder.into(),
            duration: at(15),
            transitions,
        }
    }

    fn candidate(id: &str) -> Candidate {
        Candidate::new(id.into(), Timing::default())
    }

    fn hold(version: Option<&str>, transitions: i32, acquired: bool) -> Decision {
        Decision::Hold {
            resource_version: version.map(str::to_owned),
            transitions,
            acquired,
        }
    }

    /// G06.
    #[test]
    fn the_first_leads_for_as_long_as_it_renews() {
        let mut a = candidate("a");
        assert!(!a.leads(at(0)));
        assert_eq!(a.decide(at(0), None), hold(None, 0, true));
        assert_eq!(a.written(at(0)), at(2));
        assert!(a.leads(at(9)));
        assert_eq!(a.decide(at(2), Some(&held("1", "a", 0))), hold(Some("1"), 0, false));
        a.written(at(2));
        assert!(
            a.leads(at(11)) && !a.leads(at(12)),
            "cannot renew, so it stops before others start"
        );
    }

    #[test]
    fn another_takes_over_when_it_has_seen_no_renewal_for_the_lease() {
        let mut b = candidate("b");
        // However old the Lease is by the holder's own clock.
        assert_eq!(b.decide(at(100), Some(&held("7", "a", 3))), Decision::Wait(at(2)));
        assert_eq!(b.decide(at(114), Some(&held("7", "a", 3))), Decision::Wait(at(1)));
        assert_eq!(
            b.decide(at(114), Some(&held("8", "a", 3))),
            Decision::Wait(at(2)),
            "renewed"
        );
        assert_eq!(b.decide(at(129), Some(&held("8", "a", 3))), hold(Some("8"), 4, true));
        b.written(at(129));
        assert!(b.leads(at(130)));
    }

    /// Hand-over on SIGTERM.
    #[test]
    fn what_is_let_go_is_taken_at_once() {
        let mut a = candidate("a");
        a.decide(at(0), None);
        a.written(at(0));
        assert_eq!(a.release(&held("5", "a", 0)), Some(("5".into(), 0)));
        assert_eq!(a.release(&held("5", "b", 0)), None);
        let mut b = candidate("b");
        assert_eq!(b.decide(at(1), Some(&held("6", "", 0))), hold(Some("6"), 1, true));
    }

    #[test]
    fn a_suspended_leader_finds_out_before_it_leads_on() {
        let mut a = candidate("a");
        a.decide(at(0), None);
        a.written(at(0));
        assert!(!a.leads(at(60)));
        assert_eq!(a.decide(at(60), Some(&held("9", "b", 1))), Decision::Wait(at(2)));
        assert!(!a.leads(at(60)));
        // It holds the Lease still if nobody else wanted it.
        let mut a = candidate("a");
        assert_eq!(a.decide(at(60), Some(&held("2", "a", 1))), hold(Some("2"), 1, false));
    }
}
