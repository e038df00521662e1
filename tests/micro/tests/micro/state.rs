//! A vCPU's state, read while a guest runs and set in another vCPU, which continues.

use std::collections::BTreeMap;
use std::path::Path;

use harness::trials;
use libtest_mimic::{Completion, Trial};
use vmm_arch::cpuid::{self, Host, Place};
use vmm_arch::flat::Mode;
use vmm_arch::layout;
use vmm_arch::topology::Topology;
use vmm_boot::FlatPlan;
use vmm_kvm::kvm_bindings::{
    KVM_CAP_NESTED_STATE, KVM_MP_STATE_HALTED, KVM_STATE_NESTED_FORMAT_SVM, KVM_STATE_NESTED_GIF_SET,
    KVM_STATE_NESTED_GUEST_MODE, kvm_cpuid_entry2, kvm_msr_entry,
};
use vmm_kvm::{Exit, Kvm, KvmVcpu, NestedState, ReservedPages, VcpuState, Vm};
use vmm_memory::GuestRam;

use crate::common::load_flat;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = trials![
        state_in_real_mode_goes_on_in_another_vcpu,
        state_in_protected_mode_goes_on_in_another_vcpu,
        state_in_long_mode_goes_on_in_another_vcpu,
        state_of_a_new_vcpu_is_changed_and_set_without_cpuid,
        state_of_every_register_is_set_as_it_was,
        state_with_interrupt_controllers_has_the_local_apic,
        state_with_a_deadline_of_the_timer_has_it,
        state_with_a_wider_xsave_area_than_the_hosts_is_refused,
    ];
    let nested = [
        ("state_without_guests_of_its_own_has_the_nested_state", assert_nested_state_is_set as fn()),
        ("state_in_a_guests_guest_goes_on_in_another_vcpu", assert_guests_guest_goes_on),
    ];
    tests.extend(nested.map(|(name, test)| {
        Trial::ignorable_test(name, move || {
            if has_nested_svm() {
                test();
                return Ok(Completion::Completed);
            }
            assert!(!rig::in_rig(), "the rig's KVM has nested virtualization by SVM");
            Ok(Completion::ignored_with("this host's KVM has no nested virtualization by SVM; the rig's has"))
        })
    }));
    tests
}

/// Whether this host's KVM lets guests use SVM, and supports reading and setting its state.
fn has_nested_svm() -> bool {
    let kvm = Kvm::open().unwrap();
    // Leaf 0x8000_0001 ECX bit 2.
    let has_svm = |entry: &kvm_cpuid_entry2| entry.function == 0x8000_0001 && entry.ecx & 1 << 2 != 0;
    kvm.capability(KVM_CAP_NESTED_STATE) > 0 && kvm.supported_cpuid().unwrap().iter().any(has_svm)
}

/// IA32_TIME_STAMP_COUNTER and IA32_TSC_DEADLINE.
pub(crate) const TSC: u32 = 0x10;
pub(crate) const TSC_DEADLINE: u32 = 0x6e0;

/// Prints consecutive characters endlessly. The code is the same for 16, 32 and 64 bits.
const ALPHABET: [u8; 8] = [
    0xb0, b'a', // mov al, 'a'
    0xe6, 0xf1, // out 0xf1, al
    0xfe, 0xc0, // inc al
    0xeb, 0xfa, // jmp, to the out
];

pub(crate) struct Guest {
    pub(crate) kvm: Kvm,
    pub(crate) ram: GuestRam,
    plan: FlatPlan,
}

