//! Positional arguments: a kernel, and optionally its initial RAM disk.
//!
//! A user may pass something else there: a flat image, a config, a disk, a misspelt command. If the file shows what it is, the
//! message names the right flag.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek};
use std::path::Path;

use vmm_boot::{FlatImage, ImageError, Role, SourceError, SourceFile, SourceProblem};
use vmm_config::Flag;

/// The commands of the program.
pub(crate) const COMMANDS: [&str; 6] = ["schema", "ctl", "doctor", "restore", "snapshot", "help"];

/// The positional arguments, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BareArguments<'a> {
    pub(crate) kernel: Option<&'a OsStr>,
    pub(crate) initrd: Option<&'a OsStr>,
    /// Any beyond these two.
    pub(crate) further: &'a [OsString],
}

/// Why a positional argument is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BareError {
    #[error(
        "{count} positional arguments, up to \"{last}\", but at most a kernel and an initial RAM disk are allowed; pass a kernel \
         command line as one argument after --cmdline"
    )]
    TooMany { count: usize, last: String },
    #[error("{file}: {flag} already names the {what}; remove one of them")]
    GivenTwice { file: String, flag: Flag, what: &'static str },
    #[error("{file}: a positional argument is a Linux kernel, but --flat names an image; remove one of them")]
    BesideFlat { file: String },
    #[error(
        "{command} is a command, which comes before its flags; for a file of that name, write ./{command}"
    )]
    Command { command: String },
    #[error("{file}: {found}; {remedy}")]
    Misplaced { file: String, found: &'static str, remedy: String },
}

impl BareArguments<'_> {
    /// Rejects arguments that contradict `flags`, the flags given, or that are clearly neither a kernel nor an initial RAM disk.
    /// Files that can't be opened or read are accepted here; the loader reports them.
    ///
    /// # Errors
    /// The first such argument, and what to write instead.
    pub(crate) fn check(&self, flags: &[Flag]) -> Result<(), BareError> {
        if let Some(last) = self.further.last() {
            let count = 2 + self.further.len();
            return Err(BareError::TooMany { count, last: shown(last) });
        }
        if let Some(kernel) = self.kernel {
            check_kernel(kernel, flags)?;
        }
        if let Some(initrd) = self.initrd {
            if flags.contains(&Flag::Initrd) {
                let (flag, what) = (Flag::Initrd, "initial RAM disk");
                return Err(BareError::GivenTwice { file: shown(initrd), flag, what });
            }
            refuse(initrd, config(Path::new(initrd), &head_of(Role::Initrd, initrd)))?;
        }
        Ok(())
    }
}

fn check_kernel(kernel: &OsStr, flags: &[Flag]) -> Result<(), BareError> {
    let file = shown(kernel);
    if let Some(flag) = flag_of_value(&file) {
        let remedy = format!("{flag} takes its value after an equals sign: write {flag}={file}");
        return Err(BareError::Misplaced { file, found: "no such file", remedy });
    }
    if COMMANDS.contains(&file.as_str()) {
        return Err(BareError::Command { command: file });
    }
    if flags.contains(&Flag::Kernel) {
        return Err(BareError::GivenTwice { file, flag: Flag::Kernel, what: "kernel" });
    }
    if flags.contains(&Flag::Flat) {
        return Err(BareError::BesideFlat { file });
    }
    refuse(kernel, misplaced(Path::new(kernel)))
}

/// The flag with an optional value, which must follow `=`, that takes `word` as its value; `None` if a file has that name.
fn flag_of_value(word: &str) -> Option<&'static str> {
    let flag = match word {
        "true" | "false" => "--irqchip",
        "lines" | "summary" => "--trace-exits",
        _ => return None,
    };
    (!Path::new(word).exists()).then_some(flag)
}

