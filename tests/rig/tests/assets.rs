//! The assets as the distribution ships them today. The first run fetches them.

use std::fs;
use std::process::Command;

use rig::{Assets, KernelKind};

/// ELF-64, little-endian.
const ELF_IDENT: &[u8] = b"\x7fELF\x02\x01";
const EM_X86_64: &[u8] = &[62, 0];

fn assert_vmlinux_is_an_x86_64_elf(kind: KernelKind) {
    let path = Assets::here().kernel(kind).unwrap().vmlinux().unwrap();
    let elf = fs::read(path).unwrap();
    assert_eq!(&elf[..6], ELF_IDENT);
    assert_eq!(&elf[18..20], EM_X86_64);
}

#[test]
fn vmlinux_from_lz4_is_an_elf() {
    assert_vmlinux_is_an_x86_64_elf(KernelKind::Cloud61);
}

#[test]
fn vmlinux_from_xz_is_an_elf() {
    assert_vmlinux_is_an_x86_64_elf(KernelKind::Generic61);
}

#[test]
fn vmlinux_from_zstd_is_an_elf() {
    assert_vmlinux_is_an_x86_64_elf(KernelKind::Cloud612);
}

#[test]
fn modules_come_after_what_they_depend_on() {
    let kernel = Assets::here().kernel(KernelKind::Generic61).unwrap();
    let modules = kernel.modules(&["kvm-amd"]).unwrap();
    let position = |name: &str| modules.iter().position(|module| module.name == name).unwrap();
    assert!(position("kvm") < position("kvm_amd"));
    assert!(position("irqbypass") < position("kvm"));
}

#[test]
fn modules_compressed_are_unpacked() {
    let kernel = Assets::here().kernel(KernelKind::Cloud612).unwrap();
    let modules = kernel.modules(&["virtio_blk"]).unwrap();
    let elf = modules.last().unwrap().read().unwrap();
    assert_eq!(&elf[..6], ELF_IDENT);
}

#[test]
fn modules_unknown_name_is_refused() {
    let kernel = Assets::here().kernel(KernelKind::Generic61).unwrap();
    let error = kernel.modules(&["no-such-driver"]).unwrap_err().to_string();
    assert!(error.ends_with("has no module named no_such_driver, neither as a file nor built in"), "{error}");
}

#[test]
fn guest_initrd_is_built_once() {
    let assets = Assets::here();
    assert_eq!(assets.guest_initrd().unwrap(), assets.guest_initrd().unwrap());
}

#[test]
#[ignore = "it fetches Debian's newest C library"]
fn newest_libc_is_what_a_program_runs_with() {
    let dir = Assets::here().newest_libc().unwrap();
    let mut command = Command::new(dir.join("ld.so"));
    let output =
        command.arg("--library-path").arg(&dir).args(["/bin/cat", "/proc/self/maps"]).output().unwrap();
    let maps = String::from_utf8(output.stdout).unwrap();
    let libc = dir.join("libc.so.6");
    assert!(maps.lines().any(|line| line.ends_with(libc.to_str().unwrap())), "{maps}");
}
