//! Persistent memory, opened from a config and used by a driver.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use vmm_virtio::testing::{Buf, Driver};
use vmm_virtio::{DeviceBlame, DeviceError, Kind, Setting, VirtioDevice};
use vmm_virtio_devices::Pmem;

const MIB: u64 = 1 << 20;

fn try_open(fields: Value) -> Result<Pmem, DeviceError> {
    let config = serde_json::from_value(fields).unwrap();
    Pmem::open(config, &Setting { directory: Path::new("/nowhere"), vcpus: 1, id: "pmem", plan_only: false })
}

fn file(len: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

/// The message for a file, with PATH for its path.
fn refusal(path: &Path, read_only: bool) -> String {
    let error = try_open(json!({"path": path, "read_only": read_only})).unwrap_err();
    assert_eq!(error.blame, DeviceBlame::Config);
    error.to_string().replace(path.to_str().unwrap(), "PATH")
}

#[test]
fn path_that_is_missing() {
    let error = try_open(json!({"path": "disk.img"})).unwrap_err();
    assert_eq!(error.to_string(), ".path: /nowhere/disk.img doesn't exist, create it or correct the path");
}

#[test]
fn path_of_a_directory() {
    let directory = TempDir::new().unwrap();
    let message = ".path: PATH is a directory, name a file or a block device";
    assert_eq!(refusal(directory.path(), false), message);
}

#[test]
fn path_of_a_fifo_does_not_block() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(refusal(&path, false), ".path: PATH is a FIFO, name a file or a block device");
}

#[test]
fn path_of_an_empty_file() {
    let message = ".path: PATH is empty, but needs at least 2M: try truncate -s 64M PATH";
    assert_eq!(refusal(file(0).path(), true), message);
}

#[test]
fn path_of_a_file_of_no_whole_granules() {
    let message =
        ".path: PATH has 3145728 bytes, but Linux requires a multiple of 2M: try truncate -s 4194304 PATH";
    assert_eq!(refusal(file(3 * MIB).path(), false), message);
}

#[test]
fn path_of_a_file_that_nobody_may_write() {
    let file = file(2 * MIB);
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o444)).unwrap();
    let message = ".path: PATH is read-only but \"read_only\" is false, set that or let it be written";
    assert_eq!(refusal(file.path(), false), message);
    assert!(try_open(json!({"path": file.path(), "read_only": true})).is_ok());
}

#[test]
fn mapping_is_the_file_as_the_config_says_and_taken_once() {
    let file = file(4 * MIB);
    let mut pmem = try_open(json!({"path": file.path(), "read_only": true})).unwrap();
    assert_eq!(pmem.note(), Some(format!("{}, read-only", file.path().display())));
    let mapping = pmem.mapping().unwrap();
    assert_eq!((mapping.len, mapping.read_only), (4 * MIB, true));
    assert!(pmem.mapping().is_none());
    // It isn't even open for writing.
    assert!(std::io::Write::write(&mut &mapping.file, b"x").is_err());
}

#[test]
fn configuration_has_where_it_is_and_how_long() {
    let file = file(4 * MIB);
    let mut pmem = try_open(json!({"path": file.path()})).unwrap();
    assert!(!pmem.mapping().unwrap().read_only);
    pmem.mapped(0x1_4000_0000);
    let driver = Driver::new(Box::new(pmem), 27);
    assert_eq!(driver.config(0, 8), 0x1_4000_0000_u64.to_le_bytes());
    assert_eq!(driver.config(8, 8), (4 * MIB).to_le_bytes());
}

fn driver(read_only: bool) -> Driver {
    let file = file(2 * MIB);
    let pmem = try_open(json!({"path": file.path(), "read_only": read_only})).unwrap();
    let mut driver = Driver::new(Box::new(pmem), 27);
    driver.init(0);
    driver
}

fn counted(driver: &Driver, name: &str) -> u64 {
    let all = driver.control().counters().each();
    all.iter().find(|(known, _)| *known == name).unwrap().1
}

