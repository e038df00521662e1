//! Checks kernel command lines.

/// Why a command line is invalid. Positions and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// It contains a NUL, after which the kernel would ignore the rest.
    #[error("command line: NUL at byte {at}")]
    Nul {
        /// Position of the NUL.
        at: usize,
    },
    /// It contains a character that isn't printable ASCII.
    #[error("command line: {character:?} at byte {at}; only printable ASCII characters are allowed")]
    Character {
        /// The character.
        character: char,
        /// Its position.
        at: usize,
    },
    /// It is longer than the kernel supports.
    #[error("command line: {len} bytes; this kernel takes at most {max}")]
    TooLong {
        /// Length without the NUL.
        len: u64,
        /// The kernel's limit without the NUL.
        max: u64,
    },
}

/// Returns the command line without surrounding white space, if it is valid and has at most `max` bytes.
pub(crate) fn check(text: &str, max: u64) -> Result<&str, CmdlineError> {
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    // ' ' to '~', as linux-loader's Cmdline requires.
    if let Some((at, character)) = trimmed.char_indices().find(|(_, c)| !matches!(c, ' '..='~')) {
        let at = at + (text.len() - text.trim_start_matches([' ', '\t', '\r', '\n']).len());
        return Err(match character {
            '\0' => CmdlineError::Nul { at },
            character => CmdlineError::Character { character, at },
        });
    }
    let len = trimmed.len() as u64;
    if len > max {
        return Err(CmdlineError::TooLong { len, max });
    }
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, max: u64) -> String {
        check(text, max).unwrap_err().to_string()
    }

    #[test]
    fn cmdline_of_exactly_the_limit_is_taken() {
        assert_eq!(check("12345", 5), Ok("12345"));
    }

    #[test]
    fn cmdline_one_byte_over_the_limit_is_refused() {
        assert_eq!(message("123456", 5), "command line: 6 bytes; this kernel takes at most 5");
    }

    #[test]
    fn cmdline_newline_at_the_end_is_dropped() {
        assert_eq!(check(" quiet\n", 5), Ok("quiet"));
    }

    #[test]
    fn cmdline_empty_is_taken() {
        assert_eq!(check("", 0), Ok(""));
    }

    #[test]
    fn cmdline_nul_is_refused_with_its_place() {
        assert_eq!(message(" quiet\0 ro", 100), "command line: NUL at byte 6");
    }

    #[test]
    fn cmdline_not_ascii_is_refused_with_its_place() {
        let expected = "command line: 'ü' at byte 5; only printable ASCII characters are allowed";
        assert_eq!(message("root=ü", 100), expected);
    }

    #[test]
    fn cmdline_newline_inside_is_refused() {
        let expected = "command line: '\\n' at byte 1; only printable ASCII characters are allowed";
        assert_eq!(message("a\nb", 100), expected);
    }
}
