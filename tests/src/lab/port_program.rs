//! The XDP program of the switch ports: it passes everything.
//!
//! A veth device hands on what its peer sends with `XDP_TX` only if it runs an XDP program itself; NAPI through GRO is
//! enough for `XDP_REDIRECT` alone. A cable has no such wish, so the lab fulfils it where nobody looks.

use super::{Namespace, foreign::Program};
use anyhow::{Context, Result};

/// Puts the program on these devices of `namespace`.
///
/// # Errors
/// When it cannot be loaded or attached.
pub(super) fn attach<'a>(namespace: &Namespace, mut devices: impl Iterator<Item = &'a str>) -> Result<()> {
    let program = Program::xdp("lab_switch_port").context("cannot load the program of the switch ports")?;
    devices.try_for_each(|device| program.attach_xdp(namespace, device))
}
