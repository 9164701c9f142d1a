//! Layout version 1, as far as a later agent reads it. It changes no more, so nothing here follows the ABI of today.

use super::Former;
use bytemuck::{Pod, Zeroable};
use std::mem::offset_of;
use weir_common::abi::{self, Address, flow_state};

/// What is taken over from it.
pub const LAYOUT: Former = Former {
    version: 1,
    flow,
    carried: &[
        "BACKENDS",
        "DIRECTORY",
        "DISPLACEMENT",
        "FILTER",
        "NODES",
        "RESPONDERS",
        "ROWS",
    ],
};

/// An entry of `FLOWS`; `FLOWS` was an array of buckets of four.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
struct Flow {
    client: [u8; 16],
    pod: [u8; 16],
    vip: [u8; 16],
    client_port: [u8; 2],
    pod_port: [u8; 2],
    vip_port: [u8; 2],
    protocol: u8,
    state: u8,
    /// In ticks of 64 jiffies, as today.
    last_seen: u32,
    reserved: u32,
}

// Entries of today are read and written by the same words.
const _: () = assert!(size_of::<Flow>() == size_of::<abi::Flow>());
const _: () = assert!(offset_of!(Flow, client_port) == offset_of!(abi::Flow, client_port));

mod state {
    pub const HALF_OPEN: u8 = 2;
    pub const ESTABLISHED: u8 = 3;
    /// RST, or FIN from either end.
    pub const CLOSED: u8 = 4;
    pub const UDP: u8 = 5;
}

fn flow(words: &[u64; 8]) -> Option<abi::Flow> {
    let old: Flow = bytemuck::must_cast(*words);
    let state = match old.state {
        state::HALF_OPEN => flow_state::OPENING,
        state::ESTABLISHED => flow_state::ESTABLISHED,
        state::CLOSED => flow_state::CLOSED,
        state::UDP => flow_state::UDP,
        _ => return None,
    };
    let address = |bytes: [u8; 16]| bytemuck::must_cast::<[u8; 16], Address>(bytes);
    Some(abi::Flow {
        client: address(old.client),
        pod: address(old.pod),
        vip: address(old.vip),
        client_port: old.client_port,
        pod_port: old.pod_port,
        vip_port: old.vip_port,
        protocol: old.protocol,
        state,
        last_seen: old.last_seen,
        ..abi::Flow::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte, as version 1 wrote it.
    fn entry(state: u8) -> [u64; 8] {
        let mut bytes = [0_u8; 64];
        bytes[..16].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes[16..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 11]);
        bytes[32..48].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 10, 1, 2]);
        bytes[48..56].copy_from_slice(&[0xc0, 1, 0x1f, 0x90, 0, 80, 6, state]);
        bytes[56..60].copy_from_slice(&77_u32.to_ne_bytes());
        bytemuck::must_cast(bytes)
    }

    #[test]
    fn a_flow_comes_over_field_by_field() {
        let flow = flow(&entry(3)).unwrap();
        assert_eq!(flow.pod, Address::from_v4([10, 244, 1, 11]));
        assert_eq!(flow.vip, Address::from_v4([10, 10, 1, 2]));
        assert_eq!(bytemuck::bytes_of(&flow.client)[..4], [0x20, 1, 0xd, 0xb8]);
        assert_eq!(flow.client_port, [0xc0, 1]);
        assert_eq!(
            (flow.pod_port, flow.vip_port),
            (8080_u16.to_be_bytes(), 80_u16.to_be_bytes())
        );
        assert_eq!((flow.protocol, flow.state), (6, flow_state::ESTABLISHED));
        assert_eq!((flow.last_seen, flow.number), (77, 0));
    }

    #[test]
    fn states_keep_their_meaning_and_what_is_no_flow_stays_behind() {
        let states = (0..=6).map(|state| flow(&entry(state)).map(|flow| flow.state));
        let expected = [
            None,
            None,
            Some(flow_state::OPENING),
            Some(flow_state::ESTABLISHED),
            Some(flow_state::CLOSED),
            Some(flow_state::UDP),
            None,
        ];
        assert_eq!(states.collect::<Vec<_>>(), expected);
    }
}
