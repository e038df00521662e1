//! Extracts the ELF kernel from a bzImage, so that a monitor can start it without decompression in the guest.

use crate::compression::unpack;
use crate::error::{Error, Result};

// Linux x86 boot protocol, "The Real-Mode Kernel Header".
const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol with `payload_offset` and `payload_length`.
const VERSION_WITH_PAYLOAD: u16 = 0x0208;
const SECTOR_LEN: usize = 512;

// ELF-64: e_phoff .. e_shnum of the file header, and the program header's size.
const E_PHOFF: usize = 0x20;
const E_SHOFF: usize = 0x28;
const E_PHENTSIZE: usize = 0x36;
const E_PHNUM: usize = 0x38;
const E_SHENTSIZE: usize = 0x3a;
const E_SHNUM: usize = 0x3c;
const P_OFFSET: usize = 0x08;
const P_FILESZ: usize = 0x20;

/// Returns the vmlinux ELF in `bzimage`, without the relocation table that the kernel's build appends to it.
///
/// Supports lz4, zstd, xz and gzip payloads. Errors contain the header's values and the file's.
pub fn extract(bzimage: &[u8]) -> Result<Vec<u8>> {
    if bzimage.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err(damaged("no setup header (HdrS at 0x202)".to_owned()));
    }
    let version = read_u16(bzimage, VERSION)?;
    if version < VERSION_WITH_PAYLOAD {
        return Err(damaged(format!("boot protocol 0x{version:04x} doesn't say where the payload is")));
    }
    // "For backwards compatibility, if the setup_sects field contains 0, the real value is 4."
    let setup_sectors = match bzimage[SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * SECTOR_LEN + read_u32(bzimage, PAYLOAD_OFFSET)? as usize;
    let len = read_u32(bzimage, PAYLOAD_LENGTH)? as usize;
    let payload = bzimage.get(start..start + len).ok_or_else(|| {
        damaged(format!(
            "payload of {len} bytes at 0x{start:x} lies outside the file of {} bytes",
            bzimage.len()
        ))
    })?;
    let mut elf = unpack(payload, "payload of the bzImage")?;
    let elf_len = file_len_of_elf(&elf)?;
    elf.truncate(elf_len);
    Ok(elf)
}

/// End of the last segment or the section table.
fn file_len_of_elf(elf: &[u8]) -> Result<usize> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err(damaged("the payload isn't a little-endian ELF-64".to_owned()));
    }
    let sections_end = read_u64(elf, E_SHOFF)?
        .saturating_add(u64::from(read_u16(elf, E_SHENTSIZE)?) * u64::from(read_u16(elf, E_SHNUM)?));
    let mut end = sections_end;
    for index in 0..usize::from(read_u16(elf, E_PHNUM)?) {
        let header = read_u64(elf, E_PHOFF)? as usize + index * usize::from(read_u16(elf, E_PHENTSIZE)?);
        end = end.max(read_u64(elf, header + P_OFFSET)?.saturating_add(read_u64(elf, header + P_FILESZ)?));
    }
    usize::try_from(end)
        .ok()
        .filter(|end| *end <= elf.len())
        .ok_or_else(|| damaged(format!("the ELF says it is {end} bytes long, the payload has {}", elf.len())))
}

fn damaged(problem: String) -> Error {
    Error::format("bzImage", problem)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| damaged(format!("truncated at 0x{:x}, a field at 0x{at:x} is missing", bytes.len())))
}

fn read_u16(bytes: &[u8], at: usize) -> Result<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn read_u64(bytes: &[u8], at: usize) -> Result<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage with one setup sector, followed by `payload`.
    fn bzimage(payload: &[u8], claimed_len: u32) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR_LEN];
        image[SETUP_SECTS] = 1;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&claimed_len.to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn extract_elf_payload_drops_the_relocations() {
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[E_SHOFF] = 64; // an empty section table at the end of the file header
        let mut payload = elf.clone();
        payload.extend_from_slice(b"relocations");
        assert_eq!(extract(&bzimage(&payload, 75)).unwrap(), elf);
    }

    #[test]
    fn extract_lying_length_is_refused() {
        let error = extract(&bzimage(b"short", 100)).unwrap_err().to_string();
        assert_eq!(error, "bzImage: payload of 100 bytes at 0x400 lies outside the file of 1029 bytes");
    }

    #[test]
    fn extract_no_header_is_refused() {
        let error = extract(b"\x7fELF").unwrap_err().to_string();
        assert_eq!(error, "bzImage: no setup header (HdrS at 0x202)");
    }
}
