//! Whether a snapshot of the Services is new enough to give out what the books say is free.
//!
//! Services and Eips are watched apart, so a snapshot may have an Eip of now and Services of a moment ago. What a book has is
//! safe; what has just gone from one, or is not in the book of an Eip that has just come, may still be shown by a Service of
//! which the snapshot does not know it. So the Services are listed once after that, however much has gone, and what the list
//! has and the snapshot has not is waited for; Services that go on changing keep nobody waiting.

use super::World;
use crate::model::ServiceKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The entries of one book, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Book {
    uid: String,
    entries: BTreeSet<(IpAddr, ServiceKey)>,
}

/// Whether addresses may be given out by a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// They may.
    Yes,
    /// Not before the Services have been listed ([`Freshness::listed`]).
    Unlisted,
    /// Not by this one: it does not have yet what a list had. If that goes on for long, what is waited for may have come and
    /// gone unseen, and another list says so.
    Awaited,
}

/// What of the books has been seen.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    books: BTreeMap<String, Book>,
    /// Something has gone from a book, and no list has been taken since.
    unlisted: bool,
    /// Services of the last list that no snapshot has had in that version, or a later one.
    awaited: BTreeMap<ServiceKey, String>,
}

impl Freshness {
    /// Looks at a snapshot.
    pub fn observe(&mut self, world: &World) -> Fresh {
        let books: BTreeMap<String, Book> = world
            .eips
            .iter()
            .map(|(name, eip)| {
                let book = Book {
                    uid: eip.uid.clone(),
                    entries: eip.status.entries().collect(),
                };
                (name.clone(), book)
            })
            .collect();
        let vanished = books.iter().any(|(name, book)| {
            let before = self.books.get(name).filter(|before| before.uid == book.uid);
            before.is_none_or(|before| !before.entries.is_subset(&book.entries))
        });
        self.unlisted |= vanished;
        self.books = books;
        self.see(world)
    }

    /// Takes the versions of all Services as the API server has them, listed after the last [`Freshness::observe`] of `world`.
    pub fn listed(&mut self, world: &World, now: BTreeMap<ServiceKey, String>) -> Fresh {
        self.unlisted = false;
        self.awaited = now;
        self.see(world)
    }

    fn see(&mut self, world: &World) -> Fresh {
        self.awaited.retain(|key, version| {
            let has = world.services.get(key).map(|service| &service.resource_version);
            !has.is_some_and(|has| is_as_new(has, version))
        });
        match (self.unlisted, self.awaited.is_empty()) {
            (true, _) => Fresh::Unlisted,
            (false, false) => Fresh::Awaited,
            (false, true) => Fresh::Yes,
        }
    }
}

/// Whether the first version of an object is the second or a later one. Kubernetes promises that they are numbers that grow;
/// of what is none, only the same is known to be as new.
fn is_as_new(has: &str, version: &str) -> bool {
    match (has.parse::<u128>(), version.parse::<u128>()) {
        (Ok(has), Ok(version)) => has >= version,
        _ => has == version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{EipObject, EipStatus, ServiceObject},
        model::Cluster,
    };

    fn key(name: &str) -> ServiceKey {
        format!("apps/{name}").parse().unwrap()
    }

    fn versions(services: &[(&str, &str)]) -> BTreeMap<ServiceKey, String> {
        let versions = services
            .iter()
            .map(|(name, version)| (key(name), (*version).to_owned()));
        versions.collect()
    }

    /// One Eip whose book has these Services, and Services in these versions.
    fn world(book: &[&str], services: &[(&str, &str)]) -> World {
        let used = book
            .iter()
            .zip(1..)
            .map(|(name, at)| (format!("10.1.0.{at}"), format!("apps/{name}")));
        let eip = EipObject {
            uid: "1".into(),
            status: EipStatus {
                used: used.collect(),
                ..EipStatus::default()
            },
            ..EipObject::default()
        };
        let services = versions(services).into_iter().map(|(key, resource_version)| {
            let service = ServiceObject {
                resource_version,
                ..ServiceObject::default()
            };
            (key, service)
        });
        World::new(
            Cluster::default(),
            services.collect(),
            [("pool".into(), eip)].into(),
            true,
        )
    }

    #[test]
    fn what_has_gone_from_a_book_asks_for_one_list() {
        let mut freshness = Freshness::default();
        let now = [("a", "7"), ("b", "9")];
        let full = world(&["a", "b"], &now);
        assert_eq!(freshness.observe(&full), Fresh::Unlisted, "a book that is new");
        assert_eq!(freshness.listed(&full, versions(&now)), Fresh::Yes);
        assert_eq!(freshness.observe(&full), Fresh::Yes);
        // However much goes, and in however many snapshots.
        for book in [&["a"][..], &[]] {
            assert_eq!(freshness.observe(&world(book, &now)), Fresh::Unlisted);
        }
        assert_eq!(freshness.listed(&world(&[], &now), versions(&now)), Fresh::Yes);
        // What comes into a book is no reason.
        assert_eq!(freshness.observe(&full), Fresh::Yes);
    }

    #[test]
    fn what_a_list_has_is_waited_for_and_no_more_than_that() {
        let mut freshness = Freshness::default();
        let old = world(&[], &[("a", "7")]);
        freshness.observe(&old);
        let list = versions(&[("a", "10"), ("b", "9")]);
        assert_eq!(freshness.listed(&old, list), Fresh::Awaited);
        assert_eq!(
            freshness.observe(&world(&[], &[("a", "9"), ("b", "9")])),
            Fresh::Awaited
        );
        // It need not be there any more once it has been seen; and `a` has been written again, longer by a digit.
        assert_eq!(freshness.observe(&world(&[], &[("a", "100")])), Fresh::Yes);
        // One that is gone since is known to more, not to less.
        let more = world(&[], &[("a", "100"), ("c", "1")]);
        assert_eq!(freshness.listed(&more, versions(&[("a", "100")])), Fresh::Yes);
    }

    #[test]
    fn what_goes_while_a_list_is_waited_for_asks_for_another() {
        let mut freshness = Freshness::default();
        let old = world(&["a"], &[("a", "7")]);
        freshness.observe(&old);
        let list = versions(&[("a", "8")]);
        assert_eq!(freshness.listed(&old, list.clone()), Fresh::Awaited);
        let gone = world(&[], &[("a", "8")]);
        assert_eq!(freshness.observe(&gone), Fresh::Unlisted);
        assert_eq!(freshness.listed(&gone, list), Fresh::Yes);
    }

    #[test]
    fn versions_that_are_no_numbers_are_the_same_or_not() {
        assert!(is_as_new("x", "x") && is_as_new("10", "9"));
        assert!(!is_as_new("y", "x") && !is_as_new("9", "10"));
    }
}
