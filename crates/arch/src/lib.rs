//! Facts about the platform that the guest sees, as pure functions: no system call, no state.
//!
//! - [`layout`]: where everything lies in guest-physical memory, and which parts of it are RAM;
//! - [`e820`]: the memory map as firmware would tell it;
//! - [`topology`]: how the processors are grouped, and their APIC ids;
//! - [`cpuid`]: what the processor says of itself, made from what KVM supports, and which of its features a guest sees;
//! - [`boot`]: the registers with which the first instruction runs, for each way to enter a kernel;
//! - [`flat`]: the same for a program without a boot protocol, in real, protected, paged and long mode;
//! - [`mptable`]: what kernels without ACPI read of processors and interrupts;
//! - [`msr`]: model-specific registers that firmware would have set.
//!
//! kvm-bindings' plain structures are the vocabulary, so that [`vmm-kvm`] hands them to the kernel as they
//! are. The crate holds x86_64; another architecture becomes another module beside it, switched here.
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
