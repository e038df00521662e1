//! A vCPU's registers in traces and crash reports, and in the config's `expect`.

use vmm_config::Expect;
use vmm_kvm::VcpuReport;
use vmm_vcpu::{Crash, CrashCause};

/// The code segment's base after a reset (Intel SDM volume 3, table 10-1). Only guests in mode `reset` start there.
const RESET_CS_BASE: u64 = 0xffff_0000;

/// The trace line before instruction number `step`.
pub(crate) fn shown_step(step: u64, report: &VcpuReport) -> String {
    let code: Vec<String> = report.code.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let r = &report.regs;
    format!(
        "step {step}: cs {:04x} ip {:#x} [{}] ax {:x} bx {:x} cx {:x} dx {:x} si {:x} di {:x} bp {:x} sp {:x} flags {:x}",
        report.sregs.cs.selector,
        r.rip,
        code.join(" "),
        r.rax,
        r.rbx,
        r.rcx,
        r.rdx,
        r.rsi,
        r.rdi,
        r.rbp,
        r.rsp,
        r.rflags
    )
}

/// A note on a crash whose registers are misleading.
pub(crate) fn crash_note(crash: &Crash) -> Option<&'static str> {
    let is_reset = crash.cause == CrashCause::TripleFault && crash.report.sregs.cs.base == RESET_CS_BASE;
    is_reset.then_some("KVM has reset the registers, as it does on AMD processors: these are not the guest's")
}

/// The registers in `expect`: name, the guest's value, the expected value.
pub(crate) fn expected_registers(expect: &Expect, report: &VcpuReport) -> Vec<(String, u64, u64)> {
    expect.rax.iter().map(|value| ("rax".to_owned(), report.regs.rax, value.get())).collect()
}
