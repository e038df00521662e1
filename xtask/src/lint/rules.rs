//! The architecture as data: which crate may use which, where unsafe code lives, where the architecture may matter. The
//! reasons are in docs/design.md.

/// What holds for one crate.
pub(super) struct CrateRule {
    pub(super) name: &'static str,
    /// A crate may only use crates of lower layers.
    pub(super) layer: u8,
    pub(super) may_use: Uses,
    pub(super) unsafe_code: Unsafe,
    /// Whether `cfg(target_arch)` may switch modules here.
    pub(super) has_arch_modules: bool,
}

/// Which crates of ours may be used.
pub(super) enum Uses {
    /// Just these.
    Only(&'static [&'static str]),
    /// Every crate of a lower layer.
    AnyLower,
}

/// Where unsafe code may be.
pub(super) enum Unsafe {
    /// Nowhere: the crate says `#![forbid(unsafe_code)]`.
    Forbidden,
    /// In these files, relative to the crate.
    In(&'static [&'static str]),
}

use Unsafe::{Forbidden, In};
use Uses::{AnyLower, Only};

/// What tests are written with. Tests of any crate may use it, whatever their layer.
pub(super) const TOOL_LAYER: u8 = 7;

/// Crates of later work are listed too: the layer of a crate is decided before it's written.
pub(super) const CRATES: &[CrateRule] = &[
    rule("vmm-bus", 0, Only(&[]), Forbidden),
    rule("vmm-snapshot", 0, Only(&[]), Forbidden),
    rule("vmm-metrics", 0, Only(&[]), Forbidden),
    rule("vmm-sandbox", 0, Only(&[]), In(&[])),
    rule("vmm-memory", 0, Only(&[]), In(&["src/mapping.rs"])),
    rule(
        "vmm-hostio",
        1,
        Only(&["vmm-memory"]),
        In(&[
            "src/crash.rs",
            "src/file_io/uring.rs",
            "src/frame_port.rs",
            "src/iovec.rs",
            "src/loop_device/status.rs",
            "src/vhost.rs",
        ]),
    ),
    rule("vmm-arch", 1, Only(&[]), Forbidden).with_arch_modules(),
    rule("vmm-acpi", 1, Only(&[]), Forbidden),
    rule("vmm-pci", 1, Only(&["vmm-bus", "vmm-snapshot"]), Forbidden),
    rule("vmm-config", 1, Only(&[]), Forbidden),
    rule("vmm-usernet", 1, Only(&[]), Forbidden),
    rule(
        "vmm-kvm",
        2,
        Only(&["vmm-memory", "vmm-arch", "vmm-snapshot"]),
        In(&["src/vm.rs", "src/vcpu.rs", "src/immediate_exit.rs", "src/descriptors.rs", "src/ioctls.rs"]),
    )
    .with_arch_modules(),
    rule("vmm-boot", 2, Only(&["vmm-memory", "vmm-arch"]), Forbidden).with_arch_modules(),
    // Of vmm-config only how the fields of a kind are read, of vmm-acpi what a device says of itself.
    rule(
        "vmm-devices",
        2,
        Only(&["vmm-bus", "vmm-acpi", "vmm-config", "vmm-snapshot", "vmm-metrics"]),
        Forbidden,
    ),
    // Of vmm-config only how the fields of a kind are read.
    rule(
        "vmm-virtio",
        2,
        Only(&[
            "vmm-bus",
            "vmm-pci",
            "vmm-memory",
            "vmm-hostio",
            "vmm-config",
            "vmm-snapshot",
            "vmm-metrics",
        ]),
        Forbidden,
    ),
    // Whoever writes a monitor of their own on it gets nothing of our devices, bus or config.
    rule("vmm-vcpu", 3, Only(&["vmm-kvm", "vmm-arch", "vmm-memory"]), Forbidden).with_arch_modules(),
    // Of vmm-config only what a value is: sizes with their units, paths.
    // Its unsafe functions are those of imago's traits, for whoever implements one.
    rule(
        "vmm-virtio-devices",
        3,
        Only(&["vmm-virtio", "vmm-hostio", "vmm-usernet", "vmm-config"]),
        In(&["src/block/qcow2/storage.rs", "src/block/qcow2/zstd.rs"]),
    ),
    rule(
        "vmm-machine",
        4,
        Only(&[
            "vmm-bus",
            "vmm-snapshot",
            "vmm-metrics",
            "vmm-memory",
            "vmm-hostio",
            "vmm-arch",
            "vmm-acpi",
            "vmm-pci",
            "vmm-config",
            "vmm-kvm",
            "vmm-boot",
            "vmm-devices",
            "vmm-virtio",
            "vmm-vcpu",
        ]),
        Forbidden,
    )
    .with_arch_modules(),
    rule("vmm-api", 5, Only(&["vmm-config", "vmm-metrics"]), Forbidden),
    rule("vmm-gdb", 5, Only(&["vmm-arch"]), Forbidden),
    rule("vmm-bin", 6, AnyLower, Forbidden),
    rule("driver", TOOL_LAYER, Only(&[]), Forbidden),
    rule("guest-agent", TOOL_LAYER, Only(&[]), Forbidden),
    rule("rig", TOOL_LAYER, Only(&[]), Forbidden),
    rule("harness", TOOL_LAYER + 1, Only(&["driver", "rig"]), Forbidden),
    rule("guest-tests", TOOL_LAYER + 2, AnyLower, Forbidden),
    rule("micro-tests", TOOL_LAYER + 2, AnyLower, Forbidden),
    rule(
        "exit-bench",
        TOOL_LAYER + 1,
        Only(&["vmm-bus", "vmm-memory", "vmm-kvm", "vmm-vcpu", "vmm-machine"]),
        In(&["src/bare.rs"]),
    ),
    rule("tour-tests", TOOL_LAYER + 1, Only(&["driver", "rig"]), Forbidden),
    rule("xtask", TOOL_LAYER + 1, Only(&["driver", "rig"]), Forbidden),
];

