//! The pinned maps of an agent, read from outside.

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use bytemuck::must_cast;
use std::{collections::HashMap, fs, net::Ipv4Addr, ops::RangeInclusive, path::Path};
use weir_common::abi::{Address, Backend, DirectoryEntry, Row, RowRange, kind};

/// Those that say where a packet goes.
pub struct Maps {
    directory: Array<MapData, [u64; 8]>,
    rows: Array<MapData, u64>,
    backends: Array<MapData, [u64; 4]>,
}

impl Maps {
    /// Opens those pinned below `pins`.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self {
            directory: Array::try_from(pinned(pins, "DIRECTORY")?)?,
            rows: Array::try_from(pinned(pins, "ROWS")?)?,
            backends: Array::try_from(pinned(pins, "BACKENDS")?)?,
        })
    }

    /// The rows of each frontend, by VIP.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn frontends(&self) -> Result<HashMap<Ipv4Addr, RowRange>> {
        let mut frontends = HashMap::new();
        for slot in 0..self.directory.len() {
            let entry: DirectoryEntry = must_cast(self.directory.get(&slot, 0)?);
            if entry.kind == kind::FRONTEND {
                frontends.insert(v4(entry.address), entry.rows);
            }
        }
        Ok(frontends)
    }

    /// Who owns row `index`.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn owner(&self, index: u32) -> Result<Ipv4Addr> {
        let row: Row = must_cast(self.rows.get(&index, 0)?);
        let backend: Backend = must_cast(self.backends.get(&row.current, 0)?);
        Ok(v4(backend.address))
    }
}

/// The indices of a frontend's rows.
#[must_use]
pub fn all(rows: RowRange) -> RangeInclusive<u32> {
    rows.base..=rows.base + rows.mask
}

fn pinned(pins: &Path, name: &str) -> Result<Map> {
    let mut folders = fs::read_dir(pins)?.filter_map(|entry| Some(entry.ok()?.path().join(name)));
    let pin = folders.find(|pin| pin.exists());
    let pin = pin.with_context(|| format!("{name} is not pinned below {}", pins.display()))?;
    Ok(Map::Array(MapData::from_pin(pin)?))
}

/// The last four bytes: every address here is IPv4.
fn v4(address: Address) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets;
    Ipv4Addr::new(a, b, c, d)
}
