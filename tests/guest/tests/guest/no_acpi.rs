//! Linux without ACPI: processors and interrupts from the MP table, virtio devices from the command line.
//!
//! Stock kernels are started with `acpi=off`. None of them supports virtio devices on the command line, so the long tests
//! (`--ignored`) build a kernel that does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::{Arguments, Trial};
use rig::{Assets, KernelKind};
use tempfile::NamedTempFile;

use crate::linux::{BOOT_DEADLINE, CMDLINE, Image, boot, initrd_path, kernel};
use crate::net::{Network, mebibyte};
use crate::shell::Shell;
use crate::smp::assert_all_work;

pub(crate) fn tests() -> Vec<Trial> {
    let stock = KernelKind::ALL.map(|kind| {
        let name = kind.name().replace(['-', '.'], "_");
        Trial::test(format!("no_acpi_{name}_has_the_processors_that_it_can_find"), move || {
            assert_finds_processors(kind);
            Ok(())
        })
    });
    let long = trials![
        no_acpi_disk_and_net_work_on_the_first_and_last_of_17_lines,
        no_acpi_without_io_apic_nine_devices_work_and_the_tenth_is_refused,
    ];
    let long = long.into_iter().map(|test| test.with_ignored_flag(true));
    stock.into_iter().chain(trials![no_acpi_mp_table_is_ignored_where_there_is_acpi]).chain(long).collect()
}

/// Builds the kernel for the long tests, if one is selected.
pub(crate) fn prepare(arguments: &Arguments) -> Result<(), rig::Error> {
    let is_long = |test: &Trial| test.has_ignored_flag();
    let runs = |test: &Trial| !arguments.is_filtered_out(test) && !arguments.is_ignored(test);
    match tests().iter().any(|test| is_long(test) && runs(test)) {
        true => Assets::here().kernel_without_acpi().map(drop),
        false => Ok(()),
    }
}

/// Asserts that the kernel finds both processors through the MP table; or, if it doesn't read MP tables, one processor and the 8259s.
fn assert_finds_processors(kind: KernelKind) {
    let reads_mp_tables = kernel(kind).has_built_in("X86_MPPARSE").expect("the package has the config");
    let launch = boot((kind, Image::Vmlinux), &format!("{CMDLINE} acpi=off")).args(["--cpus", "2"]);
    let mut shell = Shell::boot(launch.on_terminal()).mute();
    // Without an MP table Linux uses the 8254 instead of the local APIC's timer.
    let (cpus, chip, found, timer) = match reads_mp_tables {
        true => (2, "IO-APIC", "Intel MultiProcessor Specification v1.4\n", "Local timer interrupts$"),
        false => (1, "XT-PIC", "", "XT-PIC *timer$"),
    };
    assert_eq!(shell.up.cpus, cpus);
    assert_eq!(shell.run("dmesg | grep -o 'Intel MultiProcessor Specification.*'"), found);
    assert_eq!(shell.run(COMPLAINTS), "");
    let line = shell.run("grep ttyS0 /proc/interrupts");
    assert!(line.trim_start().starts_with("4:") && line.contains(chip), "{line}");
    assert_all_work(&mut shell, cpus as u32);
    // Each processor has had timer interrupts.
    let timers = shell.run(&format!("grep '{timer}' /proc/interrupts"));
    let counts = timers.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    assert_eq!(counts.filter(|count| *count > 0).count() as u64, cpus, "{timers}");
    shell.reboot();
}

/// Searches the kernel's log for complaints about the MP table or about missing interrupts.
const COMPLAINTS: &str = "dmesg | grep -i -E 'bios bug|mptable.*(wrong|bad|error|null|no proc)|trying to set up timer|nobody cared'";

/// The kernel finds it but doesn't use it.
fn no_acpi_mp_table_is_ignored_where_there_is_acpi() {
    let launch = boot((KernelKind::Generic61, Image::Vmlinux), CMDLINE).args(["--cpus", "2"]);
    let mut shell = Shell::boot(launch.on_terminal()).mute();
    assert_eq!(shell.up.cpus, 2);
    let lines = shell.run("dmesg | grep -i -E 'mp-table|mptable|multiprocessor'");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("found SMP MP-table at [mem 0x000f"), "{lines}");
    assert_eq!(shell.run(COMPLAINTS), "");
    shell.reboot();
}

/// A guest with the kernel without ACPI; its first device is a disk.
struct Guest {
    disk: NamedTempFile,
    network: Network,
}

