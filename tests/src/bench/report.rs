//! Medians and spreads, as a table, as Markdown and as JSON.

use super::{cases::Case, machine::Machine, measure::Samples};
use serde::Serialize;
use std::fmt::Write;

/// One bench's results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// Rounds per case.
    pub rounds: usize,
    /// Packets per round.
    pub packets: u32,
    /// What.
    pub rows: Vec<Row>,
}

/// One case of one family. All times are nanoseconds per packet.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the case.
    pub case: String,
    /// 4 or 6.
    pub family: u8,
    /// Median over the rounds, harness included.
    pub median_ns: f64,
    /// Distance between the first and the third quartile of the rounds.
    pub spread_ns: f64,
    /// Median of the harness alone, measured in the same rounds.
    pub floor_ns: f64,
    /// The program's share: median less floor.
    pub net_ns: f64,
}

impl Row {
    /// From the rounds of a case.
    #[must_use]
    pub fn new(case: &Case, samples: &Samples) -> Self {
        let median_ns = quantile(&samples.gross, 0.5);
        let floor_ns = quantile(&samples.floor, 0.5);
        Self {
            case: case.name.into(),
            family: if case.family.is_v6() { 6 } else { 4 },
            median_ns,
            spread_ns: quantile(&samples.gross, 0.75) - quantile(&samples.gross, 0.25),
            floor_ns,
            net_ns: median_ns - floor_ns,
        }
    }

    /// In the order of a table's columns.
    fn times(&self) -> [f64; 4] {
        [self.median_ns, self.spread_ns, self.floor_ns, self.net_ns]
    }
}

/// The value below which `share` of the samples lie, between two of them if need be; 0 for none.
pub(super) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

impl Report {
    /// For a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.circumstances());
        text += "case           family  median  spread   floor     net  (ns per packet)\n";
        for row in &self.rows {
            let [median, spread, floor, net] = row.times();
            let _ = writeln!(
                text,
                "{:14} IPv{} {median:8.1}{spread:8.1}{floor:8.1}{net:8.1}",
                row.case, row.family
            );
        }
        text
    }

    fn circumstances(&self) -> String {
        let Self { rounds, packets, .. } = self;
        format!("{}; {rounds} rounds of {packets} packets", self.machine.line())
    }

    /// For the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Nanoseconds per packet\n\nWritten by `cargo xtask bench packet`. {}.\n\n{METHOD}\n",
            self.circumstances()
        );
        text += "| case | family | median | spread | floor | net |\n|---|---|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let [median, spread, floor, net] = row.times();
            let _ = writeln!(
                text,
                "| {} | IPv{} | {median:.1} | {spread:.1} | {floor:.1} | **{net:.1}** |",
                row.case, row.family
            );
        }
        text
    }
}

const METHOD: &str = "\
The kernel runs the program on one frame again and again (`BPF_PROG_TEST_RUN`) and tells the mean time of a run. It does not
reset the frame, so a wrapper program writes it anew, chooses a flow, calls the program and undoes what that did to the head of
the frame. *Floor* is the wrapper around an empty program, undoing included, measured in the same rounds; *net* is the median
less the floor; *spread* is the distance between the quartiles of the rounds. One pinned CPU; nothing of the driver is in it.

- `not-ours`: TCP to an address that is no VIP. `arp`: ARP request or neighbour solicitation for a VIP, answered.
- `new-flow`: every packet the SYN of a flow never seen, to a backend that changed lately, on another node; noted in a full cache.
- `stateless`: an established flow to a backend on another node that did not change lately; Geneve, sent back out.
- `cached-N`: the same with a backend that changed lately and N flows in the cache, in random order.
- `vips-N-64k`: as `stateless`, 64k clients in random order to N VIPs at random, each with 8 KiB of rows.
- `transition`: an established flow that this node knows nothing of, to a backend that changed lately: both are named.
- `second-chance`: the same, and the backend chosen is on this node and does not know it: the other one's node is asked.
- `icmp-error`: about a flow of a backend on another node.
- `fragment-first`, `fragment-later`: of a segment for a backend on another node; the first one leaves its ports for the later.
- `local`: to a backend on this node. `decapsulate`: out of the tunnel to a backend on this node. Both note the flow.
- `egress`: the reply of a backend on this node, in the tc program.
- `old-*`: the same while every place of flow table and cache is taken by a flow of long ago. `old-new-local`: every packet the SYN
  of a flow never seen, to a backend on this node; noted in the full flow table.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&samples, 0.5), 2.5);
        assert_eq!(quantile(&samples, 0.25), 1.75);
        assert_eq!(quantile(&samples, 1.0), 4.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
