//! An OCI image layout (image-spec 1.0): a folder of blobs by their hashes, and an index of images by architecture.

use super::{Architecture, PROGRAM};
use crate::process::{check, output};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The image's tag: that of the chart.
const TAG: &str = env!("CARGO_PKG_VERSION");

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Writes a layout of these programs anew, and gives its path.
pub(super) fn write(layout: &Path, programs: &[(Architecture, PathBuf)]) -> Result<PathBuf> {
    if layout.exists() {
        fs::remove_dir_all(layout).with_context(|| format!("cannot remove {}", layout.display()))?;
    }
    let blobs = Blobs {
        folder: layout.join("blobs/sha256"),
    };
    fs::create_dir_all(&blobs.folder).with_context(|| format!("cannot create {}", blobs.folder.display()))?;
    let mut images = Vec::new();
    for (architecture, program) in programs {
        let mut image = blobs.image(*architecture, program)?;
        image["platform"] = json!({"architecture": architecture.name(), "os": "linux"});
        images.push(image);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": images});
    let mut named = blobs.add_json(INDEX, &index)?;
    named["annotations"] = json!({"org.opencontainers.image.ref.name": TAG});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(
        layout.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )?;
    Ok(layout.to_owned())
}

/// What containers of it have unless they are told otherwise. No user and no environment: the manifests name the user of each.
pub(super) fn settings() -> Value {
    json!({"Entrypoint": [format!("/{PROGRAM}")]})
}

/// Where blobs are; what is added gives its descriptor.
struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// An image with nothing in it but the program.
    fn image(&self, architecture: Architecture, program: &Path) -> Result<Value> {
        let tar = self.folder.join("layer.tar");
        let folder = program.parent().context("the program has no folder")?;
        // The same bytes whoever makes it, and when.
        check(
            Command::new("tar")
                .args([
                    "--create",
                    "--format=ustar",
                    "--mtime=@0",
                    "--owner=0",
                    "--group=0",
                    "--numeric-owner",
                ])
                .args(["--mode=0755", "--file"])
                .arg(&tar)
                .arg("--directory")
                .arg(folder)
                .arg(PROGRAM),
        )?;
        let layer = hash(&tar)?;
        check(Command::new("gzip").args(["--no-name", "--force"]).arg(&tar))?;
        let compressed = self.add(LAYER, &tar.with_extension("tar.gz"))?;
        let config = json!({
            "architecture": architecture.name(),
            "os": "linux",
            "config": settings(),
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        });
        let config = self.add_json(CONFIG, &config)?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [compressed]});
        self.add_json(MANIFEST, &manifest)
    }

    fn add_json(&self, kind: &str, value: &Value) -> Result<Value> {
        let draft = self.folder.join("draft.json");
        fs::write(&draft, value.to_string()).with_context(|| format!("cannot write {}", draft.display()))?;
        self.add(kind, &draft)
    }

    /// Moves the file to its place.
    fn add(&self, kind: &str, file: &Path) -> Result<Value> {
        let size = fs::metadata(file)?.len();
        let hash = hash(file)?;
        fs::rename(file, self.folder.join(&hash))?;
        Ok(json!({"mediaType": kind, "digest": format!("sha256:{hash}"), "size": size}))
    }
}

/// Its SHA-256, in hexadecimal.
fn hash(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg("--").arg(file));
    let line = line.with_context(|| format!("sha256sum cannot read {}", file.display()))?;
    line.split_whitespace()
        .next()
        .map(str::to_owned)
        .context("sha256sum printed nothing")
}
