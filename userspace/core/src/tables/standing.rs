//! What the plan says of a backend, and so whether and how soon it is to be asked about a flow.

use crate::plan::Draining;
use weir_common::abi::protocol;

/// The best that any frontend of the plan says of a backend; better is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Gets new flows.
    Serving,
    /// Keeps the flows it has, and answers.
    Draining,
    /// Keeps the flows it has, and does not answer probes: its node may be dead.
    NotServing,
    /// Not in the plan; it may still live for a moment.
    Gone,
}

impl From<Draining> for Standing {
    fn from(draining: Draining) -> Self {
        match draining {
            Draining::Serving => Self::Draining,
            Draining::NotServing => Self::NotServing,
        }
    }
}

/// Which former owners a row remembers; more is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Memory {
    /// None.
    Nothing,
    /// Those that answer.
    Answering,
    /// Those that the plan has.
    Planned,
    /// All, as long as there is room.
    All,
}

impl Memory {
    /// What rows of a frontend of this IP protocol remember.
    ///
    /// A TCP segment that starts a flow can be told from one that does not, so asking costs old flows a detour and no others.
    /// With UDP every datagram is asked about, and one that is sent to a dead node is lost.
    pub fn of(protocol: u8) -> Self {
        match protocol {
            protocol::UDP => Self::Answering,
            _ => Self::All,
        }
    }

    /// How late an owner of this standing is asked, least first; `None` if it is not remembered.
    ///
    /// Whoever may be on a dead node comes after all that answer, because a packet sent there gets no further. Who is gone
    /// comes last, and so gives way first.
    pub fn order(self, standing: Standing) -> Option<u8> {
        let (order, least) = match standing {
            Standing::Serving | Standing::Draining => (0, Self::Answering),
            Standing::NotServing => (1, Self::Planned),
            Standing::Gone => (2, Self::All),
        };
        (self >= least).then_some(order)
    }

    /// The same by backend id. What is not known is as good as gone.
    pub fn orders(self, standings: &[Option<Standing>]) -> impl Fn(u32) -> Option<u8> + Copy {
        move |id| self.order(standings.get(id as usize).copied().flatten().unwrap_or(Standing::Gone))
    }
}
