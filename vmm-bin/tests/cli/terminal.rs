//! Names with control characters, which could control the terminal or fake a second line, are escaped wherever they are shown.

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint};

/// Contains a line that looks like one of the program's, and a sequence that clears the screen.
const NAME: &str = "a\nerror: b\u{1b}[2J";
/// [`NAME`] as it is shown.
const SHOWN: &str = r"a\nerror: b\u{1b}[2J";

#[test]
fn name_of_a_file_by_a_flag_is_escaped() {
    let bench = Bench::new();
    let message = format!("kernel image {SHOWN}: can't be opened: No such file or directory (os error 2)");
    assert_eq!(bench.run(&["--check", "--kernel", NAME]), complaint(BAD_CONFIG, &message));
    assert_eq!(bench.run(&["--check", NAME]), complaint(BAD_CONFIG, &message));
    let message = format!("{SHOWN}: no such file");
    assert_eq!(bench.run(&["--config", NAME]), complaint(BAD_CONFIG, &message));
}

#[test]
fn name_of_a_file_in_a_config_is_escaped() {
    let disk = r#"{"boot": {"kernel": "kernel"}, "devices": [{"type": "block", "path": "a\u001b[2J\n"}]}"#;
    let message = r"vm.json:1:83: devices[0].path: a\u{1b}[2J\n doesn't exist, create it or correct the path";
    assert_eq!(Bench::new().run_config(disk), complaint(BAD_CONFIG, message));
    let kernel = r#"{"boot": {"kernel": "a\u001b[2J\n"}}"#;
    let message = r"kernel image a\u{1b}[2J\n: can't be opened: No such file or directory (os error 2)";
    assert_eq!(Bench::new().run_config(kernel), complaint(BAD_CONFIG, message));
}

#[test]
fn name_of_a_config_and_of_its_directory_is_escaped() {
    let bench = Bench::new();
    bench.dir("x\u{1b}[2J");
    bench.file("x\u{1b}[2J/vm.json", "{\"boot\": 5}");
    let message = r#"x\u{1b}[2J/vm.json:1:10: boot: expected an object such as {"kernel": "vmlinuz"}, found the number 5"#;
    assert_eq!(bench.run(&["--config", "x\u{1b}[2J/vm.json"]), complaint(BAD_CONFIG, message));
}

/// clap quotes it in a message of several lines.
#[test]
fn flag_that_is_unknown_is_escaped() {
    let ran = Bench::new().run(&[&format!("--{NAME}")]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(USAGE), ""));
    assert!(ran.stderr.starts_with(&format!("error: unexpected argument '--{SHOWN}' found\n\n")), "{ran:?}");
}

#[test]
fn name_in_the_plan_is_escaped() {
    let config = r#"{"boot": {"kernel": "kernel"}, "serial": {"file": "a\u001b[2J"},
                     "devices": [{"type": "console", "target": {"socket": "b\n"}}]}"#;
    let ran = Bench::new().run_config(config);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    assert!(ran.stdout.contains("\nserial: file:a\\u{1b}[2J\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains(", to socket:b\\n\n"), "{}", ran.stdout);
}
