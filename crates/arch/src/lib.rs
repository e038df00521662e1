//! Facts about the guest's platform, as pure functions: no system call, no state.
//!
//! - [`layout`]: the guest-physical memory map, and which parts of it are RAM;
//! - [`e820`]: the memory map as firmware reports it;
//! - [`topology`]: threads, cores and sockets, and the APIC ids that follow from them;
//! - [`cpuid`]: the guest's CPUID, derived from what KVM supports, and the policy that selects its features;
//! - [`boot`]: the initial registers for each kernel boot protocol;
//! - [`flat`]: the same for a program without a boot protocol, in real, protected, paged and long mode;
//! - [`mptable`]: the MP table, for kernels without ACPI;
//! - [`msr`]: model-specific registers that firmware would have set.
//!
//! The types are kvm-bindings' plain structures, which [`vmm-kvm`] passes to the kernel unchanged. The crate
//! covers x86_64; another architecture is another module beside it, selected here.
//!
//! ```
//! use vmm_arch::{e820, layout};
//!
//! // 5 GiB: 3 GiB below the 32-bit MMIO gap, 2 GiB above 4 GiB.
//! let ram = layout::ram_ranges(5 << 30);
//! assert_eq!(ram, [0..0xc000_0000, 0x1_0000_0000..0x1_8000_0000]);
//! let map = e820::map(&ram);
//! assert!(map.iter().any(|e| e.addr == 0x1_0000_0000 && e.len == 2 << 30));
//! ```
//!
//! [`vmm-kvm`]: ../vmm_kvm/index.html
#![forbid(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
