//! CPU feature policies: what CPUID returns in the guest, and which extended state it may use. The guests are real-mode programs that
//! store the results in memory.

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::{Completion, Trial};
use vmm_arch::cpuid::{self, FeaturePolicy, Host, Place};
use vmm_arch::topology::Topology;
use vmm_kvm::Kvm;

use crate::common::{ENDED, HOST_CANT};

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = trials![features_that_no_host_has_are_refused_by_name];
    let with_avx2: [(&str, fn()); 3] = [
        ("features_of_v1_are_the_same_on_every_host", features_of_v1_are_the_same_on_every_host),
        ("features_of_v2_are_the_same_on_every_host", features_of_v2_are_the_same_on_every_host),
        ("features_without_avx_have_no_state_of_it", features_without_avx_have_no_state_of_it),
    ];
    tests.extend(with_avx2.map(|(name, test)| {
        Trial::ignorable_test(name, move || {
            if has_avx2() {
                test();
                return Ok(Completion::Completed);
            }
            assert!(!rig::in_rig(), "the rig's KVM has AVX2");
            Ok(Completion::ignored_with(
                "this host's KVM has no AVX2, or is a software one that doesn't intercept CPUID",
            ))
        })
    }));
    tests
}

/// Whether the host's KVM supports all that these tests need. A software KVM doesn't report AVX2, and its guests see the host's CPUID.
fn has_avx2() -> bool {
    let supported = Kvm::open().unwrap().supported_cpuid().unwrap();
    supported.iter().any(|entry| entry.function == 7 && entry.index == 0 && entry.ebx & 1 << 5 != 0)
}

/// Address of the program, and of its results.
const ENTRY: u16 = 0x1000;
const FOUND: u16 = 0x400;

/// Machine code that executes CPUID and stores EAX, EBX, ECX and EDX at `to`.
fn ask(leaf: u32, to: u16) -> Vec<u8> {
    let [at_eax, at_ebx, at_ecx, at_edx] = [0, 4, 8, 12].map(|offset| (to + offset).to_le_bytes());
    [
        &[0x66, 0xb8][..], // mov eax, leaf
        &leaf.to_le_bytes(),
        &[0x66, 0x31, 0xc9],       // xor ecx, ecx
        &[0x0f, 0xa2, 0x66, 0xa3], // cpuid; mov [to], eax
        &at_eax,
        &[0x66, 0x89, 0x1e], // mov [to + 4], ebx
        &at_ebx,
        &[0x66, 0x89, 0x0e], // mov [to + 8], ecx
        &at_ecx,
        &[0x66, 0x89, 0x16], // mov [to + 12], edx
        &at_edx,
    ]
    .concat()
}

/// A program that reads `leaves`, stores 16 bytes for each from [`FOUND`] on, and halts.
fn asks(leaves: &[u32]) -> Vec<u8> {
    let places = (FOUND..).step_by(16);
    let asked = leaves.iter().zip(places).flat_map(|(leaf, to)| ask(*leaf, to));
    asked.chain(HLT).collect()
}

/// Runs `program` with these features, and asserts the exit code. `expected` are the addresses and values of 32-bit words that it must
/// leave in memory.
fn run(features: &str, program: &[u8], expected: &[(u16, u32)], code: i32) -> Monitor {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cpuid.bin"), program).unwrap();
    let memory: Vec<_> = expected
        .iter()
        .map(|(at, value)| format!(r#"{{"address": "{at:#x}", "u32": "{value:#x}"}}"#))
        .collect();
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": "cpuid.bin", "mode": "real", "load_address": "{ENTRY:#x}"}}}},
            "memory": {{"size": "1M"}}, "cpus": {{"features": {features}}}, "expect": {{"memory": [{}]}}}}"#,
        memory.join(", ")
    );
    let path = directory.path().join("vm.json");
    std::fs::write(&path, config).unwrap();
    let mut monitor = Monitor::command(["--config".as_ref(), path.as_os_str()]).start();
    monitor.expect_code(code, DEADLINE);
    monitor
}

const HLT: [u8; 1] = [0xf4];

