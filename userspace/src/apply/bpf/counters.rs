//! Reads the per-CPU counters of a data path through its pins; works whether or not an agent lives.
//!
//! A map is read a thousand values to a system call: one call for each of a hundred thousand backends would take longer
//! than all the rest of a scrape.

use super::{error::Error, pins::PinDir, sys};
use aya::{maps::MapData, util::nr_cpus};
use bytemuck::Pod;
use std::{fmt, os::fd::AsFd, path::Path};
use weir_common::{
    abi::{BackendCounter, Counter, FrontendCounter},
    verdict::{REASON_SLOTS, Reason},
};

/// Bytes that one system call is asked for, about.
const BATCH_BYTES: usize = 1 << 20;

/// What one CPU counted is added to what others did.
pub trait Tally: Pod {
    /// Adds `other` to this.
    fn add(&mut self, other: &Self);
}

impl Tally for Counter {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Tally for FrontendCounter {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.syns += other.syns;
    }
}

impl Tally for BackendCounter {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.flows += other.flows;
    }
}

/// The pinned counters of one data path.
pub struct Counters {
    reasons: MapData,
    frontends: MapData,
    backends: MapData,
    cpus: usize,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

/// Counters of one moment, over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    reasons: Vec<Counter>,
    frontends: Vec<FrontendCounter>,
    backends: Vec<BackendCounter>,
}

impl Counts {
    /// From values by reason number and by id; what is beyond their ends counts as zero.
    #[must_use]
    pub const fn new(reasons: Vec<Counter>, frontends: Vec<FrontendCounter>, backends: Vec<BackendCounter>) -> Self {
        Self {
            reasons,
            frontends,
            backends,
        }
    }

    /// Packets and bytes of a reason.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> Counter {
        self.reasons.get(reason as usize).copied().unwrap_or_default()
    }

    /// Packets, bytes and SYNs of a frontend; zero without an id.
    #[must_use]
    pub fn frontend(&self, id: Option<u32>) -> FrontendCounter {
        by_id(&self.frontends, id)
    }

    /// Packets and bytes sent to a backend by this node, and flows noted here for one of its own; zero without an id.
    #[must_use]
    pub fn backend(&self, id: Option<u32>) -> BackendCounter {
        by_id(&self.backends, id)
    }
}

fn by_id<T: Copy + Default>(values: &[T], id: Option<u32>) -> T {
    id.and_then(|id| values.get(id as usize)).copied().unwrap_or_default()
}

impl Counters {
    /// Opens the counters pinned under `pin_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when they are not there, [`Error::ValueSize`] when they are not of our layout.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let pins = PinDir::new(pin_dir);
        Ok(Self {
            reasons: open::<Counter>(&pins, "REASONS")?,
            frontends: open::<FrontendCounter>(&pins, "FRONTEND_COUNTERS")?,
            backends: open::<BackendCounter>(&pins, "BACKEND_COUNTERS")?,
            cpus: nr_cpus().map_err(|(path, source)| Error::file("read", path)(source))?,
        })
    }

    /// Reads every reason, and frontends and backends with ids below `frontends` and `backends`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`].
    pub fn read(&self, frontends: u32, backends: u32) -> Result<Counts, Error> {
        Ok(Counts {
            reasons: self.totals(&self.reasons, "REASONS", REASON_SLOTS)?,
            frontends: self.totals(&self.frontends, "FRONTEND_COUNTERS", frontends)?,
            backends: self.totals(&self.backends, "BACKEND_COUNTERS", backends)?,
        })
    }

    /// The values at indexes below `end`, as far as the map goes.
    fn totals<V: Tally>(&self, map: &MapData, name: &'static str, end: u32) -> Result<Vec<V>, Error> {
        const { assert!(size_of::<V>().is_multiple_of(8) && align_of::<V>() <= 8) };
        let words = size_of::<V>() / 8 * self.cpus;
        let at_once = (BATCH_BYTES / (words * 8)).max(1);
        let mut keys = vec![0_u32; at_once];
        let mut values = vec![0_u64; at_once * words];
        let mut totals = Vec::new();
        while totals.len() < end as usize {
            let after = totals.len().checked_sub(1).map(|last| last as u32);
            let wanted = at_once.min(end as usize - totals.len());
            let found = sys::lookup_batch(
                map.fd().as_fd(),
                after,
                &mut keys[..wanted],
                &mut values[..wanted * words],
            )
            .map_err(|source| Error::Read { map: name, source })?;
            for cpus in values.chunks_exact(words).take(found) {
                let mut total = V::zeroed();
                bytemuck::cast_slice(cpus).iter().for_each(|value| total.add(value));
                totals.push(total);
            }
            if found < wanted {
                break;
            }
        }
        Ok(totals)
    }
}

fn open<V: Pod>(pins: &PinDir, name: &'static str) -> Result<MapData, Error> {
    let map = MapData::from_pin(pins.map(name)).map_err(Error::map("open", name))?;
    let found = map.info().map_err(Error::map("look at", name))?.value_size();
    if found as usize != size_of::<V>() {
        return Err(Error::ValueSize {
            map: name,
            found,
            expected: size_of::<V>(),
        });
    }
    Ok(map)
}