impl Guest {
    fn new(mode: Mode) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(image.path(), ALPHABET).unwrap();
        Self::of(image.path(), mode)
    }

    pub(crate) fn of(image: &Path, mode: Mode) -> Self {
        let (plan, ram) = load_flat(image, mode, None, &layout::ram_ranges(4 << 20));
        Self { kvm: Kvm::open().unwrap(), ram, plan }
    }

    /// A VM with this guest's memory, and its only vCPU as created by KVM.
    fn machine(&self, has_irqchip: bool) -> (Vm, KvmVcpu) {
        let vm = self.kvm.create_vm().unwrap();
        vm.set_reserved_pages(ReservedPages::default()).unwrap();
        if has_irqchip {
            vm.create_irqchip_and_pit().unwrap();
        }
        vm.add_memory(&self.ram).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        (vm, vcpu)
    }

    /// As [`machine`](Self::machine), with the vCPU before the guest's first instruction.
    pub(crate) fn started(&self, has_irqchip: bool) -> (Vm, KvmVcpu) {
        let (vm, vcpu) = self.machine(has_irqchip);
        let mut state = vcpu.state(&[]).unwrap();
        let host = Host { tsc_deadline: self.kvm.has_tsc_deadline(), tsc_khz: state.tsc_khz, brand: None };
        let place = Place { index: 0, topology: Topology::one_socket(1) };
        state.cpuid = cpuid::policy(&self.kvm.supported_cpuid().unwrap(), place, host);
        self.plan.start().apply_to(&mut state.regs, &mut state.sregs);
        vcpu.set_state(&state).unwrap();
        (vm, vcpu)
    }

    pub(crate) fn state(&self, vcpu: &KvmVcpu) -> VcpuState {
        vcpu.state(&self.kvm.msr_indices().unwrap()).unwrap()
    }
}

/// Runs until the guest has printed `count` characters, completes the last access, and returns them.
pub(crate) fn letters(vcpu: &mut KvmVcpu, count: usize) -> String {
    let next = |vcpu: &mut KvmVcpu| match vcpu.run().unwrap() {
        Exit::PortOut { port: 0xf1, data, .. } => char::from(data[0]),
        other => panic!("{other:?}"),
    };
    let printed = (0..count).map(|_| next(vcpu)).collect();
    assert!(matches!(vcpu.complete_access().unwrap(), Exit::Interrupted));
    printed
}

/// Asserts that two states of the same moment are equal, except for clocks. Compares part by part, so that a failure names the part.
fn assert_same(found: &VcpuState, expected: &VcpuState) {
    assert_eq!(timeless(&found.msrs), timeless(&expected.msrs));
    assert_eq!(found.cpuid, expected.cpuid);
    assert_eq!(found.tsc_khz, expected.tsc_khz);
    assert_eq!(found.mp_state, expected.mp_state);
    assert_eq!(found.regs, expected.regs);
    assert_eq!(found.sregs, expected.sregs);
    assert!(found.xsave == expected.xsave, "the XSAVE areas differ");
    assert_eq!(found.xcrs, expected.xcrs);
    assert_eq!(found.debug_regs, expected.debug_regs);
    assert_eq!(found.lapic, expected.lapic);
    assert!(without_dr6(&found.nested) == without_dr6(&expected.nested), "the nested states differ");
    assert_eq!(found.shadow_stack, expected.shadow_stack);
    assert_eq!(found.events, expected.events);
}

/// The state without DR6 in the outer guest's save area, which KVM neither sets nor uses: DR6 is among the debug registers.
fn without_dr6(nested: &Option<NestedState>) -> Option<NestedState> {
    let mut nested = nested.clone()?;
    if let Some(dr6) = nested.data.get_mut(0x568..0x570) {
        dr6.fill(0);
    }
    Some(nested)
}

pub(crate) fn msr(state: &VcpuState, index: u32) -> u64 {
    state.msrs.iter().find(|msr| msr.index == index).expect("KVM has the register").data
}

/// The MSRs that only the guest changes, by index.
fn timeless(msrs: &[kvm_msr_entry]) -> BTreeMap<u32, u64> {
    // IA32_TSC, IA32_MPERF, IA32_APERF and IA32_TSC_DEADLINE; Hyper-V's VP runtime and reference counter.
    const TIMES: [u32; 6] = [TSC, 0xe7, 0xe8, TSC_DEADLINE, 0x4000_0010, 0x4000_0020];
    msrs.iter().filter(|msr| !TIMES.contains(&msr.index)).map(|msr| (msr.index, msr.data)).collect()
}

