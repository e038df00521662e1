//! A seccomp filter as strace prints it: what it permits, and its answer to a call.

use std::collections::BTreeSet;

use crate::failure::Failure;

/// include/uapi/linux/seccomp.h; the lower half of an answer is data.
const ACTION: u32 = 0xffff_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
/// AUDIT_ARCH_X86_64 (include/uapi/linux/audit.h).
const ARCHITECTURE: u32 = 0xc000_003e;

/// Classic BPF (include/uapi/linux/bpf_common.h): those that the monitor's filters have.
const LOAD: u32 = 0x20;
const AND: u32 = 0x54;
const JUMP: u32 = 0x05;
const JUMP_IF_EQUAL: u32 = 0x15;
const RETURN: u32 = 0x06;

/// The arguments of a call, in the halves that filters compare.
pub(super) type Arguments = [u32; 6];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u32,
    operand: u32,
    equal: u32,
    different: u32,
}

/// A program of seccomp(SECCOMP_SET_MODE_FILTER).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter(Vec<Instruction>);

/// What a filter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allowed,
    /// The call fails. The caller is expected to manage without it.
    Refused,
    /// It stops the process, or is logged.
    Violation,
}

/// A system call that a filter permits, or one value that it permits for one of the call's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Permission {
    pub(super) call: u32,
    pub(super) test: Option<Test>,
}

/// (argument & mask) == value
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    pub(super) argument: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl Test {
    pub(super) fn is_met(&self, arguments: Arguments) -> bool {
        arguments[usize::from(self.argument)] & self.mask == self.value
    }
}

impl Filter {
    /// Parses `{len=2, filter=[BPF_STMT(0|0|0x20, 0x4), BPF_JUMP(0x5|0|0x10, 0x1, 0, 0x1)]}`: strace's `-v -X raw`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let problem = || format!("no filter that strace has printed in full: {text:.80}");
        let rest = text.strip_prefix("{len=").ok_or_else(problem)?;
        let (len, rest) = rest.split_once(", filter=[").ok_or_else(problem)?;
        let list = rest.strip_suffix("]}").ok_or_else(problem)?;
        let program: Option<Vec<_>> =
            list.split("BPF_").skip(1).map(|one| instruction(one.trim_end_matches(", "))).collect();
        let program = program.ok_or_else(problem)?;
        if number(len) != Some(program.len() as u32) {
            return Err(problem().into());
        }
        Ok(Self(program))
    }

    /// The answer to the call numbered `call`.
    pub(super) fn answer(&self, call: u32, arguments: Arguments) -> Result<Answer, Failure> {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let Instruction { code, operand, equal, different } = *self.at(at)?;
            at += 1;
            match code {
                LOAD => {
                    accumulator = match source(operand)? {
                        Source::Call => call,
                        Source::Architecture => ARCHITECTURE,
                        Source::Argument { argument, mask } => arguments[usize::from(argument)] & mask,
                    }
                }
                AND => accumulator &= operand,
                JUMP => at += operand as usize,
                JUMP_IF_EQUAL => at += (if accumulator == operand { equal } else { different }) as usize,
                _ => return Ok(answer(operand)),
            }
        }
    }

    /// Everything that the program allows, found by following each of its paths.
    pub(super) fn permissions(&self) -> Result<BTreeSet<Permission>, Failure> {
        let mut found: Vec<Path> = Vec::new();
        let mut known: BTreeSet<Path> = BTreeSet::new();
        let mut open = vec![Path::default()];
        while let Some(path) = open.pop() {
            if !known.insert(path.clone()) {
                continue;
            }
            let Instruction { code, operand, equal, different } = *self.at(path.at)?;
            let next = |over: u32| Path { at: path.at + 1 + over as usize, ..path.clone() };
            match code {
                LOAD => open.push(Path { loaded: source(operand)?, ..next(0) }),
                AND => open.push(Path { loaded: path.loaded.masked(operand), ..next(0) }),
                JUMP => open.push(next(operand)),
                JUMP_IF_EQUAL => {
                    open.push(next(different));
                    open.extend(next(equal).with(operand));
                }
                _ if answer(operand) == Answer::Allowed => found.push(path),
                _ => {}
            }
        }
        Ok(permissions_of(&found))
    }

    fn at(&self, at: usize) -> Result<&Instruction, Failure> {
        let instruction = self.0.get(at).ok_or("a filter continues after its end")?;
        match instruction.code {
            LOAD | AND | JUMP | JUMP_IF_EQUAL | RETURN => Ok(instruction),
            code => Err(format!("a filter with the unknown instruction {code:#x}").into()),
        }
    }
}

