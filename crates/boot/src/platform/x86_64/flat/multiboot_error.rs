//! Errors in multiboot headers.

/// The header must be in this many bytes at the start of the file.
pub(crate) const SEARCH_LEN: usize = 8192;

/// Why a multiboot kernel can't be started. `at` is the header's offset in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    /// The checksum is wrong, most likely by a mistake in the source.
    #[error(
        "the multiboot header at {at:#x} has a bad checksum: magic + flags + checksum are {sum:#x}, but must be 0"
    )]
    Checksum {
        /// Offset of the header.
        at: u64,
        /// The sum, modulo 2^32.
        sum: u32,
    },
    /// The header is too far from the start of the file for boot loaders to find.
    #[error("the multiboot header is at {at:#x}, beyond the first {SEARCH_LEN} bytes")]
    TooFar {
        /// Offset of the header.
        at: u64,
    },
    /// The header requires unsupported features.
    #[error("the multiboot header at {at:#x} requires what isn't offered: {}", flag_names(*flags))]
    Flags {
        /// Offset of the header.
        at: u64,
        /// The unsupported flags.
        flags: u32,
    },
    /// Neither address fields nor ELF headers say how to load the kernel.
    #[error(
        "the multiboot header at {at:#x} has no addresses (flag 16 is clear), and the file is no ELF; set flag 16 \
         or link an ELF"
    )]
    NoAddresses {
        /// Offset of the header.
        at: u64,
    },
    /// The header isn't in the loaded part.
    #[error("multiboot header: header_addr {header_addr:#x} is below load_addr {load_addr:#x}")]
    HeaderBelowLoad {
        /// Address of the header.
        header_addr: u32,
        /// Address of the first byte.
        load_addr: u32,
    },
    /// The loaded part would start before the file.
    #[error(
        "multiboot header: load_addr {load_addr:#x} is {before:#x} bytes before the header, which is only {at:#x} \
         bytes into the file"
    )]
    LoadBeforeFile {
        /// Offset of the header.
        at: u64,
        /// Address of the first byte.
        load_addr: u32,
        /// header_addr less load_addr.
        before: u32,
    },
    /// The loaded part is empty.
    #[error("multiboot header: load_end_addr {load_end_addr:#x} isn't above load_addr {load_addr:#x}")]
    LoadEnd {
        /// End of the loaded part, exclusive.
        load_end_addr: u32,
        /// Address of the first byte.
        load_addr: u32,
    },
    /// The loaded part exceeds the file.
    #[error(
        "multiboot header: load_end_addr {load_end_addr:#x} asks for {len:#x} bytes from {offset:#x} on, beyond the \
         end of the file at {file_len:#x}"
    )]
    LoadBeyondFile {
        /// End of the loaded part, exclusive.
        load_end_addr: u32,
        /// Offset of the first byte in the file.
        offset: u64,
        /// Length of the loaded part in bytes.
        len: u64,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// The BSS ends before the end of the loaded part.
    #[error(
        "multiboot header: bss_end_addr {bss_end_addr:#x} is below the end of what is loaded, {load_end:#x}"
    )]
    BssEnd {
        /// End of the BSS, exclusive.
        bss_end_addr: u32,
        /// End of the loaded part, exclusive.
        load_end: u64,
    },
}

fn flag_names(flags: u32) -> String {
    let name = |bit: u32| match bit {
        2 => "flag 2 (a video mode)".to_owned(),
        bit => format!("flag {bit} (not in the specification)"),
    };
    let names: Vec<_> = (0..16).filter(|bit| flags & (1 << bit) != 0).map(name).collect();
    names.join(", ")
}