fn assert_goes_on(mode: Mode) {
    let guest = Guest::new(mode);
    let (_first_vm, mut first) = guest.started(false);
    assert_eq!(letters(&mut first, 3), "abc");
    let state = guest.state(&first);
    let (_second_vm, mut second) = guest.machine(false);
    second.set_state(&state).unwrap();
    assert_same(&guest.state(&second), &state);
    assert_eq!(letters(&mut second, 3), "def");
    assert_eq!(letters(&mut first, 1), "d", "and the first one is where it was");
}

fn state_in_real_mode_goes_on_in_another_vcpu() {
    assert_goes_on(Mode::Real);
}

fn state_in_protected_mode_goes_on_in_another_vcpu() {
    assert_goes_on(Mode::Protected);
}

fn state_in_long_mode_goes_on_in_another_vcpu() {
    assert_goes_on(Mode::Long);
}

/// As in the documentation of vmm-kvm.
fn state_of_a_new_vcpu_is_changed_and_set_without_cpuid() {
    let guest = Guest::new(Mode::Real);
    let (_vm, mut vcpu) = guest.machine(false);
    let mut state = vcpu.state(&[]).unwrap();
    guest.plan.start().apply_to(&mut state.regs, &mut state.sregs);
    vcpu.set_state(&state).unwrap();
    assert_eq!(letters(&mut vcpu, 3), "abc");
}

/// Each part gets values that a new vCPU doesn't have.
fn state_of_every_register_is_set_as_it_was() {
    let guest = Guest::new(Mode::Long);
    let (_first_vm, mut first) = guest.started(false);
    assert_eq!(letters(&mut first, 1), "a");
    let mut state = guest.state(&first);
    (state.regs.rbx, state.regs.r15) = (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00);
    state.sregs.fs.base = 0x1234_5000;
    state.debug_regs.db[2] = 0x40_1000;
    // XMM3 in the legacy area, and the SSE bit in XSTATE_BV, without which XMM3 would have its reset value.
    state.xsave[52..56].copy_from_slice(&[1, 2, 3, 4]);
    state.xsave[128] |= 3;
    // XCR0: x87 and SSE.
    state.xcrs.xcrs[0].value = 3;
    state.events.nmi.masked = 1;
    let star =
        state.msrs.iter_mut().find(|msr| msr.index == 0xc000_0081).expect("IA32_STAR is in KVM's list");
    star.data = 0x0023_0010_0000_0000;
    let (_second_vm, second) = guest.machine(false);
    second.set_state(&state).unwrap();
    let found = guest.state(&second);
    assert_eq!(found.regs, state.regs);
    assert_eq!(found.sregs, state.sregs);
    assert_eq!(found.debug_regs, state.debug_regs);
    assert_eq!(found.xsave[52..56], [1, 2, 3, 4]);
    assert_eq!(found.xcrs, state.xcrs);
    assert_eq!(found.events.nmi.masked, 1);
    let (now, before) = (msr(&found, TSC), msr(&state, TSC));
    assert!(now >= before, "the TSC goes back from {before:#x} to {now:#x}");
    assert_eq!(timeless(&found.msrs), timeless(&state.msrs));
}

fn state_with_interrupt_controllers_has_the_local_apic() {
    let guest = Guest::new(Mode::Protected);
    let (_first_vm, mut first) = guest.started(true);
    assert_eq!(letters(&mut first, 2), "ab");
    let mut state = guest.state(&first);
    // The logical destination register.
    state.lapic.as_mut().expect("the VM has interrupt controllers").regs[0xd3] = 0x20;
    let (_second_vm, mut second) = guest.machine(true);
    second.set_state(&state).unwrap();
    assert_eq!(guest.state(&second).lapic, state.lapic);
    assert_eq!(letters(&mut second, 1), "c");
    // As after a `hlt`.
    state.mp_state.mp_state = KVM_MP_STATE_HALTED;
    second.set_state(&state).unwrap();
    assert_eq!(guest.state(&second).mp_state, state.mp_state);
    let (_third_vm, third) = guest.started(false);
    assert_eq!(guest.state(&third).lapic, None);
}