/// Leaf 1 ECX: x2APIC, TSC deadline, hypervisor.
const EVERY_ECX: u32 = 1 << 21 | 1 << 24 | 1 << 31;
/// Leaf 1 EDX of every 64-bit processor, without VME (bit 1).
const EVERY_EDX: u32 = 0x078b_fbfd;
/// Leaf 0x8000_0001 EDX: SYSCALL, NX, LM.
const LONG_MODE: u32 = 1 << 11 | 1 << 20 | 1 << 29;
/// Leaf 1 ECX of the psABI's second level: SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT.
const V2_ECX: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;

fn features_of_v1_are_the_same_on_every_host() {
    let program = asks(&[0, 1, 7, 0xd, 0x8000_0001, 0x8000_0007, 0x8000_0008]);
    let expected = [
        (0x400, 0xd),
        (0x418, EVERY_ECX),
        (0x41c, EVERY_EDX),
        // TSC_ADJUST.
        (0x420, 0),
        (0x424, 1 << 1),
        (0x428, 0),
        (0x42c, 0),
        // No XSAVE.
        (0x430, 0),
        (0x438, 0),
        (0x44c, LONG_MODE),
        (0x45c, 0),
        (0x464, 0),
    ];
    run(r#""x86-64-v1""#, &program, &expected, ENDED);
}

fn features_of_v2_are_the_same_on_every_host() {
    let program = asks(&[1, 7, 0xd, 0x8000_0001]);
    let expected = [
        (0x408, EVERY_ECX | V2_ECX),
        (0x40c, EVERY_EDX),
        (0x414, 1 << 1),
        (0x418, 0),
        (0x41c, 0),
        (0x420, 0),
        (0x43c, LONG_MODE),
    ];
    run(r#""x86-64-v2""#, &program, &expected, ENDED);
}

/// Whether KVM accepts `value` for XCR0 of a vCPU with these features. The guest's XSETBV can't be used for this, because it doesn't
/// fault on the rig's emulated processor.
fn takes_xcr0(features: &[&str], value: u64) -> bool {
    let kvm = Kvm::open().unwrap();
    let vcpu = kvm.create_vm().unwrap().create_vcpu(0).unwrap();
    let mut state = vcpu.state(&[]).unwrap();
    let host = Host { tsc_deadline: kvm.has_tsc_deadline(), tsc_khz: state.tsc_khz, brand: None };
    let place = Place { index: 0, topology: Topology::one_socket(1) };
    let policy = FeaturePolicy::parse(features.iter().copied()).unwrap();
    let made = cpuid::policy(&kvm.supported_cpuid().unwrap(), place, host);
    state.cpuid = policy.restrict(made).unwrap();
    state.xcrs.xcrs[0].value = value;
    vcpu.set_state(&state).is_ok()
}

fn features_without_avx_have_no_state_of_it() {
    let program = asks(&[1, 7, 0xd]);
    let expected = [
        // MOVBE and XSAVE are kept; AVX, FMA and F16C are removed.
        (0x408, EVERY_ECX | V2_ECX | 1 << 22 | 1 << 26),
        // TSC_ADJUST, BMI1 and BMI2 are kept; AVX2 is removed.
        (0x414, 1 << 1 | 1 << 3 | 1 << 8),
        // x87 and SSE.
        (0x420, 3),
        (0x428, 576),
    ];
    run(r#"["x86-64-v3", "-avx"]"#, &program, &expected, ENDED);
    assert!(takes_xcr0(&["x86-64-v3"], 7));
    assert!(takes_xcr0(&["x86-64-v3", "-avx"], 3));
    assert!(!takes_xcr0(&["x86-64-v3", "-avx"], 7));
    assert!(!takes_xcr0(&["host", "-avx"], 7));
}

/// The first only exists on Intel processors, the second only on AMD's.
fn features_that_no_host_has_are_refused_by_name() {
    let said = run(r#"["host", "+avx512er", "+3dnowext"]"#, &HLT, &[(0x400, 0)], HOST_CANT).stderr();
    assert!(said.contains("cpus.features: this host's KVM lacks "), "{said}");
    assert!(said.contains("avx512er") && said.contains("3dnowext"), "{said}");
}
