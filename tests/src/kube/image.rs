//! The image that `cargo xtask image` has built, as skopeo reads it and tar unpacks it.

use crate::lab::namespace::output_of;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An image for one architecture, unpacked.
#[derive(Debug)]
pub struct Image {
    /// What is to be its containers' root.
    pub root: PathBuf,
    /// The program it starts, with its first arguments.
    pub entrypoint: Vec<String>,
    /// The processor that it needs and this machine is not.
    pub emulator: Option<PathBuf>,
}

impl Image {
    /// Unpacks that for `architecture`, by the name that images have for it, under `folder`.
    ///
    /// # Errors
    /// When there is none, when its parts are not what their hashes say, or when a program is missing.
    pub fn unpack(architecture: &str, folder: &Path) -> Result<Self> {
        let layout = layout()?;
        let (parts, root) = (folder.join("parts"), folder.join("root"));
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        let tag = env!("CARGO_PKG_VERSION");
        output_of(
            Command::new("skopeo")
                .args(["--insecure-policy", "--override-arch", architecture, "copy", "--quiet"])
                .arg(format!("oci:{}:{tag}", layout.display()))
                .arg(format!("dir:{}", parts.display())),
        )?;
        let part = |digest: &Value| -> Result<PathBuf> {
            let digest = digest.as_str().unwrap_or_default();
            let hash = digest
                .strip_prefix("sha256:")
                .with_context(|| format!("{digest:?} is no hash"))?;
            Ok(parts.join(hash))
        };
        let manifest = read(&parts.join("manifest.json"))?;
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            output_of(
                Command::new("tar")
                    .arg("-xzf")
                    .arg(part(&layer["digest"])?)
                    .arg("-C")
                    .arg(&root),
            )?;
        }
        let config = read(&part(&manifest["config"]["digest"])?)?;
        ensure!(
            config["architecture"] == architecture && config["os"] == "linux",
            "{config}"
        );
        let entrypoint = config["config"]["Entrypoint"].as_array();
        let words = entrypoint.into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            root,
            entrypoint: words.map(str::to_owned).collect(),
            emulator: emulator(architecture)?,
        })
    }

    /// Paths of all that is in it.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn content(&self) -> Result<String> {
        output_of(
            Command::new("find")
                .arg(&self.root)
                .args(["-mindepth", "1", "-printf", "%P\n"]),
        )
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
}

/// Beside this program, up from `target/debug/deps`.
fn layout() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let mut layouts = own
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("image/debug/layout"));
    let built = layouts.find(|layout| layout.is_dir());
    built.context("there is no image: `cargo xtask image --profile dev` builds it")
}

fn emulator(architecture: &str) -> Result<Option<PathBuf>> {
    let machine = match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => anyhow::bail!("no image is for {other}"),
    };
    if machine == env::consts::ARCH {
        return Ok(None);
    }
    let name = format!("qemu-{machine}-static");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|folder| folder.join(&name));
    let found = places.find(|path| path.is_file());
    found
        .map(Some)
        .with_context(|| format!("there is no {name}; on Debian: apt-get install qemu-user-static"))
}
