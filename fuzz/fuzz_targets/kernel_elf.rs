//! ELF kernels in which only the magic number is always valid.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Header and three program headers.
const MIN_LEN: usize = 64 + 3 * 56;

// The first byte selects which parts of a valid header are written into the rest.
fuzz_target!(|data: &[u8]| {
    let Some((stamps, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    file.resize(file.len().max(MIN_LEN), 0);
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    if stamps & 1 == 0 {
        file[16..20].copy_from_slice(&[2, 0, 62, 0]); // e_type ET_EXEC, e_machine EM_X86_64
        file[32..40].copy_from_slice(&64_u64.to_le_bytes()); // e_phoff
        file[54..58].copy_from_slice(&[56, 0, 3, 0]); // e_phentsize, e_phnum
    }
    if stamps & 2 == 0 {
        stamp_program_headers(&mut file);
    }
    if stamps & 4 == 0 {
        file[24..32].copy_from_slice(&0x10_0000_u64.to_le_bytes()); // e_entry
    }
    vmm_fuzz::boot(&file);
});

/// Two segments and a note: sets their types, and limits sizes and addresses so that the file and RAM can contain them.
fn stamp_program_headers(file: &mut [u8]) {
    for (n, kind) in [1_u8, 1, 4].into_iter().enumerate() {
        let header = &mut file[64 + 56 * n..64 + 56 * (n + 1)];
        header[..4].copy_from_slice(&[kind, 0, 0, 0]);
        header[10..16].fill(0); // p_offset below 64 KiB
        header[27..32].fill(0); // p_paddr below 16 MiB
        header[34..40].fill(0); // p_filesz below 64 KiB
        header[43..48].fill(0); // p_memsz below 16 MiB
    }
}
