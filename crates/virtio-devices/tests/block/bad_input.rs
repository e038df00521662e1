//! Invalid configs: each message says what was found and what to change.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use vmm_virtio::DeviceBlame;

use crate::disk::*;

/// The message for a disk that can't be opened because of the config.
fn refusal(fields: Value) -> String {
    let Err(error) = try_open(fields) else { panic!("it was opened") };
    assert_eq!(error.blame, DeviceBlame::Config);
    error.to_string()
}

/// The message, with PATH for the path of `file`.
fn refusal_of(file: &NamedTempFile, more: Value) -> String {
    refusal(fields(file, more)).replace(file.path().to_str().unwrap(), "PATH")
}

fn file_of(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn path_that_is_missing() {
    let fields = json!({"path": "/nowhere/disk.img"});
    assert_eq!(refusal(fields), ".path: /nowhere/disk.img doesn't exist, create it or correct the path");
}

#[test]
fn path_through_a_file() {
    let file = image();
    let path = file.path().join("disk.img");
    let message = refusal(json!({"path": path}));
    assert!(message.ends_with("/disk.img doesn't exist, create it or correct the path"), "{message}");
}

#[test]
fn path_of_a_directory() {
    let fields = json!({"path": "/tmp"});
    assert_eq!(refusal(fields), ".path: /tmp is a directory, name an image file or a block device");
}

#[test]
fn path_of_a_fifo_does_not_block() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let message = refusal(json!({"path": path}));
    assert!(message.ends_with("fifo is a FIFO, name an image file or a block device"), "{message}");
}

#[test]
fn path_of_a_character_device() {
    let fields = json!({"path": "/dev/null"});
    assert_eq!(
        refusal(fields),
        ".path: /dev/null is a character device, name an image file or a block device"
    );
}

#[test]
fn link_that_leads_nowhere() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.img");
    std::os::unix::fs::symlink("gone.img", &path).unwrap();
    assert_eq!(
        refusal(json!({"path": path})),
        format!(
            ".path: {} is a symbolic link to gone.img, which doesn't exist: create that or correct the link",
            path.display()
        )
    );
}

#[test]
fn link_to_a_socket_or_a_directory() {
    let directory = TempDir::new().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("a.sock")).unwrap();
    let refusal = |target: &str| {
        let path = directory.path().join(format!("link to {target}"));
        std::os::unix::fs::symlink(target, &path).unwrap();
        refusal(json!({"path": path})).replace(directory.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        refusal("a.sock"),
        ".path: DIR/link to a.sock is a symbolic link to a.sock, which is a socket: name an image file or a block device"
    );
    assert_eq!(
        refusal("."),
        ".path: DIR/link to . is a symbolic link to ., which is a directory: name an image file or a block device"
    );
}

#[test]
fn file_that_is_empty() {
    assert_eq!(
        refusal_of(&file_of(b""), json!({})),
        ".path: PATH is empty, but needs at least 512 bytes: try truncate -s 1G PATH"
    );
}

#[test]
fn file_not_of_whole_sectors() {
    assert_eq!(
        refusal_of(&file_of(&[0; 1000]), json!({})),
        ".path: PATH has 1000 bytes, not a multiple of the sector size, 512: try truncate -s 1024 PATH"
    );
}

/// Whatever the command is used for, it must be a valid one.
#[test]
fn file_with_a_strange_name_is_quoted_in_commands() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("my disk's.img");
    std::fs::write(&path, [0; 1000]).unwrap();
    let message = refusal(json!({"path": path})).replace(directory.path().to_str().unwrap(), "DIR");
    let (_, command) = message.split_once(": try ").unwrap();
    assert_eq!(command, r"truncate -s 1024 'DIR/my disk'\''s.img'");
}

#[test]
fn file_of_a_qcow2_image_declared_raw_is_not_to_be_truncated() {
    let message = refusal_of(&file_of(b"QFI\xfb\0\0\0\x03.."), json!({"format": "raw"}));
    assert_eq!(
        message,
        ".path: PATH has 10 bytes, not a multiple of the sector size, 512, and looks like a qcow2 image: set \"format\": \"qcow2\""
    );
}

