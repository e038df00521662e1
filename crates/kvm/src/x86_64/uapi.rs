//! KVM's structures as bytes: the layout that the kernel promises to every program, copied field by field.

use std::ffi::c_char;
use std::mem::offset_of;

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_dtable, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_pit_channel_state, kvm_pit_state2, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
    kvm_vcpu_events__bindgen_ty_1 as Exception, kvm_vcpu_events__bindgen_ty_2 as Interrupt,
    kvm_vcpu_events__bindgen_ty_3 as Nmi, kvm_vcpu_events__bindgen_ty_4 as Smi,
    kvm_vcpu_events__bindgen_ty_5 as TripleFault, kvm_xcr, kvm_xcrs,
};
use vmm_snapshot::{FieldReader, FieldWriter, StateError};

/// A value of the kernel's ABI, or a part of one. It has no padding besides its fields.
pub(super) trait Uapi: Sized {
    /// Its length in bytes.
    const LEN: usize;

    /// Appends its bytes.
    fn put(&self, bytes: &mut Vec<u8>);

    /// Takes it from the front of `bytes`; `None` if there are too few.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

/// Writes a structure's length and its bytes.
pub(super) fn put<T: Uapi>(fields: &mut FieldWriter, value: &T) {
    let mut bytes = Vec::with_capacity(T::LEN);
    value.put(&mut bytes);
    fields.bytes(&bytes);
}

/// Reads a structure, whose length must be this program's.
pub(super) fn take<T: Uapi>(fields: &mut FieldReader<'_>, name: &str) -> Result<T, StateError> {
    let bytes = fields.bytes(name, T::LEN)?;
    let value = T::take(&mut &*bytes).filter(|_| bytes.len() == T::LEN);
    value.ok_or_else(|| StateError::new(name, format!("has {} bytes, not {}", bytes.len(), T::LEN)))
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Uapi for $type {
            const LEN: usize = size_of::<$type>();

            fn put(&self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (value, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*value))
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 i64 c_char);

impl<T: Uapi + Copy + Default, const N: usize> Uapi for [T; N] {
    const LEN: usize = N * T::LEN;

    fn put(&self, bytes: &mut Vec<u8>) {
        self.iter().for_each(|item| item.put(bytes));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::take(bytes)?;
        }
        Some(items)
    }
}

/// Implements [`Uapi`] for structures whose fields are listed. Compiling proves the list complete, in order, and without gaps.
macro_rules! structures {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        const _: () = {
            let mut end = 0;
            $(
                assert!(offset_of!($name, $field) == end);
                end += <$type as Uapi>::LEN;
            )*
            assert!(size_of::<$name>() == end);
        };

        impl Uapi for $name {
            const LEN: usize = size_of::<$name>();

            fn put(&self, bytes: &mut Vec<u8>) {
                $(<$type as Uapi>::put(&self.$field, bytes);)*
            }

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: <$type as Uapi>::take(bytes)?),* })
            }
        }
    )*};
}

structures! {
    kvm_cpuid_entry2 {
        function: u32, index: u32, flags: u32, eax: u32, ebx: u32, ecx: u32, edx: u32, padding: [u32; 3]
    }
    kvm_mp_state { mp_state: u32 }
    kvm_regs {
        rax: u64, rbx: u64, rcx: u64, rdx: u64, rsi: u64, rdi: u64, rsp: u64, rbp: u64, r8: u64, r9: u64, r10: u64, r11: u64,
        r12: u64, r13: u64, r14: u64, r15: u64, rip: u64, rflags: u64
    }
    kvm_segment {
        base: u64, limit: u32, selector: u16, type_: u8, present: u8, dpl: u8, db: u8, s: u8, l: u8, g: u8, avl: u8, unusable: u8,
        padding: u8
    }
    kvm_dtable { base: u64, limit: u16, padding: [u16; 3] }
    kvm_sregs {
        cs: kvm_segment, ds: kvm_segment, es: kvm_segment, fs: kvm_segment, gs: kvm_segment, ss: kvm_segment, tr: kvm_segment,
        ldt: kvm_segment, gdt: kvm_dtable, idt: kvm_dtable, cr0: u64, cr2: u64, cr3: u64, cr4: u64, cr8: u64, efer: u64,
        apic_base: u64, interrupt_bitmap: [u64; 4]
    }
    kvm_xcr { xcr: u32, reserved: u32, value: u64 }
    kvm_xcrs { nr_xcrs: u32, flags: u32, xcrs: [kvm_xcr; 16], padding: [u64; 16] }
    kvm_debugregs { db: [u64; 4], dr6: u64, dr7: u64, flags: u64, reserved: [u64; 9] }
    kvm_lapic_state { regs: [c_char; 1024] }
    kvm_msr_entry { index: u32, reserved: u32, data: u64 }
    Exception { injected: u8, nr: u8, has_error_code: u8, pending: u8, error_code: u32 }
    Interrupt { injected: u8, nr: u8, soft: u8, shadow: u8 }
    Nmi { injected: u8, pending: u8, masked: u8, pad: u8 }
    Smi { smm: u8, pending: u8, smm_inside_nmi: u8, latched_init: u8 }
    TripleFault { pending: u8 }
    kvm_vcpu_events {
        exception: Exception, interrupt: Interrupt, nmi: Nmi, sipi_vector: u32, flags: u32, smi: Smi, triple_fault: TripleFault,
        reserved: [u8; 26], exception_has_payload: u8, exception_payload: u64
    }
    kvm_clock_data { clock: u64, flags: u32, pad0: u32, realtime: u64, host_tsc: u64, pad: [u32; 4] }
    kvm_pit_channel_state {
        count: u32, latched_count: u16, count_latched: u8, status_latched: u8, status: u8, read_state: u8, write_state: u8,
        write_latch: u8, rw_mode: u8, mode: u8, bcd: u8, gate: u8, count_load_time: i64
    }
    kvm_pit_state2 { channels: [kvm_pit_channel_state; 3], flags: u32, reserved: [u32; 9] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: Uapi>(value: &T) -> Vec<u8> {
        let mut fields = FieldWriter::new();
        put(&mut fields, value);
        fields.into_bytes()
    }

    #[test]
    fn structure_is_its_length_and_the_kernels_bytes() {
        let segment =
            kvm_segment { base: 0x0102_0304, selector: 0x10, present: 1, g: 7, ..Default::default() };
        let mut expected = vec![24, 0, 0, 0, 4, 3, 2, 1];
        expected.extend([0; 8]);
        expected.extend([0x10, 0, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes(&segment), expected);
        assert_eq!(take(&mut FieldReader::new(&expected), "cs"), Ok(segment));
    }

    #[test]
    fn structure_of_another_length_is_refused() {
        let mut fields = FieldWriter::new();
        fields.bytes(&[1, 0, 0]);
        let short = fields.into_bytes();
        let error = take::<kvm_mp_state>(&mut FieldReader::new(&short), "mp_state").unwrap_err();
        assert_eq!(error.to_string(), "mp_state: has 3 bytes, not 4");
        let mut fields = FieldWriter::new();
        fields.bytes(&[1, 0, 0, 0, 0]);
        let long = fields.into_bytes();
        let error = take::<kvm_mp_state>(&mut FieldReader::new(&long), "mp_state").unwrap_err();
        assert_eq!(error.to_string(), "mp_state: has 5 bytes, at most 4 are possible");
    }
}
