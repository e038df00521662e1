//! fio, the disk benchmark, in a guest with only Busybox.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::busybox;
use super::programs::{Programs, command as command_of, copy};
use crate::error::{At, Result};

/// fio alone.
pub(crate) const PROGRAMS: Programs = Programs(&[("fio", "fio")]);

macro_rules! resource {
    ($name:literal) => {
        include_str!(concat!("../../../../resources/rootfs/fio/", $name))
    };
}

/// What a guest has in addition to Busybox and the directory: `fio` in its PATH, and a first process that
/// measures.
const FILES: [(&str, u32, &str); 4] = [
    ("usr/bin/fio", 0o755, resource!("fio")),
    ("sbin/measure", 0o755, resource!("measure")),
    ("sbin/mark", 0o755, include_str!("../../../../resources/bench/mark")),
    ("etc/fio-jobs", 0o644, JOBS),
];
/// Where usr/bin/fio expects the directory.
const DIRS: [&str; 2] = ["opt", "opt/fio"];

/// The jobs by which a guest measures its disk, with the variables DISK, DIRECT (0 or 1) and SECONDS_EACH.
pub const JOBS: &str = resource!("jobs");

/// The command that runs the fio in `dir`, without arguments.
pub fn command(dir: &Path) -> [OsString; 4] {
    command_of(dir, PROGRAMS.name())
}

/// Everything the image depends on.
pub(super) fn inputs() -> Vec<String> {
    let files = FILES.iter().map(|(path, permissions, text)| format!("{path} {permissions:o} {text}"));
    files.chain(PROGRAMS.recipe()).collect()
}

/// Adds a guest's fio to the Busybox tree in `root`.
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

#[cfg(test)]
mod tests {
    use super::*;

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
