//! Walks `FLOWS` as it is now: how many flows are in which state, and which of this node's pods have any.
//!
//! Only reads, and part by part: what is mapped counts as the agent's memory, and the table is large.

use super::{error::Error, fill, mapped::Mapped, pins::PinDir};
use std::{
    collections::{BTreeSet, HashSet},
    mem::offset_of,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use weir_common::abi::{Address, Config, FLOW_WAYS, Flow, FlowBucket, flow_state};
use weir_core::tables::LivePod;

/// Words of a [`Flow`]: all, those of the pod, the control word, and the time.
const WORDS: usize = size_of::<Flow>() / 8;
const POD: usize = offset_of!(Flow, pod) / 8;
const CONTROL: usize = offset_of!(Flow, client_port) / 8;
const TIME: usize = offset_of!(Flow, last_seen) / 8;

/// What is in `FLOWS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows within their time limit, by [`flow_state`].
    pub live: [u64; STATES.len()],
    /// Flows beyond it: their places are free for others.
    pub expired: u64,
    /// Room, in flows.
    pub capacity: u64,
    /// Pods that have a flow which is live and not closed.
    pub pods: BTreeSet<LivePod>,
}

/// Every state that a flow is counted in, with its name.
pub const STATES: [(u8, &str); 9] = [
    (flow_state::OPENING, "opening"),
    (flow_state::ANSWERED, "answered"),
    (flow_state::ESTABLISHED, "established"),
    (flow_state::CLIENT_CLOSED, "client_closed"),
    (flow_state::BACKEND_CLOSED, "backend_closed"),
    (flow_state::CLOSED, "closed"),
    (flow_state::RESET, "reset"),
    (flow_state::UDP_OPENING, "udp_opening"),
    (flow_state::UDP, "udp"),
];

impl Swept {
    /// Live flows of all states.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.live.iter().sum()
    }
}

/// Walks the table pinned under `pin_dir`, at tick `now`.
///
/// # Errors
///
/// [`Error::Map`], [`Error::ValueSize`], [`Error::Mmap`].
pub fn sweep(pin_dir: &Path, config: &Config, now: u32) -> Result<Swept, Error> {
    walk(fill::windows(&PinDir::new(pin_dir), "FLOWS")?.parts(), config, now)
}

fn walk(
    parts: impl Iterator<Item = Result<Mapped<FlowBucket>, Error>>,
    config: &Config,
    now: u32,
) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    let mut pods = HashSet::new();
    for part in parts {
        count(&part?, config, now, &mut swept, &mut pods)?;
    }
    swept.pods = pods.into_iter().map(pod).collect();
    Ok(swept)
}

fn count(
    flows: &Mapped<FlowBucket>,
    config: &Config,
    now: u32,
    swept: &mut Swept,
    pods: &mut HashSet<[u64; 3]>,
) -> Result<(), Error> {
    swept.capacity += u64::from(flows.entries()) * FLOW_WAYS as u64;
    for index in 0..flows.entries() {
        for words in flows.words(index)?.chunks_exact(WORDS) {
            let control = load(words, CONTROL);
            let [_, _, port_high, port_low, _, _, protocol, state] = control.to_ne_bytes();
            let Some(number) = STATES.iter().position(|(known, _)| *known == state) else {
                continue;
            };
            if is_expired(config, state, now.wrapping_sub(load(words, TIME) as u32)) {
                swept.expired += 1;
                continue;
            }
            if let Some(count) = swept.live.get_mut(number) {
                *count += 1;
            }
            if state != flow_state::CLOSED {
                let socket = u64::from_ne_bytes([port_high, port_low, protocol, 0, 0, 0, 0, 0]);
                pods.insert([load(words, POD), load(words, POD + 1), socket]);
            }
        }
    }
    Ok(())
}

fn pod([high, low, socket]: [u64; 3]) -> LivePod {
    let [port_high, port_low, protocol, ..] = socket.to_ne_bytes();
    LivePod {
        address: Address::from_words([high, low]),
        port: [port_high, port_low],
        protocol,
    }
}

fn is_expired(config: &Config, state: u8, age: u32) -> bool {
    let limit = match state {
        flow_state::OPENING | flow_state::ANSWERED => config.half_open_ticks,
        flow_state::CLOSED | flow_state::RESET => config.closed_ticks,
        flow_state::UDP | flow_state::UDP_OPENING => config.udp_ticks,
        _ => config.established_ticks,
    };
    // What another CPU noted meanwhile may be a tick ahead: not old but new.
    age <= u32::MAX / 2 && age > limit
}

fn load(words: &[AtomicU64], position: usize) -> u64 {
    words.get(position).map_or(0, |word| word.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::bpf::mapped::tests::anonymous;
    use weir_common::abi::protocol;

    const NOW: u32 = 100_000;
    const CONFIG: Config = Config {
        half_open_ticks: 10,
        closed_ticks: 20,
        udp_ticks: 30,
        established_ticks: 50_000,
        ..bytemuck::must_cast([0_u64; size_of::<Config>() / 8])
    };

    fn flow(pod: u8, state: u8, age: u32) -> Flow {
        Flow {
            client: Address::from_v4([192, 0, 2, 1]),
            pod: Address::from_v4([10, 0, 0, pod]),
            pod_port: 8080_u16.to_be_bytes(),
            protocol: protocol::TCP,
            state,
            last_seen: NOW.wrapping_sub(age),
            ..Flow::default()
        }
    }

    fn swept(flows: &[Flow]) -> Swept {
        let mut map = anonymous::<FlowBucket>(4);
        for (index, group) in flows.chunks(FLOW_WAYS).enumerate() {
            let mut bucket = FlowBucket::default();
            bucket.flows[..group.len()].copy_from_slice(group);
            let words: [u64; WORDS * FLOW_WAYS] = bytemuck::must_cast(bucket);
            map.store(index as u32, &words).unwrap();
        }
        walk([Ok(map)].into_iter(), &CONFIG, NOW).unwrap()
    }

    #[test]
    fn flows_are_counted_by_state_and_old_ones_apart() {
        let swept = swept(&[
            flow(1, flow_state::OPENING, 10),
            flow(1, flow_state::OPENING, 11),
            flow(1, flow_state::ESTABLISHED, 49_999),
            flow(1, flow_state::ESTABLISHED, 50_001),
            flow(1, flow_state::BUSY, 0),
            flow(1, flow_state::UDP, 0),
            flow(1, flow_state::CLOSED, 0),
        ]);
        assert_eq!(swept.live, [1, 0, 1, 0, 0, 1, 0, 0, 1]);
        assert_eq!((swept.total(), swept.expired, swept.capacity), (4, 2, 16));
    }

    #[test]
    fn pods_with_flows_that_go_on_are_named_once() {
        let swept = swept(&[
            flow(1, flow_state::ESTABLISHED, 0),
            flow(1, flow_state::ESTABLISHED, 5),
            flow(2, flow_state::CLOSED, 0),
            flow(3, flow_state::ESTABLISHED, 60_000),
            flow(4, flow_state::BACKEND_CLOSED, 0),
        ]);
        let pods: Vec<u8> = swept.pods.iter().map(|pod| pod.address.octets[15]).collect();
        assert_eq!(pods, [1, 4]);
        assert!(
            swept
                .pods
                .iter()
                .all(|pod| pod.port == 8080_u16.to_be_bytes() && pod.protocol == protocol::TCP)
        );
    }

    #[test]
    fn a_clock_a_tick_ahead_makes_nothing_old() {
        assert_eq!(swept(&[flow(1, flow_state::OPENING, u32::MAX)]).total(), 1);
    }
}
