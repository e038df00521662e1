//! Arguments without a flag: a kernel, and perhaps its initial RAM disk.
//!
//! Whoever writes one may mean something else: a flat image, a config, a disk, a command. Where the file shows that, the
//! message names the flag to write.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek};
use std::path::Path;

use vmm_boot::{FlatImage, ImageError, Role, SourceError, SourceFile, SourceProblem};
use vmm_config::Flag;

/// The commands of the program.
pub(crate) const COMMANDS: [&str; 3] = ["schema", "doctor", "help"];

/// The arguments without a flag, in their order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BareArguments<'a> {
    pub(crate) kernel: Option<&'a OsStr>,
    pub(crate) initrd: Option<&'a OsStr>,
    /// What there is no place for.
    pub(crate) further: &'a [OsString],
}

/// Why an argument without a flag can't be what it was written as.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BareError {
    #[error(
        "{count} arguments without a flag, up to \"{last}\", but a kernel and an initial RAM disk are all that there can be; a \
         command line for the kernel is one argument after --cmdline"
    )]
    TooMany { count: usize, last: String },
    #[error("{file}: {flag} names the {what} already, remove one of them")]
    GivenTwice { file: String, flag: Flag, what: &'static str },
    #[error(
        "{file}: an argument without a flag is a Linux kernel, but --flat names an image; remove one of them"
    )]
    BesideFlat { file: String },
    #[error("{command} is a command, and takes no flags; for a file of that name write ./{command}")]
    Command { command: String },
    #[error("{file}: {found}; {remedy}")]
    Misplaced { file: String, found: &'static str, remedy: String },
}

impl BareArguments<'_> {
    /// Refuses what contradicts `flags`, those that were given, or is plainly meant otherwise. What can't be opened or read is
    /// left for the loader to complain of.
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
        let remedy = format!("the value of {flag} comes after a =: write {flag}={file}");
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

/// The flag that may do without a value, and so takes it after `=`, if no file has this value's name.
fn flag_of_value(word: &str) -> Option<&'static str> {
    let flag = match word {
        "true" | "false" => "--irqchip",
        "lines" | "summary" => "--trace-exits",
        _ => return None,
    };
    (!Path::new(word).exists()).then_some(flag)
}

/// What a file is instead, and what to do.
type Finding = Option<(&'static str, String)>;

fn refuse(file: &OsStr, finding: Finding) -> Result<(), BareError> {
    match finding {
        Some((found, remedy)) => Err(BareError::Misplaced { file: shown(file), found, remedy }),
        None => Ok(()),
    }
}

/// What `path` is, if it is plainly no kernel.
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
            return Some(("a multiboot kernel, not one of Linux", format!("write --flat {file}")));
        }
        (Ok(FlatImage::Elf(_)), Err(_)) => {
            return Some((
                "an ELF executable that is no 64-bit Linux kernel",
                format!("write --flat {file}"),
            ));
        }
        _ => {}
    }
    match kernel.err()?.problem {
        SourceProblem::Image(ImageError::Compressed { format }) => Some((format, initrd_remedy(path))),
        // A boot sector of one's own ends as a bzImage's does, and is shorter than its header.
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

/// A config, by its name or its first character.
fn config(path: &Path, head: &[u8]) -> Finding {
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || head.trim_ascii_start().starts_with(b"{");
    is_json.then(|| ("looks like a config", format!("write --config {}", path.display())))
}

/// What no loader knows: a disk, an archive, or machine code alone. Text is left to the loader's words.
fn unknown(path: &Path, head: &[u8]) -> Finding {
    let file = path.display();
    if head.starts_with(b"07070") {
        return Some(("a cpio archive", initrd_remedy(path)));
    }
    if let Some(found) = disk(head) {
        let device = format!(r#"{{"type": "block", "path": "{file}"}}"#);
        return Some((found, format!("give it to the machine by {device} in \"devices\" of a config")));
    }
    let is_text = std::str::from_utf8(head).is_ok_and(|text| !text.contains('\0'));
    let remedy = format!("write --flat {file} if it is machine code without a header");
    (!is_text).then_some(("neither ELF nor bzImage", remedy))
}

fn initrd_remedy(path: &Path) -> String {
    let file = path.display();
    format!("name the kernel before it, or write --initrd {file}, if it is an initial RAM disk")
}

/// What disks and file systems have at their beginning: offset, bytes, and what the file is.
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

/// As far as [`DISKS`] looks.
const HEAD_LEN: u64 = 0x8001 + 5;

fn disk(head: &[u8]) -> Option<&'static str> {
    let has = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    // Of the first partition: 0x80 or 0 for whether it boots, and a type that isn't 0 (no partition). A boot sector alone has
    // code or zeros there.
    let has_partition =
        matches!(head.get(0x1be), Some(0 | 0x80)) && head.get(0x1c2).is_some_and(|kind| *kind != 0);
    let found = DISKS.iter().find(|(offset, magic, _)| has(*offset, magic)).map(|(_, _, found)| *found);
    found.or((has(0x1fe, b"\x55\xaa") && has_partition).then_some("a disk image with a partition table"))
}

/// The file's first bytes; none if it can't be opened.
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
