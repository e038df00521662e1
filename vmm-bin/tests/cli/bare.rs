//! Positional arguments: a kernel and its initial RAM disk, and the hints for other files.

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint};

/// Asserts that the arguments are rejected as a usage error with this message.
#[track_caller]
fn assert_wrong(bench: &Bench, args: &[&str], message: &str) {
    assert_eq!(bench.run(args), complaint(USAGE, message));
}

/// Asserts that a file called `name` with this content is rejected as the kernel.
#[track_caller]
fn assert_misplaced(name: &str, content: &[u8], message: &str) {
    let bench = Bench::new();
    bench.file(name, content);
    assert_wrong(&bench, &[name], message);
}

/// 64 KiB of machine code (`hlt`) with `content` at `offset`.
fn at(offset: usize, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xf4; 0x1_0000];
    bytes[offset..offset + content.len()].copy_from_slice(content);
    bytes
}

#[test]
fn bare_kernel_is_what_the_flag_is() {
    let bench = Bench::new();
    let (bare, flag) = (bench.run(&["kernel", "--check"]), bench.run(&["--kernel", "kernel", "--check"]));
    assert_eq!((bare.code, bare.stderr.as_str()), (Some(DONE), ""));
    assert_eq!(bare, flag);
}

#[test]
fn bare_kernel_and_initrd_are_what_the_flags_are() {
    let bench = Bench::new();
    bench.file("initrd", vec![7; 5000]);
    let flags = bench.run(&["--kernel", "kernel", "--initrd", "initrd", "--check"]);
    assert!(flags.stdout.contains(" initrd\n"), "{}", flags.stdout);
    assert_eq!(bench.run(&["kernel", "initrd", "--check"]), flags);
    assert_eq!(bench.run(&["--check", "kernel", "--initrd", "initrd"]), flags);
}

