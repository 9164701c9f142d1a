//! Layouts of earlier versions: what a newer agent takes over of a data path that one of them has left running.
//!
//! The maps of the former layout stay as they are, and the programs that run go on with them, until every interface runs
//! the new program. Flows move entry by entry ([`Former::flow`]); maps whose values have kept their meaning are carried
//! over as they are, so that rows remember their former owners; everything else follows from the plan.

mod v1;

use super::{
    abi::Abi,
    error::Error,
    layout::Shape,
    mapped::Mapped,
    pins::{PinDir, shape},
};
use aya::maps::{HashMap, Map, MapData, MapInfo};
use std::{collections::BTreeMap, os::fd::AsFd, path::Path};
use tracing::{debug, info};
use weir_common::abi::{Flow, LAYOUT_VERSION, Responder, ResponderKey};

/// One earlier layout.
#[derive(Clone, Copy, Debug)]
pub struct Former {
    /// Its version.
    pub version: u32,
    /// The flow in the words of an entry of its `FLOWS`; `None` when there is none, or somebody is writing it.
    pub flow: fn(&[u64; size_of::<Flow>() / 8]) -> Option<Flow>,
    /// Maps whose values are values of our layout, too. They refer to each other, so they go together.
    pub carried: &'static [&'static str],
}

/// Every earlier layout that can be taken over.
const KNOWN: [Former; 1] = [v1::LAYOUT];

/// The layout that the folder `name` of pins is of: `Ok(None)` for ours and for what is no layout.
///
/// # Errors
///
/// The version, when it is a later one or one that nothing is known about.
pub fn of_folder(name: &str) -> Result<Option<Former>, &str> {
    let Some(version) = name.strip_prefix('v') else {
        return Ok(None);
    };
    match version.parse::<u32>() {
        Ok(LAYOUT_VERSION) => Ok(None),
        Ok(number) => match KNOWN.iter().find(|former| former.version == number) {
            Some(former) => Ok(Some(*former)),
            None => Err(version),
        },
        Err(_) => Err(version),
    }
}

/// Copies the maps that `former` shares with our layout into those pinned now; whether there was anything to carry.
///
/// Nothing is copied when one of them is missing or has another shape: they are of use only together.
///
/// # Errors
///
/// [`Error::Map`], [`Error::Mmap`].
pub fn carry(former: &Former, pins: &PinDir, wanted: &BTreeMap<String, Shape>) -> Result<bool, Error> {
    for name in former.carried {
        let path = pins.former_map(former, name);
        let same = path.exists() && wanted.get(*name) == Some(&shape_of(&path, name)?);
        if !same {
            info!(
                map = *name,
                "rows start anew: the former map is gone or has another capacity"
            );
            return Ok(false);
        }
    }
    for name in former.carried {
        let open = |path: &Path| MapData::from_pin(path).map_err(Error::map("open", name));
        let (from, to) = (open(&pins.former_map(former, name))?, open(&pins.map(name))?);
        let shape = shape_of(&pins.map(name), name)?;
        if *name == "RESPONDERS" {
            copy_responders(from, to)?;
        } else {
            copy_array(name, &from, &to, shape)?;
        }
        debug!(map = *name, version = former.version, "carried over");
    }
    Ok(true)
}

fn shape_of(path: &Path, name: &'static str) -> Result<Shape, Error> {
    let info = MapInfo::from_pin(path).map_err(Error::map("look at", name))?;
    shape(&info).map_err(Error::map("look at", name))
}

/// Word by word, and only what is not zero: the target is new, and its memory need not be touched.
fn copy_array(name: &'static str, from: &MapData, to: &MapData, shape: Shape) -> Result<(), Error> {
    let words = shape.max_entries * shape.value_size.div_ceil(8);
    let from: Mapped<u64> = Mapped::open(name, from.fd().as_fd(), words)?;
    let mut to: Mapped<u64> = Mapped::open(name, to.fd().as_fd(), words)?;
    for (index, word) in (0..).zip(from.values()).filter(|(_, word)| **word != 0) {
        to.store(index, &[*word])?;
    }
    Ok(())
}

fn copy_responders(from: MapData, to: MapData) -> Result<(), Error> {
    let open = |data| {
        HashMap::<MapData, Abi<ResponderKey>, Abi<Responder>>::try_from(Map::HashMap(data))
            .map_err(Error::map("open", "RESPONDERS"))
    };
    let (from, mut to) = (open(from)?, open(to)?);
    for entry in from.iter() {
        let (key, value) = entry.map_err(Error::map("read", "RESPONDERS"))?;
        to.insert(key, value, 0).map_err(Error::map("write", "RESPONDERS"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_layouts_are_known_and_later_ones_are_not() {
        assert_eq!(
            of_folder("v1").map(|former| former.map(|former| former.version)),
            Ok(Some(1))
        );
        assert!(of_folder(&format!("v{LAYOUT_VERSION}")).is_ok_and(|former| former.is_none()));
        assert!(of_folder("links").is_ok_and(|former| former.is_none()));
        let later = format!("v{}", LAYOUT_VERSION + 1);
        for name in [&*later, "v0", "vx", "v"] {
            assert_eq!(of_folder(name).err(), name.strip_prefix('v'), "{name}");
        }
    }

    #[test]
    fn every_layout_before_ours_is_known() {
        assert_eq!(
            KNOWN.map(|former| former.version).to_vec(),
            (1..LAYOUT_VERSION).collect::<Vec<_>>()
        );
    }
}
