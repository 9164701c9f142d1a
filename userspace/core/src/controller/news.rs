//! What there is to say, turn by turn: nothing that passes by itself, little at a time, and the seldomer the more often it
//! changes.
//!
//! What has been said is known from here only while one controller leads. Whoever leads next takes for said what the objects'
//! statuses say already, and who announces what; all other warnings that still hold, those of Services that are another load
//! balancer's, say, are said again.

use super::{Announcers, Event, Planned, World, said::Said, set_up::SetUps};
use std::time::Duration;

/// How long something has to be so before it is said.
pub(super) const SETTLED: Duration = Duration::from_secs(1);
/// Between two events about one thing: at first, and when it changes again and again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));
/// The most that is said at a time; the rest a moment later, and so on: warnings first, then what there is to say of Eips, then
/// who announces what.
pub(super) const AT_ONCE: usize = 50;

/// What has been said in one time of leading.
#[derive(Clone, Debug, Default)]
pub struct News {
    said: Said,
    set_ups: SetUps,
    announcers: Announcers,
}

impl News {
    /// Takes in what is `planned` in `world` at `now` (on a clock of our own that never goes back); gives what is to be said,
    /// and when there may be more to say with nothing having changed.
    pub fn look(&mut self, now: Duration, world: &World, planned: &Planned) -> (Vec<Event>, Option<Duration>) {
        let mut turn = Turn::at(now);
        self.said.look(&mut turn, world, &planned.warnings);
        self.set_ups.look(&mut turn, &planned.set_ups);
        self.announcers.look(&mut turn, &planned.announcing);
        turn.end()
    }
}

/// One look at what there is to say.
#[derive(Debug)]
pub(super) struct Turn {
    now: Duration,
    events: Vec<Event>,
    next: Option<Duration>,
}

impl Turn {
    pub(super) const fn at(now: Duration) -> Self {
        Self {
            now,
            events: Vec::new(),
            next: None,
        }
    }

    pub(super) const fn now(&self) -> Duration {
        self.now
    }

    /// Whether it is time; else it is come back to.
    pub(super) fn is_time(&mut self, at: Duration) -> bool {
        let is_time = at <= self.now && self.events.len() < AT_ONCE;
        if !is_time {
            let at = at.max(self.now + SETTLED / 4);
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
        is_time
    }

    pub(super) fn say(&mut self, event: Event) {
        self.events.push(event);
    }

    /// What is to be said, and when to look again.
    pub(super) fn end(self) -> (Vec<Event>, Option<Duration>) {
        (self.events, self.next)
    }
}

/// How seldom there is an event about one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    not_before: Duration,
    pause: Duration,
}

impl Pace {
    /// Before when nothing is said.
    pub(super) const fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Something is said now.
    pub(super) fn is_said(&mut self, now: Duration) {
        self.pause = if self.is_new(now) {
            PAUSE.0
        } else {
            (self.pause * 2).min(PAUSE.1)
        };
        self.not_before = now + self.pause;
    }

    /// Whether nothing has been said for so long that it is as if nothing ever was.
    pub(super) fn is_new(&self, now: Duration) -> bool {
        now >= self.not_before + self.pause
    }
}
