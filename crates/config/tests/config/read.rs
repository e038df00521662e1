//! Which files can be config files.

use std::{error::Error, fs, os::unix::net::UnixListener, path::Path, process::Command};

use tempfile::{TempDir, tempdir};
use vmm_config::ConfigFile;

/// The message for `name` in `directory`, without the directory.
fn refusal(directory: &TempDir, name: &str) -> String {
    let error = ConfigFile::read(&directory.path().join(name)).unwrap_err();
    error.to_string().replace(&format!("{}/", directory.path().display()), "")
}

#[test]
fn read_good_file_remembers_where_it_was() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vm.json");
    fs::write(&path, r#"{"boot": {"kernel": "vmlinuz"}}"#).unwrap();

    let file = ConfigFile::read(&path).unwrap();

    assert_eq!(file.origin, Some(path));
    assert_eq!(file.boot.kernel.unwrap().as_path(), Path::new("vmlinuz"));
}

#[test]
fn read_missing_file_says_so() {
    assert_eq!(refusal(&tempdir().unwrap(), "vm.json"), "vm.json: no such file");
}

#[test]
fn read_directory_asks_for_a_file() {
    let directory = tempdir().unwrap();
    fs::create_dir(directory.path().join("vm")).unwrap();
    assert_eq!(refusal(&directory, "vm"), "vm: is a directory, specify the path of a JSON file");
}

#[test]
fn read_socket_asks_for_a_file() {
    let directory = tempdir().unwrap();
    let _listener = UnixListener::bind(directory.path().join("vm")).unwrap();
    assert_eq!(refusal(&directory, "vm"), "vm: is a socket, specify the path of a JSON file");
}

#[test]
fn read_pipe_without_writer_does_not_wait() {
    let directory = tempdir().unwrap();
    let made = Command::new("mkfifo").arg(directory.path().join("vm")).status().unwrap();
    assert!(made.success());
    assert_eq!(refusal(&directory, "vm"), "vm: is a pipe, specify the path of a JSON file");
}

#[test]
fn read_device_asks_for_a_file() {
    let error = ConfigFile::read(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(error.to_string(), "/dev/zero: is a device, specify the path of a JSON file");
}

#[test]
fn read_path_through_a_file_keeps_the_cause() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("vm"), "").unwrap();

    let error = ConfigFile::read(&directory.path().join("vm/vm.json")).unwrap_err();

    assert!(error.to_string().ends_with("vm/vm.json: cannot be read"));
    assert_eq!(error.source().unwrap().to_string(), "Not a directory (os error 20)");
}

#[test]
fn read_empty_file_shows_the_least() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("vm.json"), "").unwrap();
    let expected = r#"vm.json: empty, write at least {"boot": {"kernel": "vmlinuz"}}"#;
    assert_eq!(refusal(&directory, "vm.json"), expected);
}

#[test]
fn read_not_utf8_names_the_byte() {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("vm.json"), b"{\"a\xff").unwrap();
    assert_eq!(refusal(&directory, "vm.json"), "vm.json: not UTF-8 at byte 3, save the file as UTF-8");
}

#[test]
fn read_longest_file_is_accepted() {
    let directory = tempdir().unwrap();
    let text = format!("{{}}{}", " ".repeat((1 << 20) - 2));
    fs::write(directory.path().join("vm.json"), text).unwrap();
    assert!(ConfigFile::read(&directory.path().join("vm.json")).is_ok());
}

#[test]
fn read_one_byte_too_many_names_the_limit() {
    let directory = tempdir().unwrap();
    let text = format!("{{}}{}", " ".repeat((1 << 20) - 1));
    fs::write(directory.path().join("vm.json"), text).unwrap();
    let expected = "vm.json: longer than 1M, the maximum for a config file";
    assert_eq!(refusal(&directory, "vm.json"), expected);
}
