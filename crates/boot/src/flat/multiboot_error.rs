//! Why a multiboot kernel can't be started.

/// The header lies within this many bytes from the start of the file.
pub(crate) const SEARCH_LEN: usize = 8192;

/// Why a multiboot kernel can't be started. `at` is the header's offset in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    /// Most likely a mistake in the source.
    #[error(
        "the multiboot header at {at:#x} has a bad checksum: magic + flags + checksum are {sum:#x}, but must be 0"
    )]
    Checksum {
        /// Where it is.
        at: u64,
        /// The sum, modulo 2^32.
        sum: u32,
    },
    /// No boot loader would find it.
    #[error("the multiboot header is at {at:#x}, beyond the first {SEARCH_LEN} bytes")]
    TooFar {
        /// Where it is.
        at: u64,
    },
    /// Requirements that can't be met.
    #[error("the multiboot header at {at:#x} requires what isn't offered: {}", flag_names(*flags))]
    Flags {
        /// Where it is.
        at: u64,
        /// The flags that aren't known, or not supported.
        flags: u32,
    },
    /// Nothing says where the file goes.
    #[error(
        "the multiboot header at {at:#x} has no addresses (flag 16 is clear), and the file is no ELF; set flag 16 \
         or link an ELF"
    )]
    NoAddresses {
        /// Where it is.
        at: u64,
    },
    /// The header isn't in what is loaded.
    #[error("multiboot header: header_addr {header_addr:#x} is below load_addr {load_addr:#x}")]
    HeaderBelowLoad {
        /// Where the header is to lie.
        header_addr: u32,
        /// Where the first byte is to lie.
        load_addr: u32,
    },
    /// The first byte that is loaded isn't in the file.
    #[error(
        "multiboot header: load_addr {load_addr:#x} is {before:#x} bytes before the header, which is only {at:#x} \
         bytes into the file"
    )]
    LoadBeforeFile {
        /// Where it is.
        at: u64,
        /// Where the first byte is to lie.
        load_addr: u32,
        /// header_addr less load_addr.
        before: u32,
    },
    /// Nothing to load.
    #[error("multiboot header: load_end_addr {load_end_addr:#x} isn't above load_addr {load_addr:#x}")]
    LoadEnd {
        /// First address behind what is loaded.
        load_end_addr: u32,
        /// Where the first byte is to lie.
        load_addr: u32,
    },
    /// The last byte that is loaded isn't in the file.
    #[error(
        "multiboot header: load_end_addr {load_end_addr:#x} asks for {len:#x} bytes from {offset:#x} on, beyond the \
         end of the file at {file_len:#x}"
    )]
    LoadBeyondFile {
        /// First address behind what is loaded.
        load_end_addr: u32,
        /// Offset of the first byte.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// The BSS ends before it starts.
    #[error(
        "multiboot header: bss_end_addr {bss_end_addr:#x} is below the end of what is loaded, {load_end:#x}"
    )]
    BssEnd {
        /// First address behind the BSS.
        bss_end_addr: u32,
        /// First address behind what is loaded.
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
