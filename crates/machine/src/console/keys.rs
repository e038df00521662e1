//! The monitor's command keys in a terminal's input.

use crate::message::Key;

/// Ctrl-A, the prefix of commands.
const PREFIX: u8 = 0x01;

/// Splits a terminal's input into the guest's part and the monitor's commands.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The last key was Ctrl-A.
    prefixed: bool,
}

/// A command of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Ctrl-A h: list the keys.
    Help,
    /// A command for the supervisor.
    Key(Key),
}

/// The text for Ctrl-A h.
pub(super) const HELP: &str = "Ctrl-A x quits, Ctrl-A b presses the power button, Ctrl-A p pauses and \
    resumes, Ctrl-A s shows the status, Ctrl-A a sends a Ctrl-A";

impl Keys {
    /// Appends the guest's part of `typed` to `guest`, and passes the commands to `command`, in order.
    ///
    /// Ctrl-A a sends one Ctrl-A to the guest; an unknown key after Ctrl-A is dropped. The guest's part is never longer than
    /// `typed`.
    pub(super) fn split(&mut self, typed: &[u8], guest: &mut Vec<u8>, mut command: impl FnMut(Command)) {
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
                b'h' => command(Command::Help),
                b'b' => command(Command::Key(Key::PowerButton)),
                b'p' => command(Command::Key(Key::Pause)),
                b's' => command(Command::Key(Key::Status)),
                b'x' => command(Command::Key(Key::Quit)),
                b'a' => guest.push(PREFIX),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Command>) {
        let mut keys = Keys::default();
        let (mut guest, mut commands) = (Vec::new(), Vec::new());
        pieces.iter().for_each(|typed| keys.split(typed, &mut guest, |command| commands.push(command)));
        (guest, commands)
    }

    #[test]
    fn keys_plain_text_and_control_keys_are_the_guests() {
        assert_eq!(split(&[b"ls\r\x03\x1b[A"]), (b"ls\r\x03\x1b[A".to_vec(), vec![]));
    }

    #[test]
    fn keys_ctrl_a_x_quits_also_in_two_reads() {
        assert_eq!(split(&[b"a\x01", b"xb"]), (b"ab".to_vec(), vec![Command::Key(Key::Quit)]));
    }

    #[test]
    fn keys_ctrl_a_a_is_one_ctrl_a() {
        assert_eq!(split(&[b"\x01a\x01", b"ab"]), (b"\x01\x01b".to_vec(), vec![]));
    }

    #[test]
    fn keys_commands_come_in_order_and_the_rest_is_the_guests() {
        let expected = (
            b"1234".to_vec(),
            vec![
                Command::Help,
                Command::Key(Key::Status),
                Command::Key(Key::PowerButton),
                Command::Key(Key::Pause),
            ],
        );
        assert_eq!(split(&[b"1\x01h2\x01s3\x01b\x01p4"]), expected);
    }

    #[test]
    fn keys_unknown_command_is_swallowed_whole() {
        assert_eq!(split(&[b"1\x01q2"]), (b"12".to_vec(), vec![]));
    }
}
