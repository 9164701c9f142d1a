//! Whether the corpus has a wrong value for each field of the definitions and each annotation that is read.
//!
//! What a manifest is wrong in is what is recorded as said about it: a field counts only if somebody is told its name. So a
//! field that is accepted whatever it holds, or of which the message does not say where to look, is missing here.

use super::{
    api::{Object, objects},
    folder,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::Path};
use weir_core::{
    annotations::{self, Annotation},
    controller::{EIP_FINALIZER, EIP_LABEL, NODE_PROXY_FINALIZERS, SERVICE_FINALIZER},
    model::CNI_LABEL,
};

/// Labels and finalizers of OpenELB that are read, by kind and object.
const READ: [(&str, &str, &str); 4] = [
    ("label", "Service", EIP_LABEL),
    ("label", "Eip", CNI_LABEL),
    ("finalizer", "Service", SERVICE_FINALIZER),
    ("finalizer", "Eip", EIP_FINALIZER),
];

/// A file's objects with what is recorded about each.
fn recorded(file: &Path) -> Result<Vec<(Object, String)>> {
    let text = fs::read_to_string(file.with_extension("txt"))?;
    // Each begins with its kind and name; what is said is indented.
    let mut said: Vec<String> = Vec::new();
    for line in text.lines() {
        match said.last_mut().filter(|_| line.starts_with(' ')) {
            Some(last) => *last += line,
            None => said.push(line.to_owned()),
        }
    }
    let objects = objects(file)?;
    let of_file = || format!("{}: bless it first", file.display());
    ensure!(objects.len() == said.len(), "{}", of_file());
    for (object, said) in objects.iter().zip(&said) {
        let begin = format!("{} {}", object.kind(), object.name());
        ensure!(said.starts_with(&begin), "{}, {begin} not {said}", of_file());
    }
    Ok(objects.into_iter().zip(said).collect())
}

/// Everything in the corpus.
fn all() -> Result<Vec<(Object, String)>> {
    let mut all = Vec::new();
    for folder in [folder(), folder().join("nodes")] {
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            let is_manifest = file.extension().is_some_and(|extension| extension == "yaml");
            if is_manifest && file.file_stem().is_some_and(|stem| stem != "base") {
                all.extend(recorded(&file)?);
            }
        }
    }
    Ok(all)
}

/// Whether this field (`spec.list[].field`) is named in what is said, itself or a part of it that has no name of its own.
fn names(said: &str, field: &str) -> bool {
    let mut rest = said;
    let mut plain = String::new();
    // Which of a list it is does not matter.
    while let Some((before, after)) = rest.split_once('[') {
        plain += before;
        plain += "[";
        rest = match after.split_once(']') {
            Some((index, after)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                plain += "]";
                after
            }
            _ => after,
        };
    }
    plain += rest;
    plain.match_indices(field).any(|(at, _)| {
        let alone = !plain[..at].ends_with(|it: char| it.is_alphanumeric() || it == '.');
        // `field: what is wrong`, `field[0]: ...`.
        let after = &plain[at + field.len()..];
        alone && (after.starts_with(':') || after.starts_with("[]:"))
    })
}

