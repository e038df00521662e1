//! Recognizes the instructions that single-stepping treats specially.

/// The instructions that single-stepping distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// `hlt`.
    Halt,
    /// `pushf`, which stores the flags, including the trap flag.
    PushFlags,
    /// A string instruction with `rep`. A single step ends after each element.
    RepeatedString,
    /// Any other instruction, or unreadable code.
    Other,
}

impl Instruction {
    /// Decodes the instruction that starts with these bytes. In 64-bit code the bytes 0x40 to 0x4f are prefixes (Intel SDM
    /// volume 2 §2.1.1, §2.2.1).
    pub(crate) fn decode(code: &[u8], is_64_bit: bool) -> Self {
        let is_prefix = |byte: &u8| match byte {
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3 => true,
            0x40..=0x4f => is_64_bit,
            _ => false,
        };
        let prefixes = code.iter().take_while(|byte| is_prefix(byte)).count();
        let (prefixes, rest) = code.split_at(prefixes);
        let is_repeated = prefixes.iter().any(|prefix| matches!(prefix, 0xf2 | 0xf3));
        match rest.first() {
            Some(0xf4) => Self::Halt,
            Some(0x9c) => Self::PushFlags,
            // ins, outs, movs, cmps, stos, lods, scas.
            Some(0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf) if is_repeated => Self::RepeatedString,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Instruction::{self, Halt, Other, PushFlags, RepeatedString};

    fn of(code: &[u8]) -> Instruction {
        Instruction::decode(code, false)
    }

    #[test]
    fn instructions_are_distinguished_by_their_opcode() {
        assert_eq!(of(&[0xf4, 0x90]), Halt);
        assert_eq!(of(&[0x9c]), PushFlags);
        assert_eq!(of(&[0xee]), Other);
        assert_eq!(of(&[]), Other);
    }

    #[test]
    fn string_instruction_is_repeated_by_either_prefix_and_only_then() {
        assert_eq!(of(&[0xf3, 0x6e]), RepeatedString);
        assert_eq!(of(&[0x2e, 0xf2, 0xa6]), RepeatedString);
        assert_eq!(of(&[0x6e]), Other);
        // pause
        assert_eq!(of(&[0xf3, 0x90]), Other);
    }

    #[test]
    fn prefix_of_64_bit_code_is_an_instruction_elsewhere() {
        // rep movsq. In 32-bit code 0x48 is dec eax.
        let code = [0xf3, 0x48, 0xa5];
        assert_eq!(Instruction::decode(&code, true), RepeatedString);
        assert_eq!(Instruction::decode(&code, false), Other);
    }

    #[test]
    fn prefixes_without_an_instruction_are_other() {
        assert_eq!(of(&[0x66; 15]), Other);
    }
}
