//! Overlay file systems. A file in one has two names and two inodes, and locks on one inode aren't visible on
//! the other.

use std::ffi::OsString;
use std::fs::read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mount point of an overlay file system whose upper directory contains the file at `path`, if there is
/// one. Only mounts in this mount namespace are searched, by the upper directory's path at mount time.
pub fn above(path: &Path) -> Option<PathBuf> {
    // Resolve links, so that the ancestors are the directories that contain the file.
    let path = path.canonicalize().ok()?;
    let numbers = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let mounts = read("/proc/self/mountinfo").ok()?;
    let mut overlays = mounts.split(|byte| *byte == b'\n').filter_map(overlay).peekable();
    overlays.peek()?;
    let directories: Vec<_> = path.ancestors().skip(1).filter_map(numbers).collect();
    overlays
        .find(|(_, upper)| numbers(upper).is_some_and(|upper| directories.contains(&upper)))
        .map(|(mount, _)| mount)
}

/// The mount point and upper directory of an overlay, parsed from a line of proc_pid_mountinfo(5): `36 35
/// 0:50 / /merged rw shared:1 - overlay overlay rw,lowerdir=/lower,upperdir=/upper,workdir=/work`.
fn overlay(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    // Optional fields, from the seventh on, precede the separator.
    let end = words.iter().skip(6).position(|word| *word == b"-")? + 6;
    let [b"overlay", _, options] = words.get(end + 1..end + 4)? else { return None };
    let mut options = options.split(|byte| *byte == b',');
    let upper = options.find_map(|option| option.strip_prefix(b"upperdir="))?;
    Some((path_of(words[4]), unescaped(path_of(upper))))
}

/// Undoes overlayfs's escaping of a directory option: a backslash before each comma and other special
/// character.
fn unescaped(path: PathBuf) -> PathBuf {
    let mut bytes = Vec::new();
    let mut escaped = path.into_os_string().into_vec().into_iter();
    while let Some(byte) = escaped.next() {
        bytes.extend(if byte == b'\\' { escaped.next() } else { Some(byte) });
    }
    OsString::from_vec(bytes).into()
}

/// Decodes a path in which spaces, commas and the like are a backslash and three octal digits.
fn path_of(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &others[3..];
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Option<(PathBuf, PathBuf)> {
        overlay(line.as_bytes())
    }

    #[test]
    fn overlays_are_found_among_mounts() {
        let line = "36 35 0:50 / /merged rw shared:1 master:2 - overlay none rw,lowerdir=/a:/b,upperdir=/up,workdir=/w";
        assert_eq!(found(line), Some(("/merged".into(), "/up".into())));
        let line = "36 35 0:50 / /merged rw - overlay overlay rw,upperdir=/up";
        assert_eq!(found(line), Some(("/merged".into(), "/up".into())));
    }

    #[test]
    fn other_mounts_and_overlays_without_an_upper_directory_are_none() {
        assert_eq!(found("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"), None);
        assert_eq!(found("36 35 0:50 / /merged ro - overlay overlay ro,lowerdir=/a:/b"), None);
        assert_eq!(found("36 35 0:50 / /upperdir=/x rw - tmpfs overlay rw"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn names_with_spaces_and_commas_are_read() {
        let line = r"36 35 0:50 / /a\040b rw - overlay overlay rw,lowerdir=/l,upperdir=/up\134\054\134\134x,workdir=/w";
        assert_eq!(found(line), Some(("/a b".into(), r"/up,\x".into())));
        assert_eq!(path_of(br"/ends\04"), PathBuf::from(r"/ends\04"));
    }
}
