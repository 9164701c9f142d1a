//! Which frontends have flows that the stack had before Weir came ([`weir_common::takeover`]), in the words of their directory
//! entries.

use super::{Tables, key::Key};
use crate::plan::FrontendKey;
use std::collections::BTreeSet;
use weir_common::abi::policy;

/// Where the stack may have flows of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackFlows<Frontend = FrontendKey> {
    /// Everything is the stack's for now, and what begins is noted in `STACK_FLOWS`.
    Standby,
    /// `STACK_FLOWS` says it, for every frontend.
    Anywhere,
    /// The same for these alone; the others have none.
    At(BTreeSet<Frontend>),
}

/// The same as the maps know frontends.
pub(super) type Stack = StackFlows<Key>;

impl Default for Stack {
    fn default() -> Self {
        Self::At(BTreeSet::new())
    }
}

impl From<&StackFlows> for Stack {
    fn from(flows: &StackFlows) -> Self {
        match flows {
            StackFlows::Standby => Self::Standby,
            StackFlows::Anywhere => Self::Anywhere,
            StackFlows::At(frontends) => Self::At(frontends.iter().map(Key::from).collect()),
        }
    }
}

impl Stack {
    pub(super) const fn stands_by(&self) -> bool {
        matches!(self, Self::Standby)
    }

    /// Bits of [`policy`] for a frontend.
    pub(super) fn flags(&self, key: &Key) -> u32 {
        match self {
            Self::Standby => policy::STANDBY,
            Self::Anywhere => policy::STACK_FLOWS,
            Self::At(keys) if keys.contains(key) => policy::STACK_FLOWS,
            Self::At(_) => 0,
        }
    }
}

impl Tables {
    /// Takes over where the stack has flows; none at first. The next step tells the kernel.
    pub fn set_stack_flows(&mut self, flows: &StackFlows) {
        let next = Stack::from(flows);
        if *self.frontends.stack() == next {
            return;
        }
        let differs = |key: &Key| self.frontends.stack().flags(key) != next.flags(key);
        self.lacking.extend(self.frontends.keys().filter(differs));
        self.frontends.set_stack(next);
    }
}
