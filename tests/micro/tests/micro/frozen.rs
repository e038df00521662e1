//! The state of a whole VM, as sections of a snapshot, in a new VM with a copy of the memory. The guest goes on there.

use std::thread;
use std::time::Duration;

use harness::trials;
use libtest_mimic::Trial;
use vmm_arch::flat::Mode;
use vmm_arch::layout;
use vmm_kvm::kvm_bindings::KVM_MP_STATE_HALTED;
use vmm_kvm::{
    ClockPolicy, ClockState, Exit, IrqchipState, Kvm, KvmVcpu, PitState, ReservedPages, VcpuState, Vm,
    VmState,
};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_snapshot::{FieldReader, FieldWriter, State};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler, unblock_signal};

use crate::common::trial_with;
use crate::state::{Guest, TSC, TSC_DEADLINE, letters, msr};

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = trials![
        frozen_guest_goes_on_with_its_registers_and_pending_interrupts,
        frozen_guest_with_a_deadline_that_has_passed_is_interrupted,
        frozen_guest_is_frozen_twice,
        frozen_clock_without_the_hosts_wall_clock_is_not_advanced,
        frozen_vcpus_have_equal_tscs,
        frozen_vcpus_of_another_number_are_refused,
        frozen_guest_in_hlt_is_woken_by_its_timer,
    ];
    tests.extend([
        trial_with(
            "frozen_guests_tsc_is_advanced_as_its_clock",
            missing_wall_clock,
            // The rig's kernel has no stable TSC either.
            || false,
            frozen_guests_tsc_is_advanced_as_its_clock,
        ),
        trial_with(
            "frozen_vcpus_that_the_guest_set_apart_stay_so",
            missing_tsc_offset,
            rig::in_rig,
            frozen_vcpus_that_the_guest_set_apart_stay_so,
        ),
    ]);
    tests
}

/// Why the clock can't be advanced on this host.
fn missing_wall_clock() -> Option<String> {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    let has = vm.clock().unwrap().has_wall_clock();
    (!has).then(|| "this host's KVM doesn't relate its clock to the wall clock".to_owned())
}

/// Why the TSC's offset can't be set on this host.
fn missing_tsc_offset() -> Option<String> {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    // A software KVM accepts one and keeps the host's TSC.
    let has = vcpu.set_tsc_offset(1 << 40).is_ok() && vcpu.tsc_offset() == Some(1 << 40);
    (!has).then(|| "this host's KVM doesn't let the TSC's offset be set".to_owned())
}

/// RAM of the guest.
const RAM_LEN: u64 = 4 << 20;
/// SUM of resources/guests/flat/frozen.S.
const SUM: &str = "11223344";

/// A VM's state, and a copy of its memory.
struct Frozen {
    vcpus: Vec<VcpuState>,
    vm: VmState,
    ram: GuestRam,
}

/// A state after the way through a section's bytes.
fn stored<T: State>(state: &T) -> T {
    let mut fields = FieldWriter::new();
    state.save(&mut fields);
    let bytes = fields.into_bytes();
    let mut fields = FieldReader::new(&bytes);
    let loaded = T::load(T::VERSION, &mut fields).unwrap();
    fields.finish().unwrap();
    loaded
}

fn copied(ram: &GuestRam) -> GuestRam {
    let mut bytes = vec![0; RAM_LEN as usize];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
    let copy = GuestRam::new(&layout::ram_ranges(RAM_LEN)).unwrap();
    copy.memory().write_slice(&bytes, GuestAddress(0)).unwrap();
    copy
}

impl Frozen {
    /// Freezes a machine whose vCPUs have stopped.
    fn new(guest: &Guest, ram: &GuestRam, vm: &Vm, vcpus: &[&KvmVcpu]) -> Self {
        let clock: ClockState = stored(&vm.clock().unwrap());
        let irqchip: IrqchipState = stored(&vm.irqchip().unwrap().expect("it has interrupt controllers"));
        let pit: PitState = stored(&vm.pit().unwrap().expect("it has a timer"));
        let vcpus: Vec<VcpuState> = vcpus.iter().map(|vcpu| stored(&guest.state(vcpu))).collect();
        Self { vcpus, vm: VmState { clock, irqchip: Some(irqchip), pit: Some(pit) }, ram: copied(ram) }
    }

    /// With memory of its own.
    fn copy(&self) -> Self {
        Self { vcpus: self.vcpus.clone(), vm: self.vm.clone(), ram: copied(&self.ram) }
    }

    /// A new VM with this memory and so many new vCPUs.
    fn machine(&self, guest: &Guest, vcpus: u32) -> (Vm, Vec<KvmVcpu>) {
        let vm = guest.kvm.create_vm().unwrap();
        vm.set_reserved_pages(ReservedPages::default()).unwrap();
        vm.create_irqchip_and_pit().unwrap();
        vm.add_memory(&self.ram).unwrap();
        let vcpus = (0..vcpus).map(|id| vm.create_vcpu(id).unwrap()).collect();
        (vm, vcpus)
    }

