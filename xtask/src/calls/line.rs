//! The lines of a thread's trace: `strace -ff -n -v -X raw`, with raw arguments for all but a few calls.

use super::filter::Arguments;

/// What a line of a trace says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Call(Call<'a>),
    /// A signal, the end, or the rest of a call.
    Other,
}

/// A system call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) number: u32,
    pub(super) name: &'a str,
    /// Its arguments as they are printed, without parentheses. They lack their end if it didn't return.
    pub(super) text: &'a str,
    /// What it returned, unless it failed or didn't return.
    pub(super) returned: Option<u32>,
}

impl<'a> Line<'a> {
    /// Parses a line such as `[ 202] futex(0x55e8, 0x81) = 0x1`; `None` if strace prints no such lines.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let Some((number, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
            return (line.starts_with("+++ ") || line.starts_with("--- ")).then_some(Self::Other);
        };
        // strace shows a thread that is killed before it could read its registers as `???`.
        if ["--- ", "+++ ", "<... ", "???"].iter().any(|start| rest.starts_with(start)) {
            return Some(Self::Other);
        }
        let number = number.trim().parse().ok()?;
        let (name, rest) = rest.split_once('(')?;
        // strace fills up with spaces after the parenthesis. A call that isn't finished, and one that is interrupted, end otherwise.
        let (text, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
        let text = text.trim_end().trim_end_matches("<unfinished ...>").trim_end();
        let text = text.strip_suffix(')').unwrap_or(text).trim_end_matches([' ', ',']);
        let returned = result.split(' ').next().and_then(argument);
        Some(Self::Call(Call { number, name, text, returned }))
    }
}

impl Call<'_> {
    /// The lower halves of its arguments: 0 for those that aren't printed as numbers, and for further ones.
    pub(super) fn arguments(&self) -> Arguments {
        let mut arguments = [0; 6];
        for (place, text) in arguments.iter_mut().zip(self.text.split(", ")) {
            *place = argument(text).unwrap_or(0);
        }
        arguments
    }

    /// The string among its arguments, without quotes.
    pub(super) fn string(&self) -> Option<&str> {
        let (_, rest) = self.text.split_once('"')?;
        rest.rsplit_once('"').map(|(string, _)| string)
    }
}

/// The lower half of a number, hexadecimal or decimal.
fn argument(text: &str) -> Option<u32> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => text.parse().ok()?,
    };
    Some(value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call<'_> {
        match Line::parse(line) {
            Some(Line::Call(call)) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn call_has_number_arguments_and_result() {
        let ioctl = call("[  16] ioctl(0xb, 0xffffffffc018ae85, 0x7ffc5d31a0e0)  = 0x1f");
        assert_eq!((ioctl.number, ioctl.name, ioctl.returned), (16, "ioctl", Some(0x1f)));
        assert_eq!(ioctl.arguments(), [0xb, 0xc018_ae85, 0x5d31_a0e0, 0, 0, 0]);
    }

    #[test]
    fn call_with_decimal_arguments_or_none_is_parsed() {
        assert_eq!(call("[ 157] prctl(0x26, 1, 0, 0, 0)          = 0").arguments(), [0x26, 1, 0, 0, 0, 0]);
        assert_eq!(call("[  24] sched_yield()                    = 0").arguments(), [0; 6]);
    }

    #[test]
    fn call_that_failed_returned_nothing() {
        assert_eq!(
            call("[ 230] clock_nanosleep(0, 0, 0x7f, 0) = ? ERESTART_RESTARTBLOCK (Interrupted)").returned,
            None
        );
        assert_eq!(
            call("[ 435] clone3({flags=0x3d0f00}, 88) = -1 ENOSYS (Function not implemented)").returned,
            None
        );
    }

    #[test]
    fn new_threads_number_is_parsed_in_both_notations() {
        assert_eq!(
            call("[ 435] clone3({flags=0x3d0f00} => {parent_tid=[10478]}, 88) = 10478").returned,
            Some(10478)
        );
        assert_eq!(call("[  56] clone(0x3d0f00, 0x7ff3, 0, 0, 0) = 0x291c").returned, Some(0x291c));
    }

    #[test]
    fn call_that_did_not_return_has_the_arguments_that_were_printed() {
        let finished = call("[ 231] exit_group(0x9f)                 = ?");
        assert_eq!((finished.arguments()[0], finished.returned), (0x9f, None));
        let killed = call("[ 202] futex(0x55e8, 0x89, 0, 0 <unfinished ...>");
        assert_eq!((killed.arguments()[1], killed.returned), (0x89, None));
        let killed = call("[   0] read(0x4,  <unfinished ...>");
        assert_eq!((killed.arguments()[0], killed.returned), (4, None));
    }

    #[test]
    fn resumed_calls_signals_and_ends_are_no_calls() {
        for line in [
            "[ 202] <... futex resumed>)             = 0",
            "[  16] --- SIGURG {si_signo=23, si_code=0xfffffffa} ---",
            "[ 231] +++ exited with 0 +++",
            "[0xffffffffffffffff] ???()              = ?",
            "+++ killed by 9 +++",
            "--- stopped by 19 ---",
        ] {
            assert_eq!(Line::parse(line), Some(Line::Other), "{line}");
        }
    }

    #[test]
    fn interrupted_call_that_is_restarted_is_a_call() {
        let restarted = call("[ 219] restart_syscall(<... resuming interrupted poll ...>) = 0x1");
        assert_eq!((restarted.number, restarted.arguments()), (219, [0; 6]));
    }

    #[test]
    fn names_of_threads_keep_their_spaces_dashes_and_parentheses() {
        assert_eq!(call(r#"[ 157] prctl(0xf, "vq-my disk (1)")     = 0"#).string(), Some("vq-my disk (1)"));
        assert_eq!(call(r#"[ 157] prctl(0xf, "io-a = b")           = 0"#).string(), Some("io-a = b"));
    }

    #[test]
    fn other_text_is_no_line() {
        assert_eq!(Line::parse("strace: Process 7 attached"), None);
        assert_eq!(Line::parse("futex(0x55e8)"), None);
    }
}
