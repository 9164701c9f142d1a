//! Whose segments are a known flow's, by their numbers: the client's first acknowledgment, and where its stream is.
//!
//! The flow is begun at the backend on this node, and asked for by way of a row that this node took over: who knows it
//! delivers, who does not asks the backend that had the row.

use super::transition::{arrived, asked, delivered};
use super::{CLIENT_PORT, Case, Step, begun, data, leaving, left, syn};
use crate::packets::frames::{Ip, Tcp, flag};
use crate::packets::world::{self, Family, Protocol, Target};

/// The cases of one family.
pub(super) fn cases(family: Family) -> Vec<Case> {
    let mut cases = answers(family);
    cases.extend(streams(family));
    cases
}

/// Data by way of the row that changed.
fn later() -> Tcp {
    data(world::MOVED_HERE.port)
}

fn known(text: &str, family: Family, segment: &Tcp) -> Case {
    delivered(&format!("numbers, {text}"), family, segment, Target::Local)
}

fn unknown(text: &str, family: Family, segment: &Tcp) -> Case {
    asked(&format!("numbers, {text}"), family, segment)
}

/// A segment of the backend on this node.
fn replied(family: Family, segment: impl Fn(Tcp) -> Tcp, flags: u8) -> Step {
    let pod = Target::Local.backend(family, Protocol::Tcp);
    let segment = segment(Tcp::new(pod.port(), CLIENT_PORT, flags));
    left(leaving().carry(&Ip::between(pod.ip(), family.client()).carry(&segment)))
}

/// The backend's answer to a SYN, which a client acknowledges with `acknowledgment`.
fn answer(family: Family, acknowledgment: u32) -> Step {
    let sequence = acknowledgment.wrapping_sub(1);
    replied(family, |answer| answer.sequence(sequence), flag::SYN | flag::ACK)
}

/// A backend under a flood keeps nothing of a SYN, and answers its repetition with another number (RFC 4987 §3.6).
fn answers(family: Family) -> Vec<Case> {
    const FIRST: u32 = 0xffff_fff0;
    const SECOND: u32 = 0x7070_0001;
    const THIRD: u32 = 0x3131_0001;
    let opened = |answers: &[u32]| -> Vec<Step> {
        let syn = arrived(family, &syn(world::LOCAL.port));
        let answers = answers.iter().map(|&number| answer(family, number));
        std::iter::once(syn).chain(answers).collect()
    };
    let acknowledging = |number| later().acknowledging(number);
    vec![
        known("the first of two answers", family, &acknowledging(FIRST)).after(opened(&[FIRST, SECOND])),
        known("the second of two answers", family, &acknowledging(SECOND)).after(opened(&[FIRST, SECOND])),
        known("the first answer, the second repeated", family, &acknowledging(FIRST))
            .after(opened(&[FIRST, SECOND, SECOND, SECOND])),
        known(
            "an answer with data",
            family,
            &acknowledging(FIRST.wrapping_add(0x8000)),
        )
        .after(opened(&[FIRST])),
        unknown("the first of three answers", family, &acknowledging(FIRST)).after(opened(&[FIRST, SECOND, THIRD])),
        unknown("neither of two answers", family, &acknowledging(THIRD)).after(opened(&[FIRST, SECOND])),
        unknown("far beyond an answer", family, &acknowledging(SECOND + 0x2_0000)).after(opened(&[FIRST, SECOND])),
        unknown("less than an answer", family, &acknowledging(SECOND - 2)).after(opened(&[FIRST, SECOND])),
        // The numbers of an entry that begins again are not the former connection's.
        unknown("an answer to an earlier connection", family, &acknowledging(FIRST))
            .after(opened(&[FIRST]))
            .after([replied(family, |segment| segment, flag::RST)])
            .after(opened(&[SECOND])),
    ]
}

/// A client that vanished leaves a flow behind that nothing ends; another connection from its port is somewhere else.
fn streams(family: Family) -> Vec<Case> {
    let first = later().sequence;
    let from = |sequence: u32| later().sequence(sequence);
    let at = |sequence: u32| arrived(family, &data(world::LOCAL.port).sequence(sequence));
    // The segment that proves the flow says where it is.
    let open = |sequence| {
        [
            begun(family, world::LOCAL.port, Target::Local).to_vec(),
            vec![at(sequence)],
        ]
        .concat()
    };
    let acknowledged = |number: u32| replied(family, move |segment| segment.acknowledging(number), flag::ACK);
    let far = first.wrapping_add(1 << 31);
    let end = 0xffff_fff0_u32;
    vec![
        known("the same again", family, &from(first)).after(open(first)),
        known("a window ahead", family, &from(first + (1 << 30))).after(open(first)),
        known("late", family, &from(first.wrapping_sub(1 << 27))).after(open(first)),
        known("a little beyond the end of all numbers", family, &from(16)).after(open(end)),
        known("a little before the end of all numbers", family, &from(end)).after(open(16)),
        unknown("far away", family, &from(far)).after(open(first)),
        unknown("far behind", family, &from(first.wrapping_sub(1 << 29))).after(open(first)),
        unknown("far away, after days", family, &from(far))
            .after(open(first))
            .after([Step::Later(90_000)]),
        known("the next after days", family, &from(first))
            .after(open(first))
            .after([Step::Later(90_000)]),
        // What is far away changes nothing.
        known("the same after a far reset", family, &from(first))
            .after(open(first))
            .after([arrived(
                family,
                &Tcp::new(CLIENT_PORT, world::LOCAL.port, flag::RST).sequence(far),
            )]),
        known("the same after a far end", family, &from(first))
            .after(open(first))
            .after([arrived(
                family,
                &Tcp::new(CLIENT_PORT, world::LOCAL.port, flag::FIN | flag::ACK).sequence(far),
            )]),
        // The backend says where the stream is.
        known("where the backend is", family, &from(far))
            .after(open(first))
            .after([acknowledged(far)]),
        unknown("where the backend was long ago", family, &from(first))
            .after(open(first))
            .after([acknowledged(far)]),
        known("a new connection that the backend took", family, &from(far + 1))
            .after(open(first))
            .after([
                arrived(family, &syn(world::LOCAL.port).sequence(far)),
                replied(
                    family,
                    move |answer| answer.acknowledging(far + 1),
                    flag::SYN | flag::ACK,
                ),
            ]),
        known("anywhere, of a flow taken up late", family, &from(far))
            .after([at(first)])
            .after([acknowledged(far)]),
    ]
}