/// Crates of rust-vmm whose types cross our crates' borders: two versions of one of them would not fit together.
pub(super) const ONE_VERSION: [&str; 3] = ["vm-memory", "kvm-bindings", "vmm-sys-util"];

/// Crates whose files may use each other in circles, each with the reason.
pub(super) const WITH_CIRCLES: &[(&str, &str)] = &[];

/// Crates in which what depends on the architecture is behind a module `platform`. vmm-kvm isn't one: the page that it shares with
/// the kernel has the exits of all architectures.
pub(super) const PLATFORM_CRATES: [&str; 3] = ["vmm-boot", "vmm-vcpu", "vmm-machine"];

/// Registers, structures, formats and I/O ports, which only x86_64 has, as identifiers.
pub(super) const X86_WORDS: &str = "\
    kvm_regs kvm_sregs regs sregs rip rsp rax rflags cr0 cr3 cr4 cr8 efer gdt idt xsave cpuid msr msrs \
    apic_id last_apic_id lapic needs_x2apic mptable MpTable e820 E820Entry E820Kind bzimage zero_page \
    pvh multiboot Linux64 Linux32 Pvh inb inw inl outb outw outl port_in port_out string_in string_out \
    tpr_access tpr_lowered PortIn PortOut TprAccess TprLowered TripleFault ports LAST_PORT";

/// The words of a run, from a device's write to the exit code: each names at most one type in the workspace, exported or not.
pub(super) const WORDS_OF_A_RUN: [&str; 8] =
    ["Outcome", "SystemEvent", "Flow", "Entry", "End", "Next", "Ending", "Run"];

/// Names that several crates export at their roots, each with the reason.
pub(super) const SHARED_NAMES: &[(&str, &str)] = &[
    ("Error", "of the crate"),
    ("OpenError", "of the crate, beside its Error"),
    ("Cpu", "of a machine, as vmm-acpi describes it and as vmm-vcpu runs it"),
    ("Rtc", "in the ACPI tables, and the device"),
    ("Device", "in the config, and in the plan made from it"),
    ("Memory", "in the config, and the guest's"),
];

/// Lints of clippy that hold everywhere, by the numbers in clippy.toml.
pub(super) const WITHOUT_EXCEPTION: [&str; 2] = ["too_many_lines", "too_many_arguments"];

/// Lines before the tests from which a file is listed, and from which it fails.
pub(super) const LONG_FILE: usize = 300;
pub(super) const TOO_LONG_FILE: usize = 600;

/// The rule of the crate called `name`.
pub(super) fn rule_of(name: &str) -> Option<&'static CrateRule> {
    CRATES.iter().find(|rule| rule.name == name)
}

/// What to do about a crate without a rule.
pub(super) fn unknown(name: &str) -> String {
    format!("{name} has no rule: add its layer and what it may use to CRATES in xtask/src/lint/rules.rs")
}

const fn rule(name: &'static str, layer: u8, may_use: Uses, unsafe_code: Unsafe) -> CrateRule {
    CrateRule { name, layer, may_use, unsafe_code, has_arch_modules: false }
}

impl CrateRule {
    const fn with_arch_modules(mut self) -> Self {
        self.has_arch_modules = true;
        self
    }
}
