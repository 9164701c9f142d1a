//! Golden plans: what each node is to do for a folder of manifests.
//!
//! `plans/<case>/input/` holds the manifests, `previous.yaml` beside it (if there is one) the allocations of an earlier plan,
//! and `plan.<node>.yaml` what each node of the input is to do. With `WEIR_BLESS=1` in the environment the plans are
//! written instead of compared; read the difference before you keep it.

use anyhow::{Context, Result, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use weir::source::folder;
use weir_core::{
    model::{Cluster, reason},
    plan::{Plan, ThisNode, plan},
};

#[test]
fn every_plan_is_as_recorded() -> Result<()> {
    let cases = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plans"))?;
    ensure!(!cases.is_empty(), "there are no cases");
    let bless = env::var_os("WEIR_BLESS").is_some_and(|value| value == "1");
    let mut differences = Vec::new();
    for case in cases {
        differences.extend(check(&case, bless).with_context(|| format!("case {}", case.display()))?);
    }
    ensure!(
        differences.is_empty(),
        "{}\nIf that is what you mean to change: WEIR_BLESS=1 cargo test -p tests --test plans, and read the difference.",
        differences.join("\n")
    );
    Ok(())
}

/// Compares the plans of one case, or writes them; gives a text for each that is not as recorded.
fn check(case: &Path, bless: bool) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for path in entries(&case.join("input"))? {
        let name = path
            .file_name()
            .context("a file without a name")?
            .to_string_lossy()
            .into_owned();
        files.push((name, fs::read_to_string(&path)?));
    }
    let mut cluster = folder::parse(&files).cluster;
    let previous = case.join("previous.yaml");
    if previous.exists() {
        cluster.previous = serde_saphyr::from_str(&fs::read_to_string(previous)?)?;
    }
    check_order(&files, &cluster)?;
    let mut nodes: Vec<String> = cluster.nodes.keys().cloned().collect();
    if nodes.is_empty() {
        nodes.push("node-a".into());
    }
    let mut differences = Vec::new();
    for name in nodes {
        let path = case.join(format!("plan.{name}.yaml"));
        let outcome = plan(&cluster, &ThisNode { name });
        let text = serde_saphyr::to_string(&outcome)?;
        ensure!(
            serde_saphyr::from_str::<Plan>(&text)? == outcome,
            "the plan is another one after writing and reading it"
        );
        let json = serde_json::to_string(&outcome)?;
        ensure!(
            serde_json::from_str::<Plan>(&json)? == outcome,
            "the plan is another one after writing and reading it"
        );
        if bless {
            fs::write(&path, &text)?;
        } else {
            let recorded = fs::read_to_string(&path).unwrap_or_default();
            differences.extend(difference(&recorded, &text).map(|line| format!("{}: {line}", path.display())));
        }
    }
    Ok(differences)
}

/// What is served may not depend on the order in which files are read, except that of two objects with one name the first
/// counts.
fn check_order(files: &[(String, String)], cluster: &Cluster) -> Result<()> {
    if cluster.faults.iter().any(|fault| fault.reason == reason::DUPLICATE) {
        return Ok(());
    }
    let renamed = |(index, (name, text)): (usize, &(String, String))| (format!("{index:03}-{name}"), text.clone());
    let reversed: Vec<_> = files.iter().rev().enumerate().map(renamed).collect();
    let again = Cluster {
        previous: cluster.previous.clone(),
        ..folder::parse(&reversed).cluster
    };
    let this = ThisNode { name: "node-a".into() };
    let (first, second) = (plan(cluster, &this), plan(&again, &this));
    ensure!(
        (first.vips, first.frontends, first.allocations) == (second.vips, second.frontends, second.allocations),
        "the plan depends on the order of the files"
    );
    Ok(())
}

/// The first line that differs.
fn difference(recorded: &str, now: &str) -> Option<String> {
    let (mut recorded, mut now) = (recorded.lines(), now.lines());
    for number in 1.. {
        match (recorded.next(), now.next()) {
            (None, None) => return None,
            (was, is) if was == is => {}
            (was, is) => {
                let shown = |line: Option<&str>| line.unwrap_or("(end)").to_owned();
                return Some(format!(
                    "line {number}\n  recorded: {}\n  now:      {}",
                    shown(was),
                    shown(is)
                ));
            }
        }
    }
    None
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = read.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
