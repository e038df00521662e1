//! All that a vCPU is, as a value.
//!
//! The order in which the parts are read and set is KVM's: some change others, and some are checked against others (KVM api.rst;
//! QEMU, target/i386/kvm/kvm.c; Firecracker, vstate/vcpu.rs). It is written here and nowhere else.

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, Msrs, Xsave, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};

use crate::error::Named;
use crate::{Error, KvmVcpu, ioctls};

/// IA32_TSC_DEADLINE, which arms the local APIC's timer: it is compared with the TSC, and refused in another mode of the timer.
const TSC_DEADLINE: u32 = 0x6e0;
/// Words of the part of an XSAVE area that every KVM has (struct kvm_xsave).
const XSAVE_WORDS: usize = 1024;
/// The most model-specific registers that KVM takes at once: fewer than its MAX_IO_MSRS, which is 256 (Linux, arch/x86/kvm/x86.c,
/// msr_io).
const MSRS_AT_ONCE: usize = 255;

/// All of a vCPU's state but its memory. The vCPU is paused, with no access half done.
#[derive(Clone, Debug, PartialEq)]
pub struct VcpuState {
    /// What the processor says of itself.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// The frequency of its TSC; `None` where KVM doesn't know it.
    pub tsc_khz: Option<u32>,
    /// Whether it runs, halts or waits to be started.
    pub mp_state: kvm_mp_state,
    /// The general registers.
    pub regs: kvm_regs,
    /// Segments, descriptor tables, control registers, APIC base, the external interrupt that was taken.
    pub sregs: kvm_sregs,
    /// The XSAVE area, in 32-bit words: as many as the guest's features need, at least 1024.
    pub xsave: Vec<u32>,
    /// XCR0.
    pub xcrs: kvm_xcrs,
    /// DR0 to DR3, DR6 and DR7.
    pub debug_regs: kvm_debugregs,
    /// The local APIC; `None` without in-kernel interrupt controllers.
    pub lapic: Option<kvm_lapic_state>,
    /// Model-specific registers.
    pub msrs: Vec<kvm_msr_entry>,
    /// What KVM adds to the host's TSC; `None` where it doesn't say. [`KvmVcpu::set_state`] sets the TSC itself, so that the
    /// guest's goes on where it stopped; vCPUs that are to have the same one get it by [`KvmVcpu::set_tsc_offset`].
    pub tsc_offset: Option<u64>,
    /// Exceptions, NMIs and interrupts that are on their way.
    pub events: kvm_vcpu_events,
}

