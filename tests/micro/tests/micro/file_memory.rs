//! A file as guest memory, through the library: a real-mode guest loads from it and stores to it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use harness::trials;
use libtest_mimic::Trial;
use vmm_arch::flat::{Mode, Start};
use vmm_kvm::Kvm;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_memory::{Access, FileMemory, GuestRam};
use vmm_vcpu::{End, ExitHandler, Flow, run};

/// Address of the code, in RAM that ends at 0x2000.
const ENTRY: u64 = 0x1000;
/// Guest-physical address of the file.
const GPA: u64 = 0x1_0000;
/// Prints the file's first byte, stores another value there, and prints the byte again.
const CODE: [u8; 18] = [
    0xb8, 0x00, 0x10, // mov ax, 0x1000
    0x8e, 0xd8, // mov ds, ax
    0xa0, 0x00, 0x00, // mov al, [0]
    0xe6, 0xf1, // out 0xf1, al
    0xb0, b'X', // mov al, 'X'
    0xa2, 0x00, 0x00, // mov [0], al
    0xa0, 0x00, 0x00, // mov al, [0]
];
const END: [u8; 3] = [
    0xe6, 0xf1, // out 0xf1, al
    0xf4, // hlt
];

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        library_file_to_read_gives_loads_and_drops_stores,
        library_file_to_write_gets_what_the_guest_stores,
        library_file_memory_outlives_whoever_mapped_it,
        library_file_shortened_under_its_guest_leaves_the_monitor_alive,
    ]
}

/// The guest's output, and its stores that didn't reach memory.
#[derive(Default)]
struct GuestTrace {
    said: Vec<u8>,
    stored: Vec<(u64, Vec<u8>)>,
}

impl ExitHandler for GuestTrace {
    type Stop = ();

    fn outb(&mut self, _port: u16, value: u8) -> Flow<()> {
        self.said.push(value);
        Flow::Enter
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<()> {
        self.stored.push((gpa, data.to_vec()));
        Flow::Enter
    }
}

/// A file of one page that starts with "old".
fn file() -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"old").unwrap();
    file.set_len(0x1000).unwrap();
    file
}

/// Runs the guest with this file in its memory. `before` is called just before the guest starts.
fn run_with(
    file: &File,
    access: Access,
    before: impl FnOnce(),
) -> (GuestTrace, Result<End<()>, vmm_kvm::Error>) {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    let ram = GuestRam::new(&[0..0x2000]).unwrap();
    ram.memory().write_slice(&[&CODE[..], &END].concat(), GuestAddress(ENTRY)).unwrap();
    vm.add_memory(&ram).unwrap();
    let memory = FileMemory::new(file.try_clone().unwrap(), 0x1000, GPA, access).unwrap();
    vm.add_file_memory(&memory).unwrap();
    // Only the memory slot keeps it.
    drop((memory, ram));
    let mut vcpu = vm.create_vcpu(0).unwrap();
    drop(vm);
    let (mut regs, mut sregs) = (vcpu.regs().unwrap(), vcpu.sregs().unwrap());
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&regs).unwrap();
    before();
    let mut seen = GuestTrace::default();
    let end = run(&mut vcpu, &mut seen);
    (seen, end)
}

fn start_of(file: &File) -> [u8; 3] {
    let mut start = [0; 3];
    file.read_exact_at(&mut start, 0).unwrap();
    start
}

fn library_file_to_read_gives_loads_and_drops_stores() {
    let file = file();
    let (seen, end) = run_with(&file, Access::Read, || {});
    assert!(matches!(end, Ok(End::Halted(_))), "{end:?}");
    assert_eq!(seen.said, b"oo");
    assert_eq!(seen.stored, [(GPA, b"X".to_vec())]);
    assert_eq!(&start_of(&file), b"old");
}

fn library_file_to_write_gets_what_the_guest_stores() {
    let file = file();
    let (seen, end) = run_with(&file, Access::ReadWrite, || {});
    assert!(matches!(end, Ok(End::Halted(_))), "{end:?}");
    assert_eq!((&seen.said[..], seen.stored.len()), (&b"oX"[..], 0));
    assert_eq!(&start_of(&file), b"Xld");
}

/// Only the mapping keeps the file open.
fn library_file_memory_outlives_whoever_mapped_it() {
    let file = file();
    let (seen, end) = run_with(&file.try_clone().unwrap(), Access::ReadWrite, move || drop(file));
    assert!(matches!(end, Ok(End::Halted(_))), "{end:?}");
    assert_eq!(seen.said, b"oX");
}

/// KVM_RUN fails when the processor accesses the missing page; a KVM that emulates the access treats it as MMIO.
fn library_file_shortened_under_its_guest_leaves_the_monitor_alive() {
    let file = file();
    let (seen, end) = run_with(&file, Access::ReadWrite, || file.set_len(0).unwrap());
    match end {
        Err(vmm_kvm::Error::Ioctl { name, source }) => {
            assert_eq!((name, source.raw_os_error()), ("KVM_RUN", Some(nix::libc::EFAULT)));
        }
        end => {
            assert!(matches!(end, Ok(End::Halted(_))), "{end:?}");
            assert_eq!((seen.said, seen.stored), (vec![0xff; 2], vec![(GPA, b"X".to_vec())]));
        }
    }
}