/// KVM ignores the deadline unless the local APIC's timer is already in TSC-deadline mode.
fn state_with_a_deadline_of_the_timer_has_it() {
    let guest = Guest::new(Mode::Long);
    let (_first_vm, first) = guest.started(true);
    let mut state = guest.state(&first);
    let lapic = state.lapic.as_mut().expect("the VM has interrupt controllers");
    // The spurious-interrupt vector register enables the local APIC, as KVM requires for a timer; LVT timer: vector 0x40,
    // TSC-deadline mode (bits 18:17 are 10b). Intel SDM volume 3 §11.5.1, §11.9.
    lapic.regs[0xf1] = 1;
    lapic.regs[0x320..0x323].copy_from_slice(&[0x40, 0, 4]);
    let deadline = state.msrs.iter_mut().find(|msr| msr.index == TSC_DEADLINE).expect("it is in KVM's list");
    // After the end of the test, so that it isn't cleared.
    deadline.data = 1 << 62;
    let (_second_vm, second) = guest.machine(true);
    second.set_state(&state).unwrap();
    assert_eq!(msr(&guest.state(&second), TSC_DEADLINE), 1 << 62);
}

/// Sets the state of a guest that has never used SVM in a new vCPU, and in one whose interrupts are disabled by SVM's global interrupt
/// flag.
fn assert_nested_state_is_set() {
    let guest = Guest::new(Mode::Long);
    let (_first_vm, first) = guest.started(false);
    let state = guest.state(&first);
    let nested = state.nested.clone().expect("KVM has the capability");
    assert_eq!(u32::from(nested.format), KVM_STATE_NESTED_FORMAT_SVM);
    assert_eq!(u32::from(nested.flags), KVM_STATE_NESTED_GIF_SET);
    assert!(nested.data.is_empty());
    let (_second_vm, second) = guest.machine(false);
    second.set_state(&state).unwrap();
    assert_eq!(guest.state(&second).nested, Some(nested));
    // EFER.SVME, without which GIF can't be clear.
    let mut blocked = state.clone();
    blocked.sregs.efer |= 1 << 12;
    blocked.nested.as_mut().unwrap().flags = 0;
    second.set_state(&blocked).unwrap();
    assert_eq!(guest.state(&second).nested, blocked.nested);
    second.set_state(&state).unwrap();
    assert_eq!(guest.state(&second).nested, state.nested);
}

fn assert_guests_guest_goes_on() {
    let guest = Guest::of(&driver::guests::path("nested-svm"), Mode::Long);
    let (_first_vm, mut first) = guest.started(false);
    assert_eq!(letters(&mut first, 7), "abcd!ab");
    let state = guest.state(&first);
    let nested = state.nested.as_ref().expect("KVM has the capability");
    assert_ne!(u32::from(nested.flags) & KVM_STATE_NESTED_GUEST_MODE, 0);
    assert_eq!(nested.data.len(), 0x1000, "the VMCB");
    let (_second_vm, mut second) = guest.machine(false);
    second.set_state(&state).unwrap();
    assert_same(&guest.state(&second), &state);
    assert_eq!(letters(&mut second, 7), "cd!abcd");
    // From the outer guest back into the inner one.
    assert_eq!(letters(&mut second, 1), "!");
    second.set_state(&state).unwrap();
    assert_eq!(letters(&mut second, 4), "cd!a");
}

fn state_with_a_wider_xsave_area_than_the_hosts_is_refused() {
    let guest = Guest::new(Mode::Real);
    let (_vm, vcpu) = guest.started(false);
    let mut state = guest.state(&vcpu);
    let max = state.xsave.len() * 4;
    state.xsave.push(0);
    let message = format!(
        "the XSAVE area has {} bytes, this host's KVM takes 4096 to {max}: restore it on a host with the same features",
        max + 4
    );
    assert_eq!(vcpu.set_state(&state).unwrap_err().to_string(), message);
}
