//! Files that can't be a kernel, as the program reports them. crates/boot has a test for each kind of malformed header.

use crate::bench::{BAD_CONFIG, Bench, complaint, kernel};

/// Asserts that the file `k` is rejected with this problem, and that no file is left behind.
fn assert_refused(bench: &Bench, problem: &str) {
    let before = bench.names();
    let ran = bench.run(&["--kernel", "k"]);
    assert_eq!(ran, complaint(BAD_CONFIG, &format!("kernel image k: {problem}")));
    assert_eq!(bench.names(), before);
}

fn assert_content_refused(content: &[u8], problem: &str) {
    let bench = Bench::new();
    bench.file("k", content);
    assert_refused(&bench, problem);
}

#[test]
fn kernel_missing_is_told() {
    assert_refused(&Bench::new(), "can't be opened: No such file or directory (os error 2)");
}

#[test]
fn kernel_at_a_symbolic_link_to_itself_is_told() {
    let bench = Bench::new();
    bench.link("k", "k");
    assert_refused(&bench, "can't be opened: Too many levels of symbolic links (os error 40)");
}

#[test]
fn kernel_empty_is_refused() {
    assert_content_refused(b"", "is empty");
}

#[test]
fn kernel_directory_is_refused() {
    let bench = Bench::new();
    bench.dir("k");
    assert_refused(&bench, "is a directory, expected a file");
}

#[test]
fn kernel_fifo_is_refused_without_waiting_for_a_writer() {
    let bench = Bench::new();
    bench.fifo("k");
    assert_refused(&bench, "is a FIFO, expected a file");
}

#[test]
fn kernel_elf_truncated_in_its_program_headers_is_refused() {
    let problem = "e_phoff 0x40: 1 program headers there lie outside the file of 100 bytes";
    assert_content_refused(&kernel()[..100], problem);
}

#[test]
fn kernel_elf_truncated_in_its_code_is_refused() {
    let problem = "program header 0: p_offset 0x78 + p_filesz 0x1 is beyond the end of the file at 0x78";
    assert_content_refused(&kernel()[..120], problem);
}

#[test]
fn kernel_bzimage_truncated_in_its_header_is_refused() {
    assert_content_refused(b"MZ", "ends after 2 bytes, inside its setup header");
}

#[test]
fn kernel_elf_for_arm64_is_refused() {
    let mut arm64 = kernel();
    arm64[18] = 183; // e_machine
    assert_content_refused(&arm64, "an aarch64 kernel; an x86_64 kernel is needed");
}

#[test]
fn kernel_image_for_arm64_is_refused() {
    let mut arm64 = vec![0; 4096];
    arm64[..2].copy_from_slice(b"MZ");
    arm64[56..60].copy_from_slice(b"ARM\x64");
    assert_content_refused(&arm64, "an aarch64 kernel; an x86_64 kernel is needed");
}

#[test]
fn kernel_that_is_text_is_refused_with_its_first_bytes() {
    assert_content_refused(
        b"hello",
        "neither ELF nor bzImage (magic 0x6865); machine code without a header is a flat image",
    );
}