impl KvmVcpu {
    /// Reads all of the state, with these model-specific registers, as [`Kvm::msr_indices`](crate::Kvm::msr_indices) gives them.
    /// One that this vCPU hasn't got is left out.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn state(&self, msr_indices: &[u32]) -> Result<VcpuState, Error> {
        // First, because it carries out an INIT or SIPI that waits, which changes registers and the local APIC.
        let mp_state = self.fd.get_mp_state().named("KVM_GET_MP_STATE")?;
        let regs = self.regs()?;
        let sregs = self.sregs()?;
        let xsave = self.xsave()?;
        let xcrs = self.fd.get_xcrs().named("KVM_GET_XCRS")?;
        let debug_regs = self.fd.get_debug_regs().named("KVM_GET_DEBUGREGS")?;
        let lapic = match self.fd.get_lapic() {
            // There are no in-kernel interrupt controllers.
            Err(error) if error.errno() == libc::EINVAL => None,
            other => Some(other.named("KVM_GET_LAPIC")?),
        };
        let msrs = self.msrs(msr_indices)?;
        Ok(VcpuState {
            cpuid: self.cpuid()?,
            tsc_khz: self.tsc_khz(),
            mp_state,
            regs,
            sregs,
            xsave,
            xcrs,
            debug_regs,
            lapic,
            msrs,
            tsc_offset: self.tsc_offset(),
            // Last: it says what of the above is in flight.
            events: self.fd.get_vcpu_events().named("KVM_GET_VCPU_EVENTS")?,
        })
    }

    /// Sets all of the state, of a vCPU that has never run or whose CPUID is the same.
    ///
    /// # Errors
    /// An ioctl failed. KVM refuses a model-specific register, and has another value in it: [`Error::Msr`].
    pub fn set_state(&self, state: &VcpuState) -> Result<(), Error> {
        // KVM checks MSRs and the XSAVE area against it, since Linux 6.13.
        self.set_cpuid(&state.cpuid)?;
        if state.tsc_khz.is_some() && state.tsc_khz != self.tsc_khz() {
            // Without scaling KVM takes none but its own.
            self.fd.set_tsc_khz(state.tsc_khz.unwrap_or_default()).named("KVM_SET_TSC_KHZ")?;
        }
        self.fd.set_mp_state(state.mp_state).named("KVM_SET_MP_STATE")?;
        // Clears exceptions that wait, which the events bring back.
        self.set_regs(&state.regs)?;
        // The APIC base is in it.
        self.set_sregs(&state.sregs)?;
        self.set_xsave(&state.xsave)?;
        self.fd.set_xcrs(&state.xcrs).named("KVM_SET_XCRS")?;
        self.fd.set_debug_regs(&state.debug_regs).named("KVM_SET_DEBUGREGS")?;
        if let Some(lapic) = &state.lapic {
            self.set_lapic(lapic)?;
        }
        let (deadline, msrs): (Vec<_>, Vec<_>) =
            state.msrs.iter().copied().partition(|msr| msr.index == TSC_DEADLINE);
        self.set_msrs_or_same(&msrs)?;
        // When the TSC and the timer's mode are there.
        self.set_msrs_or_same(&deadline)?;
        self.fd.set_vcpu_events(&state.events).named("KVM_SET_VCPU_EVENTS")
    }

    /// The CPUID that was set.
    fn cpuid(&self) -> Result<Vec<kvm_cpuid_entry2>, Error> {
        let cpuid = self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).named("KVM_GET_CPUID2")?;
        // Some kernels count the room that they were given.
        let entries = cpuid.as_slice();
        let len = entries
            .iter()
            .rposition(|entry| *entry != kvm_cpuid_entry2::default())
            .map_or(0, |last| last + 1);
        Ok(entries[..len].to_vec())
    }

    fn xsave(&self) -> Result<Vec<u32>, Error> {
        if self.xsave_words <= XSAVE_WORDS {
            return Ok(self.fd.get_xsave().named("KVM_GET_XSAVE")?.region.to_vec());
        }
        let mut area = self.xsave_area()?;
        ioctls::xsave(&self.fd, &mut area, self.xsave_words).named("KVM_GET_XSAVE2")?;
        let mut words = area.as_fam_struct_ref().xsave.region.to_vec();
        words.extend_from_slice(area.as_slice());
        Ok(words)
    }

    fn set_xsave(&self, words: &[u32]) -> Result<(), Error> {
        let mut area = self.xsave_area()?;
        // A wider area is from a processor with features that this VM hasn't got.
        let (region, extra) = words
            .split_at_checked(XSAVE_WORDS)
            .filter(|(_, extra)| extra.len() <= area.as_slice().len())
            .ok_or(Error::XsaveLen { len: words.len() * 4, max: self.xsave_words * 4 })?;
        area.as_mut_slice()[..extra.len()].copy_from_slice(extra);
        ioctls::set_xsave(&self.fd, &mut area, region).named("KVM_SET_XSAVE")
    }

    /// Room for this VM's XSAVE area, all zeros.
    fn xsave_area(&self) -> Result<Xsave, Error> {
        let no_room =
            |_| Error::Ioctl { name: "KVM_GET_XSAVE2", source: std::io::ErrorKind::OutOfMemory.into() };
        Xsave::new(self.xsave_words.saturating_sub(XSAVE_WORDS)).map_err(no_room)
    }

    /// Those of the registers that this vCPU has.
    fn msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
        read_msrs(indices, |asked| {
            let entries: Vec<_> =
                asked.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
            let mut msrs = Msrs::from_entries(&entries).map_err(|_| too_many_msrs())?;
            let read = self.fd.get_msrs(&mut msrs).named("KVM_GET_MSRS")?;
            Ok(msrs.as_slice()[..read].to_vec())
        })
    }

    fn set_msrs_or_same(&self, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
        write_msrs(
            msrs,
            |now| {
                let entries = Msrs::from_entries(now).map_err(|_| too_many_msrs())?;
                self.fd.set_msrs(&entries).named("KVM_SET_MSRS")
            },
            |index| Ok(self.msrs(&[index])?.first().map(|msr| msr.data)),
        )
    }

    /// What KVM adds to the host's TSC for the guest's (KVM_VCPU_TSC_OFFSET); `None` before Linux 5.16.
    pub fn tsc_offset(&self) -> Option<u64> {
        ioctls::tsc_offset(&self.fd).ok()
    }

    /// Sets what KVM adds to the host's TSC: with one offset for all of a VM's vCPUs, all have the same time.
    ///
    /// # Errors
    /// The kernel is older than Linux 5.16.
    pub fn set_tsc_offset(&self, offset: u64) -> Result<(), Error> {
        ioctls::set_tsc_offset(&self.fd, offset).named("KVM_SET_DEVICE_ATTR")
    }
}

