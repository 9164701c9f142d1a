//! Who else is at tc on an interface, and in which order: by tcx, then the filters of clsact by their priorities.

use super::findings::Findings;
use crate::{
    apply::bpf::{
        attach::{BESIDE, EGRESS, TC_PRIORITY, program_name},
        pins::PinDir,
        sys,
    },
    source::netlink::{Filter, Queries},
};
use std::fmt::{self, Display};

/// A program or filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// Name of the program, `?` when it may not be asked; else the filter's kind.
    pub name: String,
    /// Of a filter; programs of tcx have none, and come before all filters.
    pub priority: Option<u16>,
}

impl Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.priority {
            Some(priority) => write!(f, "{} (filter, priority {priority})", self.name),
            None => write!(f, "{} (tcx)", self.name),
        }
    }
}

impl From<Filter> for Hooked {
    fn from(filter: Filter) -> Self {
        Self {
            name: filter.program.unwrap_or(filter.kind),
            priority: Some(filter.priority),
        }
    }
}

/// All there are on an interface, each list in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// On what enters it, after XDP.
    pub ingress: Vec<Hooked>,
    /// On what leaves it.
    pub egress: Vec<Hooked>,
    /// Why not all are known.
    pub unread: Option<String>,
}

/// Reads those of an interface.
pub async fn read(queries: &Queries, name: &str, ifindex: u32, pins: &PinDir) -> Hooks {
    // A kernel without tcx has none.
    let tcx = |egress| sys::tcx_programs(ifindex, egress).unwrap_or_default();
    // Names of programs are told only to CAP_SYS_ADMIN, which an agent in a pod has not.
    let ours: Vec<u32> = ["tc", BESIDE]
        .iter()
        .filter_map(|kind| Some(sys::pinned_link(&pins.link(kind, name)).ok()?.program))
        .collect();
    let by_tcx = |egress| {
        let named = |id| Hooked {
            name: if ours.contains(&id) {
                EGRESS.to_owned()
            } else {
                program_name(id)
            },
            priority: None,
        };
        tcx(egress).into_iter().map(named)
    };
    let (filters, unread) = match queries.filters(ifindex).await {
        Ok(filters) => (filters, None),
        Err(error) => (Default::default(), Some(error.to_string())),
    };
    let [ingress, egress] = filters.map(|filters| filters.into_iter().map(Hooked::from));
    Hooks {
        ingress: by_tcx(false).chain(ingress).collect(),
        egress: by_tcx(true).chain(egress).collect(),
        unread,
    }
}

/// Judges those of `device`, which takes packets for the interface `name`; `tcx` when weir's would be attached by that.
pub fn judge(name: &str, device: &str, hooks: &Hooks, tcx: bool, findings: &mut Findings) {
    let named = |hooked: &[&Hooked]| {
        hooked
            .iter()
            .map(|hooked| hooked.to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(why) = &hooks.unread {
        findings.warning(
            name,
            format!("whose filters tc has on {device} is not known: {why}"),
            format!("see `tc filter show dev {device} egress`"),
        );
    }
    let ingress: Vec<&Hooked> = hooks.ingress.iter().collect();
    if !ingress.is_empty() {
        findings.warning(
            name,
            format!(
                "others' tc programs on the way into {device}: {}; what weir passes on to pods of this host goes through them",
                named(&ingress)
            ),
            "if one of them drops or redirects what goes to pods, see what it belongs to",
        );
    }
    let ours = |hooked: &Hooked| hooked.name == EGRESS;
    let runs = hooks.egress.iter().position(ours);
    // Where it stands, or will: first of tcx; among filters, behind those of no greater number.
    let place = runs.unwrap_or_else(|| {
        let mut filters = hooks.egress.iter();
        let behind = |hooked: &Hooked| tcx || hooked.priority > Some(TC_PRIORITY);
        filters.position(behind).unwrap_or(hooks.egress.len())
    });
    let (before, behind) = hooks.egress.split_at(place);
    let others = |all| -> Vec<&Hooked> { Iterator::collect(<[Hooked]>::iter(all).filter(|hooked| !ours(hooked))) };
    let (before, behind) = (others(before), others(behind));
    if !before.is_empty() {
        let says = format!(
            "others' tc programs on the way out of {device}, before weir's: {}; after one that decides on a packet no other sees \
             it, and replies of this host's pods that it decides on leave without the VIP",
            named(&before)
        );
        let are_filters = before.iter().all(|hooked| hooked.priority.is_some());
        let stop = if are_filters {
            format!("give it a priority above {TC_PRIORITY}, or stop what it belongs to")
        } else {
            "stop what it belongs to".to_owned()
        };
        if runs.is_some() {
            // An agent that does not start mends nothing: the programs go on as they are, and nobody keeps them up to date.
            let anew = if are_filters {
                ""
            } else {
                ", or have weir's attached anew, which is first then: `weir run --detach`, and start it"
            };
            let remedy = format!("if clients of this host's pods have no answers, {stop}{anew}");
            let says = format!("{says}; weir's runs there already, and sees what they let pass");
            findings.warning(name, says, remedy);
        } else {
            let remedy = format!("{stop}; if it decides on nothing, `agent.check: false` starts the agent beside it");
            findings.problem(name, says, remedy);
        }
    }
    if !behind.is_empty() {
        findings.warning(
            name,
            format!(
                "others' tc programs on the way out of {device}, behind weir's: {}; they see replies that come from the VIP",
                named(&behind)
            ),
            "if one of them goes by the addresses of pods, or drops what comes from others, see what it belongs to",
        );
    }
}
