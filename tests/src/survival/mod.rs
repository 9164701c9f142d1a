//! Thousands of TCP connections held open with traffic through real agents, while nodes, agents and backends come and go.
//!
//! [`arena`] is a lab in which every node is a next hop of the VIPs (ECMP by the 5-tuple), so any of them may get any packet.
//! [`pods`] is what answers in the pods, a program of its own; [`connections`] holds the client's ends and asks over each in
//! turn. [`events`] are what happens meanwhile, [`flood`] is what makes it harder, [`row`] is what is found.
//!
//! All pods live from beginning to end, whatever the EndpointSlices say. So every connection has the right to live, and
//! one that is reset, closed, answered by another pod or not answered at all is broken.

pub mod arena;
pub mod connections;
pub mod events;
pub mod flood;
pub mod members;
pub mod pods;
pub mod row;

mod asking;
mod message;
mod retransmissions;
