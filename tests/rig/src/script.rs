//! Writes a command, its environment and its working directory as an equivalent shell script.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The script. Its exit code is the command's, or 127 if the command isn't found and 125 if the directory
/// isn't.
pub(crate) fn render(dir: &Path, env: &[(OsString, OsString)], argv: &[OsString]) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    push_quoted(&mut script, dir.as_os_str());
    script.extend_from_slice(b" || exit 125\nexec env -i");
    for (name, value) in env {
        let mut pair = name.clone();
        pair.push("=");
        pair.push(value);
        script.push(b' ');
        push_quoted(&mut script, &pair);
    }
    // No "--" here: env stops at the first word without "=", which no program here has in its name.
    for word in argv {
        script.push(b' ');
        push_quoted(&mut script, word);
    }
    script.push(b'\n');
    script
}

/// In single quotes, within which only the quote itself is special.
fn push_quoted(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(b"'\\''"),
            other => script.push(*other),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_hostile_words_arrive_unchanged() {
        let argv = ["printf", "%s|", "it's", "$HOME `x`", "", "two\nlines"].map(OsString::from);
        let env = [(OsString::from("PATH"), std::env::var_os("PATH").unwrap())];
        let script = render(Path::new("/"), &env, &argv);
        let output =
            std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's|$HOME `x`||two\nlines|");
    }

    #[test]
    fn script_missing_directory_is_125() {
        let script = render(Path::new("/does/not/exist"), &[], &["true".into()]);
        let status = std::process::Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&script))
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(125));
    }
}
