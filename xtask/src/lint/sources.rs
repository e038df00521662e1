//! The packages of the workspace, from `cargo metadata`, and their Rust files.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::Failure;
use crate::workspace::{cargo, root, succeed};

/// A crate of the workspace.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) dependencies: Vec<Dependency>,
    /// `Some` and empty for one that isn't to be published, `None` for any registry.
    pub(super) publish: Option<Vec<String>>,
    pub(super) description: Option<String>,
    pub(super) license: Option<String>,
    pub(super) readme: Option<PathBuf>,
    pub(super) keywords: Vec<String>,
    pub(super) categories: Vec<String>,
    /// `[package.metadata]`, for other tools.
    pub(super) metadata: serde_json::Value,
    manifest_path: PathBuf,
}

/// A dependency in a crate's manifest.
#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// "dev" or "build"; `None` for a normal one.
    pub(super) kind: Option<String>,
    /// Set for crates of the workspace.
    pub(super) path: Option<PathBuf>,
}

/// A Rust file of a package.
pub(super) struct Source {
    /// Relative to the package, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl Package {
    /// The package's directory.
    pub(super) fn dir(&self) -> &Path {
        self.manifest_path.parent().expect("cargo gives the path of a file")
    }

    /// The text of its Cargo.toml.
    pub(super) fn manifest(&self) -> Result<String, Failure> {
        fs::read_to_string(&self.manifest_path)
            .map_err(|error| format!("can't read {}: {error}", self.manifest_path.display()).into())
    }

    /// The path of one of its files for messages: relative to the workspace.
    pub(super) fn shown(&self, file: &str) -> String {
        self.dir().strip_prefix(root()).unwrap_or(self.dir()).join(file).display().to_string()
    }

    /// All its Rust source files, sorted by path, without those of packages below its directory.
    pub(super) fn sources(&self) -> Result<Vec<Source>, Failure> {
        let mut sources = Vec::new();
        for dir in ["src", "examples", "tests", "benches"] {
            collect(self.dir(), &self.dir().join(dir), &mut sources)?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(sources)
    }
}

/// The packages of the workspace.
pub(super) fn packages() -> Result<Vec<Package>, Failure> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let output = cargo(&["metadata", "--format-version=1", "--no-deps"]).output()?;
    succeed(output.status, "cargo metadata")?;
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}

fn collect(package: &Path, dir: &Path, sources: &mut Vec<Source>) -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.join("Cargo.toml").exists() {
            // Another package within this one's directory.
            continue;
        }
        if path.is_dir() {
            collect(package, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .map_err(|error| format!("can't read {}: {error}", path.display()))?;
            let path = path.strip_prefix(package).unwrap_or(&path).to_string_lossy().into_owned();
            sources.push(Source { path, text });
        }
    }
    Ok(())
}
