//! The workspace's rules as data: which crates a crate may use, where unsafe code is allowed, where code may depend on the processor's
//! architecture. The reasons are in docs/design.md.

/// The rules of one crate.
pub(super) struct CrateRule {
    pub(super) name: &'static str,
    /// A crate may only use crates of lower layers.
    pub(super) layer: u8,
    pub(super) may_use: Uses,
    pub(super) unsafe_code: Unsafe,
    /// Whether `cfg(target_arch)` may select modules here.
    pub(super) has_arch_modules: bool,
}

/// Which crates of the workspace a crate may use.
pub(super) enum Uses {
    /// Only these.
    Only(&'static [&'static str]),
    /// Every crate of a lower layer.
    AnyLower,
}

/// Where unsafe code is allowed.
pub(super) enum Unsafe {
    /// Nowhere: the crate has `#![forbid(unsafe_code)]`.
    Forbidden,
    /// In these files, relative to the crate.
    In(&'static [&'static str]),
}

use Unsafe::{Forbidden, In};
use Uses::{AnyLower, Only};

/// The layer of test tools. Tests of crates in any layer may use them.
pub(super) const TOOL_LAYER: u8 = 7;

/// All crates. Planned ones are listed too, because the layer of a crate is decided before it is written.
pub(super) const CRATES: &[CrateRule] = &[
    rule("vmm-bus", 0, Only(&[]), Forbidden),
    rule("vmm-snapshot", 0, Only(&[]), Forbidden),
    rule("vmm-metrics", 0, Only(&[]), Forbidden),
    // seccomp(2), a signal handler and fork(2); its tests, and hooks for the monitor's, make calls that a filter must stop.
    rule(
        "vmm-sandbox",
        0,
        Only(&[]),
        In(&["src/child.rs", "src/escape.rs", "src/filter.rs", "src/violation.rs", "tests/sandbox/raw.rs"]),
    ),
    rule("vmm-memory", 0, Only(&[]), In(&["src/mapping.rs"])),
    rule(
        "vmm-hostio",
        1,
        // Of vmm-bus only the eventfd.
        Only(&["vmm-bus", "vmm-memory", "vmm-sandbox"]),
        In(&[
            "src/crash.rs",
            "src/file_io/uring.rs",
            "src/frame_port.rs",
            "src/iovec.rs",
            "src/loop_device/status.rs",
            "src/path_keeper/fork.rs",
            "src/vhost.rs",
        ]),
    ),
    rule("vmm-arch", 1, Only(&[]), Forbidden).with_arch_modules(),
    rule("vmm-acpi", 1, Only(&[]), Forbidden),
    rule("vmm-pci", 1, Only(&["vmm-bus", "vmm-snapshot"]), Forbidden),
    rule("vmm-config", 1, Only(&[]), Forbidden),
    rule("vmm-usernet", 1, Only(&["vmm-sandbox"]), Forbidden),
    rule(
        "vmm-kvm",
        2,
        Only(&["vmm-memory", "vmm-arch", "vmm-sandbox", "vmm-snapshot"]),
        In(&[
            "src/vm.rs",
            "src/vcpu.rs",
            "src/immediate_exit.rs",
            "src/descriptors.rs",
            "src/event_fd.rs",
            "src/ioctls.rs",
        ]),
    )
    .with_arch_modules(),
    rule("vmm-boot", 2, Only(&["vmm-memory", "vmm-arch"]), Forbidden).with_arch_modules(),
    // vmm-config only for parsing the fields of a kind, vmm-acpi only for a device's own ACPI objects.
    rule(
        "vmm-devices",
        2,
        Only(&["vmm-bus", "vmm-acpi", "vmm-config", "vmm-snapshot", "vmm-metrics"]),
        Forbidden,
    ),
    // vmm-config only for parsing the fields of a kind.
    rule(
        "vmm-virtio",
        2,
        Only(&[
            "vmm-bus",
            "vmm-pci",
            "vmm-memory",
            "vmm-hostio",
            "vmm-config",
            "vmm-sandbox",
            "vmm-snapshot",
            "vmm-metrics",
        ]),
        Forbidden,
    ),
    // Users who write their own monitor with it don't get our devices or config.
    rule("vmm-vcpu", 3, Only(&["vmm-bus", "vmm-kvm", "vmm-arch", "vmm-memory"]), Forbidden)
        .with_arch_modules(),
    // vmm-config only for types of values: sizes with units, paths. Its unsafe functions are those that imago's traits require.
    rule(
        "vmm-virtio-devices",
        3,
        Only(&["vmm-virtio", "vmm-hostio", "vmm-usernet", "vmm-config", "vmm-sandbox"]),
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
            "vmm-sandbox",
            "vmm-vcpu",
        ]),
        Forbidden,
    )
    .with_arch_modules(),
    rule("vmm-control", 5, Only(&["vmm-bus", "vmm-config", "vmm-hostio", "vmm-sandbox"]), Forbidden),
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
        Only(&["vmm-bus", "vmm-memory", "vmm-sandbox", "vmm-kvm", "vmm-vcpu"]),
        In(&["src/bare.rs"]),
    ),
    rule("tour-tests", TOOL_LAYER + 1, Only(&["driver", "rig"]), Forbidden),
    // vmm-sandbox only for the names of system calls.
    rule("xtask", TOOL_LAYER + 1, Only(&["driver", "rig", "vmm-sandbox"]), Forbidden),
];

