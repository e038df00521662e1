//! The text descriptor of a VMDK that consists of several files.

/// Optional start of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Keys that only such a descriptor has.
const NAMES: [&[u8]; 4] = [b"cid", b"parentcid", b"createtype", b"isnativesnapshot"];

/// Whether this is such a descriptor, or starts like one: comments and empty lines, then `version=1` (QEMU,
/// block/vmdk.c, `vmdk_probe`). Other programs accept it in any case, with spaces, in any order and after a
/// byte order mark, or recognise it by its first comment.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let text = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = line.trim_ascii();
        if let [b'#', comment @ ..] = line {
            let letters: Vec<u8> =
                comment.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
            if letters.to_ascii_lowercase().starts_with(b"diskdescriptorfile") {
                return true;
            }
            continue;
        }
        let Some((name, value)) = split(line) else {
            if line.is_empty() {
                continue;
            }
            return false;
        };
        match name.as_slice() {
            // Other texts have this key, too, so the following lines decide.
            b"encoding" => {}
            b"version" => return !value.is_empty() && value.iter().all(u8::is_ascii_digit),
            name => return NAMES.contains(&name),
        }
    }
    false
}

/// The lower-case key and the value of a line such as `version = 1`.
fn split(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    Some((line[..at].trim_ascii().to_ascii_lowercase(), line[at + 1..].trim_ascii()))
}
