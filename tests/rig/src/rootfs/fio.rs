//! fio, the tester of disks, in a directory of its own with every library that it wants: it runs there on any host of this
//! architecture, and in a guest that has nothing but Busybox.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{busybox, debian, part_of};
use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::progress::step;

const PACKAGE: &str = "fio";
const PROGRAM: &str = "fio";
const LOADER: &str = "ld.so";
/// What the package calls the loader, and where it and the libraries are; libraries of ceph know their own place.
const LOADER_NAME: &str = "ld-linux-x86-64.so.2";
const LIBRARY_DIRS: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];

macro_rules! resource {
    ($name:literal) => {
        include_str!(concat!("../../../../resources/rootfs/fio/", $name))
    };
}

/// What a guest has beside Busybox and the directory: `fio` on the path, and a first process that measures.
const FILES: [(&str, u32, &str); 3] = [
    ("usr/bin/fio", 0o755, resource!("fio")),
    ("sbin/measure", 0o755, resource!("measure")),
    ("etc/fio-jobs", 0o644, JOBS),
];
/// Where usr/bin/fio looks for the directory.
const DIRS: [&str; 2] = ["opt", "opt/fio"];

/// The jobs that a guest measures its disk with. They take the variables DISK, DIRECT (0 or 1) and SECONDS_EACH.
pub const JOBS: &str = resource!("jobs");

/// What the directory depends on.
pub(crate) const RECIPE: [&str; 4] = [PACKAGE, LIBRARY_DIRS[0], LIBRARY_DIRS[1], LIBRARY_DIRS[2]];

/// The command that runs the fio in `dir`, to be followed by its arguments.
pub fn command(dir: &Path) -> [OsString; 4] {
    [dir.join(LOADER).into(), "--library-path".into(), dir.into(), dir.join(PROGRAM).into()]
}

/// Whatever the image depends on.
pub(super) fn inputs() -> Vec<String> {
    let files = FILES.iter().map(|(path, permissions, text)| format!("{path} {permissions:o} {text}"));
    files.chain(RECIPE.map(str::to_owned)).collect()
}

/// Makes the directory `dir`; it appears whole or not. Needs the network, and a quarter of a minute. `scratch` is an empty
/// directory.
pub(crate) fn fetch(dir: &Path, scratch: &Path) -> Result<()> {
    let (tar, tree, part) = (scratch.join("fio.tar"), scratch.join("tree"), part_of(dir));
    debian::fetch_tar(PACKAGE, &tar)?;
    fs::create_dir(&tree).at("create", &tree)?;
    step("unpacking fio", || {
        // Nobody but root can make the device nodes, which aren't wanted.
        output_of(
            Command::new("tar")
                .args(["-x", "--no-same-owner", "--exclude=./dev/*", "-f"])
                .arg(&tar)
                .arg("-C")
                .arg(&tree),
        )
    })?;
    fs::create_dir_all(&part).at("create", &part)?;
    let made = copy_with_libraries(&tree, &part).and_then(|()| fs::rename(&part, dir).at("create", dir));
    if made.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    made
}

/// Writes what a guest has of fio to the Busybox tree below `root`.
pub(super) fn write_tree(dir: &Path, root: &Path) -> Result<()> {
    DIRS.iter().try_for_each(|path| busybox::make_dir(&root.join(path), 0o755))?;
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        copy(&entry.path(), &root.join(DIRS[1]).join(entry.file_name()))?;
    }
    FILES
        .iter()
        .try_for_each(|(path, permissions, text)| busybox::write(&root.join(path), *permissions, text))
}

/// Copies from the unpacked packages to `dir`, where all files lie side by side.
fn copy_with_libraries(tree: &Path, dir: &Path) -> Result<()> {
    let places = LIBRARY_DIRS.map(|place| tree.join(place));
    let loader = places.iter().map(|place| place.join(LOADER_NAME)).find(|path| path.exists());
    let loader = loader.ok_or_else(|| Error::format("package libc6", format!("has no {LOADER_NAME}")))?;
    let program = tree.join("usr/bin").join(PROGRAM);
    let library_path =
        std::env::join_paths(&places).map_err(|error| Error::format("target/assets", error.to_string()))?;
    let listing =
        output_of(Command::new(&loader).arg("--library-path").arg(library_path).arg("--list").arg(&program))?;
    for (name, path) in libraries(&listing) {
        copy(&path, &dir.join(name))?;
    }
    copy(&loader, &dir.join(LOADER))?;
    copy(&program, &dir.join(PROGRAM))
}

/// The names and paths in what a loader lists: `libm.so.6 => /lib/libm.so.6 (0x00007f..)`. The vDSO, which isn't a file, has
/// no arrow. The loader lists itself too, by the absolute path that programs name it by, which is the host's: no name that
/// leads out of our directory is taken.
fn libraries(listing: &str) -> impl Iterator<Item = (&str, PathBuf)> {
    listing.lines().filter_map(|line| {
        let (name, path) = line.trim().split_once(" => ")?;
        let (path, _address) = path.rsplit_once(" (")?;
        (!name.contains('/')).then(|| (name, path.into()))
    })
}

/// Makes the new file `to`; one that is there already is an error, never overwritten.
fn copy(from: &Path, to: &Path) -> Result<()> {
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
    fn jobs_take_every_variable_that_the_guest_sets() {
        let measure = resource!("measure");
        let variables = ["DISK", "DIRECT", "SECONDS_EACH"];
        assert!(
            variables
                .iter()
                .all(|name| JOBS.contains(&format!("${{{name}}}")) && measure.contains(&format!("{name}=")))
        );
    }
}