#[test]
fn bare_kernel_replaces_that_of_the_config() {
    let bench = Bench::new();
    bench.file("vm.json", r#"{"boot": {"kernel": "none"}, "memory": {"size": "64M"}}"#);
    let ran = bench.run(&["--config", "vm.json", "kernel", "--check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    assert!(ran.stdout.contains("memory: 64 MiB\n"), "{}", ran.stdout);
}

#[test]
fn bare_argument_after_a_flag_with_an_optional_value_is_a_file() {
    assert_eq!(Bench::new().run(&["--check", "--irqchip", "kernel"]).code, Some(DONE));
}

#[test]
fn bare_value_of_a_flag_that_may_do_without_is_told_to_come_after_an_equals_sign() {
    let bench = Bench::new();
    let message = "summary: no such file; --trace-exits takes its value after an equals sign: write --trace-exits=summary";
    assert_wrong(&bench, &["--trace-exits", "summary", "--flat", "kernel"], message);
    let message =
        "false: no such file; --irqchip takes its value after an equals sign: write --irqchip=false";
    assert_wrong(&bench, &["--flat", "kernel", "--irqchip", "false"], message);
    bench.file("lines", crate::bench::kernel());
    assert_eq!(bench.run(&["lines", "--check"]).code, Some(DONE));
}

#[test]
fn bare_kernel_beside_the_flag_is_wrong_use() {
    let message = "other: --kernel already names the kernel; remove one of them";
    assert_wrong(&Bench::new(), &["--kernel", "kernel", "other"], message);
}

#[test]
fn bare_initrd_beside_the_flag_is_wrong_use() {
    let message = "other: --initrd already names the initial RAM disk; remove one of them";
    assert_wrong(&Bench::new(), &["kernel", "other", "--initrd", "i"], message);
}

#[test]
fn bare_kernel_beside_a_flat_image_is_wrong_use() {
    let message =
        "kernel: a positional argument is a Linux kernel, but --flat names an image; remove one of them";
    assert_wrong(&Bench::new(), &["--flat", "i", "kernel"], message);
}

#[test]
fn bare_third_argument_is_wrong_use() {
    let message = "3 positional arguments, up to \"quiet\", but at most a kernel and an initial RAM disk are allowed; \
        pass a kernel command line as one argument after --cmdline";
    assert_wrong(&Bench::new(), &["kernel", "initrd", "quiet"], message);
}

#[test]
fn bare_kernel_that_is_missing_is_told_as_by_the_flag() {
    let message = "kernel image vmlinuz: can't be opened: No such file or directory (os error 2)";
    assert_eq!(Bench::new().run(&["vmlinuz"]), complaint(BAD_CONFIG, message));
}

#[test]
fn bare_command_misspelt_names_the_command() {
    assert_wrong(&Bench::new(), &["doctro"], "doctro: no such file; did you mean \"doctor\"?");
    assert_wrong(&Bench::new(), &["shema"], "shema: no such file; did you mean \"schema\"?");
}

#[test]
fn bare_file_called_nearly_as_a_command_is_the_file() {
    let bench = Bench::new();
    bench.file("doctro", crate::bench::kernel());
    assert_eq!(bench.run(&["doctro", "--check"]).code, Some(DONE));
}

#[test]
fn bare_command_is_the_command_also_where_a_file_has_its_name() {
    let bench = Bench::new();
    bench.file("schema", crate::bench::kernel());
    assert!(bench.run(&["schema"]).stdout.starts_with("{\n"));
    assert_eq!(bench.run(&["./schema", "--check"]).code, Some(DONE));
    let message =
        "schema is a command, which comes before its flags; for a file of that name, write ./schema";
    assert_wrong(&bench, &["--check", "schema"], message);
}

#[test]
fn bare_config_suggests_its_flag() {
    let message = "vm.json: looks like a config; write --config vm.json";
    assert_misplaced("vm.json", br#"{"boot": {}}"#, message);
    assert_wrong(&Bench::new(), &["vm.json"], message);
    assert_misplaced("vm", b"\n {\"boot\": {}}", "vm: looks like a config; write --config vm");
}

#[test]
fn bare_config_behind_a_kernel_suggests_its_flag() {
    let bench = Bench::new();
    bench.file("vm", r#"{"memory": {"size": "1G"}}"#);
    assert_wrong(&bench, &["kernel", "vm"], "vm: looks like a config; write --config vm");
}

#[test]
fn bare_machine_code_suggests_flat() {
    let message = "hello: neither ELF nor bzImage; write --flat hello if it is machine code without a header";
    assert_misplaced("hello", b"\xba\xf8\x03\xb0\x41\xee\xf4", message);
    // A boot sector has the signature 55 aa, as a bzImage does; its partition table is empty.
    let mut sector = vec![0x90; 510];
    sector[0x1be..510].fill(0);
    sector.extend(b"\x55\xaa");
    assert_misplaced("hello", &sector, message);
}

#[test]
fn bare_elf_of_32_bits_suggests_flat() {
    let mut elf = vec![0; 52 + 32];
    elf[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    elf[16] = 2; // ET_EXEC
    elf[18] = 3; // EM_386
    elf[20] = 1; // EV_CURRENT
    elf[24..28].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // e_entry
    elf[28] = 52; // e_phoff
    elf[40] = 52; // e_ehsize
    elf[42] = 32; // e_phentsize
    elf[44] = 1; // e_phnum
    elf[52] = 1; // p_type: PT_LOAD
    elf[64..68].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // p_paddr
    elf[68] = 84; // p_filesz
    elf[72] = 84; // p_memsz
    let message = "k.elf: an ELF executable, but not a 64-bit Linux kernel; write --flat k.elf";
    assert_misplaced("k.elf", &elf, message);
}

/// A 64-bit ELF with a multiboot header: the magic number, no flags, and the checksum that makes the sum 0 (Multiboot 0.6.96,
/// §3.1.1).
#[test]
fn bare_multiboot_kernel_suggests_flat() {
    let mut elf = crate::bench::kernel();
    elf.resize(124, 0x90);
    elf.extend(
        [0x1bad_b002_u32, 0, 0_u32.wrapping_sub(0x1bad_b002)].iter().flat_map(|word| word.to_le_bytes()),
    );
    assert_misplaced("k", &elf, "k: a multiboot kernel, not a Linux kernel; write --flat k");
}

#[test]
fn bare_disk_says_where_disks_go() {
    let refused = |content: &[u8], found: &str| {
        let device = r#"{"type": "block", "path": "d"}"#;
        assert_misplaced(
            "d",
            content,
            &format!("d: {found}; attach it with {device} in \"devices\" of a config"),
        );
    };
    refused(&at(0, b"QFI\xfb\0\0\0\x03"), "a qcow2 disk image");
    refused(&at(0x438, b"\x53\xef"), "an ext4 file system");
    refused(&at(0x200, b"EFI PART"), "a disk image with a partition table");
    // One bootable partition of type 0x83 (Linux), and the boot signature.
    let mut mbr = at(0x1be, b"\x80\x20\x21\0\x83");
    mbr[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
    refused(&mbr, "a disk image with a partition table");
}

#[test]
fn bare_archive_in_place_of_the_kernel_says_how_it_is_given() {
    let remedy = "if it is an initial RAM disk, name the kernel before it, or write --initrd i";
    assert_misplaced("i", b"\x1f\x8b\x08\0\0\0", &format!("i: a gzip file; {remedy}"));
    assert_misplaced("i", &at(0, b"070701"), &format!("i: a cpio archive; {remedy}"));
}

#[test]
fn bare_directory_says_what_is_wanted() {
    let bench = Bench::new();
    bench.dir("vms");
    let message =
        "vms: a directory; name a kernel in it, a flat image with --flat, or a config with --config";
    assert_wrong(&bench, &["vms"], message);
}

#[test]
fn bare_text_is_refused_as_by_the_flag() {
    let bench = Bench::new();
    bench.file("k", "#!/bin/sh\n");
    let message = "kernel image k: neither ELF nor bzImage (magic 0x2321); machine code without a header is a flat image";
    assert_eq!(bench.run(&["k"]), complaint(BAD_CONFIG, message));
}

#[test]
fn bare_fifo_is_refused_without_waiting_for_a_writer() {
    let bench = Bench::new();
    bench.fifo("k");
    let message = "kernel image k: is a FIFO, expected a file";
    assert_eq!(bench.run(&["k"]), complaint(BAD_CONFIG, message));
}