const FLUSH: Buf<'_> = Buf::Read(&[0; 4]);

#[test]
fn flush_is_done() {
    let mut driver = driver(false);
    assert_eq!(driver.queue(0).request(&[FLUSH, Buf::Write(4)]).written(), [0; 4]);
    assert_eq!((counted(&driver, "requests"), counted(&driver, "errors")), (1, 0));
}

#[test]
fn flush_of_what_can_only_be_read_is_done() {
    assert_eq!(driver(true).queue(0).request(&[FLUSH, Buf::Write(4)]).written(), [0; 4]);
}

#[test]
fn flushes_at_once_are_each_answered() {
    let mut driver = driver(false);
    let mut queue = driver.queue(0);
    let heads: Vec<_> = (0..32).map(|_| queue.add(&[FLUSH, Buf::Write(4)])).collect();
    queue.kick();
    let used: Vec<_> = heads.iter().map(|_| queue.wait_used()).collect();
    assert!(used.iter().all(|used| used.written() == [0; 4]));
    assert_eq!(used.iter().map(|used| used.head).collect::<Vec<_>>(), heads);
}

#[test]
fn request_of_another_type_fails() {
    let mut driver = driver(false);
    assert_eq!(driver.queue(0).request(&[Buf::Read(&[1, 0, 0, 0]), Buf::Write(4)]).written(), [0xff; 4]);
    assert_eq!(counted(&driver, "errors"), 1);
}

