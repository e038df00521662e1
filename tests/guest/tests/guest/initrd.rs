//! Initramfs images with drivers that stock kernels build as modules.

use std::path::Path;

use driver::{Monitor, agent_program};
use rig::newc::Archive;
use rig::{KernelKind, Module};
use tempfile::NamedTempFile;

use crate::linux::{ANY, Image, image_path, initrd_path, kernel};
use crate::shell::Shell;

/// Without `reboot=`: the ACPI tables describe how to reset.
pub(crate) const CMDLINE: &str = "console=ttyS0 panic=-1 quiet";

/// The initramfs with these drivers in /modules; `sh /modules/load` loads them all. It also contains `guest-agent`.
pub(crate) fn initrd_with(names: &[&str]) -> NamedTempFile {
    initrd_with_modules_of(ANY.0, names)
}

/// As [`initrd_with`], for another kernel.
pub(crate) fn initrd_with_modules_of(kind: KernelKind, names: &[&str]) -> NamedTempFile {
    initrd_of(archive_with(kind, names))
}

/// As [`initrd_with`], with the files of `directory` in /opt.
pub(crate) fn initrd_with_files(names: &[&str], directory: &Path) -> NamedTempFile {
    initrd_with_all(names, rig::programs::files(directory).expect("they were fetched"))
}

/// As [`initrd_with`], with these files in /opt.
pub(crate) fn initrd_with_all(names: &[&str], files: Vec<(String, Vec<u8>)>) -> NamedTempFile {
    let mut archive = archive_with(ANY.0, names);
    archive.dir("opt", 0o755);
    for (name, contents) in files {
        archive.file(&format!("opt/{name}"), 0o755, &contents);
    }
    initrd_of(archive)
}

fn archive_with(kind: KernelKind, names: &[&str]) -> Archive {
    let modules: Vec<Module> = kernel(kind).modules(names).expect("they come with the kernel");
    let mut archive = Archive::new();
    archive.dir("modules", 0o755);
    let load =
        modules.iter().map(|module| format!("insmod /modules/{}.ko\n", module.name)).collect::<String>();
    archive.file("modules/load", 0o755, load.as_bytes());
    for module in &modules {
        archive.file(
            &format!("modules/{}.ko", module.name),
            0o644,
            &module.read().expect("a file of the package"),
        );
    }
    let agent = std::fs::read(agent_program()).expect("it was built");
    archive.file("bin/guest-agent", 0o755, &agent);
    archive
}

fn initrd_of(archive: Archive) -> NamedTempFile {
    // The kernel accepts several archives in sequence, each compressed or not. An uncompressed one starts at a multiple of 4 (Linux
    // Documentation/driver-api/early-userspace/buffer-format.rst).
    let mut both = std::fs::read(initrd_path()).expect("the initramfs");
    both.resize(both.len().next_multiple_of(4), 0);
    both.extend(archive.finish());
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), both).expect("room for an initramfs");
    file
}

/// Boots a guest with this initramfs and these further arguments to its prompt.
pub(crate) fn shell(initrd: &Path, args: &[&str]) -> Shell {
    shell_of(ANY, initrd, args)
}

/// As [`shell`], with another kernel.
pub(crate) fn shell_of(image: (KernelKind, Image), initrd: &Path, args: &[&str]) -> Shell {
    shell_with((image, "256M", CMDLINE), initrd, args)
}

/// As [`shell`], with this kernel, memory and command line.
pub(crate) fn shell_with(
    (image, memory, cmdline): ((KernelKind, Image), &str, &str),
    initrd: &Path,
    args: &[&str],
) -> Shell {
    let words = ["--memory", memory, "--cmdline", cmdline];
    let files = [["--kernel".into(), image_path(image)], ["--initrd".into(), initrd.to_owned()]].concat();
    let launch = Monitor::command(words).args(files).args(args).on_terminal();
    Shell::boot(launch).mute()
}
