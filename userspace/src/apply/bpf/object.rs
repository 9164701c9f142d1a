//! The kernel half as embedded by the build script, and what it says about its maps.

use super::{error::Error, layout::Shape};
use std::collections::BTreeMap;
use weir_common::abi::BACKEND_ID_BITS;

/// The eBPF object, or nothing when the binary was built before it.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.o"));

/// Capacities other than those compiled into the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacities {
    /// Buckets of `FLOWS`.
    pub flow_buckets: Option<u32>,
    /// Buckets of `FLOW_CACHE`.
    pub cache_buckets: Option<u32>,
    /// Rows.
    pub rows: Option<u32>,
    /// Backends (and their counters).
    pub backends: Option<u32>,
}

impl Capacities {
    /// (map, capacity) for every map whose capacity is overridden.
    ///
    /// # Errors
    ///
    /// [`Error::Capacity`] when a value is no power of two in its range.
    pub fn overrides(&self) -> Result<Vec<(&'static str, u32)>, Error> {
        const MOST: u32 = 1 << 26;
        const MOST_BACKENDS: u32 = 1 << BACKEND_ID_BITS;
        let mut overrides = Vec::new();
        for (flag, value, least, most, maps) in [
            ("max-flow-buckets", self.flow_buckets, 1 << 6, MOST, &["FLOWS"][..]),
            ("max-cache-buckets", self.cache_buckets, 1 << 6, MOST, &["FLOW_CACHE"]),
            ("max-rows", self.rows, 1 << 10, MOST, &["ROWS", "HISTORY"]),
            (
                "max-backends",
                self.backends,
                1 << 6,
                MOST_BACKENDS,
                &["BACKENDS", "BACKEND_COUNTERS"],
            ),
        ] {
            let Some(value) = value else { continue };
            if !value.is_power_of_two() || !(least..=most).contains(&value) {
                return Err(Error::Capacity {
                    flag,
                    value,
                    least,
                    most,
                });
            }
            overrides.extend(maps.iter().map(|map| (*map, value)));
        }
        Ok(overrides)
    }
}

/// The shapes of all maps the embedded object declares, with `overrides` applied.
///
/// # Errors
///
/// [`Error::NoObject`], [`Error::Object`].
pub fn shapes(overrides: &[(&'static str, u32)]) -> Result<BTreeMap<String, Shape>, Error> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    let object = aya_obj::Object::parse(OBJECT).map_err(Error::Object)?;
    let mut shapes: BTreeMap<String, Shape> = object
        .maps
        .iter()
        .map(|(name, map)| {
            let shape = Shape {
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: map.max_entries(),
                flags: map.map_flags(),
            };
            (name.clone(), shape)
        })
        .collect();
    for (name, capacity) in overrides {
        if let Some(shape) = shapes.get_mut(*name) {
            shape.max_entries = *capacity;
        }
    }
    Ok(shapes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_must_be_powers_of_two() {
        let rows = Capacities {
            rows: Some(3000),
            ..Capacities::default()
        };
        assert!(matches!(
            rows.overrides(),
            Err(Error::Capacity {
                flag: "max-rows",
                value: 3000,
                ..
            })
        ));
        let backends = Capacities {
            backends: Some(4096),
            ..Capacities::default()
        };
        assert_eq!(
            backends.overrides().unwrap(),
            [("BACKENDS", 4096), ("BACKEND_COUNTERS", 4096)]
        );
    }
}