#[test]
fn answer_in_pieces_behind_other_room_is_whole() {
    let mut driver = driver(false);
    let used = driver.queue(0).request(&[
        Buf::Read(&[9]),
        Buf::Read(&[0; 3]),
        Buf::Write(1),
        Buf::Write(0),
        Buf::Write(9),
    ]);
    assert_eq!(used.len, 4);
    assert_eq!(used.bytes, [0xff, 0xff, 0xff, 0xff, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
}

/// Earlier chains are returned without a response.
#[test]
fn request_without_a_type_needs_a_reset() {
    let mut driver = driver(false);
    let mut queue = driver.queue(0);
    queue.add(&[FLUSH, Buf::Write(4)]);
    queue.add(&[Buf::Read(&[0; 3]), Buf::Write(4)]);
    queue.kick();
    driver.wait_needs_reset();
    driver.init(0);
    assert_eq!(driver.queue(0).request(&[FLUSH, Buf::Write(4)]).written(), [0; 4]);
}

#[test]
fn request_without_room_for_its_answer_needs_a_reset() {
    let mut driver = driver(false);
    driver.queue(0).add(&[FLUSH, Buf::Write(3)]);
    driver.queue(0).kick();
    driver.wait_needs_reset();
}

#[test]
fn file_used_twice_is_said_to_be() {
    let file = file(2 * MIB);
    let _writer = try_open(json!({"path": file.path()})).unwrap();
    let reader = ".path: PATH is used twice in this machine, and written: remove one of the two, or set \"read_only\" for both";
    assert_eq!(refusal(file.path(), true), reader);
    let writer =
        ".path: PATH is used twice in this machine: remove one of the two, or set \"read_only\" for both";
    assert_eq!(refusal(file.path(), false), writer);
}

#[test]
fn file_has_as_many_readers_as_like() {
    let file = file(2 * MIB);
    let open = || try_open(json!({"path": file.path(), "read_only": true}));
    assert!(open().and_then(|_first| open()).is_ok());
}

/// 2 MiB that start with these bytes.
fn file_of(bytes: &[u8]) -> NamedTempFile {
    let file = file(2 * MIB);
    std::os::unix::fs::FileExt::write_all_at(file.as_file(), bytes, 0).unwrap();
    file
}

#[test]
fn file_of_an_image_is_to_be_converted_or_declared() {
    let qcow2 = file_of(b"QFI\xfb\0\0\0\x03");
    let message = ".path: PATH looks like a qcow2 image, and memory is the file's own bytes: convert it, qemu-img convert -f \
                   qcow2 -O raw PATH NEW.raw, or add \"format\": \"raw\" if they are meant";
    assert_eq!(refusal(qcow2.path(), false), message);
    assert_eq!(refusal(qcow2.path(), true), message);
    assert!(try_open(json!({"path": qcow2.path(), "format": "raw"})).is_ok());
    let vmdk = file_of(b"# mine\nversion=1\n");
    assert!(refusal(vmdk.path(), false).starts_with(".path: PATH looks like a VMDK image, and "));
    let packed = file_of(b"\x1f\x8b\x08");
    let message = ".path: PATH looks like a gzip-compressed file, and memory is the file's own bytes: decompress it, gzip -dc \
                   PATH > NEW.img, or add \"format\": \"raw\" if they are meant";
    assert_eq!(refusal(packed.path(), false), message);
}

#[test]
fn file_of_a_luks_volume_is_to_be_declared_or_unlocked() {
    let message = ".path: PATH looks like a LUKS2 volume: add \"format\": \"raw\" if the guest unlocks it, or unlock it, \
                   cryptsetup open PATH NAME, and use /dev/mapper/NAME";
    let volume = file_of(b"LUKS\xba\xbe\0\x02");
    assert_eq!(refusal(volume.path(), false), message);
    assert!(try_open(json!({"path": volume.path(), "format": "raw"})).is_ok());
}

#[test]
fn file_of_an_image_declared_raw_is_not_to_be_truncated() {
    let file = file_of(b"QFI\xfb\0\0\0\x03");
    file.as_file().set_len(MIB).unwrap();
    let error = try_open(json!({"path": file.path(), "format": "raw"})).unwrap_err();
    let message = error.to_string().replace(file.path().to_str().unwrap(), "PATH");
    assert_eq!(
        message,
        ".path: PATH has 1048576 bytes, but Linux requires a multiple of 2M, and looks like a qcow2 image: convert it, qemu-img \
         convert -f qcow2 -O raw PATH NEW.raw"
    );
}

#[test]
fn format_that_memory_has_not_is_refused() {
    let setting = Setting { directory: Path::new("/nowhere"), vcpus: 1, id: "pmem", plan_only: false };
    let entry = vmm_virtio_devices::KINDS.iter().find(|entry| entry.name == "pmem").unwrap();
    let error = entry.open(json!({"path": "a.qcow2", "format": "qcow2"}), &setting).err().unwrap();
    assert_eq!(error.to_string(), r#".format: unknown value "qcow2", expected "raw""#);
}

#[test]
fn path_of_a_link_that_leads_nowhere() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("link");
    std::os::unix::fs::symlink("gone", &path).unwrap();
    let message =
        ".path: PATH is a symbolic link to gone, which doesn't exist: create that or correct the link";
    assert_eq!(refusal(&path, false), message);
}

#[test]
fn state_of_memory_of_another_size_is_refused() {
    let [file, larger] = [2 * MIB, 4 * MIB].map(file);
    let open = |file: &NamedTempFile| Box::new(try_open(json!({"path": file.path()})).unwrap());
    let driver = Driver::new(open(&file), 27);
    let section = driver.save().unwrap();
    let refusal = driver.beside(open(&larger)).load(&section).unwrap_err().to_string();
    assert_eq!(refusal, "test: virtio.pmem: size: is 0x200000, that of this device 0x400000");
}

#[test]
fn state_of_memory_elsewhere_is_refused() {
    let [one, other] = [2 * MIB, 2 * MIB].map(file);
    let open = |file: &NamedTempFile, gpa: u64| {
        let mut pmem = Box::new(try_open(json!({"path": file.path()})).unwrap());
        pmem.mapped(gpa);
        pmem
    };
    let driver = Driver::new(open(&one, 1 << 32), 27);
    let section = driver.save().unwrap();
    let refusal = driver.beside(open(&other, 1 << 33)).load(&section).unwrap_err().to_string();
    assert_eq!(refusal, "test: virtio.pmem: start: is 0x100000000, that of this device 0x200000000");
}
