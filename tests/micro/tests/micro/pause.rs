//! Pause and resume of a vCPU thread on a real KVM, through the library crates alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use driver::wait_until;
use harness::trials;
use libtest_mimic::Trial;
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;
use vmm_vcpu::{End, ExitHandler, Flow, VcpuThread};

const DEADLINE: Duration = Duration::from_secs(30);
/// Enough that a kick that is lost one time in 400, as a signal alone is, doesn't get through.
const ROUNDS: usize = 1000;

/// Counts a word in memory up for ever: `inc dword [0x800]` and `jmp` back.
const COUNT_IN_MEMORY: &[u8] = &[0x66, 0xff, 0x06, 0x00, 0x08, 0xeb, 0xf9];
/// Writes to port 0xe9 for ever: `out 0xe9, al` and `jmp` back.
const WRITE_TO_A_PORT: &[u8] = &[0xe6, 0xe9, 0xeb, 0xfc];
/// `cli`, `hlt`, and again.
const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        pause_of_a_counting_guest_stops_the_count,
        pause_of_a_guest_that_exits_all_the_time_loses_no_kick,
        pause_of_a_halted_guest_loses_no_kick,
    ]
}

/// Counts the guest's writes.
struct Counter(Arc<AtomicU64>);

impl ExitHandler for Counter {
    type Stop = ();
    fn outb(&mut self, _port: u16, _value: u8) -> Flow<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Flow::Enter
    }
}

/// A running real-mode guest.
struct Guest {
    vcpu: VcpuThread<()>,
    ram: GuestRam,
    writes: Arc<AtomicU64>,
}

fn start(code: &[u8]) -> Guest {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    vm.set_reserved_pages(0xfffb_c000, 0xfffb_d000).unwrap();
    vm.create_irqchip_and_pit().unwrap();
    let ram = GuestRam::new(&[0..0x1000]).unwrap();
    ram.memory().write_slice(code, GuestAddress(0)).unwrap();
    vm.add_memory(&ram).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut sregs = vcpu.sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.regs().unwrap();
    regs.rip = 0;
    vcpu.set_regs(&regs).unwrap();
    let writes = Arc::new(AtomicU64::new(0));
    let ended = EventFd::new(0).unwrap();
    let vcpu = VcpuThread::spawn(0, vcpu, Counter(Arc::clone(&writes)), ended).unwrap();
    vcpu.resume();
    Guest { vcpu, ram, writes }
}

impl Guest {
    fn count(&self) -> u32 {
        self.ram.memory().read_obj(GuestAddress(0x800)).unwrap()
    }

    fn pause_and_resume_many_times(&self) {
        (0..ROUNDS).for_each(|_| {
            self.vcpu.pause();
            self.vcpu.resume();
        });
    }

    fn stop(self) {
        self.vcpu.stop();
        assert!(matches!(self.vcpu.join(), Ok(End::Stopped)));
    }
}

fn pause_of_a_counting_guest_stops_the_count() {
    let guest = start(COUNT_IN_MEMORY);
    wait_until("the guest counts", DEADLINE, || guest.count() > 0);
    guest.vcpu.pause();
    let count = guest.count();
    // Another pause takes a message to the thread and back: time in which a running guest would count.
    guest.vcpu.pause();
    assert_eq!(guest.count(), count);
    guest.vcpu.resume();
    wait_until("the guest counts on", DEADLINE, || guest.count() != count);
    guest.pause_and_resume_many_times();
    guest.stop();
}

fn pause_of_a_guest_that_exits_all_the_time_loses_no_kick() {
    let guest = start(WRITE_TO_A_PORT);
    guest.pause_and_resume_many_times();
    let writes = guest.writes.load(Ordering::SeqCst);
    wait_until("the guest writes on", DEADLINE, || guest.writes.load(Ordering::SeqCst) > writes);
    guest.stop();
}

fn pause_of_a_halted_guest_loses_no_kick() {
    let guest = start(HALT);
    guest.pause_and_resume_many_times();
    guest.stop();
}