/// What a file is instead of a kernel or an initial RAM disk, and what to do about it.
type Finding = Option<(&'static str, String)>;

fn refuse(file: &OsStr, finding: Finding) -> Result<(), BareError> {
    match finding {
        Some((found, remedy)) => Err(BareError::Misplaced { file: shown(file), found, remedy }),
        None => Ok(()),
    }
}

/// What `path` is, if it is clearly not a kernel.
fn misplaced(path: &Path) -> Finding {
    let file = path.display();
    let mut source = match SourceFile::open(Role::Kernel, path) {
        Ok(source) => source,
        Err(SourceError { problem, .. }) => return not_opened(path, &problem),
    };
    let head = head(&mut source).ok()?;
    if let Some(found) = config(path, &head) {
        return Some(found);
    }
    let kernel = source.inspect();
    match (source.inspect_flat(), &kernel) {
        (Ok(FlatImage::Multiboot(_)), _) => {
            return Some(("a multiboot kernel, not a Linux kernel", format!("write --flat {file}")));
        }
        (Ok(FlatImage::Elf(_)), Err(_)) => {
            return Some((
                "an ELF executable, but not a 64-bit Linux kernel",
                format!("write --flat {file}"),
            ));
        }
        _ => {}
    }
    match kernel.err()?.problem {
        SourceProblem::Image(ImageError::Compressed { format }) => Some((format, initrd_remedy(path))),
        // A home-made boot sector has the same signature as a bzImage, and is shorter than a bzImage's header.
        SourceProblem::Image(ImageError::UnknownFormat { .. } | ImageError::Truncated { .. }) => {
            unknown(path, &head)
        }
        _ => None,
    }
}

fn not_opened(path: &Path, problem: &SourceProblem) -> Finding {
    match problem {
        SourceProblem::Open(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = vmm_config::hint(&path.to_string_lossy(), &COMMANDS);
            let is_near = hint.starts_with("did you mean");
            is_near.then_some(("no such file", hint)).or_else(|| config(path, &[]))
        }
        SourceProblem::NotAFile { found: "a directory" } => {
            let remedy =
                "name a kernel in it, a flat image with --flat, or a config with --config".to_owned();
            Some(("a directory", remedy))
        }
        _ => None,
    }
}

/// Recognizes a config by its file name extension or its first character.
fn config(path: &Path, head: &[u8]) -> Finding {
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || head.trim_ascii_start().starts_with(b"{");
    is_json.then(|| ("looks like a config", format!("write --config {}", path.display())))
}

/// Recognizes files that no loader supports: a disk, an archive, or raw machine code. `None` for text, which the loader reports.
fn unknown(path: &Path, head: &[u8]) -> Finding {
    let file = path.display();
    if head.starts_with(b"07070") {
        return Some(("a cpio archive", initrd_remedy(path)));
    }
    if let Some(found) = disk(head) {
        let device = format!(r#"{{"type": "block", "path": "{file}"}}"#);
        return Some((found, format!("attach it with {device} in \"devices\" of a config")));
    }
    let is_text = std::str::from_utf8(head).is_ok_and(|text| !text.contains('\0'));
    let remedy = format!("write --flat {file} if it is machine code without a header");
    (!is_text).then_some(("neither ELF nor bzImage", remedy))
}

fn initrd_remedy(path: &Path) -> String {
    let file = path.display();
    format!("if it is an initial RAM disk, name the kernel before it, or write --initrd {file}")
}

/// Magic numbers of disk images and file systems: offset, bytes, and description.
const DISKS: [(usize, &[u8], &str); 10] = [
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"XFSB", "an XFS file system"),
    (0x200, b"EFI PART", "a disk image with a partition table"),
    (0x400, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (0x438, b"\x53\xef", "an ext4 file system"),
    (0x8001, b"CD001", "an ISO 9660 file system"),
];

/// Bytes of a file that are examined: up to the end of the last magic number in [`DISKS`].
const HEAD_LEN: u64 = 0x8001 + 5;

fn disk(head: &[u8]) -> Option<&'static str> {
    let has = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    // The first partition entry of an MBR: its status is 0x80 (bootable) or 0, and its type isn't 0 (unused). A boot sector without
    // a partition table has code or zeros there.
    let has_partition =
        matches!(head.get(0x1be), Some(0 | 0x80)) && head.get(0x1c2).is_some_and(|kind| *kind != 0);
    let found = DISKS.iter().find(|(offset, magic, _)| has(*offset, magic)).map(|(_, _, found)| *found);
    found.or((has(0x1fe, b"\x55\xaa") && has_partition).then_some("a disk image with a partition table"))
}

/// The first [`HEAD_LEN`] bytes of the file; empty if it can't be opened.
fn head_of(role: Role, file: &OsStr) -> Vec<u8> {
    let source = SourceFile::open(role, Path::new(file)).ok();
    source.and_then(|mut source| head(&mut source).ok()).unwrap_or_default()
}

fn head(source: &mut SourceFile) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    source.file().take(HEAD_LEN).read_to_end(&mut head)?;
    source.file().rewind()?;
    Ok(head)
}

fn shown(argument: &OsStr) -> String {
    argument.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::COMMANDS;

    #[test]
    fn commands_are_those_of_the_program() {
        let mut command = crate::command();
        command.build();
        let mut found: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut listed = COMMANDS;
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
