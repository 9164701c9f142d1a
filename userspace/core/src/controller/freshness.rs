//! Whether a snapshot of the Services is new enough to give out what the books say is free.
//!
//! Services and Eips are watched apart, so a snapshot may have an Eip of now and Services of a moment ago. What a book has is
//! safe; what has just gone from one, or is not in the book of an Eip that has just come, may still be shown by a Service of
//! which the snapshot does not know it.

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

/// What of the books has been seen.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    books: BTreeMap<String, Book>,
    stale: bool,
}

impl Freshness {
    /// Looks at a snapshot; gives whether addresses may be given out by it. If not, the Services are to be read from the API
    /// server and compared ([`Freshness::compare`]).
    pub fn observe(&mut self, world: &World) -> bool {
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
        self.stale |= vanished;
        self.books = books;
        !self.stale
    }

    /// Takes the versions of all Services as the API server has them, read after the last [`Freshness::observe`]; from now on
    /// addresses may be given out if they are those of the snapshot. Gives whether they are.
    pub fn compare(&mut self, world: &World, now: &BTreeMap<ServiceKey, String>) -> bool {
        let same = world.services.len() == now.len()
            && world
                .service_versions()
                .all(|(key, version)| now.get(key).is_some_and(|now| now == version));
        self.stale &= !same;
        same
    }
}