/// The fields below one of a schema, of whatever depth; those of a map are that map's.
fn fields(schema: &Value, path: &str, found: &mut Vec<(String, bool)>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let is_map = property["additionalProperties"].is_object();
        found.push((path.clone(), is_map));
        fields(property, &path, found);
        fields(&property["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn each_field_of_the_definitions_has_a_wrong_manifest_that_is_told_by_its_name() -> Result<()> {
    let all = all()?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml");
    let mut missing = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(crds)? {
        let definition: Value = serde_saphyr::from_str(&fs::read_to_string(entry?.path())?)?;
        let (group, kind) = (&definition["spec"]["group"], &definition["spec"]["names"]["kind"]);
        let (group, kind) = (group.as_str().context("no group")?, kind.as_str().context("no kind")?);
        for version in definition["spec"]["versions"].as_array().context("no versions")? {
            let api_version = format!("{group}/{}", version["name"].as_str().context("no name")?);
            let of_kind: Vec<&str> = all
                .iter()
                .filter(|(object, _)| object.kind() == kind && object.json["apiVersion"] == *api_version)
                .map(|(_, said)| said.as_str())
                .collect();
            // Statuses are written by programs.
            let mut found = Vec::new();
            fields(
                &version["schema"]["openAPIV3Schema"]["properties"]["spec"],
                "spec",
                &mut found,
            );
            seen += found.len();
            for (field, is_map) in found {
                let told = of_kind
                    .iter()
                    .any(|said| names(said, &field) || is_map && said.contains(&format!("{field}.")));
                if !told {
                    missing.push(format!("{kind} of {api_version}: {field}"));
                }
            }
        }
    }
    ensure!(seen > 100, "only {seen} fields are found in the definitions");
    ensure!(
        missing.is_empty(),
        "no wrong value is told of:\n{}\nAdd a manifest to bad-input, and see to it that somebody is told.",
        missing.join("\n")
    );
    Ok(())
}

#[test]
fn each_annotation_that_is_read_has_a_wrong_manifest_that_is_told_by_its_name() -> Result<()> {
    let all = all()?;
    let mut missing = Vec::new();
    for Annotation { kind, names } in annotations::ALL {
        for name in *names {
            let of_name = |object: &Object| object.json["metadata"]["annotations"].get(*name).is_some();
            // A slice's is told of its Service.
            let said = |said: &str| said.contains(&format!("metadata.annotations[{name}]"));
            let has = all.iter().any(|(object, _)| object.kind() == *kind && of_name(object));
            let told = all
                .iter()
                .any(|(object, text)| said(text) && (object.kind() == *kind || *kind == "EndpointSlice"));
            if !has || !told {
                missing.push(format!("{kind}: {name}"));
            }
        }
    }
    ensure!(
        missing.is_empty(),
        "no wrong value is told of the annotations\n{}\nAdd a manifest to bad-input, and see to it that somebody is told.",
        missing.join("\n")
    );
    Ok(())
}

/// Everything of OpenELB's that is read is in the list of its keys as read, and the list calls nothing else so; of what is not, it
/// says why.
#[test]
fn the_list_of_openelbs_keys_is_true_of_what_is_read() -> Result<()> {
    let list = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/keys.md"))?;
    let (mut called_read, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let rows = list.lines().filter(|line| line.starts_with("| "));
    for row in rows.skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [kind, objects, key, file, weir] = cells[..] else {
            bail!("not five cells: {row}");
        };
        let key = key.trim_matches('`');
        ensure!(key.contains("kubesphere.io/") && !file.is_empty(), "{row}");
        for object in objects.split(", ") {
            let of = (kind, object, key);
            ensure!(seen.insert(of), "twice: {of:?}");
            if weir == "read" || weir.starts_with("read,") || weir.starts_with("read;") || weir.starts_with("read:") {
                called_read.insert(of);
            } else {
                let why = weir.strip_prefix("unread").or_else(|| weir.strip_prefix("removed"));
                ensure!(why.is_some_and(|why| why.len() > 5), "not why: {row}");
            }
        }
    }
    let annotations = annotations::ALL.iter().flat_map(|Annotation { kind, names }| {
        let of_openelb = names.iter().filter(|name| name.contains("kubesphere.io/"));
        of_openelb.map(|name| ("annotation", *kind, *name))
    });
    let read: BTreeSet<_> = annotations
        .chain(READ)
        .chain(NODE_PROXY_FINALIZERS.map(|finalizer| ("finalizer", "Service", finalizer)))
        .collect();
    let differing: Vec<_> = read.symmetric_difference(&called_read).collect();
    ensure!(
        differing.is_empty(),
        "read and not called so in docs/keys.md, or the other way round: {differing:?}"
    );
    Ok(())
}

#[test]
fn a_field_is_named_by_its_whole_name_only() {
    let said = "refused: x is invalid: [spec.list[3].config.as: Invalid value, spec.labels.rack: Invalid value]";
    for (field, named) in [
        ("spec.list[].config.as", true),
        ("spec.list[].config", false),
        ("spec.list", false),
        ("config.as", false),
        ("spec.labels", false),
        ("spec.l", false),
    ] {
        assert_eq!(names(said, field), named, "{field}");
    }
    assert!(names("event: Bad: spec.ports[0]: it is", "spec.ports"));
}