impl Guest {
    /// Boots a guest with a disk, `rngs` entropy devices, a card with a TAP, and `more` entropy devices, in this order.
    fn boot(subnet: u8, [rngs, more]: [usize; 2], cmdline: &str) -> Self {
        let [disk, config, metrics] =
            std::array::from_fn(|_| NamedTempFile::new().expect("a temporary file"));
        disk.as_file().set_len(8 << 20).expect("room for a disk");
        let rng = |_| r#"{"type": "rng"}"#.to_owned();
        let block = format!(r#"{{"type": "block", "path": {:?}}}"#, disk.path());
        let net = format!(
            r#"{{"type": "net", "id": "lan", "backend": {{"tap": "vmmtest{subnet}"}}, "mtu": 1500}}"#
        );
        let devices: Vec<String> =
            [block].into_iter().chain((0..rngs).map(rng)).chain([net]).chain((0..more).map(rng)).collect();
        let text = format!(r#"{{"announce_virtio": "cmdline", "devices": [{}]}}"#, devices.join(", "));
        fs::write(config.path(), text).expect("room for a config");
        let kernel = Assets::here().kernel_without_acpi().expect("it was built beforehand");
        let files = [
            ["--kernel".into(), kernel],
            ["--initrd".into(), initrd_path()],
            ["--config".into(), config.path().to_owned()],
            ["--metrics".into(), metrics.path().to_owned()],
        ];
        let cmdline = format!("{CMDLINE} {cmdline}");
        let words = ["--memory", "256M", "--cpus", "2", "--cmdline", &cmdline];
        let launch = Monitor::command(words).args(files.concat()).on_terminal();
        let network = Network::set_up(subnet, Shell::boot(launch).mute(), metrics);
        Self { disk, network }
    }

    /// Creates a file system on the disk, writes to it and reads it back.
    fn assert_disk_works(&mut self) {
        let shell = &mut self.network.shell;
        let mount = "mount -t ext2 /dev/vda /mnt";
        let make = format!("mke2fs /dev/vda >/dev/null && mkdir -p /mnt && {mount} && echo ready");
        assert_eq!(shell.run_within(&make, DEADLINE), "ready\n");
        let write = "echo 'kept by the guest' >/mnt/file && sync && umount /mnt && echo written";
        assert_eq!(shell.run_within(write, DEADLINE), "written\n");
        assert_eq!(shell.run_within(&format!("{mount} && cat /mnt/file"), DEADLINE), "kept by the guest\n");
        assert_eq!(shell.run("umount /mnt; echo $?"), "0\n");
        let contents = fs::read(self.disk.path()).expect("the disk is there");
        assert!(contents.windows(17).any(|bytes| bytes == b"kept by the guest"), "on the host's side");
    }

    fn assert_net_works(&mut self) {
        self.network.assert_pings();
        let send = |mut stream: TcpStream| stream.write_all(&mebibyte()).expect("the guest reads");
        assert_eq!(self.network.connected("NC </dev/null >/tmp/file; wc -c </tmp/file", send), "1048576\n");
        self.network.connected("NC </tmp/file", |mut stream| {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).expect("the guest sends");
            assert!(bytes == mebibyte(), "{} bytes came back", bytes.len());
        });
    }

    /// Each of the entropy devices, `virtio_rng.0` and so on, supplies bytes, which requires interrupts.
    fn assert_rngs_work(&mut self, count: usize) {
        let each = format!(
            "cd /sys/class/misc/hw_random; for n in $(seq 0 {}); do echo virtio_rng.$n >rng_current; \
             echo $(cat rng_current) $(head -c 64 /dev/hwrng | wc -c); done; cd",
            count - 1
        );
        let expected: String = (0..count).map(|n| format!("virtio_rng.{n} 64\n")).collect();
        assert_eq!(self.network.shell.run_within(&each, BOOT_DEADLINE), expected);
    }

    /// The virtio devices that have had interrupts, each as `line chip device`.
    fn interrupts(&mut self) -> String {
        let rows = self.network.shell.run("grep virtio /proc/interrupts");
        let row = |row: &str| {
            let words: Vec<&str> = row.split_whitespace().collect();
            let [line, first, second, chip, .., device] = words[..] else { panic!("{row}") };
            assert!(first != "0" || second != "0", "no interrupt: {row}");
            format!("{} {chip} {device}\n", line.trim_end_matches(':'))
        };
        rows.lines().map(row).collect()
    }
}

/// Lines 5 to 15 of the 8259s, which the MP table routes to the IO-APIC, and 16 to 23, which only the IO-APIC has.
fn no_acpi_disk_and_net_work_on_the_first_and_last_of_17_lines() {
    let mut guest = Guest::boot(21, [15, 0], "");
    assert_eq!(guest.network.shell.up.cpus, 2);
    assert_eq!(guest.network.shell.run(COMPLAINTS), "");
    assert_all_work(&mut guest.network.shell, 2);
    guest.assert_disk_works();
    guest.assert_net_works();
    guest.assert_rngs_work(15);
    let devices = [
        (5, 0),
        (6, 1),
        (7, 2),
        (9, 8),
        (10, 3),
        (11, 4),
        (12, 5),
        (14, 6),
        (15, 7),
        (16, 9),
        (17, 10),
        (18, 11),
        (19, 12),
        (20, 13),
        (21, 14),
        (22, 15),
        (23, 16),
    ];
    let expected: String =
        devices.iter().map(|(line, device)| format!("{line} IO-APIC virtio{device}\n")).collect();
    assert_eq!(guest.interrupts(), expected);
    guest.network.end();
}

/// With `noapic`, Linux only has the 8259s.
fn no_acpi_without_io_apic_nine_devices_work_and_the_tenth_is_refused() {
    let mut guest = Guest::boot(22, [7, 1], "noapic");
    guest.assert_disk_works();
    guest.assert_net_works();
    guest.assert_rngs_work(7);
    assert!(guest.interrupts().contains("9 XT-PIC virtio8\n"));
    // EINVAL: Linux has no interrupt 16.
    assert!(guest.network.shell.run("dmesg").contains("probe of virtio9 failed with error -22"));
    guest.network.end();
}
