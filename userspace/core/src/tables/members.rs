//! What the table of a frontend was computed from.

use super::{
    backends::Backends,
    rendezvous::{self, Member},
    wanted::members,
};
use crate::plan::Frontend;
use std::sync::Arc;

/// All that a table depends on.
#[derive(Debug)]
pub(super) struct Members {
    /// The plan's own, whose backends they are.
    of: Arc<Frontend>,
    pub size: usize,
    /// None was left out.
    complete: bool,
}

impl Members {
    /// The owner of each row in a table of this size, and what that follows from; members without an id are left out.
    pub fn choose(of: &Arc<Frontend>, size: usize, backends: &Backends) -> (Vec<u32>, Self) {
        let wanted = members(of);
        let with_id = wanted.iter().filter_map(|&(key, weight)| {
            let id = backends.id(&key)?;
            Some(Member { key, weight, id })
        });
        let found: Vec<Member> = with_id.collect();
        let members = Self {
            of: of.clone(),
            size,
            complete: found.len() == wanted.len(),
        };
        (rendezvous::table(&found, size), members)
    }

    /// Whether it is that of these members, none left out.
    pub fn is(&self, of: &Arc<Frontend>, size: usize) -> bool {
        let same = || Arc::ptr_eq(&self.of, of) || members(&self.of) == members(of);
        self.complete && self.size == size && same()
    }

    /// The same of a frontend with the same members, so that the former one is not kept.
    pub fn become_of(&mut self, of: &Arc<Frontend>) {
        self.of = of.clone();
    }
}
