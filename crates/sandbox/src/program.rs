//! A filter as a program for the kernel's classic BPF machine (seccomp(2), Documentation/userspace-api/seccomp_filter.rst).
//!
//! Calls are compared in the order of the lists, so that the one on the hot path costs least. The kernel runs the program only for
//! calls with conditions: it finds out in advance which ones are allowed whatever their arguments (Linux 5.11 and later).

use std::io;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

use crate::declare::{Allow, Condition};

/// linux/audit.h: EM_X86_64 with the bits for 64 bits and little endian.
const AUDIT_ARCH_X86_64: u32 = 62 | 0x8000_0000 | 0x4000_0000;
/// The limit of the kernel (BPF_MAXINSNS).
const MAX_LEN: usize = 4096;
/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The program that allows the union of `lists`. Other calls, those of 32-bit programs and those of the x32 ABI end in `violation`.
///
/// Two calls fail instead, unless they are allowed or violations are only logged: clone3 with ENOSYS, because a filter can't see its
/// flags, which are in memory, and the C library then uses clone; and clone with EPERM, because the C library blocks all signals around
/// it, so that its violation would kill the process without a message.
///
/// # Errors
/// The program is longer than the kernel accepts.
pub(crate) fn compile(lists: &[&[Allow]], violation: u32, process: u32) -> io::Result<Vec<sock_filter>> {
    let mut program =
        vec![load(ARCHITECTURE), compare(AUDIT_ARCH_X86_64, 1, 0), answer(violation), load(NUMBER)];
    for (call, conditions) in grouped(lists) {
        let otherwise = if call == libc::SYS_clone { no_clone(violation) } else { violation };
        append(&mut program, call, block(&conditions, otherwise, process))?;
    }
    append(&mut program, libc::SYS_clone, vec![answer(no_clone(violation))])?;
    append(&mut program, libc::SYS_clone3, vec![answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)])?;
    program.push(answer(violation));
    if program.len() > MAX_LEN {
        return Err(not_possible("the kernel accepts only 4096 instructions"));
    }
    Ok(program)
}

/// What is done with a clone that isn't allowed.
fn no_clone(violation: u32) -> u32 {
    if violation == libc::SECCOMP_RET_LOG { violation } else { libc::SECCOMP_RET_ERRNO | libc::EPERM as u32 }
}

/// Appends `block` for `call`.
fn append(program: &mut Vec<sock_filter>, call: libc::c_long, block: Vec<sock_filter>) -> io::Result<()> {
    let number = u32::try_from(call).map_err(|_| not_possible("a system call has a negative number"))?;
    match u8::try_from(block.len()) {
        Ok(len) => program.push(compare(number, 0, len)),
        Err(_) => program.extend([compare(number, 1, 0), jump(block.len() as u32)]),
    }
    program.extend(block);
    Ok(())
}

/// The calls in the order of their first appearance, each with its conditions.
fn grouped(lists: &[&[Allow]]) -> Vec<(libc::c_long, Vec<Condition>)> {
    let mut calls: Vec<(libc::c_long, Vec<Condition>)> = Vec::new();
    for allow in lists.iter().copied().flatten() {
        match calls.iter_mut().find(|(call, _)| *call == allow.call) {
            Some((_, conditions)) if conditions.contains(&allow.condition) => {}
            Some((_, conditions)) => conditions.push(allow.condition),
            None => calls.push((allow.call, vec![allow.condition])),
        }
    }
    calls
}

/// What is done with one call; `otherwise` if no condition is met.
fn block(conditions: &[Condition], otherwise: u32, process: u32) -> Vec<sock_filter> {
    let allow = answer(libc::SECCOMP_RET_ALLOW);
    if conditions.contains(&Condition::Always) {
        return vec![allow];
    }
    let mut block = Vec::new();
    for condition in conditions {
        match *condition {
            Condition::Always => {}
            Condition::OneOf { argument, values } => {
                block.push(load_argument(argument));
                values.iter().for_each(|value| block.extend([compare(*value, 0, 1), allow]));
            }
            Condition::All(arguments) => {
                // From the last argument to the first: each continues with what is there already.
                let compared = arguments.iter().rev().fold(vec![allow], |rest, (argument, values)| {
                    let mut check = vec![load_argument(*argument)];
                    // Equal: over the comparisons that are left and the jump.
                    let left = (0..values.len()).rev();
                    check.extend(
                        values.iter().zip(left).map(|(value, left)| compare(*value, left as u8 + 1, 0)),
                    );
                    check.push(jump(rest.len() as u32));
                    check.extend(rest);
                    check
                });
                block.extend(compared);
            }
            Condition::Masked { argument, mask, value } => {
                let and = instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
                block.extend([load_argument(argument), and, compare(value, 0, 1), allow]);
            }
            Condition::OwnProcess { argument } => {
                block.extend([load_argument(argument), compare(process, 0, 1), allow]);
            }
        }
    }
    block.push(answer(otherwise));
    block
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

/// The lower 32 bits of an argument, which come first.
fn load_argument(argument: u8) -> sock_filter {
    load(ARGUMENTS + 8 * u32::from(argument))
}

/// Skips `equal` instructions if what was loaded is `value`, otherwise `different`.
fn compare(value: u32, equal: u8, different: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, equal, different, value)
}

