//! A text to paste, and its hash, to be compared with the guest's.

use std::io::Write;
use std::process::{Command, Stdio};

/// 1024 lines of 63 characters that don't repeat. A terminal in canonical mode accepts lines of up to 4095.
pub(crate) fn lines_of_64_kib() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |i: u32| match i % 64 {
        63 => '\n',
        // Knuth's multiplicative hash: the upper six bits take all values, and the sequence has a long period.
        _ => char::from(ALPHABET[(i.wrapping_mul(2_654_435_761) >> 26) as usize]),
    };
    (0..64 << 10).map(letter).collect()
}

/// The MD5 hash as printed by `md5sum`.
pub(crate) fn md5(text: &str) -> String {
    let mut program = Command::new("md5sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("md5sum is part of coreutils");
    program.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads all of its input");
    let output = program.wait_with_output().expect("our own child");
    let line = String::from_utf8(output.stdout).expect("hexadecimal digits");
    line.split(' ').next().expect("one word at least").to_owned()
}
