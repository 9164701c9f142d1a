//! A packet for a frontend: choose its backend.
//!
//! Most rows have not changed since their flows began, and their packets need no state. A row in transition names the
//! backend it had before; [`crate::forward`] finds out which of the two a flow belongs to.

use crate::{
    abi::{BACKEND_LOCAL, Config, DirectoryEntry, protocol},
    cache, hash, parse,
    tables::{Scratch, Tables, Target},
    verdict::Reason,
};

/// Fills in who is to get the packet in `s`, which is for `frontend`; `Err` when nobody is.
#[inline(always)]
pub fn choose<T: Tables>(
    tables: &T,
    config: &Config,
    s: &mut Scratch,
    frontend: &DirectoryEntry,
) -> Result<(), Reason> {
    let tuple = parse::tuple(&s.ip, &s.transport);
    let rows = frontend.rows;
    s.hash = hash::tuple(config.selection_seed, &tuple);
    s.tunneled = false;
    let nobody = Reason::NoBackend;
    let row = tables
        .row(rows.base.wrapping_add(s.hash as u32 & rows.mask))
        .ok_or(nobody)?;
    tables.count_frontend(frontend.id, s.ip.len as u64, s.transport.is_bare_syn());

    let (mut chosen, mut previous) = (row.current, row.previous);
    if chosen == 0 {
        // Nobody takes new flows; what drains keeps those it has.
        if s.transport.udp || s.transport.is_bare_syn() {
            return Err(nobody);
        }
        (chosen, previous) = (previous, 0);
    }
    if previous != 0 {
        match cache::lookup(tables, config, &tuple) {
            Some(noted) if noted == chosen => previous = 0,
            // A client that opens a connection anew from an old one's port must not be held to a backend that takes no
            // new flows; which of the two it means, the backends' nodes know.
            Some(_) if s.transport.is_bare_syn() => cache::forget(tables, config, &tuple),
            Some(noted) if noted == previous => (chosen, previous) = (previous, 0),
            Some(_) => {}
            None if s.transport.is_bare_syn() => cache::insert(tables, config, &tuple, chosen),
            None => {}
        }
    }
    aim(tables, previous, &mut s.previous);
    if aim(tables, chosen, &mut s.chosen) {
        Ok(())
    } else {
        Err(nobody)
    }
}

/// Makes `target` the backend with this id; nowhere, and false, if there is none.
#[inline(always)]
fn aim<T: Tables>(tables: &T, id: u32, target: &mut Target) -> bool {
    target.place = Target::NOWHERE;
    if id == 0 {
        return false;
    }
    let Some(backend) = tables.backend(id) else {
        return false;
    };
    if backend.protocol == protocol::ANY {
        return false;
    }
    target.id = id;
    backend.address.copy_to(&mut target.address);
    target.port = u16::from_ne_bytes(backend.port);
    target.place = if backend.flags & BACKEND_LOCAL != 0 {
        Target::HERE
    } else {
        backend.node
    };
    true
}
