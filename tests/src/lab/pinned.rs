//! Values of pinned maps, as `bpftool` shows them by the names of their fields.

use super::{Lab, Node};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// Where the map `name` of `node`'s agent is pinned; the newest layout's when there are several.
///
/// # Errors
/// When it is not pinned.
pub fn path(lab: &Lab, node: &Node, name: &str) -> Result<PathBuf> {
    let folders = fs::read_dir(lab.pin_directory(node))?;
    let pins = folders.filter_map(|entry| Some(entry.ok()?.path().join(name)));
    let newest = pins.filter(|pin| pin.exists()).max();
    newest.with_context(|| format!("no map {name} is pinned on {}", node.name))
}

/// The value of the array `name` at `index`, as an object.
///
/// # Errors
/// When it is not pinned, or bpftool cannot read it.
pub fn value(lab: &Lab, node: &Node, name: &str, index: u32) -> Result<Value> {
    let pin = path(lab, node, name)?;
    let key = index.to_ne_bytes().map(|byte| byte.to_string()).join(" ");
    let line = format!("bpftool -j map lookup pinned {} key {key}", pin.display());
    let mut found: Value = serde_json::from_str(&node.namespace.output(&line)?)?;
    Ok(found["formatted"]["value"].take())
}

/// A MAC among the fields of a value, as `ip` prints it.
///
/// # Errors
/// When the field is missing or no MAC.
pub fn mac(value: &Value, field: &str) -> Result<String> {
    let bytes: [u8; 6] =
        serde_json::from_value(value[field].clone()).with_context(|| format!("{field} is no MAC in {value}"))?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).join(":"))
}