/// Crates of rust-vmm whose types are part of our crates' interfaces: two versions of one of them don't fit together.
pub(super) const ONE_VERSION: [&str; 3] = ["vm-memory", "kvm-bindings", "vmm-sys-util"];

/// Crates that can be built without some of their dependencies.
pub(super) const WITH_FEATURES: [&str; 3] = ["vmm-hostio", "vmm-virtio-devices", "vmm-bin"];

/// Crates that only features bring.
pub(super) const OPTIONAL: [&str; 5] = ["imago", "io-uring", "ruzstd", "smoltcp", "vmm-usernet"];

/// Categories that exist on the registry and fit: it drops others silently.
pub(super) const CATEGORIES: [&str; 9] = [
    "asynchronous",
    "command-line-utilities",
    "config",
    "emulators",
    "hardware-support",
    "memory-management",
    "network-programming",
    "os::linux-apis",
    "parser-implementations",
];

/// Crates whose files may import each other in circles, each with the reason.
pub(super) const WITH_CIRCLES: &[(&str, &str)] = &[];

/// Crates whose architecture-dependent code is in a module `platform`. vmm-kvm isn't one of them, because `kvm_run`, the page shared
/// with the kernel, contains the exits of all architectures.
pub(super) const PLATFORM_CRATES: [&str; 3] = ["vmm-boot", "vmm-vcpu", "vmm-machine"];

/// Identifiers of registers, structures, formats and I/O ports that only exist on x86_64.
pub(super) const X86_WORDS: &str = "\
    kvm_regs kvm_sregs regs sregs rip rsp rax rflags cr0 cr3 cr4 cr8 efer gdt idt xsave cpuid msr msrs \
    apic_id last_apic_id lapic needs_x2apic mptable MpTable e820 E820Entry E820Kind bzimage zero_page \
    pvh multiboot Linux64 Linux32 Pvh inb inw inl outb outw outl port_in port_out string_in string_out \
    tpr_access tpr_lowered PortIn PortOut TprAccess TprLowered TripleFault ports LAST_PORT";

/// Names of types that describe how a run ends, from a device's outcome to the exit code. Each names at most one type in the
/// workspace, exported or not.
pub(super) const WORDS_OF_A_RUN: [&str; 8] =
    ["Outcome", "SystemEvent", "Flow", "Entry", "End", "Next", "Ending", "Run"];

/// Type names that several crates export at their roots, each with the reason.
pub(super) const SHARED_NAMES: &[(&str, &str)] = &[
    ("Error", "the crate's error type"),
    ("OpenError", "the crate's second error type"),
    ("Cpu", "in vmm-acpi described by the tables, in vmm-vcpu run by the loop"),
    ("Rtc", "the entry in the ACPI tables, and the device"),
    ("Device", "in the config, and in the plan made from it"),
    ("Memory", "in the config, and the guest's"),
    ("Allow", "a system call in a filter, and a connection in the user-mode network"),
];

/// Clippy lints without exceptions; clippy.toml has their limits.
pub(super) const WITHOUT_EXCEPTION: [&str; 2] = ["too_many_lines", "too_many_arguments"];

/// Files with more lines, not counting tests, are listed, or rejected.
pub(super) const LONG_FILE: usize = 300;
pub(super) const TOO_LONG_FILE: usize = 600;

/// The rule of the crate called `name`.
pub(super) fn rule_of(name: &str) -> Option<&'static CrateRule> {
    CRATES.iter().find(|rule| rule.name == name)
}

/// The message about a crate without a rule.
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
