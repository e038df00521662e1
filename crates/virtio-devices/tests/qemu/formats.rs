//! Images of unsupported or unspecified formats: the commands in the messages are run, and help.

use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;

use crate::disk::*;
use crate::images::{Images, SECRET};
use crate::tools::{qemu_img, trial};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial("images_of_other_formats_need_their_format_said", other_formats),
        trial("image_of_luks_needs_its_format_said_and_its_command_decrypts_it", luks),
        trial("image_of_vmdk_after_other_comments_is_recognised", vmdk_descriptor),
        trial("image_of_bochs_needs_its_format_said_and_its_command_converts_it", bochs),
        trial("image_of_cloop_needs_its_format_said_and_its_command_converts_it", cloop),
        trial("image_of_dmg_needs_its_format_said_and_its_command_converts_it", dmg),
        trial("disk_compressed_by_gzip_is_decompressed_by_its_command", compressed),
        trial("memory_of_a_qcow2_image_is_refused_and_its_command_converts_it", memory_of_qcow2),
        trial("backing_file_of_no_format_that_looks_raw_is_given_it_by_the_command", backing_looks_raw),
        trial(
            "backing_file_of_no_format_that_looks_like_qcow2_is_given_it_by_the_command",
            backing_looks_like_qcow2,
        ),
        trial(
            "backing_file_of_no_format_that_looks_like_vmdk_is_converted_by_the_commands",
            backing_looks_like_vmdk,
        ),
        trial("backing_file_of_vmdk_is_converted_by_the_commands", backing_is_vmdk),
        trial("backing_file_that_is_raw_and_said_to_be_qcow2_is_mended_by_the_command", backing_is_raw),
        trial("file_that_is_empty_becomes_an_image_by_the_command", empty_qcow2),
    ]
}

/// The message for a disk without "format" in its config.
fn undeclared(images: &Images, name: &str) -> String {
    images.message(try_open(json!({"path": images.path(name)})).err().expect("it asks"))
}

/// Runs the qemu-img commands in a message, with its placeholders in the directory.
fn run(images: &Images, message: &str) {
    let commands = message.split("qemu-img ").skip(1);
    // Each ends with the message, or the sentence continues.
    let commands = commands.map(|command| command.split(", ").next().unwrap());
    for command in commands {
        images.qemu_img(
            &command
                .replace("NEW.", "DIR/NEW.")
                .replace("-b DIR/NEW.", "-b NEW.")
                .replace("KEYFILE", "DIR/KEYFILE"),
        );
    }
}

/// A disk of an image, with its backing file.
fn fields(images: &Images, name: &str, backing: &str) -> serde_json::Value {
    json!({"path": images.path(name), "format": "qcow2", "backing": [images.path(backing)]})
}

/// The message for an image with this backing file.
fn refusal(images: &Images, name: &str, backing: &str) -> String {
    images.message(try_open(fields(images, name, backing)).err().expect("it is refused"))
}

fn other_formats() {
    let images = Images::new();
    for (format, options, name) in [
        ("vmdk", "", "VMDK"),
        ("vmdk", "-o subformat=monolithicFlat", "VMDK"),
        ("vdi", "", "VDI"),
        ("vhdx", "", "VHDX"),
        ("vpc", "", "VHD"),
        ("vpc", "-o subformat=fixed", "VHD"),
        ("qed", "", "QED"),
        ("qcow", "", "qcow (version 1)"),
        ("parallels", "", "Parallels"),
    ] {
        images.qemu_img(&format!("create -f {format} {options} DIR/a.img 1M"));
        assert_eq!(
            undeclared(&images, "a.img"),
            format!(
                ".path: DIR/a.img looks like a {name} image, which isn't supported: convert it, qemu-img convert -f {format} \
                 -O qcow2 DIR/a.img NEW.qcow2, or add \"format\": \"raw\" if its bytes are the disk's"
            )
        );
        let message = images.refusal("a.img", json!({}));
        let start = format!(".path: DIR/a.img isn't a qcow2 image, it looks like a {name} image: ");
        assert!(message.starts_with(&start), "{message}");
        // The configured format applies, whatever the file looks like; its length must be a disk's.
        let file = std::fs::File::options().write(true).open(images.path("a.img")).unwrap();
        file.set_len(file.metadata().unwrap().len().next_multiple_of(512)).unwrap();
        drop(file);
        assert!(try_open(json!({"path": images.path("a.img"), "format": "raw"})).is_ok());
        std::fs::remove_file(images.path("a.img")).unwrap();
    }
}