#[test]
fn file_of_another_image_declared_raw_is_to_be_converted() {
    let message = refusal_of(&file_of(b"version=1\nCID=1\n"), json!({"format": "raw"}));
    assert_eq!(
        message,
        ".path: PATH has 16 bytes, not a multiple of the sector size, 512, and looks like a VMDK image: convert it, qemu-img \
         convert -f vmdk -O qcow2 PATH NEW.qcow2"
    );
}

#[test]
fn file_that_is_empty_declared_qcow2() {
    assert_eq!(
        refusal_of(&file_of(b""), json!({"format": "qcow2"})),
        ".path: PATH is empty: make it an image, qemu-img create -f qcow2 PATH 1G"
    );
}

#[test]
fn file_that_is_read_only_for_a_writer() {
    let file = image();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o444)).unwrap();
    assert_eq!(
        refusal_of(&file, json!({})),
        ".path: PATH is read-only but \"read_only\" is false, set that or let it be written"
    );
    assert!(try_open(fields(&file, json!({"read_only": true}))).is_ok());
}

#[test]
fn file_used_twice_is_said_to_be() {
    let file = image();
    let _first = try_open(fields(&file, json!({}))).unwrap();
    assert_eq!(
        refusal_of(&file, json!({})),
        ".path: PATH is used twice in this machine: remove one of the two, or set \"read_only\" for both, or use an \"overlay\""
    );
    assert_eq!(
        refusal_of(&file, json!({"read_only": true})),
        ".path: PATH is used twice in this machine, and written: remove one of the two, or set \"read_only\" for both, or use \
         an \"overlay\""
    );
}

#[test]
fn file_with_readers_takes_no_writer() {
    let file = image();
    let _first = try_open(fields(&file, json!({"read_only": true}))).unwrap();
    let _second = try_open(fields(&file, json!({"read_only": true}))).unwrap();
    assert!(refusal_of(&file, json!({})).starts_with(".path: PATH is used twice in this machine: "));
}

#[test]
fn lock_ends_with_the_disk() {
    let file = image();
    drop(start(fields(&file, json!({}))));
    assert!(try_open(fields(&file, json!({}))).is_ok());
}

#[test]
fn direct_disk_is_locked_too() {
    let file = image();
    let _first = try_open(fields(&file, json!({"direct": true}))).unwrap();
    assert!(refusal_of(&file, json!({})).starts_with(".path: PATH is used twice in this machine: "));
}

#[test]
fn qcow2_that_nobody_declared() {
    assert_eq!(
        refusal_of(&file_of(b"QFI\xfb.."), json!({})),
        ".path: PATH looks like a qcow2 image: add \"format\": \"qcow2\", or \"raw\" if its bytes are the disk's"
    );
}

/// A download that wasn't unpacked.
#[test]
fn compressed_disk_is_to_be_decompressed_or_declared() {
    let mut bytes = vec![0; 4096];
    bytes[..6].copy_from_slice(b"\xfd7zXZ\0");
    let file = file_of(&bytes);
    let message = ".path: PATH looks like an xz-compressed file, which isn't supported: decompress it, xz -dc PATH > NEW.img, or \
                   add \"format\": \"raw\" if its bytes are the disk's";
    assert_eq!(refusal_of(&file, json!({})), message);
    assert_eq!(refusal_of(&file, json!({"read_only": true})), message);
    assert_eq!(refusal_of(&file, json!({"overlay": "temp"})), message);
    assert_eq!(
        refusal_of(&file, json!({"format": "qcow2"})),
        ".path: PATH isn't a qcow2 image, it looks like an xz-compressed file: decompress it, xz -dc PATH > NEW.img"
    );
    assert!(try_open(fields(&file, json!({"format": "raw"}))).is_ok());
    // Like most such files, it doesn't consist of whole sectors.
    bytes.truncate(777);
    assert_eq!(
        refusal_of(&file_of(&bytes), json!({"format": "raw"})),
        ".path: PATH has 777 bytes, not a multiple of the sector size, 512, and looks like an xz-compressed file: decompress it, xz \
         -dc PATH > NEW.img"
    );
}

