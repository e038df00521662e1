//! Invalid flat images, as the program reports them. crates/boot has a test for each check.

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint};

/// A multiboot header with these flags, and a checksum that is off by `error` (Multiboot 0.6.96, §3.1.1).
fn multiboot(flags: u32, error: u32) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    let checksum = 0_u32.wrapping_sub(MAGIC).wrapping_sub(flags).wrapping_add(error);
    [MAGIC, flags, checksum].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A 32-bit ELF header for this machine (System V ABI, "ELF Header").
fn elf32(machine: u16) -> Vec<u8> {
    let mut elf = vec![0; 52 + 32];
    elf[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    elf[16] = 2; // ET_EXEC
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    elf
}

/// Asserts that the image, as the file `i` and with these additional settings, is rejected with this message and that no file is left
/// behind.
fn assert_refused(image: &[u8], settings: &str, message: &str) {
    let bench = Bench::new();
    bench.file("i", image);
    let config = format!(r#"{{"boot": {{"flat": {{"image": "i"{settings}}}}}, "memory": {{"size": "2M"}}}}"#);
    let ran = bench.run_config(&config);
    assert_eq!(ran, complaint(BAD_CONFIG, message));
    assert_eq!(bench.names(), ["i", "kernel", "vm.json"]);
}

#[test]
fn flat_empty_is_refused() {
    assert_refused(b"", "", "image i: is empty");
}

#[test]
fn flat_missing_is_told() {
    let ran = Bench::new().run(&["--flat", "i"]);
    assert_eq!(
        ran,
        complaint(BAD_CONFIG, "image i: can't be opened: No such file or directory (os error 2)")
    );
}

#[test]
fn flat_larger_than_memory_is_refused() {
    let message = "the image needs 3145728 bytes, but the guest's memory below the 32-bit MMIO gap has 2097152; give the \
        guest at least 3 MiB";
    assert_refused(&vec![0; 3 << 20], "", message);
}

#[test]
fn flat_load_address_outside_memory_is_refused() {
    let message = "boot.flat.load_address 0x200000 lies outside the guest's memory, which ends at 0x200000; use one below that";
    assert_refused(b"\xf4", r#", "load_address": "0x200000", "mode": "long""#, message);
}

#[test]
fn flat_load_address_in_the_mmio_gap_is_refused() {
    let message = "boot.flat.load_address 0xd0000000 lies in the 32-bit MMIO gap 0xc0000000..0x100000000; use one below it";
    assert_refused(b"\xf4", r#", "load_address": "0xd0000000", "mode": "long""#, message);
}

#[test]
fn flat_entry_outside_the_image_is_refused() {
    let message = "boot.flat.entry 0x1001 lies outside the image's bytes at 0x1000..0x1001";
    assert_refused(b"\xf4", r#", "load_address": "0x1000", "entry": "0x1001""#, message);
}

#[test]
fn flat_unknown_mode_is_refused() {
    let message = r#"vm.json:1:48: boot.flat.mode: unknown mode "realy", did you mean "real"?"#;
    assert_refused(b"\xf4", r#", "mode": "realy""#, message);
}

#[test]
fn flat_elf_for_another_machine_is_refused() {
    let message = "image i: a 32-bit ELF for arm (machine 40); a 32-bit one for i386 (machine 3) or a 64-bit one for x86_64 \
        (machine 62) is needed";
    assert_refused(&elf32(40), "", message);
}

#[test]
fn flat_multiboot_header_beyond_8_kib_is_refused() {
    let image = [vec![0; 8192], multiboot(0, 0)].concat();
    let message = "image i: the multiboot header is at 0x2000, beyond the first 8192 bytes";
    assert_refused(&image, "", message);
}

#[test]
fn flat_multiboot_bad_checksum_is_refused() {
    assert_refused(
        &multiboot(0, 1),
        "",
        "image i: the multiboot header at 0x0 has a bad checksum: magic + flags + checksum are 0x1, but must be 0",
    );
}

#[test]
fn flat_multiboot_asking_for_what_we_lack_is_refused_by_name() {
    let message = "image i: the multiboot header at 0x0 requires what isn't offered: flag 2 (a video mode), flag 5 (not in the \
        specification)";
    assert_refused(&multiboot(1 << 2 | 1 << 5, 0), "", message);
}

#[test]
fn flat_beside_a_kernel_is_refused() {
    let ran = Bench::new().run(&["--flat", "i", "--kernel", "kernel"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("--kernel") && ran.stderr.contains("--flat"), "{}", ran.stderr);
}

/// The result of `--check` for an image of one `hlt` in 2 MiB of memory, with these flags.
fn complaint_about(flags: &[&str]) -> crate::bench::RunResult {
    let bench = Bench::new();
    bench.file("i", b"\xf4");
    bench.run(&[&["--flat", "i", "--memory", "2M", "--check"], flags].concat())
}

#[test]
fn flat_flag_with_a_value_that_cannot_be_is_wrong_use() {
    let wrong = |flags: &[&str], message: &str| assert_eq!(complaint_about(flags), complaint(USAGE, message));
    wrong(&["--mode", "realy"], "--mode: unknown mode \"realy\", did you mean \"real\"?");
    wrong(&["--load-address", "-1"], "--load-address: \"-1\" is negative, write a number above 0");
    wrong(&["--irqchip=no"], "--irqchip: unknown value \"no\", expected one of \"true\", \"false\"");
    wrong(&["--debug-exit", "0x10000"], "--debug-exit: \"0x10000\" is too large, at most 0xffff");
    wrong(&["--expect", "rax=1", "--expect", "rax=2"], "--expect: rax is given twice, keep one");
}

#[test]
fn flat_flags_that_exclude_each_other_are_wrong_use() {
    let wrong = |flags: &[&str], message: &str| assert_eq!(complaint_about(flags), complaint(USAGE, message));
    wrong(
        &["--debug-console", "0xf1", "--pseudo-serial", "0xf1"],
        "--pseudo-serial: 0xf1 is also the port of --debug-console, choose another for one of them",
    );
    wrong(
        &["--irqchip", "--expect", "rax=1"],
        "--expect: a hlt never ends this guest, because of --irqchip; remove it",
    );
    let message = "--cpus: 2 is too many with --irqchip=false, as no processor could start another; set it to 1 or remove that flag";
    wrong(&["--irqchip=false", "--cpus", "2"], message);
}

/// Errors that only vmm-machine can detect name the flag as well.
#[test]
fn flat_flag_that_does_not_suit_the_machine_is_named() {
    let bad =
        |flags: &[&str], message: &str| assert_eq!(complaint_about(flags), complaint(BAD_CONFIG, message));
    bad(
        &["--load-address", "0x200000", "--mode", "long"],
        "--load-address 0x200000 lies outside the guest's memory, which ends at 0x200000; use one below that",
    );
    bad(&["--entry", "0x1"], "--entry 0x1 lies outside the image's bytes at 0x0..0x1");
    bad(
        &["--debug-exit", "0x501", "--debug-console", "0x3f9"],
        "--debug-console: 0x3f9 belongs to the uart com1 (ports 0x3f8 to 0x3ff); choose another",
    );
    bad(
        &["--expect", "rax=1", "--expect", "0x1ffff9=1"],
        "--expect: the guest has no memory at 0x1ffff9; change the address or --memory",
    );
}

#[test]
fn flat_flags_are_in_the_plan() {
    let ran = complaint_about(&[
        "--mode",
        "protected",
        "--load-address",
        "0x10000",
        "--stack",
        "0x9000",
        "--irqchip",
        "--pseudo-serial",
        "0xf1",
    ]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let lines = [
        "entry: protected mode at 0x10000\n",
        "stack: below 0x9000\n",
        "  ports 0x0f1..0x0f2  pseudo serial port\n",
        "  ports 0x3f8..0x400  uart com1, gsi 4\n",
        "local APICs (KVM)\n",
    ];
    assert_eq!(lines.map(|line| ran.stdout.contains(line)), [true; 5], "{}", ran.stdout);
}

#[test]
fn flat_flag_twice_is_wrong_use() {
    let ran = complaint_about(&["--pseudo-serial", "1", "--pseudo-serial", "2"]);
    assert_eq!(ran.code, Some(USAGE));
    let message = "error: the argument '--pseudo-serial <PORT>' cannot be used multiple times\n";
    assert!(ran.stderr.starts_with(message), "{}", ran.stderr);
}

#[test]
fn flat_flag_beside_a_kernel_says_what_it_is_for() {
    let ran = Bench::new().run(&["--kernel", "kernel", "--mode", "real"]);
    assert_eq!(ran, complaint(USAGE, "--mode: needs a flat image, add one with --flat"));
}

#[test]
fn flat_timeout_without_a_unit_is_refused() {
    let ran = Bench::new().run(&["--flat", "i", "--timeout", "5"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("5s"), "{}", ran.stderr);
}
