//! Which formats and how long files are read.

/// Format that is written.
pub const FORMAT: u16 = 1;
/// Oldest format that is read: the one before [`FORMAT`], if there is one.
pub const OLDEST_FORMAT: u16 = 1;

/// Longest state file, in bytes: 1024 vCPUs with 48 KiB each, and 16 MiB for everything else.
pub const MAX_STATE_LEN: u64 = 64 << 20;
/// Longest section, in bytes. The longest is a vCPU's: an XSAVE area with AMX has 11 KiB, 256 entries of CPUID have 10 KiB, 400 MSRs
/// 6 KiB and nested state 8 KiB. What a device keeps in its own buffers, such as a console's 64 KiB, is less than 1 MiB too.
pub const MAX_SECTION_LEN: u64 = 1 << 20;
/// Most sections of a file, with the manifest: 1024 vCPUs with eight each, and as many for all devices.
pub const MAX_SECTIONS: u32 = 16_384;
/// Longest manifest, in bytes. It is a section too.
pub const MAX_MANIFEST_LEN: u64 = MAX_SECTION_LEN;
