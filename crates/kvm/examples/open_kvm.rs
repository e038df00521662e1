//! Opens /dev/kvm and prints its capabilities: `cargo run -p vmm-kvm --example open_kvm`.

use vmm_kvm::Kvm;
use vmm_kvm::kvm_bindings::{KVM_CAP_IRQCHIP, KVM_CAP_IRQFD, KVM_CAP_READONLY_MEM, KVM_CAP_USER_MEMORY};

fn main() -> Result<(), vmm_kvm::Error> {
    // Also checks that the API version is 12, the only one since 2007.
    let kvm = Kvm::open()?;
    println!("/dev/kvm is open");
    println!("a machine may have {} vCPUs", kvm.max_vcpus());
    let capabilities = [
        ("memory slots", KVM_CAP_USER_MEMORY),
        ("read-only memory slots", KVM_CAP_READONLY_MEM),
        ("interrupt controllers in the kernel", KVM_CAP_IRQCHIP),
        ("interrupts by eventfd", KVM_CAP_IRQFD),
    ];
    for (what, number) in capabilities {
        println!("{what}: {}", if kvm.capability(number) > 0 { "yes" } else { "no" });
    }
    let vm = kvm.create_vm()?;
    let vcpu = vm.create_vcpu(0)?;
    let (regs, sregs) = (vcpu.regs()?, vcpu.sregs()?);
    println!("a new vCPU starts at cs base {:#x}, ip {:#x}", sregs.cs.base, regs.rip);
    Ok(())
}