fn answer(operand: u32) -> Answer {
    match operand & ACTION {
        ALLOW => Answer::Allowed,
        ERRNO => Answer::Refused,
        _ => Answer::Violation,
    }
}

/// What the accumulator holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    #[default]
    Architecture,
    Call,
    Argument {
        argument: u8,
        mask: u32,
    },
}

impl Source {
    fn masked(self, by: u32) -> Self {
        match self {
            Self::Argument { argument, mask } => Self::Argument { argument, mask: mask & by },
            other => other,
        }
    }
}

/// By an offset in struct seccomp_data: of an argument, the lower half.
fn source(offset: u32) -> Result<Source, Failure> {
    match offset {
        0 => Ok(Source::Call),
        4 => Ok(Source::Architecture),
        16..64 if offset.is_multiple_of(8) => {
            Ok(Source::Argument { argument: (offset as u8 - 16) / 8, mask: u32::MAX })
        }
        _ => Err(format!("a filter loads from the unknown offset {offset}").into()),
    }
}

/// A way through a program up to an instruction, with what was equal on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    at: usize,
    loaded: Source,
    call: Option<u32>,
    tests: BTreeSet<Test>,
}

impl Path {
    /// The path goes on where what was loaded is `value`; `None` if that contradicts what was equal before.
    fn with(mut self, value: u32) -> Option<Self> {
        match self.loaded {
            Source::Architecture => {}
            Source::Call if self.call.is_some_and(|call| call != value) => return None,
            Source::Call => self.call = Some(value),
            Source::Argument { argument, mask } => {
                let contradicts = |test: &Test| {
                    let both = test.mask & mask;
                    test.argument == argument && test.value & both != value & both
                };
                if self.tests.iter().any(contradicts) {
                    return None;
                }
                self.tests.insert(Test { argument, mask, value });
            }
        }
        Some(self)
    }
}

/// The tests of the paths that lead to a permission, without those of a shorter way to it: what a call has passed of one condition says
/// nothing if another one allows it.
fn permissions_of(paths: &[Path]) -> BTreeSet<Permission> {
    let mut permissions = BTreeSet::new();
    for path in paths {
        let Some(call) = path.call else { continue };
        let is_shorter = |other: &Path| {
            other.call == path.call && other.tests != path.tests && other.tests.is_subset(&path.tests)
        };
        if paths.iter().any(is_shorter) {
            continue;
        }
        if path.tests.is_empty() {
            permissions.insert(Permission { call, test: None });
        }
        permissions.extend(path.tests.iter().map(|test| Permission { call, test: Some(*test) }));
    }
    permissions
}

/// `STMT(0x6|0, 0x7fff0000)` or `JUMP(0x5|0|0x10, 0x1, 0, 0x1)`.
fn instruction(text: &str) -> Option<Instruction> {
    let fields = text.split_once('(')?.1.strip_suffix(')')?;
    let mut fields = fields.split(", ");
    let (code, operand) = (parts(fields.next()?)?, parts(fields.next()?)?);
    let mut target = || fields.next().map_or(Some(0), number);
    Some(Instruction { code, operand, equal: target()?, different: target()? })
}

