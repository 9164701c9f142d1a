//! What the objects of a cluster are to say, and which writes bring them there: the controller's deciding half.
//!
//! [`plan`] compares a snapshot of the objects ([`World`]) with what [`crate::ipam`] makes of it and gives the writes that can
//! be made now, at most one for each object, each resting on the version of the object it was decided from. After them comes
//! the next snapshot and the next plan, until there is nothing left to write. There is no other memory than the objects:
//! whoever plans next goes on from wherever the last one stopped or died.
//!
//! # Why no address is lost or given twice
//!
//! OpenELB's `status.used` of an Eip is the book of addresses. An address goes to a Service in three steps and comes back in
//! the reverse order:
//!
//! 1. [`Action::Record`] enters the Service into the book. Two that would give one address away write the same Eip, and the
//!    API server takes only the first of two writes that rest on one version.
//! 2. [`Action::Mark`] gives the Service the Eip's label and our finalizer. From now on it cannot vanish unseen.
//! 3. [`Action::Show`] puts the address into the Service's status, which is what everybody else reads.
//!
//! So whatever a Service shows is in the book, also if everything stops between two steps. An entry is struck out only when
//! its Service is gone, or does not show the address and is in a book for what it is to have instead. An entry that was left
//! over by a crash is either used for its Service or struck out; a Service keeps what it shows, or else what the book says. If
//! the book is lost, it is written anew from what Services show.
//!
//! Who is to have what another is leaving comes into the book beside it at once, and shows it only when the book has nobody
//! any more who cannot be there too; where all wait round a circle, one goes first (`handover.rs`).
//!
//! Two that plan at once from snapshots of different age (one was suspended and does not know yet that the other leads) are
//! kept apart by what whoever carries out the actions has to see to:
//!
//! - No write is begun, or gone on with, by who leads no more; what is under way then is lost before another leads.
//! - Before a Show, the Eips of the snapshot are compared with those of the API server; if one has changed, the Show is left
//!   out. As the Service was marked before that, whoever strikes its entry from then on meets the mark.
//! - When an entry of the book is gone, or an Eip is new ([`Freshness`]), nothing is given out, and no address shown that was
//!   not, before the Services have been read once more, so that what still is shown is known.

mod announcers;
mod events;
mod freshness;
mod handover;
mod liveness;
mod news;
mod objects;
mod record;
mod said;
mod serve;
mod set_up;
mod tell;

#[cfg(test)]
mod tests;

pub use announcers::silence;
pub use events::Event;
pub use freshness::{Fresh, Freshness};
pub use liveness::{AGENT_LEASES, AgentLease, Liveness, renewal};
pub use news::News;
pub use objects::{
    EIP_FINALIZER, EIP_LABEL, EipObject, EipStatus, NODE_PROXY_FINALIZERS, READY, SERVED, SERVICE_FINALIZER,
    ServiceObject, StatusCondition, World,
};

use crate::{ipam, model::ServiceKey};
use announcers::{Announcers, Announcing};
use serve::Served;
use std::net::IpAddr;

/// One write. It is to be made only if the object still has this resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give a Service a status with these addresses in this order, and no other; only if every Eip still has the version of
    /// the snapshot.
    Show {
        /// The Service.
        service: ServiceKey,
        /// Its version.
        resource_version: String,
        /// `status.loadBalancer.ingress[].ip`.
        addresses: Vec<IpAddr>,
        /// What to say once it is done.
        events: Vec<Event>,
    },
    /// Give a Service the label [`EIP_LABEL`] and the finalizer [`SERVICE_FINALIZER`], or take the label and the finalizers
    /// [`World::unmarked`] away.
    Mark {
        /// The Service.
        service: ServiceKey,
        /// Its version.
        resource_version: String,
        /// The label's value; `None` takes label and finalizers away.
        eip: Option<String>,
        /// What to say once it is done.
        events: Vec<Event>,
    },
    /// Give an Eip the finalizer [`EIP_FINALIZER`], or take it away.
    Guard {
        /// Name of the Eip.
        eip: String,
        /// Its version.
        resource_version: String,
        /// Whether it is to have it.
        finalizer: bool,
    },
    /// Give an Eip a status.
    Record {
        /// Name of the Eip.
        eip: String,
        /// Its version.
        resource_version: String,
        /// The book and what follows from it.
        status: EipStatus,
    },
}

/// What is to be said in an object's status. Rests on no version, as nothing rests on it, so it can wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Telling {
    /// How a Service is served.
    Service {
        /// The Service.
        service: ServiceKey,
        /// The condition [`SERVED`]; `None` takes it away.
        served: Option<StatusCondition>,
        /// The number of nodes, if it rests on what they have not said: they may be about to.
        silent_nodes: Option<u32>,
    },
    /// How nodes stand to an Eip.
    Eip {
        /// Name of the Eip.
        eip: String,
        /// `status.ready` and the condition [`READY`].
        ready: StatusCondition,
        /// Nodes that are no more, or whose agents are silent ([`Liveness`]): their entries go.
        gone: Vec<String>,
    },
}

/// What is to be done and said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// Writes in the order to make them in: Services first, as their statuses rest on the Eips of the snapshot.
    pub actions: Vec<Action>,
    /// What statuses are to say in words, when there is time for it.
    pub telling: Vec<Telling>,
    /// What is wrong now, object by object; see [`News`] for saying it once.
    pub warnings: Vec<Event>,
    set_ups: set_up::All,
    announcing: Announcing,
}

/// What is to be done next in `world`.
#[must_use]
pub fn plan(world: &World) -> Planned {
    let mut conditions = world.cluster.faults.clone();
    let pools = ipam::Pools::new(&world.cluster.eips, &mut conditions);
    let allocations = ipam::allocate(&world.cluster, &pools, &mut conditions);
    let served = Served::new(world, allocations);
    let mut actions = served.actions();
    actions.extend(record::actions(world, &served));
    let told = tell::Told::new(world, &served, &conditions);
    let warnings = conditions.iter().filter_map(|condition| {
        let pending = served.lacks_all(&condition.object);
        Event::about(world, condition, events::reason_of(condition, pending))
    });
    let by_nodes = told.problems();
    let by_nodes = by_nodes.iter();
    let by_nodes = by_nodes.filter_map(|condition| Event::about(world, condition, &condition.reason));
    Planned {
        warnings: warnings.chain(by_nodes).collect(),
        telling: told.telling(),
        set_ups: told.set_ups(),
        announcing: told.announcing(),
        actions,
    }
}
