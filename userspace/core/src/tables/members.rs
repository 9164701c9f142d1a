//! What the table of a frontend was computed from.

use super::{backends::Backends, key::Key, rendezvous::Member};

/// All that a table depends on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Members {
    pub members: Vec<Member>,
    pub size: usize,
}

impl Members {
    /// These, in a table of this size; those without an id are left out.
    pub fn new(members: &[(Key, u32)], size: usize, backends: &Backends) -> Self {
        let member = |&(key, weight): &(Key, u32)| {
            Some(Member {
                key,
                weight,
                id: backends.id(&key)?,
            })
        };
        Self {
            members: members.iter().filter_map(member).collect(),
            size,
        }
    }

    /// Whether it is that of these members, none left out.
    pub fn is(&self, members: &[(Key, u32)], size: usize) -> bool {
        let same = |(held, wanted): (&Member, &(Key, u32))| (held.key, held.weight) == *wanted;
        self.size == size && self.members.len() == members.len() && self.members.iter().zip(members).all(same)
    }
}
