//! The kernel half as embedded by the build script, and what it says about its maps.

use super::{error::Error, layout::Shape};
use aya::programs::ProgramError;
use std::{collections::BTreeMap, io};
use weir_common::abi::BACKEND_ID_BITS;

/// The eBPF object, or nothing when the binary was built before it.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.o"));

/// How often the verifier is asked about one program that it was interrupted at.
const ATTEMPTS: usize = 10;

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

/// Loads a program into the kernel by `load`, again when the verifier was interrupted: it gives up with `EAGAIN` as soon
/// as a signal waits for the process, whatever becomes of that signal, and so does one that is paused and goes on.
///
/// # Errors
///
/// The last of [`ATTEMPTS`] interruptions, or any other that `load` has.
pub fn verified(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 1..ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::VerifierLog;

    #[test]
    fn an_interrupted_verifier_is_asked_again_and_one_that_refuses_is_not() {
        let failing = |errno, times| {
            let mut calls = 0;
            let result = verified(|| {
                calls += 1;
                if calls > times {
                    return Ok(());
                }
                Err(ProgramError::LoadError {
                    io_error: io::Error::from_raw_os_error(errno),
                    verifier_log: VerifierLog::new(String::new()),
                })
            });
            (result.is_ok(), calls)
        };
        assert_eq!(failing(libc::EAGAIN, 3), (true, 4));
        assert_eq!(failing(libc::EAGAIN, usize::MAX), (false, ATTEMPTS));
        assert_eq!(failing(libc::EINVAL, 3), (false, 1));
    }

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
