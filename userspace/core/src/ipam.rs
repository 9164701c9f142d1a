//! Who gets which address.
//!
//! Takes Eips, Services, the addresses Services had, and the nodes' own addresses; gives every Service of ours the
//! addresses it asks for, or a condition that says why not. Follows OpenELB 0.6 in what is asked for and in the choice of
//! the Eip; differs in that an address, once given, stays for as long as it fits the request.
//!
//! Does not look at endpoints, and does not decide who announces an address.

mod allocate;
mod given;
mod pools;
mod range;
mod request;

pub use allocate::{Allocations, Claim, allocate, is_buggy};
pub use pools::{Pool, Pools};
pub(crate) use pools::{default_field, range_of, says_default, unclear_default};
pub use range::{AddressRange, RangeError};

#[cfg(test)]
mod tests;
