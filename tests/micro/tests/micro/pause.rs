//! Pausing and resuming vCPU threads on a real KVM, with the library crates only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use driver::wait_until;
use harness::trials;
use libtest_mimic::Trial;
use vmm_bus::EventFd;
use vmm_kvm::{Kvm, ReservedPages};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, VcpuThread, VcpuThreads};

const DEADLINE: Duration = Duration::from_secs(30);
/// Enough rounds to detect kicks that are lost one time in 400, which happens with a signal only.
const ROUNDS: usize = 1000;

/// Increments a word in memory forever: `inc dword [0x800]` and `jmp` back.
const COUNT_IN_MEMORY: &[u8] = &[0x66, 0xff, 0x06, 0x00, 0x08, 0xeb, 0xf9];
/// Writes to port 0xe9 forever: `out 0xe9, al` and `jmp` back.
const WRITE_TO_A_PORT: &[u8] = &[0xe6, 0xe9, 0xeb, 0xfc];
/// Halts forever: `cli`, `hlt` and `jmp` back.
const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        pause_of_a_counting_guest_stops_the_count,
        pause_of_a_guest_that_exits_all_the_time_loses_no_kick,
        pause_of_a_halted_guest_loses_no_kick,
        pause_of_all_processors_under_load_loses_no_kick,
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
    vm.set_reserved_pages(ReservedPages::default()).unwrap();
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
    let ended = EventFd::new().unwrap();
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
    // Another pause takes a message to the thread and back, during which a running guest would count.
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

/// A running real-mode guest with one vCPU per kind of load.
struct BusyGuest {
    vcpus: VcpuThreads<()>,
    ram: GuestRam,
    writes: Arc<AtomicU64>,
}

/// Increments another word: `inc dword [0x804]` and `jmp` back.
const COUNT_BESIDE: &[u8] = &[0x66, 0xff, 0x06, 0x04, 0x08, 0xeb, 0xf9];

impl BusyGuest {
    /// Without interrupt controllers all vCPUs start running at once, without being started by the first.
    fn start() -> Self {
        let vm = Kvm::open().unwrap().create_vm().unwrap();
        vm.set_reserved_pages(ReservedPages::default()).unwrap();
        let ram = GuestRam::new(&[0..0x1000]).unwrap();
        let loads = [COUNT_IN_MEMORY, COUNT_BESIDE, WRITE_TO_A_PORT];
        let place = |index: usize| 0x100 * index as u64;
        for (index, code) in loads.iter().enumerate() {
            ram.memory().write_slice(code, GuestAddress(place(index))).unwrap();
        }
        vm.add_memory(&ram).unwrap();
        let writes = Arc::new(AtomicU64::new(0));
        let mut vcpus = VcpuThreads::default();
        for index in 0..loads.len() {
            let vcpu = vm.create_vcpu(index as u32).unwrap();
            let mut sregs = vcpu.sregs().unwrap();
            (sregs.cs.base, sregs.cs.selector) = (0, 0);
            vcpu.set_sregs(&sregs).unwrap();
            let mut regs = vcpu.regs().unwrap();
            regs.rip = place(index);
            vcpu.set_regs(&regs).unwrap();
            let (handler, ended) = (Counter(Arc::clone(&writes)), EventFd::new().unwrap());
            vcpus.push(VcpuThread::spawn(index as u32, vcpu, handler, ended).unwrap());
        }
        vcpus.resume();
        Self { vcpus, ram, writes }
    }

    /// The current count of each vCPU.
    fn counts(&self) -> [u64; 3] {
        let word = |gpa| u64::from(self.ram.memory().read_obj::<u32>(GuestAddress(gpa)).unwrap());
        [word(0x800), word(0x804), self.writes.load(Ordering::SeqCst)]
    }

    fn expect_advance_of_all(&self) {
        let before = self.counts();
        wait_until("every processor goes on", DEADLINE, || {
            self.counts().iter().zip(before).all(|(now, before)| *now != before)
        });
    }

    /// Pauses all vCPUs, asserts that none advances, and resumes them.
    fn pause_and_resume(&self) {
        assert!(self.vcpus.pause_within(DEADLINE));
        let counts = self.counts();
        // Another pause takes a message to each thread and back, during which a running vCPU would count.
        assert!(self.vcpus.pause_within(DEADLINE));
        assert_eq!(self.counts(), counts);
        self.vcpus.resume();
    }
}

fn pause_of_all_processors_under_load_loses_no_kick() {
    /// Progress of all vCPUs is awaited once in so many rounds, since it takes the host's scheduler a few rounds.
    const LOOK_EVERY: usize = 50;
    let guest = Arc::new(BusyGuest::start());
    guest.expect_advance_of_all();
    let (answered, answers) = channel();
    let pausing = Arc::clone(&guest);
    // On another thread, so that the test fails and doesn't hang if a pause is never answered.
    let rounds = thread::spawn(move || {
        for round in 0..ROUNDS {
            pausing.pause_and_resume();
            if round % LOOK_EVERY == 0 {
                pausing.expect_advance_of_all();
            }
            answered.send(round).unwrap();
        }
    });
    for round in 0..ROUNDS {
        assert_eq!(answers.recv_timeout(DEADLINE), Ok(round), "a pause is answered");
    }
    rounds.join().unwrap();
    guest.expect_advance_of_all();
}
