//! Errors in flat image files.

use std::io;

use crate::elf_error::ElfError;
use crate::elf_format::{ELFCLASS32, ELFCLASS64, EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64};
use crate::platform::x86_64::flat::multiboot_error::MultibootError;
use crate::platform::x86_64::flat::relocation_error::RelocationError;

/// Why a file isn't a flat image that can be started.
///
/// The messages continue a sentence that starts with the file, such as `image vm/hello.bin: `.
#[derive(Debug, thiserror::Error)]
pub enum FlatImageError {
    /// Reading or seeking failed.
    #[error("can't be read")]
    Read(#[from] io::Error),
    /// The file is empty.
    #[error("is empty")]
    Empty,
    /// The file ends inside a structure.
    #[error("ends after {len} bytes, inside its {structure}")]
    Truncated {
        /// Length of the file in bytes.
        len: u64,
        /// Name of the structure.
        structure: &'static str,
    },
    /// EI_DATA isn't little endian.
    #[error("a big-endian ELF (data {data}); a little-endian one for i386 or x86_64 is needed")]
    Endianness {
        /// EI_DATA.
        data: u8,
    },
    /// The ELF is for another processor, or its class doesn't match the machine.
    #[error(
        "a {} ELF for {} (machine {machine}); a 32-bit one for i386 (machine 3) or a 64-bit one for x86_64 \
         (machine 62) is needed",
        class_name(*class),
        machine_name(*machine)
    )]
    Machine {
        /// EI_CLASS.
        class: u8,
        /// e_machine.
        machine: u16,
    },
    /// The ELF isn't an executable.
    #[error("e_type {kind}: {name}; an executable (e_type 2, or 3 if it is static) is needed")]
    Type {
        /// e_type.
        kind: u16,
        /// Name of the type.
        name: &'static str,
    },
    /// The executable needs a dynamic loader.
    #[error(
        "needs a dynamic loader (program header {segment} is PT_INTERP); link it with -static-pie or -no-pie"
    )]
    Interpreter {
        /// Index of the program header.
        segment: u16,
    },
    /// The file is a Linux kernel, which has a boot protocol.
    #[error(
        "is a Linux kernel (bzImage); boot it by boot.kernel (--kernel), or set boot.flat.format to \"raw\" if it only \
         looks like one"
    )]
    BzImage,
    /// The ELF's headers are inconsistent.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The position-independent executable can't be relocated.
    #[error(transparent)]
    Relocation(#[from] RelocationError),
    /// The multiboot header is inconsistent, or requires unsupported features.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
}

fn class_name(class: u8) -> &'static str {
    match class {
        ELFCLASS32 => "32-bit",
        ELFCLASS64 => "64-bit",
        _ => "classless",
    }
}

/// Name of a machine (System V ABI, "ELF Header", e_machine).
fn machine_name(machine: u16) -> &'static str {
    match machine {
        EM_386 => "i386",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "64-bit PowerPC",
        22 => "s390",
        EM_ARM => "arm",
        EM_X86_64 => "x86_64",
        EM_AARCH64 => "aarch64",
        EM_RISCV => "RISC-V",
        258 => "LoongArch",
        _ => "another processor",
    }
}
