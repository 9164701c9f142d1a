//! What is wrong with the API server, in words: said once, whatever the followers try in the meantime.

use super::{backoff, follow::Followed};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
};
use weir_core::model::{Condition, ObjectRef};

/// Rights of the agent's ServiceAccount, as delivered.
const RIGHTS: &str = "deploy/rbac-agent.yaml";

/// Problems of each kind.
#[derive(Debug)]
pub(super) struct Problems {
    server: ObjectRef,
    of: BTreeMap<Followed, Problem>,
    /// Refused once, which an API server does that has just come up and does not know yet what anybody may do.
    doubted: BTreeSet<Followed>,
    /// What the first of the kinds heard that cannot reach the API server now.
    unreachable: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Unreachable,
    /// The API server's answer.
    Answered {
        code: u16,
        message: String,
    },
}

impl Problems {
    /// None, of the API server at `server`.
    pub(super) fn new(server: &str) -> Self {
        Self {
            server: ObjectRef::cluster_scoped("APIServer", server),
            of: BTreeMap::new(),
            doubted: BTreeSet::new(),
            unreachable: None,
        }
    }

    /// A kind could not be had. Whether that is another problem than before; a refusal is one when it is repeated.
    pub(super) fn failed(&mut self, kind: Followed, error: &kube::Error) -> bool {
        let problem = match error {
            kube::Error::Api(status) => Problem::Answered {
                code: status.code,
                message: status.message.clone(),
            },
            kube::Error::SerdeError(error) => Problem::Answered {
                code: 200,
                message: error.to_string(),
            },
            other => {
                self.unreachable.get_or_insert_with(|| first_cause(other));
                Problem::Unreachable
            }
        };
        let former = self.of.get(&kind);
        if former.is_some_and(|former| former.is_like(&problem)) {
            return false;
        }
        if !problem.is_refusal() {
            self.doubted.remove(&kind);
        } else if self.doubted.insert(kind) {
            return false;
        }
        let first = problem != Problem::Unreachable || !self.of.values().any(|of| *of == Problem::Unreachable);
        let changed = first || former.is_some();
        self.of.insert(kind, problem);
        self.settle();
        changed
    }

    /// A kind can be had. Whether it could not before.
    pub(super) fn solved(&mut self, kind: Followed) -> bool {
        self.doubted.remove(&kind);
        let changed = self.of.remove(&kind).is_some();
        self.settle();
        changed
    }

    fn settle(&mut self) {
        if !self.of.values().any(|of| *of == Problem::Unreachable) {
            self.unreachable = None;
        }
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = Condition> {
        let unreachable = self.unreachable.iter().map(|cause| {
            let message = format!(
                "it cannot be reached: {cause}. What is known stays in force and packets are forwarded as before; it is asked \
                 again, every {} seconds at the least. Check that it runs and that this node has a way to it.",
                backoff::MOST.as_secs()
            );
            Condition::new(self.server.clone(), "", "Unreachable", message)
        });
        let answered = self.of.iter().filter_map(|(kind, problem)| match problem {
            Problem::Unreachable => None,
            Problem::Answered { code, message } => {
                let (reason, remedy) = remedy(*code, *kind);
                let message = format!(
                    "{kind}: {message}. What is known of them stays in force. {remedy}",
                    kind = kind.plural(),
                    message = message.trim_end_matches('.'),
                );
                Some(Condition::new(self.server.clone(), kind.plural(), reason, message))
            }
        });
        unreachable.chain(answered)
    }
}

impl Problem {
    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Answered { code: 401 | 403, .. })
    }

    /// Whether it is nothing new after `self`.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Answered { code, .. }, Self::Answered { code: now, .. }) => code == now,
            _ => self == other,
        }
    }
}

fn remedy(code: u16, kind: Followed) -> (&'static str, String) {
    match (code, kind) {
        (401, _) => (
            "Unauthorized",
            "Check the ServiceAccount token, or the credentials in the kubeconfig.".into(),
        ),
        (403, _) => (
            "Forbidden",
            format!(
                "Let the ServiceAccount get, list and watch {}, as {RIGHTS} does.",
                kind.plural()
            ),
        ),
        (200, _) => (
            "UnreadableAnswer",
            "See whether something stands between Weir and the API server, and look into Weir's log.".into(),
        ),
        (404, Followed::Eips) => ("NotServed", "Apply Weir's custom resource definitions.".into()),
        _ => ("ApiServerError", "Look into the API server's log.".into()),
    }
}

/// What is at the bottom of an error; what is above it is about how requests are made.
fn first_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn away(text: &str) -> kube::Error {
        kube::Error::Service(std::io::Error::other(text.to_owned()).into())
    }

    fn answer(code: u16, message: &str) -> kube::Error {
        let mut status = Status::failure(message, "");
        status.code = code;
        kube::Error::Api(status.boxed())
    }

    fn said(problems: &Problems) -> Vec<(String, String)> {
        problems.conditions().map(|it| (it.field, it.reason)).collect()
    }

    #[test]
    fn an_outage_is_one_condition_and_over_when_every_kind_is_back() {
        let mut problems = Problems::new("https://api");
        assert!(problems.failed(Followed::Services, &away("Connection refused")));
        assert!(!problems.failed(Followed::Nodes, &away("Connection reset")));
        assert!(!problems.failed(Followed::Services, &away("No route to host")));
        let conditions: Vec<_> = problems.conditions().collect();
        assert_eq!(conditions.len(), 1);
        assert!(conditions[0].message.contains("Connection refused"));

        problems.solved(Followed::Services);
        assert_eq!(said(&problems), [("".into(), "Unreachable".into())]);
        assert!(problems.solved(Followed::Nodes));
        assert_eq!(said(&problems), []);
        assert!(!problems.solved(Followed::Nodes));
    }

    #[test]
    fn what_is_refused_is_said_with_the_remedy() {
        let mut problems = Problems::new("https://api");
        let forbidden = answer(
            403,
            "services is forbidden: User \"system:serviceaccount:a:b\" cannot list",
        );
        assert!(
            !problems.failed(Followed::Services, &forbidden),
            "it may have just come up"
        );
        assert!(problems.failed(Followed::Services, &forbidden));
        assert!(!problems.failed(Followed::Services, &forbidden));
        problems.failed(
            Followed::Eips,
            &answer(404, "the server could not find the requested resource"),
        );
        assert_eq!(
            said(&problems),
            [
                ("eips".into(), "NotServed".into()),
                ("services".into(), "Forbidden".into())
            ]
        );
        let message = problems.conditions().last().unwrap().message;
        assert!(message.contains("User \"system:serviceaccount:a:b\"") && message.contains(RIGHTS));
        let unreadable = kube::Error::SerdeError(serde::de::Error::custom("no JSON"));
        let mut others = Problems::new("https://api");
        others.failed(Followed::Nodes, &unreadable);
        assert_eq!(said(&others), [("nodes".into(), "UnreadableAnswer".into())]);
        // Having been solved once, it is doubted again.
        assert!(problems.solved(Followed::Services) && !problems.failed(Followed::Services, &forbidden));
        assert!(problems.failed(Followed::Services, &forbidden));
        // Another problem of the same kind takes its place.
        assert!(problems.failed(Followed::Services, &away("Connection refused")));
        assert_eq!(
            said(&problems),
            [("".into(), "Unreachable".into()), ("eips".into(), "NotServed".into())]
        );
    }
}
