//! How often one event is sent.

use std::time::Duration;

/// Between attempts to send one.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10)];

/// How an attempt to send an event went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Taken,
    /// The API server answered with this status.
    Refused(u16),
    /// It did not, or could not be reached.
    Unanswered,
}

/// What is to be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is there.
    Done,
    /// It cannot be, such as in a namespace that is being deleted.
    Drop,
    /// It is to be sent again after this.
    Again(Duration),
    /// It was tried often enough.
    GiveUp,
}

impl Attempt {
    /// What follows from it, when so many have failed before.
    pub(super) fn next(self, failed: usize) -> Next {
        let passes = match self {
            Self::Taken => return Next::Done,
            // An attempt whose answer was lost has arrived: each event has a name of its own.
            Self::Refused(409) if failed > 0 => return Next::Done,
            Self::Refused(code) => code == 429 || code >= 500,
            Self::Unanswered => true,
        };
        match PAUSES.get(failed) {
            _ if !passes => Next::Drop,
            Some(pause) => Next::Again(*pause),
            None => Next::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses after which attempts follow that all go like this one, and what ends them.
    fn all(attempt: Attempt) -> (Vec<Duration>, Next) {
        let mut pauses = Vec::new();
        loop {
            match attempt.next(pauses.len()) {
                Next::Again(pause) => pauses.push(pause),
                end => return (pauses, end),
            }
        }
    }

    #[test]
    fn b25_an_event_is_sent_again_while_the_api_server_has_too_much_to_do() {
        let refused = [429, 500, 503, 504].map(Attempt::Refused);
        for attempt in refused.into_iter().chain([Attempt::Unanswered]) {
            assert_eq!(all(attempt), (PAUSES.to_vec(), Next::GiveUp), "{attempt:?}");
        }
        for code in [400, 403, 404, 409, 422] {
            assert_eq!(all(Attempt::Refused(code)), (Vec::new(), Next::Drop), "{code}");
        }
    }

    #[test]
    fn b25_an_event_that_is_there_is_not_sent_again() {
        for failed in 0..PAUSES.len() + 1 {
            assert_eq!(Attempt::Taken.next(failed), Next::Done);
        }
        assert_eq!(Attempt::Refused(409).next(1), Next::Done);
    }
}
