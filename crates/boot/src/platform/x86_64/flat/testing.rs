//! Flat images for tests, built byte by byte.

use std::io::Cursor;

use crate::platform::x86_64::flat::image::FlatImage;

/// A program header and its contents.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) kind: u32,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mem_len: u64,
}

/// A PT_LOAD with `len` bytes of 0xcc, whose virtual and physical addresses are equal.
pub(crate) fn load(address: u64, len: usize, mem_len: u64) -> Part {
    Part { kind: 1, vaddr: address, paddr: address, bytes: vec![0xcc; len], mem_len }
}

/// An i386 ELF: header, program headers, and the contents of `parts` in order.
pub(crate) fn elf32(kind: u16, entry: u32, parts: &[Part]) -> Vec<u8> {
    let mut file = vec![0; 52 + 32 * parts.len()];
    file[0..8].copy_from_slice(b"\x7fELF\x01\x01\x01\x00");
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&3_u16.to_le_bytes()); // e_machine EM_386
    file[24..28].copy_from_slice(&entry.to_le_bytes());
    file[28..32].copy_from_slice(&52_u32.to_le_bytes()); // e_phoff
    file[42..44].copy_from_slice(&32_u16.to_le_bytes()); // e_phentsize
    file[44..46].copy_from_slice(&(parts.len() as u16).to_le_bytes());
    for (n, part) in parts.iter().enumerate() {
        let (offset, len) = (file.len() as u32, part.bytes.len() as u32);
        let header = [part.kind, offset, part.vaddr as u32, part.paddr as u32, len, part.mem_len as u32];
        let at = 52 + 32 * n;
        file[at..at + 24].copy_from_slice(&header.map(u32::to_le_bytes).concat());
        file.extend(&part.bytes);
    }
    file
}

/// Like `elf32`, for x86_64.
pub(crate) fn elf64(kind: u16, entry: u64, parts: &[Part]) -> Vec<u8> {
    let mut file = vec![0; 64 + 56 * parts.len()];
    file[0..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    file[16..18].copy_from_slice(&kind.to_le_bytes());
    file[18..20].copy_from_slice(&62_u16.to_le_bytes()); // e_machine EM_X86_64
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes()); // e_phoff
    file[54..56].copy_from_slice(&56_u16.to_le_bytes()); // e_phentsize
    file[56..58].copy_from_slice(&(parts.len() as u16).to_le_bytes());
    for (n, part) in parts.iter().enumerate() {
        let (offset, len) = (file.len() as u64, part.bytes.len() as u64);
        let header = [offset, part.vaddr, part.paddr, len, part.mem_len];
        let at = 64 + 56 * n;
        file[at..at + 4].copy_from_slice(&part.kind.to_le_bytes());
        file[at + 8..at + 48].copy_from_slice(&header.map(u64::to_le_bytes).concat());
        file.extend(&part.bytes);
    }
    file
}

/// A static position-independent x86_64 executable: 0x200 bytes of 0xcc at 0, with `table` at 0x100, and a
/// dynamic section.
pub(crate) fn pie64(dynamic: &[(u64, u64)], table: &[u8]) -> Vec<u8> {
    let dynamic: Vec<u8> =
        dynamic.iter().flat_map(|(tag, value)| [*tag, *value].map(u64::to_le_bytes).concat()).collect();
    elf64(3, 0, &pie(dynamic, table))
}

/// Like `pie64`, for i386.
pub(crate) fn pie32(dynamic: &[(u32, u32)], table: &[u8]) -> Vec<u8> {
    let dynamic: Vec<u8> =
        dynamic.iter().flat_map(|(tag, value)| [*tag, *value].map(u32::to_le_bytes).concat()).collect();
    elf32(3, 0, &pie(dynamic, table))
}

fn pie(dynamic: Vec<u8>, table: &[u8]) -> [Part; 2] {
    let mut text = load(0, 0x200, 0x200);
    text.bytes[0x100..0x100 + table.len()].copy_from_slice(table);
    [text, Part { kind: 2, vaddr: 0, paddr: 0, mem_len: dynamic.len() as u64, bytes: dynamic }]
}

/// An Elf64_Rela.
pub(crate) fn rela(at: u64, kind: u64, addend: u64) -> Vec<u8> {
    [at, kind, addend].map(u64::to_le_bytes).concat()
}

/// A multiboot header with a valid checksum and without addresses.
pub(crate) fn multiboot_header(flags: u32) -> Vec<u8> {
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    [0x1bad_b002, flags, checksum].map(u32::to_le_bytes).concat()
}

/// A multiboot kernel as a 32-bit ELF: 64 bytes at 1 MiB that start with the header, 4 KiB in memory, and the
/// entry after the header.
pub(crate) fn multiboot_elf(flags: u32) -> Vec<u8> {
    let mut text = load(0x10_0000, 64, 4096);
    text.bytes[..12].copy_from_slice(&multiboot_header(flags));
    elf32(2, 0x10_000c, &[text])
}

/// A multiboot kernel without ELF headers: `at` bytes, the header, then code up to `len` bytes. `addresses`
/// are header_addr, load_addr, load_end_addr, bss_end_addr and entry_addr.
pub(crate) fn multiboot_raw(at: usize, addresses: [u32; 5], len: usize) -> Vec<u8> {
    let mut file = vec![0xcc; len];
    let header = [multiboot_header(1 << 16), addresses.map(u32::to_le_bytes).concat()].concat();
    file[at..at + header.len()].copy_from_slice(&header);
    file
}

/// The image in `file`, which must be valid.
pub(crate) fn inspected(file: &[u8]) -> FlatImage {
    FlatImage::inspect(&mut Cursor::new(file)).expect("a good image")
}

/// The error for `file`, which must be invalid.
pub(crate) fn complaint(file: &[u8]) -> String {
    FlatImage::inspect(&mut Cursor::new(file)).expect_err("a bad image").to_string()
}
