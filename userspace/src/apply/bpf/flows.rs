//! Moves flows from one `FLOWS` map into another of a different capacity, seed or layout, while packets pass.
//!
//! An entry holds everything its two buckets follow from, so it can be placed again under any mask and seed. The new
//! program may write the new map at the same time: places are taken by compare-and-swap of the control word, as
//! `weir_common::flows` does. When both buckets are full of flows worth as much, the flow is lost and counted.

use super::{error::Error, mapped::Mapped};
use std::sync::atomic::{AtomicU64, Ordering};
use weir_common::{
    abi::{FLOW_WAYS, Flow, FlowBucket, flow_state},
    hash::Tuple,
};

/// Words of a [`Flow`], and the one that is claimed and published.
const WORDS: usize = size_of::<Flow>() / 8;
const CONTROL: usize = 6;
/// The one with the times, see [`Flow`].
const TIME: usize = 7;
/// The control word without state and VIP port: who the flow belongs to.
const IDENTITY: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0]);

/// How an entry is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The flow in an entry's words; `None` when there is none, or somebody is writing it.
    pub flow: fn(&[u64; WORDS]) -> Option<Flow>,
}

impl Reading {
    /// An entry of our own layout.
    pub const OURS: Self = Self { flow: ours };
}

fn ours(words: &[u64; WORDS]) -> Option<Flow> {
    let flow: Flow = bytemuck::must_cast(*words);
    (flow.state >= flow_state::OPENING).then_some(flow)
}

/// What became of the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Flows put into the new map now.
    pub placed: usize,
    /// Flows for which there was no room.
    pub lost: usize,
}

/// Puts every flow of `old`, read by `reading`, into `new`, whose buckets are named under `seed`, unless it is there
/// already.
///
/// # Errors
///
/// None that a correct capacity does not exclude: [`Error::OutOfBounds`].
pub fn copy(old: &Mapped<FlowBucket>, reading: Reading, new: &Mapped<FlowBucket>, seed: u64) -> Result<Moved, Error> {
    let mut moved = Moved::default();
    for index in 0..old.entries() {
        for entry in old.words(index)?.chunks_exact(WORDS) {
            let Some(mut flow) = snapshot(entry).as_ref().and_then(reading.flow) else {
                continue;
            };
            // The former program goes on meanwhile, and streams with it: whoever takes over learns anew where they are.
            if flow.state != flow_state::ANSWERED {
                flow.number = 0;
            }
            match place(&flow, new, seed)? {
                Some(true) => moved.placed += 1,
                Some(false) => {}
                None => moved.lost += 1,
            }
        }
    }
    Ok(moved)
}

/// Every flow of `map` that is not being written, as it is now.
pub(super) fn present(map: &Mapped<FlowBucket>) -> impl Iterator<Item = Flow> {
    let buckets = (0..map.entries()).filter_map(|index| map.words(index).ok());
    buckets
        .flat_map(|words| words.chunks_exact(WORDS))
        .filter_map(|entry| snapshot(entry).as_ref().and_then(ours))
}

/// The words of an entry, all of the same flow; `None` when it keeps changing.
fn snapshot(entry: &[AtomicU64]) -> Option<[u64; WORDS]> {
    // A live flow changes its state now and then, and must not be left behind for that.
    const ATTEMPTS: usize = 4;
    (0..ATTEMPTS).find_map(|_| {
        let control = load(entry, CONTROL);
        let words = std::array::from_fn(|position| load(entry, position));
        unchanged(&words, control, load(entry, CONTROL)).then_some(words)
    })
}

/// Whether words copied between two looks at the control word are of one flow in one state.
fn unchanged(words: &[u64; WORDS], before: u64, after: u64) -> bool {
    before == after && words.get(CONTROL) == Some(&before)
}

