//! What a disk does to its image, as strace shows it.

use std::path::Path;
use std::process::{Command, Stdio};

/// A system call on the image, or a line of the program that uses the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    Sync,
    Mark(String),
}

/// Runs this test program under strace with `variables` in its environment. It may write the image, and marks to
/// `marks`.
pub(crate) fn of(directory: &Path, image: &Path, marks: &Path, variables: &[(&str, &str)]) -> Vec<Event> {
    let output = directory.join("trace");
    let calls = "trace=write,pwrite64,pwritev,pwritev2,fallocate,ftruncate,fsync,fdatasync,sync_file_range";
    let status = Command::new("strace")
        .args(["-f", "-q", "-xx", "-a", "1", "-s", "10000000", "-e", calls, "-o"])
        .arg(&output)
        .arg("-P")
        .arg(image)
        .arg("-P")
        .arg(marks)
        .arg(std::env::current_exe().unwrap())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let trace = std::fs::read_to_string(output).unwrap();
    trace.lines().filter(|line| line.contains('(')).map(event).collect()
}

/// Parses `PID NAME(FD, ..., OFFSET) = RESULT`.
fn event(line: &str) -> Event {
    let (head, result) = line.rsplit_once(") = ").unwrap_or_else(|| panic!("incomplete: {line:.200}"));
    assert!(!result.starts_with('-'), "{line:.200}");
    let (name, arguments) =
        head.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').split_once('(').unwrap();
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{line:.200}"));
    let last = || number(arguments.rsplit(", ").next().unwrap());
    match name {
        "write" => Event::Mark(String::from_utf8(strings(arguments)).unwrap()),
        "fsync" | "fdatasync" => Event::Sync,
        "pwrite64" | "pwritev" => Event::Write { offset: last(), bytes: strings(arguments) },
        "fallocate" => {
            let [_, _, offset, len] = arguments.split(", ").collect::<Vec<_>>()[..] else { panic!("{line}") };
            Event::Write { offset: number(offset), bytes: vec![0; number(len) as usize] }
        }
        "ftruncate" => Event::Write { offset: last(), bytes: Vec::new() },
        _ => panic!("{line:.200}"),
    }
}

/// The bytes of all strings: "\x00\x01".
fn strings(arguments: &str) -> Vec<u8> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    let bytes = quoted.flat_map(|text| text.split("\\x").skip(1));
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
