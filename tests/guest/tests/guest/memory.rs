//! Guests with little and with much memory.

use driver::DEADLINE;
use harness::trials;
use libtest_mimic::Trial;
use rig::KernelKind;

use crate::linux::{ANY, BAD_CONFIG, BOOT_DEADLINE, CMDLINE, ENDED, Image, InitUp};
use crate::linux::{boot_with_memory, image_path};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        memory_too_little_for_bzimage_is_refused_and_said,
        memory_of_128_mib_boots,
        memory_of_5_gib_is_seen_and_used_above_4_gib,
    ]
}

/// The monitor's error message for this amount of memory, which must be too little.
fn refusal(image: (KernelKind, Image), memory: &str) -> String {
    let mut monitor = boot_with_memory(image, memory, CMDLINE).start();
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    assert_eq!(monitor.stdout(), b"");
    monitor.stderr()
}

/// The end of the memory that a bzImage requires, from its setup header: it unpacks itself to `pref_address` and needs `init_size`
/// bytes there (Linux x86 boot protocol, "The Real-Mode Kernel Header").
fn end_of_bzimage(bytes: &[u8]) -> u64 {
    let pref_address = u64::from_le_bytes(bytes[0x258..0x260].try_into().expect("eight bytes"));
    let init_size = u32::from_le_bytes(bytes[0x260..0x264].try_into().expect("four bytes"));
    pref_address + u64::from(init_size)
}

fn memory_too_little_for_bzimage_is_refused_and_said() {
    let image = (KernelKind::Cloud61, Image::BzImage);
    let end = end_of_bzimage(&std::fs::read(image_path(image)).expect("the kernel"));
    let mib = end.div_ceil(1 << 20);
    let message = format!(
        "error: the kernel needs memory up to {end:#x}, but it ends at 0x2000000; give the guest at least {mib} MiB\n"
    );
    assert_eq!(refusal(image, "32M"), message);
}

fn memory_of_128_mib_boots() {
    let image = (KernelKind::Generic61, Image::BzImage);
    let mut monitor = boot_with_memory(image, "128M", &format!("{CMDLINE} QUIT")).start();
    let up = InitUp::expect(&mut monitor);
    assert!((60 << 10..128 << 10).contains(&up.mem_kb), "{} KiB", up.mem_kb);
    monitor.expect_code(ENDED, BOOT_DEADLINE);
}

fn memory_of_5_gib_is_seen_and_used_above_4_gib() {
    let mut shell = Shell::boot(boot_with_memory(ANY, "5G", CMDLINE).on_terminal()).mute();
    // 5 GiB minus what the kernel reserves.
    assert!((4900 << 10..5120 << 10).contains(&shell.up.mem_kb), "{} KiB", shell.up.mem_kb);
    // 3 GiB below the gap, 2 GiB above.
    let ram = shell.run("grep 'System RAM' /proc/iomem");
    assert!(ram.ends_with("00100000-bfffffff : System RAM\n100000000-17fffffff : System RAM\n"), "{ram}");
    // Linux allocates its highest memory first, so this uses memory above 4 GiB.
    let zone = shell.run("dd if=/dev/zero of=/tmp/f bs=1M count=16 2>/dev/null; md5sum </tmp/f");
    assert_eq!(zone, "2c7ab85a893283e98c931e9511add182  -\n", "16 MiB of zeros");
    shell.reboot();
}