fn jump(over: u32) -> sock_filter {
    instruction(BPF_JMP | BPF_JA, 0, 0, over)
}

fn answer(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, action)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn not_possible(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const TRAP: u32 = libc::SECCOMP_RET_TRAP;
    const PROCESS: u32 = 4711;

    /// Runs the program as the kernel does; returns its answer, and how many instructions that took.
    fn run(
        program: &[sock_filter],
        architecture: u32,
        call: libc::c_long,
        arguments: [u64; 6],
    ) -> (u32, usize) {
        let mut data = Vec::new();
        data.extend((call as u32).to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend(0_u64.to_le_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut accumulator, mut at) = (0, 0);
        for steps in 1.. {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                0x20 => accumulator = u32::from_le_bytes(data[k as usize..][..4].try_into().unwrap()),
                0x54 => accumulator &= k,
                0x15 => at += usize::from(if accumulator == k { jt } else { jf }),
                0x05 => at += k as usize,
                0x06 => return (k, steps),
                code => panic!("instruction {code:#x}"),
            }
        }
        unreachable!()
    }

    fn answer_to(lists: &[&[Allow]], call: libc::c_long, arguments: [u64; 6]) -> u32 {
        run(&compile(lists, TRAP, PROCESS).unwrap(), AUDIT_ARCH_X86_64, call, arguments).0
    }

    #[test]
    fn call_in_one_of_the_lists_is_allowed_and_others_are_not() {
        let lists: [&[Allow]; 2] = [&[Allow::call(libc::SYS_read)], &[Allow::call(libc::SYS_write)]];
        assert_eq!(answer_to(&lists, libc::SYS_read, [7; 6]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_write, [7; 6]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_openat, [7; 6]), TRAP);
        assert_eq!(answer_to(&[], libc::SYS_read, [7; 6]), TRAP);
    }

    #[test]
    fn argument_is_compared_in_its_lower_half() {
        let lists: [&[Allow]; 1] = [&[Allow::when(libc::SYS_ioctl, 1, &[0xae80, 0x5401])]];
        assert_eq!(answer_to(&lists, libc::SYS_ioctl, [0, 0xae80, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_ioctl, [0, 0xffff_0000_5401, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_ioctl, [0, 0xae81, 0, 0, 0, 0]), TRAP);
        assert_eq!(answer_to(&lists, libc::SYS_ioctl, [0xae80, 0, 0xae80, 0, 0, 0]), TRAP);
    }

    #[test]
    fn all_arguments_must_be_among_their_values() {
        let lists: [&[Allow]; 1] = [&[
            Allow::all(libc::SYS_socket, &[(0, &[2, 10]), (1, &[9]), (2, &[0, 58, 6])]),
            Allow::all(libc::SYS_socket, &[(0, &[1]), (2, &[7])]),
        ]];
        for allowed in [[2, 9, 0, 0, 0, 0], [2, 9, 6, 0, 0, 0], [10, 9, 58, 0, 0, 0], [1, 8, 7, 0, 0, 0]] {
            assert_eq!(answer_to(&lists, libc::SYS_socket, allowed), ALLOW, "{allowed:?}");
        }
        let wrong = [[2, 9, 262, 0, 0, 0], [2, 8, 0, 0, 0, 0], [1, 9, 0, 0, 0, 0], [3, 9, 6, 0, 0, 0]];
        for refused in wrong {
            assert_eq!(answer_to(&lists, libc::SYS_socket, refused), TRAP, "{refused:?}");
        }
    }

    #[test]
    fn masked_argument_is_compared_in_the_masks_bits() {
        let lists: [&[Allow]; 1] = [&[Allow::masked(libc::SYS_mmap, 2, 6, 2)]];
        assert_eq!(answer_to(&lists, libc::SYS_mmap, [0, 0, 0b011, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_mmap, [0, 0, 0b111, 0, 0, 0]), TRAP);
        assert_eq!(answer_to(&lists, libc::SYS_mmap, [0, 0, 0b001, 0, 0, 0]), TRAP);
    }

    #[test]
    fn own_process_is_the_one_that_compiles() {
        let lists: [&[Allow]; 1] = [&[Allow::own_process(libc::SYS_tgkill, 0)]];
        assert_eq!(answer_to(&lists, libc::SYS_tgkill, [u64::from(PROCESS), 1, 9, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_tgkill, [1, u64::from(PROCESS), 9, 0, 0, 0]), TRAP);
    }

    #[test]
    fn conditions_of_several_lists_are_alternatives() {
        let lists: [&[Allow]; 2] = [
            &[Allow::when(libc::SYS_fcntl, 1, &[1])],
            &[Allow::masked(libc::SYS_fcntl, 2, 8, 8), Allow::when(libc::SYS_fcntl, 1, &[3])],
        ];
        assert_eq!(answer_to(&lists, libc::SYS_fcntl, [0, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_fcntl, [0, 2, 8, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_fcntl, [0, 3, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_fcntl, [0, 2, 0, 0, 0, 0]), TRAP);
    }

    #[test]
    fn call_that_one_list_allows_always_needs_no_condition_of_another() {
        let lists: [&[Allow]; 2] =
            [&[Allow::when(libc::SYS_fcntl, 1, &[1])], &[Allow::call(libc::SYS_fcntl)]];
        assert_eq!(answer_to(&lists, libc::SYS_fcntl, [0, 2, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn long_chain_of_values_is_jumped_over() {
        static VALUES: [u32; 300] = {
            let mut values = [0; 300];
            let mut index = 0;
            while index < 300 {
                values[index] = 1000 + index as u32;
                index += 1;
            }
            values
        };
        let lists: [&[Allow]; 2] =
            [&[Allow::when(libc::SYS_ioctl, 1, &VALUES)], &[Allow::call(libc::SYS_read)]];
        assert_eq!(answer_to(&lists, libc::SYS_ioctl, [0, 1299, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_ioctl, [0, 1300, 0, 0, 0, 0]), TRAP);
        assert_eq!(answer_to(&lists, libc::SYS_read, [0; 6]), ALLOW);
    }

    #[test]
    fn clone3_doesnt_exist_unless_it_is_allowed() {
        let none = libc::SECCOMP_RET_ERRNO | 38;
        assert_eq!(answer_to(&[&[Allow::call(libc::SYS_read)]], libc::SYS_clone3, [0; 6]), none);
        assert_eq!(answer_to(&[&[Allow::call(libc::SYS_clone3)]], libc::SYS_clone3, [0; 6]), ALLOW);
    }

    #[test]
    fn clone_fails_unless_it_is_allowed_or_only_logged() {
        let lists: [&[Allow]; 1] = [&[Allow::masked(libc::SYS_clone, 0, 0x100, 0x100)]];
        let not_permitted = libc::SECCOMP_RET_ERRNO | 1;
        assert_eq!(answer_to(&lists, libc::SYS_clone, [0x100, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer_to(&lists, libc::SYS_clone, [0; 6]), not_permitted);
        assert_eq!(answer_to(&[], libc::SYS_clone, [0x100, 0, 0, 0, 0, 0]), not_permitted);
        let logged = compile(&lists, libc::SECCOMP_RET_LOG, PROCESS).unwrap();
        let answer = run(&logged, AUDIT_ARCH_X86_64, libc::SYS_clone, [0; 6]).0;
        assert_eq!(answer, libc::SECCOMP_RET_LOG);
    }

    #[test]
    fn calls_of_other_abis_are_violations() {
        let program = compile(&[&[Allow::call(libc::SYS_read)]], TRAP, PROCESS).unwrap();
        let i386 = 3 | 0x4000_0000;
        assert_eq!(run(&program, i386, libc::SYS_read, [0; 6]).0, TRAP);
        let x32 = libc::SYS_read | 0x4000_0000;
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, x32, [0; 6]).0, TRAP);
    }

    #[test]
    fn first_value_of_the_first_call_takes_seven_instructions() {
        let lists: [&[Allow]; 2] =
            [&[Allow::when(libc::SYS_ioctl, 1, &[0xae80, 1, 2])], &[Allow::call(libc::SYS_read)]];
        let program = compile(&lists, TRAP, PROCESS).unwrap();
        let arguments = [0, 0xae80, 0, 0, 0, 0];
        assert_eq!(run(&program, AUDIT_ARCH_X86_64, libc::SYS_ioctl, arguments), (ALLOW, 7));
    }

    #[test]
    fn program_that_is_too_long_is_an_error() {
        let list: Vec<Allow> = (0..2100).map(Allow::call).collect();
        assert!(compile(&[&list], TRAP, PROCESS).is_err());
    }
}
