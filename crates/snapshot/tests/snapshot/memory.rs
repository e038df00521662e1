//! The memory file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vmm_snapshot::{MemoryLayout, SnapshotFiles, check_memory};

const MIB: usize = 1 << 20;

fn files(memory: File) -> SnapshotFiles {
    SnapshotFiles { manifest: None, state: tempfile::tempfile().unwrap(), memory }
}

/// The file, and the bytes that were stored.
fn written(pages: &[(u64, &[u8])]) -> (File, u64) {
    let files = files(tempfile::tempfile().unwrap());
    let layout = MemoryLayout::of([0..4 << 20]).unwrap();
    let memory = files.start_memory(&layout).unwrap();
    let stored = pages.iter().map(|(offset, bytes)| memory.write(*offset, bytes).unwrap()).sum();
    (files.memory, stored)
}

#[test]
fn pages_are_at_their_offsets_and_the_rest_is_zero() {
    let page = [0x5a; 4096];
    let (file, _) = written(&[(8192, &page), ((4 << 20) - 4096, &page)]);
    let mut contents = Vec::new();
    (&file).read_to_end(&mut contents).unwrap();
    let mut expected = vec![0; 4 * MIB];
    expected[8192..12288].fill(0x5a);
    expected[4 * MIB - 4096..].fill(0x5a);
    assert!(contents == expected);
}

/// Data in the first and the last byte of a page, and between pages of zeros.
#[test]
fn pages_of_zeros_stay_holes() {
    let mut bytes = vec![0; 4 * MIB];
    bytes[5 * 4096] = 1;
    bytes[MIB + 4095] = 1;
    bytes[4 * MIB - 1] = 1;
    let (file, stored) = written(&[(0, &bytes)]);
    assert_eq!(stored, 3 * 4096);
    let mut contents = vec![0; 4 * MIB];
    file.read_exact_at(&mut contents, 0).unwrap();
    assert!(contents == bytes);
    // Three pages, with whatever the file system needs for its own records.
    assert!(file.metadata().unwrap().blocks() * 512 < 256 << 10, "{:?}", file.metadata());
}

#[test]
fn bytes_that_are_not_pages_of_a_region_are_refused() {
    let files = files(tempfile::tempfile().unwrap());
    let layout = MemoryLayout::of([0..4096, 1 << 32..(1 << 32) + 4096]).unwrap();
    let memory = files.start_memory(&layout).unwrap();
    let refusal = |offset, len| memory.write(offset, &vec![1; len]).unwrap_err().to_string();
    memory.write(2 << 20, &[1; 4096]).unwrap();
    assert_eq!(refusal(0, 8192), "memory: 8192 bytes at 0x0 aren't pages of a region");
    assert_eq!(refusal(4096, 4096), "memory: 4096 bytes at 0x1000 aren't pages of a region");
    assert_eq!(refusal(0, 100), "memory: 100 bytes at 0x0 aren't pages of a region");
}

#[test]
fn file_with_contents_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1).unwrap();
    let layout = MemoryLayout::of([0..4096]).unwrap();
    assert_eq!(files(file).start_memory(&layout).unwrap_err().to_string(), "memory: is not empty");
}

#[test]
fn device_is_refused() {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let layout = MemoryLayout::of([0..4096]).unwrap();
    assert_eq!(files(null).start_memory(&layout).unwrap_err().to_string(), "memory: is not a regular file");
}

/// A full disk fails as this does, for another reason.
#[test]
fn page_that_the_host_does_not_take_is_reported() {
    let memfd = memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap();
    let files = files(memfd.into());
    let layout = MemoryLayout::of([0..4096]).unwrap();
    let memory = files.start_memory(&layout).unwrap();
    fcntl_add_seals(&files.memory, SealFlags::WRITE).unwrap();
    let error = memory.write(0, &[1; 4096]).unwrap_err();
    assert_eq!(error.to_string(), "memory: Operation not permitted (os error 1)");
    memory.write(0, &[0; 4096]).unwrap();
}

#[test]
fn length_that_the_host_does_not_allow_is_reported() {
    let memfd = memfd_create("memory", MemfdFlags::ALLOW_SEALING).unwrap();
    fcntl_add_seals(&memfd, SealFlags::GROW).unwrap();
    let files = files(memfd.into());
    let layout = MemoryLayout::of([0..4096]).unwrap();
    let error = files.start_memory(&layout).unwrap_err();
    assert_eq!(error.to_string(), "memory: Operation not permitted (os error 1)");
}

#[test]
fn memory_file_may_be_longer_but_not_shorter() {
    let layout = MemoryLayout::of([0..8192]).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(10000).unwrap();
    check_memory(&file, "memory", &layout).unwrap();
    file.set_len(8191).unwrap();
    let error = check_memory(&file, "a/memory", &layout).unwrap_err();
    assert_eq!(error.to_string(), "a/memory: has 8191 bytes, but 8192 were saved");
}
