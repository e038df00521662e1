//! The keys that a terminal's user types at the monitor instead of the guest.

/// Ctrl-A, which starts a command.
const PREFIX: u8 = 0x01;

/// Splits what is typed on a terminal into what is the guest's and what is ours.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Ctrl-A was typed last.
    prefixed: bool,
}

/// What the user asked of the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Ctrl-A x: end the machine.
    Quit,
}

impl Keys {
    /// Appends the guest's part of `typed` to `guest`; stops at a command.
    ///
    /// Ctrl-A a is the guest's Ctrl-A; any other letter behind Ctrl-A is nobody's. The guest's part is never
    /// longer than what was typed.
    pub(super) fn split(&mut self, typed: &[u8], guest: &mut Vec<u8>) -> Option<Command> {
        for &key in typed {
            if !self.prefixed {
                self.prefixed = key == PREFIX;
                if !self.prefixed {
                    guest.push(key);
                }
                continue;
            }
            self.prefixed = false;
            match key {
                b'x' => return Some(Command::Quit),
                b'a' => guest.push(PREFIX),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> (Vec<u8>, Option<Command>) {
        let mut keys = Keys::default();
        let mut guest = Vec::new();
        let command = pieces.iter().find_map(|typed| keys.split(typed, &mut guest));
        (guest, command)
    }

    #[test]
    fn keys_plain_text_and_control_keys_are_the_guests() {
        assert_eq!(split(&[b"ls\r\x03\x1b[A"]), (b"ls\r\x03\x1b[A".to_vec(), None));
    }

    #[test]
    fn keys_ctrl_a_x_quits_also_in_two_reads() {
        assert_eq!(split(&[b"a\x01", b"xb"]), (b"a".to_vec(), Some(Command::Quit)));
    }

    #[test]
    fn keys_ctrl_a_a_is_one_ctrl_a() {
        assert_eq!(split(&[b"\x01a\x01", b"ab"]), (b"\x01\x01b".to_vec(), None));
    }

    #[test]
    fn keys_unknown_command_is_swallowed_whole() {
        assert_eq!(split(&[b"1\x01q2"]), (b"12".to_vec(), None));
    }
}