/// `Some(true)` when placed, `Some(false)` when it was there, `None` when there is no room.
fn place(flow: &Flow, new: &Mapped<FlowBucket>, seed: u64) -> Result<Option<bool>, Error> {
    // The packet path may take the place that was chosen.
    const ATTEMPTS: usize = 8;
    for _ in 0..ATTEMPTS {
        match attempt(flow, new, seed)? {
            Attempt::Lost => {}
            Attempt::Over(outcome) => return Ok(outcome),
        }
    }
    Ok(None)
}

enum Attempt {
    /// Somebody else was faster.
    Lost,
    Over(Option<bool>),
}

fn attempt(flow: &Flow, new: &Mapped<FlowBucket>, seed: u64) -> Result<Attempt, Error> {
    let words: [u64; WORDS] = bytemuck::must_cast(*flow);
    let wanted = words.get(CONTROL).copied().unwrap_or_default();
    let mut best: Option<(&[AtomicU64], u64)> = None;
    for index in buckets(flow, seed, new.entries().saturating_sub(1)) {
        for entry in new.words(index)?.chunks_exact(WORDS).take(FLOW_WAYS) {
            let control = load(entry, CONTROL);
            if state(control) >= flow_state::OPENING && same_flow(entry, &words) {
                return Ok(follow(entry, control, &words));
            }
            if best.is_none_or(|(_, other)| worth(control) < worth(other)) {
                best = Some((entry, control));
            }
        }
    }
    let Some((entry, control)) = best.filter(|(_, control)| worth(*control) < worth(wanted)) else {
        return Ok(Attempt::Over(None));
    };
    if !swap(entry, control, with_state(control, flow_state::BUSY)) {
        return Ok(Attempt::Lost);
    }
    for (position, (word, value)) in entry.iter().zip(words).enumerate() {
        if position != CONTROL {
            word.store(value, Ordering::Release);
        }
    }
    if let Some(guard) = entry.get(CONTROL) {
        guard.store(wanted, Ordering::Release);
    }
    Ok(Attempt::Over(Some(true)))
}

/// The flow is there already, and may have been proven in the old map since it was copied. Whatever else the new map says
/// is newer: its flow may have ended, or begun again.
fn follow(entry: &[AtomicU64], control: u64, words: &[u64; WORDS]) -> Attempt {
    let wanted = words.get(CONTROL).copied().unwrap_or_default();
    let unproven = matches!(
        state(control),
        flow_state::OPENING | flow_state::ANSWERED | flow_state::UDP_OPENING
    );
    let proven = matches!(
        state(wanted),
        flow_state::ESTABLISHED | flow_state::CLIENT_CLOSED | flow_state::BACKEND_CLOSED | flow_state::UDP
    );
    if !unproven || !proven {
        return Attempt::Over(Some(false));
    }
    if !swap(entry, control, with_state(control, state(wanted))) {
        return Attempt::Lost;
    }
    if let (Some(time), Some(value)) = (entry.get(TIME), words.get(TIME)) {
        time.store(*value, Ordering::Release);
    }
    Attempt::Over(Some(false))
}

fn swap(entry: &[AtomicU64], from: u64, to: u64) -> bool {
    entry.get(CONTROL).is_some_and(|guard| {
        guard
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    })
}

/// The two buckets that `flow` may be in.
fn buckets(flow: &Flow, seed: u64, mask: u32) -> [u32; 2] {
    let tuple = Tuple {
        source: flow.client,
        destination: flow.pod,
        source_port: u16::from_ne_bytes(flow.client_port),
        destination_port: u16::from_ne_bytes(flow.pod_port),
        protocol: flow.protocol,
    };
    weir_common::flows::buckets(seed, mask, &tuple)
}

fn same_flow(entry: &[AtomicU64], words: &[u64; WORDS]) -> bool {
    let same = |position: usize| words.get(position) == Some(&load(entry, position));
    let control = words.get(CONTROL).copied().unwrap_or_default();
    (0..4).all(same) && load(entry, CONTROL) & IDENTITY == control & IDENTITY
}

