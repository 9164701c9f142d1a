//! Asks the programs for samples of what they decide, through the pins: works whether or not an agent lives.

use super::{error::Error, fill, mapped::Mapped, pins::PinDir};
use aya::maps::{Map, MapData, RingBuf};
use bytemuck::AnyBitPattern;
use nix::{
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
};
use std::{fs::File, path::Path, time::Duration};
use weir_common::abi::{Monitor, Sample};

/// For how long the programs go on when nobody renews the request; it is to be renewed well before.
const LEASE: Duration = Duration::from_secs(3);

/// A request for samples; they end when it is dropped, or, if its process is killed, with the last renewal's time.
pub struct Samples {
    monitor: Mapped<Monitor>,
    ring: RingBuf<MapData>,
    every: u32,
    /// A ring buffer has one reader.
    _lock: Flock<File>,
}

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Samples")
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl Samples {
    /// Begins to sample one packet of `every` in the data path pinned under `pin_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Monitored`] when somebody else does; [`Error::Map`], [`Error::ValueSize`], [`Error::Mmap`].
    pub fn start(pin_dir: &Path, every: u32) -> Result<Self, Error> {
        let pins = PinDir::new(pin_dir);
        let monitor = fill::open::<Monitor>(&pins, "MONITOR")?;
        let ring = MapData::from_pin(pins.map("SAMPLES")).map_err(Error::map("open", "SAMPLES"))?;
        let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(Error::map("open", "SAMPLES"))?;
        let folder = pins.maps();
        let file = File::open(&folder).map_err(Error::file("open", &folder))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => Error::Monitored(pin_dir.to_owned()),
            errno => Error::file("lock", &folder)(errno.into()),
        })?;
        let mut samples = Self {
            monitor,
            ring,
            every: every.max(1),
            _lock: lock,
        };
        // What an earlier reader left is old.
        while samples.ring.next().is_some() {}
        samples.renew()?;
        Ok(samples)
    }

    /// Keeps the programs at it for a few seconds more.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`].
    pub fn renew(&mut self) -> Result<(), Error> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let until = u32::try_from((now + LEASE).as_secs()).unwrap_or(u32::MAX);
        self.set(until)
    }

    /// The next sample that is there.
    pub fn take(&mut self) -> Option<Sample> {
        let item = self.ring.next()?;
        read(&item)
    }

    fn set(&mut self, until: u32) -> Result<(), Error> {
        let monitor = Monitor {
            until,
            every: self.every,
        };
        self.monitor.store(0, &[bytemuck::must_cast(monitor)])
    }
}

fn read<T: AnyBitPattern>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes.get(..size_of::<T>())?).ok()
}

impl Drop for Samples {
    fn drop(&mut self) {
        // It has been written before; if not now, the programs stop by themselves.
        let _ = self.set(0);
    }
}
