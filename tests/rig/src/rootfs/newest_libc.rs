//! Debian's newest C library, with which this host's dynamically linked programs run as they will on later systems.

use std::fs;
use std::path::Path;

use super::debian;
use super::kind::part_of;
use super::programs::{LOADER, LOADER_NAME, copy, unpack};
use crate::error::{At, Result};

const SUITE: &str = "sid";
/// What a program in Rust is linked to.
const PACKAGES: &str = "libc6,libgcc-s1";
/// In sid, where /lib is in /usr.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Inputs of the directory. Package versions aren't included: it isn't fetched again every day.
pub(crate) const RECIPE: [&str; 3] = [SUITE, PACKAGES, LIBRARIES];

/// Creates the directory `dir` atomically, with the loader as `ld.so` and all libraries of the packages. Needs the network, and a
/// quarter of a minute. `scratch` is an empty directory.
pub(crate) fn fetch(dir: &Path, scratch: &Path) -> Result<()> {
    let (tar, tree, part) = (scratch.join("libc.tar"), scratch.join("tree"), part_of(dir));
    debian::fetch_tar_from(SUITE, PACKAGES, &tar)?;
    unpack(&tar, &tree)?;
    let libraries = tree.join(LIBRARIES);
    fs::create_dir_all(&part).at("create", &part)?;
    let made = copy_libraries(&libraries, &part).and_then(|()| fs::rename(&part, dir).at("create", dir));
    if made.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    made
}

fn copy_libraries(libraries: &Path, dir: &Path) -> Result<()> {
    copy(&libraries.join(LOADER_NAME), &dir.join(LOADER))?;
    for entry in fs::read_dir(libraries).at("list", libraries)? {
        let path = entry.at("list", libraries)?.path();
        if path.is_file() {
            copy(&path, &dir.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}
