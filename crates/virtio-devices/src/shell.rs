//! Shell quoting: commands in messages can be pasted into a shell whatever a file's name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as a command-line argument that can't be mistaken for an option nor, by qemu-img, for a protocol
/// such as `nbd:`.
pub(crate) fn path(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    match bytes.starts_with(b"-") || (path.is_relative() && bytes.contains(&b':')) {
        true => word(&[b"./", bytes].concat()),
        false => word(bytes),
    }
}

/// A path as the value of a QEMU option, `file.filename=VALUE`, where commas are doubled.
pub(crate) fn option_value(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let doubled: Vec<u8> =
        bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 })).collect();
    self::path(Path::new(OsStr::from_bytes(&doubled)))
}

/// Any bytes as one word for sh, or for bash if some aren't printable.
pub(crate) fn word(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./+:@%,=-".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => format!("$'{}'", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_path_stays_as_it_is() {
        assert_eq!(path(Path::new("/images/a-1.qcow2")), "/images/a-1.qcow2");
    }

    #[test]
    fn path_with_spaces_or_quotes_is_quoted() {
        assert_eq!(path(Path::new("my disk.img")), "'my disk.img'");
        assert_eq!(path(Path::new("it's")), r"'it'\''s'");
        assert_eq!(path(Path::new("größe$(id)")), "'größe$(id)'");
        assert_eq!(word(b""), "''");
    }

    #[test]
    fn path_like_an_option_or_a_protocol_starts_with_its_directory() {
        assert_eq!(path(Path::new("-f.img")), "./-f.img");
        assert_eq!(path(Path::new("nbd:a.img")), "./nbd:a.img");
        assert_eq!(path(Path::new("/x/nbd:a.img")), "/x/nbd:a.img");
    }

    #[test]
    fn option_value_has_its_commas_doubled() {
        assert_eq!(option_value(Path::new("a,b")), "a,,b");
        assert_eq!(option_value(Path::new("a, b")), "'a,, b'");
    }

    /// A name in an image may be any bytes and must not control the terminal.
    #[test]
    fn word_with_control_characters_shows_them() {
        assert_eq!(word(b"a\x1b[2J'\xff"), r"$'a\x1b[2J\'\xff'");
    }

    #[test]
    fn word_is_what_the_shell_reads() {
        let strange = b"a b'c\"$HOME\\\t\x01\xff";
        let script = format!("printf %s {}", word(strange));
        let read = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert_eq!(read.stdout, strange);
    }
}
