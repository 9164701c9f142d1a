//! Conversion between `v1alpha1` and `v1alpha2`, on whole objects as JSON, so that fields unknown here are kept.
//!
//! What both versions have under other names or in another shape is moved; everything else stays where it is. Where that alone
//! would not lead back to the same `spec` (two fields that become one, say), the `spec` that was given goes along in an
//! annotation, and is taken from there on the way back, unless the object has been changed meanwhile. So an object converted
//! there and back is the object it was.

use serde_json::{Map, Value, json};

/// `apiVersion` of the version that is stored.
pub const V1ALPHA2: &str = "network.kubesphere.io/v1alpha2";
/// `apiVersion` of the older version.
pub const V1ALPHA1: &str = "network.kubesphere.io/v1alpha1";

/// What a `spec` of the older version was, on an object of the newer one.
const V1ALPHA1_SPEC: &str = "network.kubesphere.io/v1alpha1-spec";
/// The reverse.
const V1ALPHA2_SPEC: &str = "network.kubesphere.io/v1alpha2-spec";

/// Why an object cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// It is of neither version; what it says.
    Version(String),
    /// It is no kind of this group; what it says.
    Kind(String),
}

impl std::fmt::Display for ConvertError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(text) => write!(f, "apiVersion `{text}` is neither {V1ALPHA1} nor {V1ALPHA2}"),
            Self::Kind(text) => write!(f, "kind `{text}` is none of Eip, BgpConf, BgpPeer"),
        }
    }
}

impl std::error::Error for ConvertError {}

/// One way of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To `v1alpha2`.
    Up,
    /// To `v1alpha1`.
    Down,
}

impl Way {
    const fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }

    /// Where the `spec` of the version it comes from is kept.
    const fn annotation(self) -> &'static str {
        match self {
            Self::Up => V1ALPHA1_SPEC,
            Self::Down => V1ALPHA2_SPEC,
        }
    }
}

/// `object` in the version `desired`, which is [`V1ALPHA1`] or [`V1ALPHA2`].
///
/// # Errors
/// When it is of another group, version or kind, or another version is desired.
pub fn convert(mut object: Value, desired: &str) -> Result<Value, ConvertError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = text("kind");
    let way = match (text("apiVersion").as_str(), desired) {
        (from, to) if from == to && (to == V1ALPHA1 || to == V1ALPHA2) => return Ok(object),
        (V1ALPHA1, V1ALPHA2) => Way::Up,
        (V1ALPHA2, V1ALPHA1) => Way::Down,
        (V1ALPHA1 | V1ALPHA2, other) => return Err(ConvertError::Version(other.into())),
        (other, _) => return Err(ConvertError::Version(other.into())),
    };
    let moves = moves(&kind)?;
    object["apiVersion"] = desired.into();
    if !moves.is_empty()
        && let Some(Value::Object(given)) = object.get("spec").cloned()
    {
        let kept = take_annotation(&mut object, way.back().annotation());
        let spec = kept
            .filter(|kept| moved(kept, moves, way.back()) == given)
            .unwrap_or_else(|| moved(&given, moves, way));
        if moved(&spec, moves, way.back()) != given {
            put_annotation(&mut object, way.annotation(), &given);
        }
        object["spec"] = spec.into();
    }
    Ok(object)
}

/// A `v1alpha2` object that was written as `v1alpha1` while nobody converted: the API server then changes nothing but
/// `apiVersion`, so fields have their older names still. They get their newer ones, where those are free; other objects are
/// left as they are.
#[must_use]
pub fn settle(mut object: Value) -> Value {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    if let Ok(moves) = moves(kind)
        && object.get("apiVersion").is_some_and(|version| version == V1ALPHA2)
        && let Some(Value::Object(spec)) = object.get_mut("spec")
    {
        *spec = moved(spec, moves, Way::Up);
    }
    object
}

type Spec = Map<String, Value>;

/// What differs between the versions of a kind.
fn moves(kind: &str) -> Result<&'static [Move], ConvertError> {
    Ok(match kind {
        "Eip" => &[],
        "BgpConf" => &[Move::Rename("port", "listenPort"), Move::Rename("routerID", "routerId")],
        "BgpPeer" => &[Move::Rename("config", "conf"), Move::AddPaths],
        other => return Err(ConvertError::Kind(other.into())),
    })
}

/// How one field of `spec` differs between the versions.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// By its name alone: in `v1alpha1`, in `v1alpha2`.
    Rename(&'static str, &'static str),
    /// `addPaths.sendMax` was of the session, and is of a family now; one that is not named is the neighbour's.
    AddPaths,
}

impl Move {
    /// Makes the move if what it moves is there and its place is free.
    fn make(self, spec: &mut Spec, way: Way) {
        let (from, to) = match (self, way) {
            (Self::Rename(from, to), Way::Up) | (Self::Rename(to, from), Way::Down) => (from, to),
            (Self::AddPaths, Way::Up) => ("addPaths", "afiSafis"),
            (Self::AddPaths, Way::Down) => ("afiSafis", "addPaths"),
        };
        if spec.contains_key(to) {
            return;
        }
        let Some(value) = spec.get(from) else { return };
        let reshaped = match (self, way) {
            (Self::Rename(..), _) => Some(value.clone()),
            (Self::AddPaths, Way::Up) => Some(json!([{"addPaths": {"config": value}}])),
            (Self::AddPaths, Way::Down) => only(value, "addPaths").and_then(|it| it.get("config")).cloned(),
        };
        if let Some(reshaped) = reshaped {
            spec.remove(from);
            spec.insert(to.into(), reshaped);
        }
    }
}

/// What a list of one object with one field `key` has there.
fn only<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value.as_array()?.as_slice() {
        [Value::Object(one)] if one.len() == 1 => one.get(key),
        _ => None,
    }
}

fn moved(spec: &Spec, moves: &[Move], way: Way) -> Spec {
    let mut spec = spec.clone();
    for one in moves {
        one.make(&mut spec, way);
    }
    spec
}

/// Takes an annotation away and reads it.
fn take_annotation(object: &mut Value, name: &str) -> Option<Spec> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Value, name: &str, spec: &Spec) {
    let metadata = &mut object["metadata"];
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][name] = json!(spec).to_string().into();
}

#[cfg(test)]
mod tests;
