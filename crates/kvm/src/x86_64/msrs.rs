//! Reading and writing lists of MSRs.

use kvm_bindings::{Msrs, kvm_msr_entry};

use crate::error::Named;
use crate::{Error, KvmVcpu};

/// Maximum number of MSRs per ioctl: KVM requires fewer than its MAX_IO_MSRS, 256 (Linux, arch/x86/kvm/x86.c,
/// msr_io).
const MSRS_AT_ONCE: usize = 255;

impl KvmVcpu {
    /// Reads the MSRs, skipping those that this vCPU lacks.
    pub(crate) fn msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
        read_msrs(indices, |asked| {
            let entries: Vec<_> =
                asked.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
            let mut msrs = Msrs::from_entries(&entries).map_err(|_| too_many_msrs())?;
            let read = self.fd.get_msrs(&mut msrs).named("KVM_GET_MSRS")?;
            Ok(msrs.as_slice()[..read].to_vec())
        })
    }

    /// Sets the MSRs. It is an error if KVM refuses one, unless that MSR has the value already, or the value
    /// is zero and the vCPU lacks the MSR.
    pub(crate) fn set_msrs_or_same(&self, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
        write_msrs(
            msrs,
            |now| {
                let entries = Msrs::from_entries(now).map_err(|_| too_many_msrs())?;
                self.fd.set_msrs(&entries).named("KVM_SET_MSRS")
            },
            |index| Ok(self.msrs(&[index])?.first().map(|msr| msr.data)),
        )
    }
}

/// Reads MSRs with `get`, which takes at most [`MSRS_AT_ONCE`] and returns those before the first that KVM
/// refuses. The refused one is skipped.
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

/// Sets MSRs with `set`, which takes at most [`MSRS_AT_ONCE`] and returns how many KVM accepted. A refused
/// MSR is read with `get`: it must have the value already, or not exist while the value is zero.
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

/// The error for a list longer than KVM accepts.
fn too_many_msrs() -> Error {
    Error::Ioctl { name: "KVM_GET_MSRS", source: std::io::Error::from_raw_os_error(libc::E2BIG) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IA32_S_CET, which hosts without shadow stacks lack.
    const S_CET: u32 = 0x6a2;
    /// IA32_XFD, part of AMX.
    const XFD: u32 = 0x1c4;

    fn msr(index: u32, data: u64) -> kvm_msr_entry {
        kvm_msr_entry { index, data, ..Default::default() }
    }

    /// A KVM with all MSRs except `missing`; each has its index as its value.
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

    /// Sets MSRs on a host that refuses `index`, whose current value is `value`.
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
