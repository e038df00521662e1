//! Reads a kernel module's metadata: the NUL-separated `key=value` words in the `.modinfo` section of its
//! ELF.

use crate::error::{Error, Result};

// ELF-64 file header and section header, in bytes.
const E_SHOFF: usize = 0x28;
const E_SHENTSIZE: usize = 0x3a;
const E_SHNUM: usize = 0x3c;
const E_SHSTRNDX: usize = 0x3e;
const SH_NAME: usize = 0x00;
const SH_OFFSET: usize = 0x18;
const SH_SIZE: usize = 0x20;

/// The modules that must be loaded before `module`, from its `depends=`. `what` is the file's name for
/// errors.
pub(crate) fn depends(module: &[u8], what: &str) -> Result<Vec<String>> {
    let info = section(module, b".modinfo")
        .ok_or_else(|| Error::format(what, "no .modinfo section, not a module"))?;
    let words = info.split(|byte| *byte == 0).filter_map(|word| word.strip_prefix(b"depends="));
    let names = words.flat_map(|list| list.split(|byte| *byte == b',')).filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// The contents of section `name`; `None` if it doesn't exist or is out of bounds.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(elf, E_SHOFF)?).ok()?;
    let entry_len = usize::from(u16_at(elf, E_SHENTSIZE)?);
    let header = |index: u16| elf.get(table.checked_add(usize::from(index) * entry_len)?..);
    let names = contents(elf, header(u16_at(elf, E_SHSTRNDX)?)?)?;
    (0..u16_at(elf, E_SHNUM)?).filter_map(header).find_map(|header| {
        let at = u32::from_le_bytes(*header.get(SH_NAME..)?.first_chunk()?) as usize;
        let found = names.get(at..)?.split(|byte| *byte == 0).next()?;
        (found == name).then(|| contents(elf, header)).flatten()
    })
}

fn contents<'a>(elf: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(u64_at(header, SH_OFFSET)?).ok()?;
    let len = usize::try_from(u64_at(header, SH_SIZE)?).ok()?;
    elf.get(start..start.checked_add(len)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF with two sections: the string table at 64, followed by `info`.
    fn module(info: &[u8]) -> Vec<u8> {
        let strings = b"\0.modinfo\0";
        let info_at = 64 + strings.len();
        let table = info_at + info.len();
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[E_SHOFF..E_SHOFF + 8].copy_from_slice(&(table as u64).to_le_bytes());
        elf[E_SHENTSIZE] = 64;
        elf[E_SHNUM] = 2;
        elf[E_SHSTRNDX] = 0;
        elf.extend_from_slice(strings);
        elf.extend_from_slice(info);
        elf.extend_from_slice(&header(0, 64, strings.len()));
        elf.extend_from_slice(&header(1, info_at, info.len()));
        elf
    }

    fn header(name: u32, offset: usize, len: usize) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&name.to_le_bytes());
        bytes[SH_OFFSET..SH_OFFSET + 8].copy_from_slice(&(offset as u64).to_le_bytes());
        bytes[SH_SIZE..SH_SIZE + 8].copy_from_slice(&(len as u64).to_le_bytes());
        bytes
    }

    #[test]
    fn depends_lists_every_name() {
        let elf = module(b"license=GPL\0depends=kvm,ccp\0name=kvm_amd\0");
        assert_eq!(depends(&elf, "kvm-amd.ko").unwrap(), ["kvm", "ccp"]);
    }

    #[test]
    fn depends_empty_is_none() {
        assert_eq!(depends(&module(b"depends=\0"), "tun.ko").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn depends_truncated_module_is_refused() {
        let elf = &module(b"depends=kvm\0")[..100];
        assert_eq!(
            depends(elf, "kvm.ko").unwrap_err().to_string(),
            "kvm.ko: no .modinfo section, not a module"
        );
    }
}
