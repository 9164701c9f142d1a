//! Mutants of a golden case: its frame cut at every length, and with every byte changed in several ways.

use super::cases::Case;
use super::check::rewrites;
use super::frames::checksum;
use super::runner::{Outcome, Program};
use anyhow::ensure;
use weir_common::verdict::{Action, Reason};

/// What a byte is XORed with: the lowest bit, one in the middle, the highest, all.
const PATTERNS: [u8; 4] = [0x01, 0x08, 0x80, 0xff];
/// No header reaches so far into a frame of the table; what is beyond is all payload, of which the last bytes stand for
/// the rest.
const HEADERS: usize = 240;

/// Frames longer than this, which fill several buffers, are cut at samples of the lengths beyond it.
const FULL_SIZE: usize = 1_600;

/// A changed frame and what was done to it.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The frame.
    pub frame: Vec<u8>,
    /// What was done.
    pub change: Change,
}

/// What was done to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Cut to this length.
    Cut(usize),
    /// The byte at this offset XORed with this.
    Flip(usize, u8),
}

/// The mutants of a frame.
pub fn mutants(frame: &[u8]) -> impl Iterator<Item = Mutant> {
    let length = frame.len();
    let lengths = (0..length).filter(move |&cut| cut < FULL_SIZE || cut + 64 > length || cut % 61 == 0);
    let cuts = lengths.map(|length| Mutant {
        frame: frame[..length].to_vec(),
        change: Change::Cut(length),
    });
    let offsets = (0..length).filter(move |&at| at < HEADERS || at + 4 >= length);
    let flips = offsets.flat_map(|at| PATTERNS.map(|pattern| (at, pattern)));
    cuts.chain(flips.map(|(at, pattern)| {
        let mut changed = frame.to_vec();
        changed[at] ^= pattern;
        Mutant {
            frame: changed,
            change: Change::Flip(at, pattern),
        }
    }))
}

/// Whether the kernel's test run takes this frame: an Ethernet header, and for an skb the IP header that it promises.
#[must_use]
pub fn testable(program: Program, frame: &[u8]) -> bool {
    let shortest = match (program, frame.get(12..14)) {
        (Program::Ingress, _) => 14,
        (_, Some([0x08, 0x00])) => 14 + 20,
        (_, Some([0x86, 0xdd])) => 14 + 40,
        _ => 15,
    };
    frame.len() >= shortest
}

/// What holds for every mutant, whatever the verdict.
pub fn check(case: &Case, mutant: &Mutant, outcome: &Outcome) -> anyhow::Result<()> {
    let untouched = outcome.frame == mutant.frame;
    let edits = match outcome.action {
        Action::Pass => rewrites(outcome.reason),
        Action::Drop => false,
        Action::Transmit | Action::Redirect(_) => true,
    };
    ensure!(
        edits || untouched,
        "{:?} because of {}, but changed",
        outcome.action,
        outcome.reason.name()
    );
    ensure!(
        case.program == Program::Ingress || outcome.action == Action::Pass,
        "the egress program does not pass, because of {}",
        outcome.reason.name()
    );
    if matches!(outcome.reason, Reason::Local | Reason::EgressReply) {
        // Right stays right and wrong stays wrong, by the same amount.
        let sums = (residues(&mutant.frame), residues(&outcome.frame));
        ensure!(
            sums.0 == sums.1,
            "the checksums were off by {:?} and are by {:?}",
            sums.0,
            sums.1
        );
    }
    if let Change::Cut(length) = mutant.change {
        // Either the frame is left alone, or only padding was cut and the result is the golden one less that.
        let cut = case.frame.len() - length;
        let kept = match case.reason {
            Reason::NeighborAdvertisement => case.expected.len(),
            _ => case.expected.len().saturating_sub(cut),
        };
        let golden = outcome.reason == case.reason && without_entropy(case, &outcome.frame, kept);
        ensure!(
            untouched || golden,
            "cut, and then rewritten because of {}",
            outcome.reason.name()
        );
    }
    Ok(())
}

/// The ones-complement sums that a receiver makes to check an IP packet: of the IPv4 header, and of the TCP or UDP segment
/// with its pseudo header. Zero and all ones are the same. `None` where there is no checksum, or no plain packet.
fn residues(frame: &[u8]) -> Option<(u16, Option<u16>)> {
    let mut l3 = 14;
    while matches!(frame.get(l3 - 2..l3)?, [0x81, 0x00] | [0x88, 0xa8]) {
        l3 += 4;
    }
    let packet = frame.get(l3..)?;
    let number = |at: usize| {
        packet
            .get(at..at + 2)
            .map(|field| usize::from(u16::from_be_bytes([field[0], field[1]])))
    };
    let (header, addresses, protocol, counted, length) = if packet.first()? >> 4 == 4 {
        (
            usize::from(packet[0] & 0x0f) * 4,
            12..20,
            *packet.get(9)?,
            0,
            number(2)?,
        )
    } else {
        (40, 8..40, *packet.get(6)?, 40, number(4)?)
    };
    // A length of 0 is one beyond 16 bits.
    let end = if length == 0 { packet.len() } else { counted + length };
    let segment = packet.get(header..end)?;
    let sum = |bytes: &[u8]| checksum(bytes) % 0xffff;
    let of_header = if header == 40 { 0 } else { sum(&packet[..header]) };
    // A later fragment has no transport header, and of its datagram's checksum only a part.
    let later = header != 40 && number(6)? & 0x1fff != 0;
    let unchecked = later || protocol == 17 && segment.get(6..8)? == [0, 0];
    if unchecked || !matches!(protocol, 6 | 17) {
        return Some((of_header, None));
    }
    let length = (segment.len() as u32).to_be_bytes();
    let covered = [&packet[addresses], &length, &[0, 0, 0, protocol], segment].concat();
    Some((of_header, Some(sum(&covered))))
}

/// Whether `frame` is the first `kept` bytes of the expected frame, but for what the flow hash chooses.
fn without_entropy(case: &Case, frame: &[u8], kept: usize) -> bool {
    let (mut wanted, mut got) = (case.expected[..kept].to_vec(), frame.to_vec());
    if let Some(l3) = case.outer {
        super::check::blank_entropy(&mut wanted, l3);
        super::check::blank_entropy(&mut got, l3);
    }
    wanted == got
}
