//! Creates an ext4 image from a directory or a tar archive, without mounting it.

use std::fs::{self, File};
use std::path::Path;

use super::kind::{LABEL, part_of};
use super::tools;
use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::progress::step;

/// Constant, so that two images of the same files differ only in the files' times.
const UUID: &str = "6d6d7672-6f6f-4000-8000-746673000000";
const EXTENDED: &str = "hash_seed=6d6d7672-6f6f-4000-8000-746673000000,root_owner=0:0,\
                        lazy_itable_init=0,lazy_journal_init=0";
/// Explicit, because a host's mke2fs.conf may enable features that a guest's kernel or another e2fsck doesn't
/// know. Linux 4.12 and e2fsprogs 1.43 know these.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                        metadata_csum,sparse_super,large_file,huge_file,dir_nlink,extra_isize";
/// 2020-01-01, as the file system's creation time, earlier than any guest's clock.
const MADE_AT: &str = "1577836800";

/// Options of mke2fs. No blocks are reserved for root, who is the only user, and nothing is left to the
/// guest's kernel for background initialisation.
pub(super) const OPTIONS: [&str; 20] = [
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    "4096",
    "-I",
    "256",
    "-m",
    "0",
    "-e",
    "remount-ro",
    "-L",
    LABEL,
    "-U",
    UUID,
    "-E",
    EXTENDED,
    "-O",
    FEATURES,
];

/// Creates the image `path` of `len` bytes from the directory `tree`, whose files become root's.
pub(super) fn from_tree(tree: &Path, len: u64, path: &Path) -> Result<()> {
    make(r#"tree=$1 part=$2; shift 2; "$@" -d "$tree" "$part""#, &[tree], len, path)
}

/// Creates the image `path` of `len` bytes from the archive `tar`, with its owners, modes and device nodes.
/// It is unpacked to `tree`, which must not exist.
pub(super) fn from_tar(tar: &Path, tree: &Path, len: u64, path: &Path) -> Result<()> {
    // In a single command, because fakeroot forgets the owners when its command exits.
    let script = r#"tar=$1 tree=$2 part=$3; shift 3
        mkdir "$tree"
        tar -x -p --same-owner --numeric-owner -f "$tar" -C "$tree"
        "$@" -d "$tree" "$part""#;
    make(script, &[tar, tree], len, path)
}

/// Runs `script` with `inputs`, the file to create and the command that creates it.
fn make(script: &str, inputs: &[&Path], len: u64, path: &Path) -> Result<()> {
    let mke2fs = tools::program("mke2fs", "e2fsprogs")?;
    let part = part_of(path);
    let mut command = tools::shell_as_root(script)?;
    command.args(inputs).arg(&part).arg(mke2fs).args(OPTIONS).env("E2FSPROGS_FAKE_TIME", MADE_AT);
    let made = File::create(&part)
        .and_then(|file| file.set_len(len))
        .at("create", &part)
        .and_then(|()| step(&format!("making {}", path.display()), || output_of(&mut command)))
        .map_err(|error| said_plainly(error, len, path))
        .and_then(|_| fs::rename(&part, path).at("create", path));
    if made.is_err() {
        let _ = fs::remove_file(&part);
    }
    made
}

/// mke2fs detects that the files don't fit only while it copies them, and reports that in its own words.
fn said_plainly(error: Error, len: u64, path: &Path) -> Error {
    match &error {
        Error::CommandFailed { stderr, .. } if stderr.contains("Could not allocate") => {
            let problem = format!("the files don't fit into {} MiB: choose a larger size", len >> 20);
            Error::format(path.display().to_string(), problem)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(stderr: &str) -> Error {
        Error::CommandFailed {
            command: "mke2fs".into(),
            status: "exit status: 1".into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn error_of_a_full_image_names_the_size() {
        let stderr = "__populate_fs: Could not allocate block in ext2 filesystem while writing file \"a\"";
        let error = said_plainly(failed(stderr), 64 << 20, Path::new("d.ext4"));
        assert_eq!(error.to_string(), "d.ext4: the files don't fit into 64 MiB: choose a larger size");
    }

    #[test]
    fn error_of_another_kind_is_kept() {
        let error = said_plainly(failed("No space left on device"), 64 << 20, Path::new("d.ext4"));
        assert!(error.to_string().ends_with("No space left on device"), "{error}");
    }
}