fn load(entry: &[AtomicU64], position: usize) -> u64 {
    entry.get(position).map_or(0, |word| word.load(Ordering::Acquire))
}

fn state(control: u64) -> u8 {
    let [.., state] = control.to_ne_bytes();
    state
}

fn with_state(control: u64, state: u8) -> u64 {
    let [a, b, c, d, e, f, g, _] = control.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, state])
}

/// How dear an entry is; one that is being written is the packet path's.
fn worth(control: u64) -> u8 {
    match state(control) {
        flow_state::FREE => 0,
        flow_state::OPENING | flow_state::UDP_OPENING => 1,
        flow_state::ANSWERED => 2,
        flow_state::CLOSED | flow_state::RESET => 3,
        flow_state::UDP => 4,
        flow_state::BUSY => u8::MAX,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::bpf::mapped::tests::anonymous;
    use weir_common::abi::{Address, protocol};

    fn flow(number: u16, state: u8) -> Flow {
        Flow {
            client: Address::from_v4([192, 0, 2, 1]),
            pod: Address::from_v4([10, 0, 0, 1]),
            vip: Address::from_v4([10, 10, 1, 2]),
            client_port: number.to_be_bytes(),
            pod_port: 8080_u16.to_be_bytes(),
            vip_port: 80_u16.to_be_bytes(),
            protocol: protocol::TCP,
            state,
            last_seen: 7,
            number: 0,
        }
    }

    fn fill(map: &mut Mapped<FlowBucket>, flows: &[Flow]) {
        for (index, group) in flows.chunks(FLOW_WAYS).enumerate() {
            let mut bucket = FlowBucket::default();
            bucket.flows[..group.len()].copy_from_slice(group);
            let words: [u64; WORDS * FLOW_WAYS] = bytemuck::must_cast(bucket);
            map.store(index as u32, &words).unwrap();
        }
    }

    fn all(map: &Mapped<FlowBucket>) -> Vec<Flow> {
        (0..map.entries())
            .flat_map(|index| map.load(index).unwrap().flows)
            .filter(|flow| flow.state != flow_state::FREE)
            .collect()
    }

    #[test]
    fn flows_move_once_and_land_where_the_packet_path_looks() {
        let flows: Vec<Flow> = (0..40).map(|number| flow(number, flow_state::ESTABLISHED)).collect();
        let mut old = anonymous(16);
        fill(&mut old, &flows);
        let new = anonymous(64);
        assert_eq!(
            copy(&old, Reading::OURS, &new, 9).unwrap(),
            Moved { placed: 40, lost: 0 }
        );
        assert_eq!(
            copy(&old, Reading::OURS, &new, 9).unwrap(),
            Moved { placed: 0, lost: 0 }
        );
        assert_eq!(all(&new).len(), 40);
        for index in 0..new.entries() {
            for flow in new
                .load(index)
                .unwrap()
                .flows
                .iter()
                .filter(|flow| flow.state != flow_state::FREE)
            {
                assert!(buckets(flow, 9, 63).contains(&index));
            }
        }
    }

    #[test]
    fn where_a_stream_is_does_not_come_along_but_what_an_answer_wants_does() {
        let (mut old, new) = (anonymous(16), anonymous(64));
        let numbered = |number, state| Flow {
            number: 7,
            ..flow(number, state)
        };
        let answered = numbered(2, flow_state::ANSWERED);
        fill(&mut old, &[numbered(1, flow_state::ESTABLISHED), answered]);
        copy(&old, Reading::OURS, &new, 9).unwrap();
        let mut copied = all(&new);
        copied.sort_by_key(|flow| flow.number);
        assert_eq!(copied, [flow(1, flow_state::ESTABLISHED), answered]);
    }

    #[test]
    fn what_was_proven_since_it_was_copied_is_proven_in_the_copy() {
        let (mut old, new) = (anonymous(16), anonymous(64));
        fill(&mut old, &[flow(1, flow_state::OPENING)]);
        copy(&old, Reading::OURS, &new, 9).unwrap();
        let mut later = flow(1, flow_state::ESTABLISHED);
        later.last_seen += 7;
        let mut old = anonymous(16);
        fill(&mut old, &[later]);
        copy(&old, Reading::OURS, &new, 9).unwrap();
        assert_eq!(all(&new), [later]);
        fill(&mut anonymous(16), &[flow(1, flow_state::OPENING)]);
        copy(&old, Reading::OURS, &new, 9).unwrap();
        assert_eq!(all(&new), [later], "and stays so");
    }

    #[test]
    fn what_ended_or_began_again_since_it_was_copied_stays_so() {
        for (then, now) in [
            (flow_state::ESTABLISHED, flow_state::CLOSED),
            (flow_state::ESTABLISHED, flow_state::RESET),
            (flow_state::CLOSED, flow_state::OPENING),
            (flow_state::CLOSED, flow_state::ANSWERED),
        ] {
            let (mut old, mut new) = (anonymous(16), anonymous(16));
            fill(&mut old, &[flow(1, then)]);
            let mut later = flow(1, now);
            later.last_seen += 7;
            fill(&mut new, &[later]);
            // Placed as the packet path would place it.
            let there = anonymous(64);
            copy(&new, Reading::OURS, &there, 9).unwrap();
            copy(&old, Reading::OURS, &there, 9).unwrap();
            assert_eq!(all(&there), [later]);
        }
    }

    #[test]
    fn answered_floods_do_not_push_out_flows() {
        let flood: Vec<Flow> = (0..8).map(|number| flow(number, flow_state::ANSWERED)).collect();
        let flows: Vec<Flow> = (100..104)
            .map(|number| flow(number, flow_state::BACKEND_CLOSED))
            .collect();
        let new = anonymous(1);
        for flows in [&flows, &flood] {
            let mut old = anonymous(4);
            fill(&mut old, flows);
            copy(&old, Reading::OURS, &new, 9).unwrap();
        }
        assert!(all(&new).iter().all(|flow| flow.state == flow_state::BACKEND_CLOSED));
    }

    #[test]
    fn established_flows_push_out_half_open_ones_and_never_each_other() {
        let half_open: Vec<Flow> = (0..8).map(|number| flow(number, flow_state::OPENING)).collect();
        let established: Vec<Flow> = (100..110).map(|number| flow(number, flow_state::ESTABLISHED)).collect();
        let new = anonymous(1);
        let mut old = anonymous(4);
        fill(&mut old, &half_open);
        assert_eq!(
            copy(&old, Reading::OURS, &new, 9).unwrap(),
            Moved { placed: 4, lost: 4 }
        );
        fill(&mut old, &established);
        assert_eq!(
            copy(&old, Reading::OURS, &new, 9).unwrap(),
            Moved { placed: 4, lost: 6 }
        );
        assert!(all(&new).iter().all(|flow| flow.state == flow_state::ESTABLISHED));
    }

    #[test]
    fn what_changed_while_it_was_copied_is_not_taken() {
        let [one, other] = [1, 2].map(|number| bytemuck::must_cast(flow(number, flow_state::ESTABLISHED)));
        let [before, after] = [one, other].map(|words: [u64; WORDS]| words[CONTROL]);
        assert!(unchanged(&one, before, before));
        assert!(!unchanged(&one, before, after));
        assert!(!unchanged(&other, before, before));
    }

    #[test]
    fn free_and_half_written_entries_stay_behind() {
        let mut old = anonymous(4);
        fill(
            &mut old,
            &[
                flow(1, flow_state::FREE),
                flow(2, flow_state::BUSY),
                flow(3, flow_state::UDP),
            ],
        );
        let new = anonymous(8);
        assert_eq!(
            copy(&old, Reading::OURS, &new, 9).unwrap(),
            Moved { placed: 1, lost: 0 }
        );
    }
}