    /// Goes on in a new VM.
    fn thawed(&self, guest: &Guest, policy: ClockPolicy) -> (Vm, Vec<KvmVcpu>) {
        let (vm, vcpus) = self.machine(guest, self.vcpus.len() as u32);
        vm.restore(&vcpus, &self.vcpus, &self.vm, policy).unwrap();
        (vm, vcpus)
    }
}

/// The guest at "A": two interrupts are pending, and disabled.
fn frozen_at_a() -> (Guest, Frozen) {
    let guest = Guest::of(&driver::guests::path("frozen"), Mode::Protected);
    let (vm, mut vcpu) = guest.started(true);
    assert_eq!(letters(&mut vcpu, 1), "A");
    let frozen = Frozen::new(&guest, &guest.ram, &vm, &[&vcpu]);
    (guest, frozen)
}

fn frozen_guest_goes_on_with_its_registers_and_pending_interrupts() {
    let (guest, frozen) = frozen_at_a();
    let (_vm, mut vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
    assert_eq!(letters(&mut vcpus[0], 8), SUM);
    // In units of 2^32. It is the host's where it can't be set: after a minute at most.
    let later = u32::from_str_radix(&letters(&mut vcpus[0], 8), 16).unwrap();
    assert!(later < 60, "the TSC didn't go on from where it was: {later:#x}");
    assert_eq!(letters(&mut vcpus[0], 10), "Ht00000002");
}

/// Runs the vCPU until it halts: a signal ends KVM_RUN, and it is run again if the guest wasn't that far. `None` if the guest was woken by
/// its timer meanwhile.
fn halted(mut vcpu: KvmVcpu) -> Option<KvmVcpu> {
    extern "C" fn nothing(_: i32, _: *mut nix::libc::siginfo_t, _: *mut nix::libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).unwrap();
    loop {
        let running = thread::spawn(move || {
            // Blocked where this thread ran a machine of the library before.
            unblock_signal(SIGRTMIN()).unwrap();
            let is_interrupted = matches!(vcpu.run().unwrap(), Exit::Interrupted);
            is_interrupted.then_some(vcpu)
        });
        while !running.is_finished() {
            // Time for the guest to get on, also on a host with one processor.
            thread::sleep(Duration::from_millis(30));
            running.kill(SIGRTMIN()).unwrap();
        }
        vcpu = running.join().unwrap()?;
        if vcpu.state(&[]).unwrap().mp_state.mp_state == KVM_MP_STATE_HALTED {
            return Some(vcpu);
        }
    }
}

fn frozen_guest_in_hlt_is_woken_by_its_timer() {
    let (guest, frozen) = frozen_at_a();
    let asleep = || {
        let frozen = frozen.copy();
        let (vm, mut vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
        let said = letters(&mut vcpus[0], 17);
        assert!(said.starts_with(SUM) && said.ends_with('H'), "{said}");
        let vcpu = halted(vcpus.remove(0))?;
        Some(Frozen::new(&guest, &frozen.ram, &vm, &[&vcpu]))
    };
    // Again if the host was slower than the timer.
    let asleep = (0..5).find_map(|_| asleep()).expect("the guest halts for 2 s");
    let (_vm, mut vcpus) = asleep.thawed(&guest, ClockPolicy::Freeze);
    assert_eq!(vcpus[0].state(&[]).unwrap().mp_state.mp_state, KVM_MP_STATE_HALTED);
    assert_eq!(letters(&mut vcpus[0], 9), "t00000002");
}

/// The state of a machine that was restored and hasn't run yet.
fn frozen_guest_is_frozen_twice() {
    let (guest, frozen) = frozen_at_a();
    let (vm, vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
    let again = Frozen::new(&guest, &frozen.ram, &vm, &[&vcpus[0]]);
    assert_eq!(again.vcpus[0].regs, frozen.vcpus[0].regs);
    assert_eq!(again.vcpus[0].lapic, frozen.vcpus[0].lapic);
    assert_eq!(again.vm.irqchip, frozen.vm.irqchip);
    let (_vm, mut vcpus) = again.thawed(&guest, ClockPolicy::Freeze);
    assert_eq!(letters(&mut vcpus[0], 8), SUM);
}

fn frozen_vcpus_of_another_number_are_refused() {
    let (guest, frozen) = frozen_at_a();
    let (vm, vcpus) = frozen.machine(&guest, 2);
    let error = vm.restore(&vcpus, &frozen.vcpus, &frozen.vm, ClockPolicy::Freeze).unwrap_err();
    assert_eq!(error.to_string(), "the state has 1 vCPUs, the VM has 2");
}

/// A clock with another wall clock, as a section's bytes have it after their length, the clock, and flags.
fn saved_earlier(clock: &ClockState, nanoseconds: u64) -> ClockState {
    let mut fields = FieldWriter::new();
    clock.save(&mut fields);
    let mut bytes = fields.into_bytes();
    let realtime = u64::from_le_bytes(bytes[20..28].try_into().unwrap());
    bytes[20..28].copy_from_slice(&(realtime - nanoseconds).to_le_bytes());
    ClockState::load(1, &mut FieldReader::new(&bytes)).unwrap()
}

fn frozen_guests_tsc_is_advanced_as_its_clock() {
    let (guest, mut frozen) = frozen_at_a();
    const HOUR: u64 = 3_600_000_000_000;
    frozen.vm.clock = saved_earlier(&frozen.vm.clock, HOUR);
    let (vm, mut vcpus) = frozen.thawed(&guest, ClockPolicy::Advance);
    assert!(vm.clock().unwrap().nanoseconds() >= frozen.vm.clock.nanoseconds() + HOUR);
    assert_eq!(letters(&mut vcpus[0], 8), SUM);
    let high = u64::from_str_radix(&letters(&mut vcpus[0], 8), 16).unwrap();
    let khz = frozen.vcpus[0].tsc_khz.expect("a host with this clock has a stable TSC");
    let hour = (HOUR / 1_000_000 * u64::from(khz)) >> 32;
    assert!((hour..hour + hour / 60).contains(&high), "{high:#x} is not {hour:#x} and less than a minute");
    // And a frozen one isn't.
    let (vm, _vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
    assert!(vm.clock().unwrap().nanoseconds() < frozen.vm.clock.nanoseconds() + HOUR);
}

fn frozen_clock_without_the_hosts_wall_clock_is_not_advanced() {
    let (guest, mut frozen) = frozen_at_a();
    let mut fields = FieldWriter::new();
    frozen.vm.clock.save(&mut fields);
    let mut bytes = fields.into_bytes();
    // The flags.
    bytes[12..16].fill(0);
    frozen.vm.clock = ClockState::load(1, &mut FieldReader::new(&bytes)).unwrap();
    let (vm, vcpus) = frozen.machine(&guest, 1);
    let error = vm.restore(&vcpus, &frozen.vcpus, &frozen.vm, ClockPolicy::Advance).unwrap_err().to_string();
    assert!(error.starts_with("the clock can't be advanced: "), "{error}");
}

/// Switches the local APIC's timer to TSC-deadline mode, as a guest does by its entry in the local vector table.
fn frozen_guest_with_a_deadline_that_has_passed_is_interrupted() {
    let (guest, mut frozen) = frozen_at_a();
    let state = &mut frozen.vcpus[0];
    let lapic = state.lapic.as_mut().unwrap();
    // LVT timer, bits 18:17. The interrupt that is pending is taken back (IRR, vectors 64 to 95), so that only the deadline's comes.
    lapic.regs[0x322] = 4;
    lapic.regs[0x220] = 0;
    let tsc = msr(state, TSC);
    let deadline = state.msrs.iter_mut().find(|msr| msr.index == TSC_DEADLINE).expect("it is in KVM's list");
    deadline.data = tsc - 1;
    let (_vm, mut vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
    assert_eq!(letters(&mut vcpus[0], 8), SUM, "the sum has one expiration");
}

/// Two vCPUs, of which the second one's state is read seconds after the first one's.
fn frozen_pair() -> (Guest, Frozen) {
    let (guest, mut frozen) = frozen_at_a();
    let mut second = frozen.vcpus[0].clone();
    second.msrs.iter_mut().find(|msr| msr.index == TSC).unwrap().data += 1 << 34;
    // The local APIC's id, and neither of them runs.
    second.lapic.as_mut().unwrap().regs[0x23] = 1;
    frozen.vcpus.push(second);
    (guest, frozen)
}

fn frozen_vcpus_have_equal_tscs() {
    let (guest, frozen) = frozen_pair();
    let (_vm, vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
    let saved = msr(&frozen.vcpus[0], TSC);
    let [first, second, third] = [0, 1, 0].map(|index: usize| msr(&guest.state(&vcpus[index]), TSC));
    assert!(saved <= first && first <= second && second <= third, "{saved} {first} {second} {third}");
    assert!(third - saved < 1 << 34, "it went on from the first one's");
    assert_eq!(vcpus[0].tsc_offset(), vcpus[1].tsc_offset());
}

fn frozen_vcpus_that_the_guest_set_apart_stay_so() {
    let (guest, mut frozen) = frozen_pair();
    frozen.vcpus[1].tsc_offset = frozen.vcpus[0].tsc_offset.map(|offset| offset.wrapping_add(1 << 40));
    let (_vm, vcpus) = frozen.thawed(&guest, ClockPolicy::Freeze);
    let [first, second] = [0, 1].map(|index: usize| vcpus[index].tsc_offset().unwrap());
    assert_eq!(second.wrapping_sub(first), 1 << 40);
}
