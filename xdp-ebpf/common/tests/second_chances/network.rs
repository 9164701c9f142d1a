//! Nodes, and a packet that goes from one to the other until somebody has it.

use crate::{
    frame::{Frame, Sent},
    node::{Node, Path},
};
use weir_common::{
    ingress,
    verdict::{Action, Reason},
};

/// The interface that every frame comes in and leaves by.
const INTERFACE: u32 = 1;
/// More steps than any packet may take.
const TOO_MANY: usize = 40;

/// Nodes that can all reach each other, unless told otherwise. They are numbered from 1, as are backends.
#[derive(Debug)]
pub struct Network {
    nodes: Vec<Node>,
    places: Vec<u32>,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The nodes it was on, in turn.
    pub steps: Vec<u32>,
    /// How it ended.
    pub end: End,
}

/// How a journey ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This backend got the packet.
    Delivered(u32),
    /// Nobody got it.
    Dropped(Reason),
    /// The stack of the node it came in by got it as it was.
    StoodAside(Reason),
    /// It was still on its way.
    Endless,
}

impl Network {
    /// As many nodes as there are `rows`: who has and had the row, as each node knows it, the current backend first.
    /// Backend `b` is on node `places[b - 1]` and serves what is `sent`.
    pub fn new(sent: Sent, places: &[u32], rows: &[Vec<u32>]) -> Self {
        let count = rows.len() as u32;
        let nodes = (1..).zip(rows).map(|(number, row)| {
            let mut node = Node::new(number, count, places, sent.protocol());
            node.set_owners(row);
            node
        });
        Self {
            nodes: nodes.collect(),
            places: places.to_vec(),
        }
    }

    /// What nodes can do towards others from now on: (from, to, what). A node has no path to itself.
    pub fn set_paths(&mut self, paths: &[(u32, u32, Path)]) {
        for &(from, to, path) in paths.iter().filter(|(from, to, _)| from != to) {
            self.nodes[from as usize - 1].set_path(to, path);
        }
    }

    /// Nobody can send anything to node `number` any more.
    pub fn cut_off(&mut self, number: u32) {
        for from in 1..=self.nodes.len() as u32 {
            self.set_paths(&[(from, number, Path::Cut)]);
        }
    }

    /// The client's flow is one of `backend`, and its node knows.
    pub fn know(&self, backend: u32) {
        let place = self.places[backend as usize - 1];
        self.nodes[place as usize - 1].know(backend);
    }

    /// Has every node that the client's packet gets to decide about it, the node `entry` first.
    pub fn carry(&self, sent: Sent, entry: u32) -> Journey {
        let mut frame = Frame::from_client(sent);
        let mut steps = vec![entry];
        while let Some(&at) = steps.last()
            && steps.len() < TOO_MANY
        {
            let verdict = ingress::process(&mut frame, &self.nodes[at as usize - 1], INTERFACE);
            let end = match verdict.action {
                Action::Transmit => {
                    steps.push(frame.node());
                    continue;
                }
                Action::Pass if matches!(verdict.reason, Reason::Local | Reason::Decapsulated) => {
                    End::Delivered(frame.backend())
                }
                Action::Pass => End::StoodAside(verdict.reason),
                Action::Drop => End::Dropped(verdict.reason),
                Action::Redirect(interface) => panic!("there is no interface {interface}"),
            };
            return Journey { steps, end };
        }
        Journey {
            steps,
            end: End::Endless,
        }
    }
}
