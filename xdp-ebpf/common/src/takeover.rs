//! Flows that are somebody else's: those that kube-proxy had when Weir came to a VIP.
//!
//! Nobody but the stack knows which pod such a flow belongs to, and the pod may know it under another client's address. So it stays
//! there until it ends. While a frontend stands by, all its packets are the stack's, and what may begin a flow is noted: when
//! packets are drawn then, what is noted, with what connection tracking knew before, is all that the stack has.

use crate::{
    abi::{DirectoryEntry, StackFlow, policy},
    hash::Tuple,
    scratch::{Part, Scratch},
    tables::Tables,
};

impl From<&Tuple> for StackFlow {
    #[inline(always)]
    fn from(tuple: &Tuple) -> Self {
        Self {
            client: tuple.source,
            vip: tuple.destination,
            client_port: tuple.source_port.to_ne_bytes(),
            vip_port: tuple.destination_port.to_ne_bytes(),
            protocol: tuple.protocol,
            reserved: [0; 3],
        }
    }
}

/// Whether the packet in `s`, which is for `frontend`, is the stack's.
#[inline(always)]
pub fn is_the_stacks<T: Tables>(tables: &T, s: &Scratch, frontend: &DirectoryEntry) -> bool {
    if frontend.policies & (policy::STANDBY | policy::STACK_FLOWS) == 0 {
        return false;
    }
    let flow = StackFlow::from(&s.tuple());
    if frontend.policies & policy::STANDBY == 0 {
        return tables.stack_flow(&flow);
    }
    if s.part == Part::Packet && (s.transport.udp || s.begins()) {
        tables.note_stack_flow(&flow);
    }
    true
}
