//! bzImages in which only the magic numbers are always valid.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// Boot sector, setup code and one sector of kernel.
const MIN_LEN: usize = 3 * 512;

// The first byte selects which parts of a valid header are written into the rest.
fuzz_target!(|data: &[u8]| {
    let Some((stamps, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    file.resize(file.len().max(MIN_LEN), 0);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    if stamps & 1 == 0 {
        file[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes()); // boot_flag
        file[0x201] |= 0x62; // the header ends after init_size
        file[0x207] = 2; // version 2.x
        file[0x206] |= 0x0a; // x >= 10
        file[0x211] |= 1; // loadflags: LOADED_HIGH
    }
    if stamps & 2 == 0 {
        file[0x1f1] &= 3; // setup_sects
        file[0x1f5..0x1f8].fill(0); // syssize below 4 KiB
        file[0x249..0x250].fill(0); // payload_offset below 256, payload_length 0
        let alignment = 1_u32 << (file[0x230] & 31);
        file[0x230..0x234].copy_from_slice(&alignment.to_le_bytes());
    }
    if stamps & 4 == 0 {
        file[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // code32_start
        file[0x25b..0x260].fill(0); // pref_address below 16 MiB
        file[0x262] |= 1; // init_size at least 64 KiB
        file[0x263] = 0; // and below 16 MiB
        file[0x22e] |= 0x40; // initrd_addr_max at least 4 MiB
        file[0x238] |= 0x10; // cmdline_size at least 16
    }
    vmm_fuzz::boot(&file);
});