/// Reads registers by `get`, which is given as many as KVM takes and gives those before the first that it refuses; that one is
/// left out.
fn read_msrs(
    indices: &[u32],
    mut get: impl FnMut(&[u32]) -> Result<Vec<kvm_msr_entry>, Error>,
) -> Result<Vec<kvm_msr_entry>, Error> {
    let mut rest = indices;
    let mut found = Vec::with_capacity(indices.len());
    while !rest.is_empty() {
        let asked = &rest[..rest.len().min(MSRS_AT_ONCE)];
        let read = get(asked)?;
        rest = &rest[(read.len() + 1).min(asked.len())..];
        found.extend(read);
    }
    Ok(found)
}

/// Sets registers by `set`, which is given as many as KVM takes and gives how many it took. One that it refuses must have its
/// value, by `get`, or be none, of which the guest has never set anything.
fn write_msrs(
    msrs: &[kvm_msr_entry],
    mut set: impl FnMut(&[kvm_msr_entry]) -> Result<usize, Error>,
    mut get: impl FnMut(u32) -> Result<Option<u64>, Error>,
) -> Result<(), Error> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(MSRS_AT_ONCE)];
        let done = set(now)?;
        let Some(refused) = now.get(done) else {
            rest = &rest[now.len()..];
            continue;
        };
        if get(refused.index)?.unwrap_or_default() != refused.data {
            return Err(Error::Msr { index: refused.index });
        }
        rest = &rest[done + 1..];
    }
    Ok(())
}

/// What the room of a list of registers is exceeded with, which the callers don't.
fn too_many_msrs() -> Error {
    Error::Ioctl { name: "KVM_GET_MSRS", source: std::io::Error::from_raw_os_error(libc::E2BIG) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IA32_S_CET, which a host without shadow stacks hasn't got.
    const S_CET: u32 = 0x6a2;
    /// IA32_XFD, of AMX.
    const XFD: u32 = 0x1c4;

    fn msr(index: u32, data: u64) -> kvm_msr_entry {
        kvm_msr_entry { index, data, ..Default::default() }
    }

    /// A KVM that has all registers but `missing`, each with its index as its value.
    fn get(asked: &[u32], missing: &[u32]) -> Vec<kvm_msr_entry> {
        assert!(asked.len() < 256, "KVM refuses the whole list otherwise");
        let has = asked.iter().take_while(|index| !missing.contains(index));
        has.map(|&index| msr(index, index.into())).collect()
    }

    fn read(indices: &[u32], missing: &[u32]) -> Vec<u32> {
        let found = read_msrs(indices, |asked| Ok(get(asked, missing))).unwrap();
        found.iter().map(|msr| msr.index).collect()
    }

    #[test]
    fn registers_that_there_are_not_are_left_out() {
        assert_eq!(read(&[1, S_CET, 2, XFD], &[S_CET, XFD]), [1, 2]);
        assert_eq!(read(&[S_CET, XFD], &[S_CET, XFD]), [0; 0]);
    }

    #[test]
    fn registers_are_read_and_written_in_lists_that_kvm_takes() {
        let indices: Vec<u32> = (0..600).collect();
        assert_eq!(read(&indices, &[254, 255]).len(), 598);
        let msrs: Vec<_> = indices.iter().map(|&index| msr(index, 1)).collect();
        let mut lens = Vec::new();
        let set = |now: &[kvm_msr_entry]| {
            lens.push(now.len());
            Ok(now.len())
        };
        write_msrs(&msrs, set, |_| unreachable!("none is refused")).unwrap();
        assert_eq!(lens, [255, 255, 90]);
    }

    /// Sets registers of which the host refuses `index`, and has `value` in it.
    fn write(msrs: &[kvm_msr_entry], index: u32, value: Option<u64>) -> (Result<(), Error>, Vec<u32>) {
        let mut taken = Vec::new();
        let set = |now: &[kvm_msr_entry]| {
            let done = now.iter().position(|msr| msr.index == index).unwrap_or(now.len());
            taken.extend(now[..done].iter().map(|msr| msr.index));
            Ok(done)
        };
        let result = write_msrs(msrs, set, |_| Ok(value));
        (result, taken)
    }

    #[test]
    fn register_that_is_refused_and_has_its_value_is_no_error() {
        let (result, taken) = write(&[msr(1, 5), msr(S_CET, 7), msr(2, 5)], S_CET, Some(7));
        assert!(result.is_ok());
        assert_eq!(taken, [1, 2]);
    }

    #[test]
    fn register_that_there_is_not_may_have_been_zero_and_nothing_else() {
        assert!(write(&[msr(S_CET, 0)], S_CET, None).0.is_ok());
        let refused = write(&[msr(1, 5), msr(S_CET, 1), msr(2, 5)], S_CET, None);
        assert_eq!(refused.0.unwrap_err().to_string(), "KVM_SET_MSRS: KVM refused MSR 0x6a2");
        assert_eq!(refused.1, [1]);
    }
}