fn compressed() {
    let images = Images::new();
    let (disk, unpacked) = (images.path("disk.raw"), images.path("NEW.img"));
    std::fs::write(&disk, [7; 4096]).unwrap();
    assert!(Command::new("gzip").args(["--keep"]).arg(&disk).status().unwrap().success());
    let message = undeclared(&images, "disk.raw.gz");
    let command = message.split_once(": decompress it, ").unwrap().1.split_once(", or add").unwrap().0;
    let directory = images.path("");
    let command = command.replace("DIR/", "");
    assert!(Command::new("sh").arg("-c").arg(command).current_dir(directory).status().unwrap().success());
    assert_eq!(std::fs::read(&unpacked).unwrap(), [7; 4096]);
    assert!(try_open(json!({"path": unpacked})).is_ok());
}

fn luks() {
    let images = Images::new();
    images.qemu_img(&format!("create -f luks {SECRET} -o iter-time=10,key-secret=s DIR/a.img 1M"));
    let message = undeclared(&images, "a.img");
    assert_eq!(
        message,
        ".path: DIR/a.img looks like a LUKS volume: add \"format\": \"raw\" if the guest unlocks it, or decrypt it, qemu-img \
         convert --object secret,id=key,file=KEYFILE --image-opts driver=luks,file.filename=DIR/a.img,key-secret=key -O qcow2 \
         NEW.qcow2"
    );
    assert!(try_open(json!({"path": images.path("a.img"), "format": "raw"})).is_ok());
    std::fs::write(images.path("KEYFILE"), "abc").unwrap();
    run(&images, &message);
    let mut driver = start(json!({"path": images.path("NEW.qcow2"), "format": "qcow2"}));
    assert_eq!(driver.config(0, 8), 2048_u64.to_le_bytes());
    assert_eq!(read(&mut driver, 0, 512).1, OK);
}

/// QEMU recognises it without its usual first line.
fn vmdk_descriptor() {
    let images = Images::new();
    images.qemu_img("create -f vmdk -o subformat=monolithicFlat DIR/a.vmdk 1M");
    let text = std::fs::read_to_string(images.path("a.vmdk")).unwrap();
    let rest = text.strip_prefix("# Disk DescriptorFile\n").unwrap();
    std::fs::write(images.path("a.vmdk"), format!("# made by hand\n#\n  \n{rest}")).unwrap();
    assert!(images.qemu_img("info DIR/a.vmdk").contains("file format: vmdk"));
    let message = undeclared(&images, "a.vmdk");
    assert!(
        message.starts_with(".path: DIR/a.vmdk looks like a VMDK image, which isn't supported: "),
        "{message}"
    );
    run(&images, &message);
    assert!(try_open(json!({"path": images.path("NEW.qcow2"), "format": "qcow2"})).is_ok());
}

/// An image that qemu-img can read but not create: the command in the message helps.
fn converted(format: &str, name: &str, bytes: &[u8]) {
    let images = Images::new();
    std::fs::write(images.path("a.img"), bytes).unwrap();
    let message = undeclared(&images, "a.img");
    assert_eq!(
        message,
        format!(
            ".path: DIR/a.img looks like a {name} image, which isn't supported: convert it, qemu-img convert -f {format} -O \
             qcow2 DIR/a.img NEW.qcow2, or add \"format\": \"raw\" if its bytes are the disk's"
        )
    );
    run(&images, &message);
    let mut driver = start(json!({"path": images.path("NEW.qcow2"), "format": "qcow2"}));
    assert_eq!(driver.config(0, 8), 8_u64.to_le_bytes());
    assert_eq!(read(&mut driver, 0, 4096), (vec![0; 4096], OK));
}

/// A dynamic disk of 4 KiB without allocated data (Bochs, iodev/hdimage/hdimage.h, redolog_header_t).
fn bochs() {
    let mut image = vec![0; 512];
    image[..22].copy_from_slice(b"Bochs Virtual HD Image");
    image[32..39].copy_from_slice(b"Redolog");
    image[48..55].copy_from_slice(b"Growing");
    // Version, header length, catalog entries, bitmap length and extent length; then the disk's length.
    let fields: [u32; 5] = [0x0002_0000, 512, 1, 1, 4096];
    image[64..84].copy_from_slice(&fields.map(u32::to_le_bytes).concat());
    image[88..96].copy_from_slice(&4096_u64.to_le_bytes());
    image.extend([0xff; 4]);
    converted("bochs", "Bochs", &image);
}

