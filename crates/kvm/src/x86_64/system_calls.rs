//! The system calls of this crate, for filters.

use std::mem::size_of;

use kvm_bindings as kvm;
use vmm_sandbox::Allow;

/// What a vCPU's thread calls: it runs the guest, reports the processor's state, and connects interrupts and notifications that the
/// guest moves. KVM_RUN first: a filter compares in this order.
pub const VCPU_CALLS: &[Allow] = &[Allow::when(
    libc::SYS_ioctl,
    1,
    &[
        none(0x80), // KVM_RUN
        // A PCI device's vectors and BARs.
        write::<kvm::kvm_irqfd>(0x76),
        write::<kvm::kvm_ioeventfd>(0x79),
        write::<kvm::kvm_irq_routing>(0x6a), // KVM_SET_GSI_ROUTING
        write::<kvm::kvm_msi>(0xa5),         // KVM_SIGNAL_MSI
        // Steps, breakpoints and reports.
        read::<kvm::kvm_regs>(0x81),
        read::<kvm::kvm_sregs>(0x83),
        both::<kvm::kvm_translation>(0x85),
        write::<kvm::kvm_guest_debug>(0x9b),
        none(0xad), // KVM_KVMCLOCK_CTRL
    ],
)];

/// What a thread calls that sends MSIs, itself or by an eventfd.
pub const MESSAGE_CALLS: &[Allow] = &[Allow::when(
    libc::SYS_ioctl,
    1,
    &[
        write::<kvm::kvm_msi>(0xa5), // KVM_SIGNAL_MSI
        write::<kvm::kvm_irqfd>(0x76),
        write::<kvm::kvm_irq_routing>(0x6a),
    ],
)];

/// What building a machine takes, besides [`VCPU_CALLS`].
pub const BUILD_CALLS: &[Allow] = &[
    Allow::when(
        libc::SYS_ioctl,
        1,
        &[
            none(0x01),                    // KVM_CREATE_VM
            none(0x03),                    // KVM_CHECK_EXTENSION
            none(0x04),                    // KVM_GET_VCPU_MMAP_SIZE
            both::<kvm::kvm_cpuid2>(0x05), // KVM_GET_SUPPORTED_CPUID
            none(0x41),                    // KVM_CREATE_VCPU
            write::<kvm::kvm_userspace_memory_region>(0x46),
            none(0x47),                         // KVM_SET_TSS_ADDR
            write::<u64>(0x48),                 // KVM_SET_IDENTITY_MAP_ADDR
            none(0x60),                         // KVM_CREATE_IRQCHIP
            write::<kvm::kvm_pit_config>(0x77), // KVM_CREATE_PIT2
            write::<kvm::kvm_cpuid2>(0x90),     // KVM_SET_CPUID2
            write::<kvm::kvm_enable_cap>(0xa3),
            none(0xce), // KVM_GET_STATS_FD
            write::<kvm::kvm_regs>(0x82),
            write::<kvm::kvm_sregs>(0x84),
            write::<kvm::kvm_vcpu_events>(0xa0),
            write::<kvm::kvm_msrs>(0x89),
            write::<kvm::kvm_mp_state>(0x99),
            write::<kvm::kvm_lapic_state>(0x8f),
            write::<kvm::kvm_debugregs>(0xa2),
            write::<kvm::kvm_xsave>(0xa5),
            write::<kvm::kvm_xcrs>(0xa7),
            write::<kvm::kvm_nested_state>(0xbf),
            write::<kvm::kvm_one_reg>(0xac),
        ],
    ),
    VCPU_STATE,
    // Statistics have a header, which is read at its place.
    Allow::call(libc::SYS_pread64),
];

/// What reading a vCPU's state takes, [`KvmVcpu::state`](crate::KvmVcpu::state).
pub const VCPU_STATE_CALLS: &[Allow] = &[VCPU_STATE];

/// What reading a VM's state takes: [`KvmVcpu::state`](crate::KvmVcpu::state) and [`VmState`](crate::VmState).
pub const SAVE_CALLS: &[Allow] = &[
    VCPU_STATE,
    Allow::when(
        libc::SYS_ioctl,
        1,
        &[
            read::<kvm::kvm_clock_data>(0x7c), // KVM_GET_CLOCK
            both::<kvm::kvm_irqchip>(0x62),    // KVM_GET_IRQCHIP
            read::<kvm::kvm_pit_state2>(0x9f), // KVM_GET_PIT2
        ],
    ),
];

