//! Files that can't be an initrd, or are too large.

use crate::bench::{BAD_CONFIG, Bench, complaint};

/// Asserts that the file `i` is rejected with this message.
fn assert_refused(bench: &Bench, message: &str) {
    let ran = bench.run(&["--kernel", "kernel", "--memory", "32M", "--initrd", "i"]);
    assert_eq!(ran, complaint(BAD_CONFIG, message));
}

#[test]
fn initrd_missing_is_told() {
    assert_refused(&Bench::new(), "initrd i: can't be opened: No such file or directory (os error 2)");
}

#[test]
fn initrd_empty_is_refused() {
    let bench = Bench::new();
    bench.file("i", b"");
    assert_refused(&bench, "initrd i: is empty");
}

#[test]
fn initrd_directory_is_refused() {
    let bench = Bench::new();
    bench.dir("i");
    assert_refused(&bench, "initrd i: is a directory, expected a file");
}

#[test]
fn initrd_fifo_is_refused_without_waiting_for_a_writer() {
    let bench = Bench::new();
    bench.fifo("i");
    assert_refused(&bench, "initrd i: is a FIFO, expected a file");
}

#[test]
fn initrd_larger_than_memory_is_refused_with_what_it_takes() {
    let bench = Bench::new();
    bench.sparse("i", 40 << 20);
    let ran = bench.run(&["--kernel", "kernel", "--memory", "32M", "--initrd", "i"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(BAD_CONFIG), ""));
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("initrd"), "{}", ran.stderr);
    // The kernel ends at 2 MiB, so that 29.99 MiB are free.
    let rest = " of 41943040 bytes doesn't fit into the 31453184 bytes that are free behind the kernel; give the guest at \
                least 43 MiB\n";
    assert!(ran.stderr.ends_with(rest), "{}", ran.stderr);
}
