//! Weir's deciding half, without I/O, clock or randomness: the same input gives the same output, always.
//!
//! ```text
//! model::Cluster --plan::plan()--> plan::Plan --tables::Tables::step()--> tables::Write, in order
//! ```
//!
//! [`model`] is what the sources deliver. [`plan`] decides what is served where, with [`ipam`] for who gets which address
//! and [`election`] for who answers for it. [`tables`] turns a plan into an ordered list of map writes that never shows a
//! packet half a change.
#![forbid(unsafe_code)]

pub mod admission;
pub mod annotations;
mod ascending;
pub mod controller;
pub mod election;
pub mod ipam;
pub mod lease;
pub mod links;
pub mod model;
pub mod plan;
mod shared_map;
pub mod standing;
pub mod tables;
pub mod takeover;

pub use shared_map::SharedMap;
