//! The processor mode for which code is built.

/// The processor mode for which code is assembled and linked. Sources for 32 bits switch to 16-bit code by
/// themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Bits32,
    Bits64,
}

impl Width {
    pub(super) fn assembler_flag(self) -> &'static str {
        match self {
            Self::Bits32 => "--32",
            Self::Bits64 => "--64",
        }
    }

    pub(super) fn emulation(self) -> &'static str {
        match self {
            Self::Bits32 => "elf_i386",
            Self::Bits64 => "elf_x86_64",
        }
    }

    pub(super) fn machine_flag(self) -> &'static str {
        match self {
            Self::Bits32 => "-m32",
            Self::Bits64 => "-m64",
        }
    }

    /// A kernel's interrupt handlers would overwrite a red zone.
    pub(super) fn compiler_flags(self) -> &'static [&'static str] {
        match self {
            Self::Bits32 => &["-m32"],
            Self::Bits64 => &["-m64", "-mno-red-zone"],
        }
    }
}