/// The sum of a value's parts, such as `0x50000|0x26`.
fn parts(text: &str) -> Option<u32> {
    text.split('|').map(number).sum()
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// read; ioctl with 0xae80 as its request; clone3 fails with ENOSYS.
    const SMALL: &str = "{len=12, filter=[BPF_STMT(0|0|0x20, 0x4), BPF_JUMP(0x5|0|0x10, 0xc000003e, 0x1, 0), \
        BPF_STMT(0x6|0, 0x30000), BPF_STMT(0|0|0x20, 0), BPF_JUMP(0x5|0|0x10, 0, 0, 0x1), BPF_STMT(0x6|0, 0x7fff0000), \
        BPF_JUMP(0x5|0|0x10, 0x10, 0, 0x4), BPF_STMT(0|0|0x20, 0x18), BPF_JUMP(0x5|0|0x10, 0xae80, 0, 0x1), \
        BPF_STMT(0x6|0, 0x7fff0000), BPF_STMT(0x6|0, 0x30000), BPF_STMT(0x6|0, 0x50000|0x26)]}";

    fn permission(call: u32, test: Option<(u8, u32, u32)>) -> Permission {
        let test = test.map(|(argument, mask, value)| Test { argument, mask, value });
        Permission { call, test }
    }

    #[test]
    fn filter_is_parsed_and_answers_as_the_kernel_does() {
        let filter = Filter::parse(SMALL).unwrap();
        assert_eq!(filter.answer(0, [9; 6]).unwrap(), Answer::Allowed);
        assert_eq!(filter.answer(16, [9, 0xae80, 0, 0, 0, 0]).unwrap(), Answer::Allowed);
        assert_eq!(filter.answer(16, [0xae80, 9, 0, 0, 0, 0]).unwrap(), Answer::Violation);
        assert_eq!(filter.answer(435, [0; 6]).unwrap(), Answer::Refused);
    }

    #[test]
    fn permissions_are_calls_and_the_values_of_arguments() {
        let permissions = Filter::parse(SMALL).unwrap().permissions().unwrap();
        assert_eq!(
            permissions.into_iter().collect::<Vec<_>>(),
            [permission(0, None), permission(16, Some((1, u32::MAX, 0xae80)))]
        );
    }

    #[test]
    fn permissions_of_masks_and_of_several_arguments_are_found() {
        // mmap without PROT_EXEC; socket with (1, 5), or with 2 whatever the type is.
        let text = "{len=18, filter=[BPF_STMT(0|0|0x20, 0), BPF_JUMP(0x5|0|0x10, 0x9, 0, 0x5), \
            BPF_STMT(0|0|0x20, 0x20), BPF_STMT(0x4|0|0x50, 0x4), BPF_JUMP(0x5|0|0x10, 0, 0, 0x1), \
            BPF_STMT(0x6|0, 0x7fff0000), BPF_STMT(0x6|0, 0x30000), BPF_JUMP(0x5|0|0x10, 0x29, 0, 0x9), BPF_STMT(0|0|0x20, 0x10), \
            BPF_JUMP(0x5|0|0x10, 0x1, 0x1, 0), BPF_STMT(0x5|0|0, 0x3), BPF_STMT(0|0|0x20, 0x18), \
            BPF_JUMP(0x5|0|0x10, 0x5, 0, 0x1), BPF_STMT(0x6|0, 0x7fff0000), BPF_STMT(0|0|0x20, 0x10), \
            BPF_JUMP(0x5|0|0x10, 0x2, 0, 0x1), BPF_STMT(0x6|0, 0x7fff0000), BPF_STMT(0x6|0, 0x30000)]}";
        let permissions = Filter::parse(text).unwrap().permissions().unwrap();
        assert_eq!(
            permissions.into_iter().collect::<Vec<_>>(),
            [
                permission(9, Some((2, 4, 0))),
                permission(41, Some((0, u32::MAX, 1))),
                permission(41, Some((0, u32::MAX, 2))),
                permission(41, Some((1, u32::MAX, 5))),
            ]
        );
    }

    #[test]
    fn filter_that_is_cut_or_only_an_address_is_an_error() {
        assert!(Filter::parse("{len=341, filter=0x7f55}").is_err());
        assert!(Filter::parse("{len=2, filter=[BPF_STMT(0x6|0, 0x7fff0000)]}").is_err());
        assert!(Filter::parse("0x7ffe5d31").is_err());
    }

    #[test]
    fn unknown_instruction_is_an_error() {
        let filter = Filter::parse("{len=1, filter=[BPF_STMT(0x7|0, 0)]}").unwrap();
        assert!(filter.permissions().is_err() && filter.answer(0, [0; 6]).is_err());
    }
}
