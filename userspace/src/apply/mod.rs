//! Appliers: each makes one part of the world equal to the plan and says what is true afterwards.
//!
//! An applier owns one resource, reads what is there, changes only what differs, and knows nothing of other appliers.

pub mod bpf;
