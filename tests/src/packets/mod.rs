//! The golden packets: one table of cases that runs over the packet path on the host and through `BPF_PROG_TEST_RUN` in
//! the kernel, with equal verdict, reason and bytes.
//!
//! [`frames`] builds frames independently of the product; [`world`] is the network they are in and [`image`] its tables;
//! [`cases`] is the table; [`host`] and [`kernel`] run it, [`check`] compares, and
//! [`mutate`] makes broken frames of good ones.

pub mod cases;
pub mod check;
pub mod frames;
pub mod host;
pub mod image;
pub mod kernel;
pub mod mutate;
pub mod runner;
pub mod world;