/// A guest may have encrypted its disk, so the first remedy is for that.
#[test]
fn luks_volume_that_nobody_declared() {
    let volume = |version: u8| {
        let mut bytes = vec![0; 4096];
        bytes[..8].copy_from_slice(&[b'L', b'U', b'K', b'S', 0xba, 0xbe, 0, version]);
        file_of(&bytes)
    };
    assert_eq!(
        refusal_of(&volume(1), json!({})),
        ".path: PATH looks like a LUKS volume: add \"format\": \"raw\" if the guest unlocks it, or decrypt it, qemu-img convert \
         --object secret,id=key,file=KEYFILE --image-opts driver=luks,file.filename=PATH,key-secret=key -O qcow2 NEW.qcow2"
    );
    assert_eq!(
        refusal_of(&volume(2), json!({})),
        ".path: PATH looks like a LUKS2 volume: add \"format\": \"raw\" if the guest unlocks it, or unlock it, cryptsetup open \
         PATH NAME, and use /dev/mapper/NAME"
    );
    assert!(try_open(fields(&volume(1), json!({"format": "raw"}))).is_ok());
    assert_eq!(
        refusal_of(&volume(2), json!({"format": "qcow2"})),
        ".path: PATH isn't a qcow2 image, it looks like a LUKS2 volume: set \"format\": \"raw\" if the guest unlocks it, or \
         unlock it, cryptsetup open PATH NAME, and use /dev/mapper/NAME"
    );
}

