//! Programs of Debian packages in a directory with all their libraries, so that they run on any host of this
//! architecture, and in a guest with only Busybox.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian;
use super::kind::part_of;
use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::progress::step;

pub(super) const LOADER: &str = "ld.so";
/// The loader's name in its package, and the directory of the libraries; ceph's libraries contain their own.
pub(super) const LOADER_NAME: &str = "ld-linux-x86-64.so.2";
const LIBRARY_DIRS: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];
const PROGRAM_DIRS: [&str; 4] = ["usr/bin", "bin", "usr/sbin", "sbin"];

/// Packages, each with one of its programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programs(pub(crate) &'static [(&'static str, &'static str)]);

/// The command that runs `program` from the directory `dir` of the cache, without arguments.
pub fn command(dir: &Path, program: &str) -> [OsString; 4] {
    [dir.join(LOADER).into(), "--library-path".into(), dir.into(), dir.join(program).into()]
}

/// Names and contents of the files in the directory `dir` of the cache.
pub fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        let path = entry.path();
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(&path).at("read", &path)?));
    }
    files.sort();
    Ok(files)
}

impl Programs {
    /// Name of the first package, which represents all.
    pub(crate) fn name(self) -> &'static str {
        self.0[0].0
    }

    /// The names of the packages, separated by commas.
    fn packages(self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(package, _)| *package).collect();
        names.join(",")
    }

    /// Inputs of the directory.
    pub(crate) fn recipe(self) -> Vec<String> {
        [self.packages()].into_iter().chain(LIBRARY_DIRS.map(str::to_owned)).collect()
    }

    /// Creates the directory `dir` atomically. Needs the network, and a quarter of a minute. `scratch` is an
    /// empty directory.
    pub(crate) fn fetch(self, dir: &Path, scratch: &Path) -> Result<()> {
        let (tar, tree, part) = (scratch.join("programs.tar"), scratch.join("tree"), part_of(dir));
        debian::fetch_tar(&self.packages(), &tar)?;
        unpack(&tar, &tree)?;
        fs::create_dir_all(&part).at("create", &part)?;
        let made =
            self.copy_with_libraries(&tree, &part).and_then(|()| fs::rename(&part, dir).at("create", dir));
        if made.is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        made
    }

    /// Copies files from the unpacked packages to `dir`, without subdirectories.
    fn copy_with_libraries(self, tree: &Path, dir: &Path) -> Result<()> {
        let places = LIBRARY_DIRS.map(|place| tree.join(place));
        let loader = places.iter().map(|place| place.join(LOADER_NAME)).find(|path| path.exists());
        let loader = loader.ok_or_else(|| Error::format("package libc6", format!("has no {LOADER_NAME}")))?;
        let library_path = std::env::join_paths(&places)
            .map_err(|error| Error::format("target/assets", error.to_string()))?;
        let mut needed = BTreeMap::new();
        for (package, name) in self.0 {
            let places = PROGRAM_DIRS.map(|place| tree.join(place).join(name));
            let program = places.into_iter().find(|path| path.exists());
            let program = program.ok_or_else(|| {
                Error::format(format!("package {package}"), format!("has no program {name}"))
            })?;
            let mut list = Command::new(&loader);
            list.arg("--library-path").arg(&library_path).arg("--list").arg(&program);
            let listing = output_of(&mut list)?;
            needed.extend(libraries(&listing).map(|(name, path)| (name.to_owned(), path)));
            copy(&program, &dir.join(name))?;
        }
        needed.iter().try_for_each(|(name, path)| copy(path, &dir.join(name)))?;
        copy(&loader, &dir.join(LOADER))
    }
}

/// Unpacks the archive `tar` to the new directory `tree`.
pub(super) fn unpack(tar: &Path, tree: &Path) -> Result<()> {
    fs::create_dir(tree).at("create", tree)?;
    let mut command = Command::new("tar");
    // Only root can create the device nodes, which aren't needed.
    command.args(["-x", "--no-same-owner", "--exclude=./dev/*", "-f"]).arg(tar).arg("-C").arg(tree);
    step("unpacking packages", || output_of(&mut command)).map(drop)
}

/// Names and paths in a loader's list: `libm.so.6 => /lib/libm.so.6 (0x00007f..)`. The vDSO, which isn't a
/// file, has no arrow. The loader lists itself by its absolute path on the host; names that lead outside our
/// directory are ignored.
fn libraries(listing: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    listing.lines().filter_map(|line| {
        let (name, path) = line.trim().split_once(" => ")?;
        let (path, _address) = path.rsplit_once(" (")?;
        (!name.contains('/')).then(|| (name, path.into()))
    })
}

/// Creates the file `to`; an existing file is an error, never overwritten.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).at("open", from)?;
    let mode = source.metadata().at("examine", from)?.permissions().mode();
    let mut made = OpenOptions::new().write(true).create_new(true).mode(mode).open(to).at("create", to)?;
    io::copy(&mut source, &mut made).at("write", to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\tlinux-vdso.so.1 (0x00007f84)\n\tlibm.so.6 => /t/lib/libm.so.6 (0x00007f83)\n\
        \t/lib64/ld-linux-x86-64.so.2 => /t/lib/ld-linux-x86-64.so.2 (0x00007f82)\n";

    #[test]
    fn libraries_vdso_and_loader_are_left_out() {
        let found: Vec<_> = libraries(LISTING).collect();
        assert_eq!(found, [("libm.so.6", PathBuf::from("/t/lib/libm.so.6"))]);
    }

    #[test]
    fn libraries_name_that_leads_out_of_the_directory_is_left_out() {
        let listing = "\t../libm.so.6 => /t/lib/libm.so.6 (0x00007f83)\n";
        assert_eq!(libraries(listing).count(), 0);
    }

    #[test]
    fn copy_onto_a_file_that_is_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        assert!(copy(&from, &to).is_err());
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
    }

    #[test]
    fn recipe_names_the_packages_first() {
        let programs = Programs(&[("pciutils", "setpci"), ("bash", "bash")]);
        assert_eq!(programs.recipe()[0], "pciutils,bash");
    }
}
