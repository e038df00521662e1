//! Flat images. The first byte selects the headers to write into the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Offset of the multiboot header: after the larger ELF header and two program headers.
const MULTIBOOT: usize = 64 + 2 * 56;
const MIN_LEN: usize = MULTIBOOT + 32;

fuzz_target!(|data: &[u8]| {
    let Some((stamps, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    if stamps & 7 != 0 {
        file.resize(file.len().max(MIN_LEN), 0);
    }
    match stamps & 3 {
        1 => stamp_elf(&mut file, 1, 3, stamps & 8 != 0),
        2 => stamp_elf(&mut file, 2, 62, stamps & 8 != 0),
        _ => {}
    }
    if stamps & 4 != 0 {
        stamp_multiboot(&mut file, stamps & 16 != 0);
    }
    vmm_fuzz::start(&file, u64::from(stamps >> 5) << 16);
});

/// Writes a header for one segment and a dynamic section, with small sizes and addresses.
fn stamp_elf(file: &mut [u8], class: u8, machine: u8, anywhere: bool) {
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    file[16..20].copy_from_slice(&[if anywhere { 3 } else { 2 }, 0, machine, 0]);
    // Length of the header, e_phoff, e_phentsize, a program header, and its fields: offset and what follows.
    let (header, phoff, phentsize, len, word) =
        if class == 1 { (52, 28, 42, 32, 4) } else { (64, 32, 54, 56, 8) };
    file[phoff..phoff + word].fill(0);
    file[phoff] = header as u8;
    file[phentsize..phentsize + 4].copy_from_slice(&[len as u8, 0, 2, 0]);
    for (n, kind) in [1, 2].into_iter().enumerate() {
        let program = &mut file[header + len * n..][..len];
        program[..4].copy_from_slice(&[kind, 0, 0, 0]);
        // p_offset, p_vaddr, p_paddr, p_filesz and p_memsz: below 64 KiB, and below 16 MiB for addresses.
        for (field, keep) in [(0, 2), (1, 3), (2, 3), (3, 2), (4, 3)] {
            let at = word + word * field;
            program[at + keep..at + word].fill(0);
        }
    }
}

fn stamp_multiboot(file: &mut [u8], addresses: bool) {
    let flags = u32::from(addresses) << 16 | 3;
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    for (n, word) in [0x1bad_b002, flags, checksum].into_iter().enumerate() {
        file[MULTIBOOT + 4 * n..][..4].copy_from_slice(&word.to_le_bytes());
    }
    if addresses {
        // Each below 16 MiB.
        for n in 3..8 {
            file[MULTIBOOT + 4 * n + 3] = 0;
        }
    }
}