/// A guest encrypts its whole disk. Its next start works with the same config.
#[test]
fn raw_disk_that_its_guest_encrypts_stays_raw() {
    let file = image();
    let config = json!({"format": "raw"});
    let mut sector = [0; 512];
    sector[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    assert_eq!(send(&mut start(fields(&file, config.clone())), OUT, 0, &sector), OK);
    assert_eq!(read(&mut start(fields(&file, config)), 0, 512), (sector.to_vec(), OK));
}

#[test]
fn formats_by_another_name_are_refused_with_the_nearest_or_all() {
    let refusal = |format: Value| refusal_of(&image(), json!({"format": format}));
    assert_eq!(refusal(json!("qcow")), r#".format: unknown value "qcow", did you mean "qcow2"?"#);
    assert_eq!(refusal(json!("vmdk")), r#".format: unknown value "vmdk", expected one of "raw", "qcow2""#);
    assert_eq!(refusal(json!(2)), r#".format: expected one of "raw", "qcow2", found the number 2"#);
}

#[test]
fn names_of_other_fields_are_refused_with_the_nearest_or_all() {
    assert_eq!(
        refusal_of(&image(), json!({"cache": "none"})),
        r#".cache: unknown value "none", expected one of "writeback", "writethrough""#
    );
    assert_eq!(
        refusal_of(&image(), json!({"io": "iouring"})),
        r#".io: unknown value "iouring", did you mean "io_uring"?"#
    );
    assert_eq!(
        refusal_of(&image(), json!({"overlay": "temp_in"})),
        r#".overlay: "temp_in" needs a value, write {"temp_in": ...}"#
    );
}

#[test]
fn qcow2_declared_that_is_raw() {
    assert_eq!(
        refusal_of(&image(), json!({"format": "qcow2"})),
        ".path: PATH isn't a qcow2 image: set \"format\": \"raw\" if its bytes are the disk's"
    );
}

/// The guest makes its raw disk look like a qcow2 image that refers to a host file. At the next start it is
/// raw, as configured.
#[test]
fn raw_disk_made_to_look_like_qcow2_stays_raw() {
    let file = image();
    let config = json!({"format": "raw"});
    let mut driver = start(fields(&file, config.clone()));
    let mut sector = [0; 512];
    sector[..4].copy_from_slice(b"QFI\xfb");
    assert_eq!(send(&mut driver, OUT, 0, &sector), OK);
    drop(driver);
    let mut driver = start(fields(&file, config));
    assert_eq!(read(&mut driver, 0, 512), (sector.to_vec(), OK));
    assert_eq!(driver.config(0, 8), SECTORS.to_le_bytes());
}

#[test]
fn serial_too_long() {
    assert_eq!(
        refusal_of(&image(), json!({"serial": "123456789012345678901"})),
        ".serial: \"123456789012345678901\" has 21 bytes, shorten it to 20 or fewer"
    );
}

#[test]
fn serial_not_printable() {
    assert_eq!(
        refusal_of(&image(), json!({"serial": "a\nb"})),
        ".serial: \"a\\nb\" contains characters other than printable ASCII"
    );
}

#[test]
fn queues_too_many_or_none() {
    assert_eq!(
        refusal_of(&image(), json!({"queues": 5})),
        ".queues: 5 queues are more than the machine has vCPUs, at most 4"
    );
    assert_eq!(
        refusal_of(&image(), json!({"queues": 0})),
        ".queues: expected a whole number from 1 to 16, found the number 0"
    );
}

#[test]
fn limits_that_let_nothing_through() {
    let limits = |limits: Value| refusal_of(&image(), json!({"limits": limits}));
    assert_eq!(
        limits(json!({"bytes_per_second": "0"})),
        ".limits.bytes_per_second: 0 lets nothing through, leave it out for no limit"
    );
    assert_eq!(
        limits(json!({"operations_per_second": 5, "operations_burst": 0})),
        ".limits.operations_burst: 0 lets nothing through, leave it out for that of a second"
    );
    assert_eq!(
        limits(json!({"bytes_burst": "1M"})),
        ".limits.bytes_burst: 1M limits nothing without \"bytes_per_second\", add that"
    );
}

#[test]
fn overlay_that_nobody_writes() {
    assert_eq!(
        refusal_of(&image(), json!({"overlay": "temp", "read_only": true})),
        ".overlay: conflicts with \"read_only\", remove one of the two"
    );
}

#[test]
fn overlay_in_a_directory_that_is_missing_or_none() {
    let refusal = |directory: &Path| refusal_of(&image(), json!({"overlay": {"temp_in": directory}}));
    assert_eq!(
        refusal(Path::new("/nowhere")),
        ".overlay: /nowhere doesn't exist: create it, or name another"
    );
    assert_eq!(refusal(Path::new("/dev/null")), ".overlay: /dev/null isn't a directory: name another");
}

/// It is longer than a file can be here.
#[test]
fn overlay_of_a_disk_that_is_too_long() {
    let images = crate::qcow2::Images::new();
    let path = images.create("a.qcow2", 1 << 47, None);
    assert_eq!(
        refusal(json!({"path": path, "format": "qcow2", "overlay": "temp"})),
        ".overlay: a temporary file can't have the disk's 140737488355328 bytes: file too large; raise ulimit -f, or use a smaller disk"
    );
}

#[test]
fn fields_that_are_for_raw_disks_only() {
    assert_eq!(
        refusal_of(&image(), json!({"overlay": "temp", "direct": true})),
        ".direct: isn't supported for an overlay, remove it"
    );
    assert_eq!(
        refusal_of(&image(), json!({"format": "qcow2", "io": "threads"})),
        ".io: isn't supported for a qcow2 image, whose I/O is done by the disk's thread, remove it"
    );
    assert_eq!(
        refusal_of(&image(), json!({"backing": ["base.img"]})),
        ".backing: only a qcow2 image has backing files, remove it"
    );
}

#[test]
fn fields_that_are_unknown_or_null() {
    let message = refusal_of(&image(), json!({"readonly": true}));
    assert_eq!(message, ".readonly: unknown field, did you mean \"read_only\"?");
    let message = refusal_of(&image(), json!({"serial": null}));
    assert_eq!(message, r#".serial: expected a serial such as "disk-1", found null"#);
}

#[test]
fn overlay_of_another_name() {
    assert_eq!(
        refusal_of(&image(), json!({"overlay": "tmp"})),
        ".overlay: unknown value \"tmp\", did you mean \"temp\"?"
    );
}