/// One block of 4 KiB of zeros, compressed.
fn cloop() {
    let mut image =
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n".to_vec();
    image.resize(128, 0);
    // zlib's header; a stored block, the last one, with its length and the complement of that; Adler-32 of
    // zeros.
    let mut block = vec![0x78, 0x01, 0x01, 0x00, 0x10, 0xff, 0xef];
    block.extend([0; 4096]);
    block.extend([0x10, 0x00, 0x00, 0x01]);
    // Block length, number of blocks, and the start of each block and the end of the last one.
    image.extend([4096_u32, 1].map(u32::to_be_bytes).concat());
    let start = 128 + 8 + 16_u64;
    image.extend([start, start + block.len() as u64].map(u64::to_be_bytes).concat());
    image.extend(block);
    converted("cloop", "cloop", &image);
}

/// One run of eight sectors of zeros, and the trailer with the location of the run list. It doesn't have
/// whole sectors.
fn dmg() {
    let word = |value: u32| value.to_be_bytes().to_vec();
    let long = |value: u64| value.to_be_bytes().to_vec();
    // The list's header of 204 bytes, then a run: its type (0: zeros), a comment, its first sector and count,
    // its data.
    let mut runs = b"mish".to_vec();
    runs.resize(204, 0);
    runs.extend([word(0), word(0), long(0), long(8), long(0), long(0)].concat());
    // An empty list to QEMU.
    runs.extend([word(0xffff_ffff), word(0), long(8), long(0), long(0), long(0)].concat());
    // A resource fork: offsets of data and map, and the data's length. The data is a list with its length.
    let data = [word(runs.len() as u32), runs].concat();
    let fork = [word(16), word(0), word(data.len() as u32), word(0), data].concat();
    let mut trailer = b"koly".to_vec();
    trailer.extend([word(4), word(512)].concat());
    trailer.resize(0x28, 0);
    trailer.extend([long(0), long(fork.len() as u64)].concat());
    trailer.resize(0x1ec, 0);
    trailer.extend(long(8));
    trailer.resize(512, 0);
    converted("dmg", "DMG", &[fork, trailer].concat());
}

fn memory_of_qcow2() {
    let images = Images::new();
    images.qemu_img("create -f qcow2 DIR/a.qcow2 2M");
    let pmem = vmm_virtio_devices::KINDS.iter().find(|entry| entry.name == "pmem").unwrap();
    let setting =
        vmm_virtio::Setting { directory: std::path::Path::new("."), vcpus: 1, id: "pmem0", plan_only: false };
    let open = |path: PathBuf| pmem.open(json!({"path": path}), &setting);
    let message = images.message(open(images.path("a.qcow2")).err().expect("it asks"));
    assert_eq!(
        message,
        ".path: DIR/a.qcow2 looks like a qcow2 image, and memory is the file's own bytes: convert it, qemu-img convert -f \
         qcow2 -O raw DIR/a.qcow2 NEW.raw, or add \"format\": \"raw\" if they are meant"
    );
    run(&images, &message);
    assert!(open(images.path("NEW.raw")).is_ok());
}

/// An image over `backing`, whose format it doesn't contain. No current qemu-img creates such images.
fn without_format(backing: &str, format: &str) -> Images {
    let images = Images::new();
    images.qemu_img(&format!("create -f {format} DIR/{backing} 1M"));
    images.qemu_img(&format!("create -f qcow2 -F {format} -b {backing} DIR/a.qcow2"));
    let mut bytes = std::fs::read(images.path("a.qcow2")).unwrap();
    let at = bytes
        .windows(4)
        .position(|word| word == [0xe2, 0x79, 0x2a, 0xca])
        .expect("the backing file's format");
    // An unknown extension.
    bytes[at..at + 4].copy_from_slice(b"none");
    std::fs::write(images.path("a.qcow2"), bytes).unwrap();
    assert!(!images.qemu_img("info DIR/a.qcow2").contains("backing file format"));
    images
}