/// What [`Vm::restore`](crate::Vm::restore) takes, besides [`BUILD_CALLS`] and [`VCPU_CALLS`].
pub const RESTORE_CALLS: &[Allow] = &[Allow::when(
    libc::SYS_ioctl,
    1,
    &[
        none(0xa2),                          // KVM_SET_TSC_KHZ
        write::<kvm::kvm_device_attr>(0xe1), // KVM_SET_DEVICE_ATTR: the TSC's offset
        read::<kvm::kvm_clock_data>(0x7c),   // KVM_GET_CLOCK
        write::<kvm::kvm_clock_data>(0x7b),  // KVM_SET_CLOCK
        write::<kvm::kvm_pit_state2>(0xa0),  // KVM_SET_PIT2
        read::<kvm::kvm_irqchip>(0x63),      // KVM_SET_IRQCHIP, which the kernel encodes as a read
    ],
)];

/// Reading a vCPU's state.
const VCPU_STATE: Allow = Allow::when(
    libc::SYS_ioctl,
    1,
    &[
        read::<kvm::kvm_regs>(0x81),
        read::<kvm::kvm_sregs>(0x83),
        read::<kvm::kvm_vcpu_events>(0x9f),
        both::<kvm::kvm_msrs>(0x88),
        read::<kvm::kvm_mp_state>(0x98),
        read::<kvm::kvm_lapic_state>(0x8e),
        read::<kvm::kvm_debugregs>(0xa1),
        read::<kvm::kvm_xsave>(0xa4),
        read::<kvm::kvm_xcrs>(0xa6),
        read::<kvm::kvm_xsave>(0xcf), // KVM_GET_XSAVE2
        both::<kvm::kvm_cpuid2>(0x91),
        none(0xa3), // KVM_GET_TSC_KHZ
        both::<kvm::kvm_nested_state>(0xbe),
        write::<kvm::kvm_one_reg>(0xab),
        write::<kvm::kvm_device_attr>(0xe2), // KVM_GET_DEVICE_ATTR: the TSC's offset
    ],
);

const IOC_WRITE: u32 = 1;
const IOC_READ: u32 = 2;

/// A request of KVM's (include/uapi/linux/kvm.h) as the kernel encodes it (include/uapi/asm-generic/ioctl.h).
const fn request(direction: u32, number: u32, len: usize) -> u32 {
    direction << 30 | (len as u32) << 16 | kvm::KVMIO << 8 | number
}

const fn none(number: u32) -> u32 {
    request(0, number, 0)
}

const fn read<T>(number: u32) -> u32 {
    request(IOC_READ, number, size_of::<T>())
}

const fn write<T>(number: u32) -> u32 {
    request(IOC_WRITE, number, size_of::<T>())
}

const fn both<T>(number: u32) -> u32 {
    request(IOC_READ | IOC_WRITE, number, size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_encoded_as_in_the_kernels_header() {
        // strace's names and numbers of these calls.
        assert_eq!(none(0x80), 0xae80, "KVM_RUN");
        assert_eq!(read::<kvm::kvm_regs>(0x81), 0x8090_ae81, "KVM_GET_REGS");
        assert_eq!(
            write::<kvm::kvm_userspace_memory_region>(0x46),
            0x4020_ae46,
            "KVM_SET_USER_MEMORY_REGION"
        );
        assert_eq!(both::<kvm::kvm_cpuid2>(0x05), 0xc008_ae05, "KVM_GET_SUPPORTED_CPUID");
        assert_eq!(read::<kvm::kvm_xsave>(0xcf), 0x9000_aecf, "KVM_GET_XSAVE2");
        assert_eq!(both::<kvm::kvm_irqchip>(0x62), 0xc208_ae62, "KVM_GET_IRQCHIP");
        assert_eq!(read::<kvm::kvm_irqchip>(0x63), 0x8208_ae63, "KVM_SET_IRQCHIP");
        assert_eq!(read::<kvm::kvm_pit_state2>(0x9f), 0x8070_ae9f, "KVM_GET_PIT2");
        assert_eq!(write::<kvm::kvm_clock_data>(0x7b), 0x4030_ae7b, "KVM_SET_CLOCK");
    }
}