fn backing_looks_raw() {
    let images = without_format("base.img", "raw");
    let message = refusal(&images, "a.qcow2", "base.img");
    assert_eq!(
        message,
        ".path: DIR/a.qcow2 doesn't say the format of its backing file base.img, which looks raw: qemu-img rebase -u -f qcow2 \
         -F raw -b base.img DIR/a.qcow2"
    );
    run(&images, &message);
    assert!(try_open(fields(&images, "a.qcow2", "base.img")).is_ok());
    assert!(images.qemu_img("info DIR/a.qcow2").contains("backing file format: raw"));
}

fn backing_looks_like_qcow2() {
    let images = without_format("base.img", "qcow2");
    let message = refusal(&images, "a.qcow2", "base.img");
    assert_eq!(
        message,
        ".path: DIR/a.qcow2 doesn't say the format of its backing file base.img, which looks like a qcow2 image: qemu-img \
         rebase -u -f qcow2 -F qcow2 -b base.img DIR/a.qcow2, or if its bytes are the disk's, qemu-img rebase -u -f qcow2 -F \
         raw -b base.img DIR/a.qcow2"
    );
    let (as_qcow2, _) = message.split_once(", or ").unwrap();
    run(&images, as_qcow2);
    assert!(try_open(fields(&images, "a.qcow2", "base.img")).is_ok());
    assert!(images.qemu_img("info DIR/a.qcow2").contains("backing file format: qcow2"));
}

fn backing_looks_like_vmdk() {
    let images = without_format("base.img", "vmdk");
    let message = refusal(&images, "a.qcow2", "base.img");
    assert_eq!(
        message,
        ".path: DIR/a.qcow2 doesn't say the format of its backing file base.img, which looks like a VMDK image: convert it, \
         qemu-img convert -f vmdk -O qcow2 DIR/base.img NEW.qcow2, and then qemu-img rebase -u -f qcow2 -F qcow2 -b NEW.qcow2 \
         DIR/a.qcow2, or if its bytes are the disk's, qemu-img rebase -u -f qcow2 -F raw -b base.img DIR/a.qcow2"
    );
    let (as_vmdk, _) = message.split_once(", or ").unwrap();
    run(&images, as_vmdk);
    assert!(try_open(fields(&images, "a.qcow2", "NEW.qcow2")).is_ok());
}

fn backing_is_vmdk() {
    let images = Images::new();
    images.qemu_img("create -f vmdk DIR/base.vmdk 1M");
    images.qemu_img("create -f qcow2 -F vmdk -b base.vmdk DIR/a.qcow2");
    let message = refusal(&images, "a.qcow2", "base.vmdk");
    assert_eq!(
        message,
        ".path: DIR/a.qcow2 says that its backing file base.vmdk is vmdk, which isn't supported: convert that, qemu-img \
         convert -f vmdk -O qcow2 DIR/base.vmdk NEW.qcow2, and then qemu-img rebase -u -f qcow2 -F qcow2 -b NEW.qcow2 \
         DIR/a.qcow2"
    );
    run(&images, &message);
    assert!(try_open(fields(&images, "a.qcow2", "NEW.qcow2")).is_ok());
}

fn backing_is_raw() {
    let images = Images::new();
    images.qemu_img("create -f raw DIR/base.img 1M");
    images.qemu_img("create -u -f qcow2 -F qcow2 -b base.img DIR/a.qcow2 1M");
    let message = refusal(&images, "a.qcow2", "base.img");
    assert_eq!(
        message,
        ".backing[0]: DIR/base.img isn't a qcow2 image, though DIR/a.qcow2 says so: if its bytes are the disk's, qemu-img \
         rebase -u -f qcow2 -F raw -b base.img DIR/a.qcow2"
    );
    run(&images, &message);
    assert!(try_open(fields(&images, "a.qcow2", "base.img")).is_ok());
}

fn empty_qcow2() {
    let images = Images::new();
    std::fs::write(images.path("a.qcow2"), "").unwrap();
    let message = images.refusal("a.qcow2", json!({}));
    assert_eq!(
        message,
        ".path: DIR/a.qcow2 is empty: make it an image, qemu-img create -f qcow2 DIR/a.qcow2 1G"
    );
    run(&images, &message);
    assert!(try_open(json!({"path": images.path("a.qcow2"), "format": "qcow2"})).is_ok());
    // It is one now, and no command converts it to another format.
    let (could, said) = qemu_img(&images.with_dir("check DIR/a.qcow2"));
    assert!(could, "{said}");
}
