//! A vCPU's state as a section of a snapshot.

use std::collections::BTreeSet;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MAX_XCRS};
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::state_lens::XSAVE_WORDS;
use super::uapi::{put, take};
use super::{NestedState, VcpuState};

/// The most MSRs. KVM lists at most 256 (KVM_MAX_MSR_ENTRIES), to which `vmm_arch::msr::beyond_list` adds fewer than that; as many
/// again for versions to come.
const MAX_MSRS: usize = 1024;
/// The longest XSAVE area, in bytes: six times that of a processor with AMX, 11 KiB.
const XSAVE_MAX_LEN: usize = 64 << 10;
/// The longest nested state, in bytes: four times VMX's, which has two control blocks of a page each.
const NESTED_MAX_LEN: usize = 32 << 10;

/// Each of KVM's structures is the kernel's own bytes, after their length.
impl State for VcpuState {
    const KIND: &'static str = "vcpu";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        // Without `..`, so that no part is forgotten.
        let Self {
            cpuid,
            tsc_khz,
            mp_state,
            regs,
            sregs,
            xsave,
            xcrs,
            debug_regs,
            lapic,
            msrs,
            shadow_stack,
            nested,
            tsc_offset,
            events,
        } = self;
        fields.list(cpuid, put);
        fields.option(*tsc_khz, FieldWriter::u32);
        put(fields, mp_state);
        put(fields, regs);
        put(fields, sregs);
        let area: Vec<u8> = xsave.iter().flat_map(|word| word.to_le_bytes()).collect();
        fields.bytes(&area);
        put(fields, xcrs);
        put(fields, debug_regs);
        fields.option(lapic.as_ref(), put);
        fields.list(msrs, put);
        fields.option(*shadow_stack, FieldWriter::u64);
        fields.option(nested.as_ref(), |fields, nested| fields.bytes(&nested.to_bytes()));
        fields.option(*tsc_offset, FieldWriter::u64);
        put(fields, events);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let state = Self {
            cpuid: fields.list("cpuid", KVM_MAX_CPUID_ENTRIES, |fields| take(fields, "entry"))?,
            tsc_khz: fields.option("tsc_khz", |fields| fields.u32("value"))?,
            mp_state: take(fields, "mp_state")?,
            regs: take(fields, "regs")?,
            sregs: take(fields, "sregs")?,
            xsave: take_xsave(fields)?,
            xcrs: take(fields, "xcrs")?,
            debug_regs: take(fields, "debug_regs")?,
            lapic: fields.option("lapic", |fields| take(fields, "registers"))?,
            msrs: fields.list("msrs", MAX_MSRS, |fields| take(fields, "entry"))?,
            shadow_stack: fields.option("shadow_stack", |fields| fields.u64("pointer"))?,
            nested: fields.option("nested", take_nested)?,
            tsc_offset: fields.option("tsc_offset", |fields| fields.u64("value"))?,
            events: take(fields, "events")?,
        };
        state.check()?;
        Ok(state)
    }
}

impl VcpuState {
    /// Checks what KVM doesn't when the state is set.
    fn check(&self) -> Result<(), StateError> {
        if self.xcrs.nr_xcrs > KVM_MAX_XCRS {
            let message = format!("has {} registers, at most {KVM_MAX_XCRS} are possible", self.xcrs.nr_xcrs);
            return Err(StateError::new("xcrs", message));
        }
        let mut indices = BTreeSet::new();
        match self.msrs.iter().find(|msr| !indices.insert(msr.index)) {
            Some(msr) => Err(StateError::new("msrs", format!("MSR {:#x} is listed twice", msr.index))),
            None => Ok(()),
        }
    }
}

fn take_xsave(fields: &mut FieldReader<'_>) -> Result<Vec<u32>, StateError> {
    let bytes = fields.bytes("xsave", XSAVE_MAX_LEN)?;
    let (words, rest) = bytes.as_chunks();
    if words.len() < XSAVE_WORDS || !rest.is_empty() {
        let message =
            format!("has {} bytes, not a multiple of 4 of at least {}", bytes.len(), XSAVE_WORDS * 4);
        return Err(StateError::new("xsave", message));
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

fn take_nested(fields: &mut FieldReader<'_>) -> Result<NestedState, StateError> {
    let bytes = fields.bytes("state", NESTED_MAX_LEN)?;
    let state = NestedState::from_bytes(bytes).filter(|state| state.len() == bytes.len());
    state.ok_or_else(|| StateError::new("state", format!("has {} bytes and says otherwise", bytes.len())))
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{
        kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
        kvm_vcpu_events, kvm_xcrs,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::x86_64::uapi::Uapi;

    /// Bytes that look random.
    struct Noise(u64);

    impl Noise {
        fn bytes(&mut self, len: usize) -> Vec<u8> {
            let mut next = || {
                self.0 =
                    self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.0 >> 56) as u8
            };
            (0..len).map(|_| next()).collect()
        }

        fn put<T: Uapi>(&mut self, fields: &mut FieldWriter) {
            fields.bytes(&self.bytes(T::LEN));
        }
    }

    /// What varies between sections.
    #[derive(Clone, Debug)]
    struct Shape {
        seed: u64,
        entries: u8,
        xsave_words: usize,
        options: [bool; 5],
        nested_len: u16,
        xcrs: u32,
    }

    fn shape() -> impl Strategy<Value = Shape> {
        (any::<u64>(), 0_u8..40, 1024_usize..3000, any::<[bool; 5]>(), 0_u16..5000, 0_u32..=16).prop_map(
            |(seed, entries, xsave_words, options, nested_len, xcrs)| Shape {
                seed,
                entries,
                xsave_words,
                options,
                nested_len,
                xcrs,
            },
        )
    }

    const PLAIN: Shape =
        Shape { seed: 1, entries: 2, xsave_words: 1024, options: [true; 5], nested_len: 16, xcrs: 1 };

    /// A section written without [`VcpuState::save`].
    fn section(shape: &Shape) -> Vec<u8> {
        let (mut noise, mut fields) = (Noise(shape.seed), FieldWriter::new());
        let [khz, lapic, ssp, nested, offset] = shape.options.map(|is_some| is_some.then_some(()));
        let indices: Vec<u8> = (0..shape.entries).collect();
        fields.list(&indices, |fields, _| noise.put::<kvm_cpuid_entry2>(fields));
        fields.option(khz, |fields, ()| fields.u32(2_000_000));
        noise.put::<kvm_mp_state>(&mut fields);
        noise.put::<kvm_regs>(&mut fields);
        noise.put::<kvm_sregs>(&mut fields);
        fields.bytes(&noise.bytes(shape.xsave_words * 4));
        let xcrs = [&shape.xcrs.to_le_bytes()[..], &noise.bytes(kvm_xcrs::LEN - 4)].concat();
        fields.bytes(&xcrs);
        noise.put::<kvm_debugregs>(&mut fields);
        fields.option(lapic, |fields, ()| noise.put::<kvm_lapic_state>(fields));
        fields.list(&indices, |fields, index| {
            let index = u32::from(*index).to_le_bytes();
            fields.bytes(&[&index[..], &noise.bytes(kvm_msr_entry::LEN - 4)].concat());
        });
        fields.option(ssp, |fields, ()| fields.u64(0x7fff_f000));
        fields.option(nested, |fields, ()| {
            let len = 128 + usize::from(shape.nested_len);
            let mut state = noise.bytes(len);
            state[4..8].copy_from_slice(&(len as u32).to_le_bytes());
            fields.bytes(&state);
        });
        fields.option(offset, |fields, ()| fields.u64(u64::MAX));
        noise.put::<kvm_vcpu_events>(&mut fields);
        fields.into_bytes()
    }

    fn load(bytes: &[u8]) -> Result<VcpuState, StateError> {
        let mut fields = FieldReader::new(bytes);
        let state = VcpuState::load(1, &mut fields)?;
        fields.finish().map(|()| state)
    }

    fn save(state: &VcpuState) -> Vec<u8> {
        let mut fields = FieldWriter::new();
        state.save(&mut fields);
        fields.into_bytes()
    }

    fn refusal(bytes: &[u8]) -> String {
        load(bytes).unwrap_err().to_string()
    }

    #[test]
    fn vcpu_with_counts_beyond_the_kernels_is_refused() {
        assert_eq!(
            refusal(&section(&Shape { xcrs: 17, ..PLAIN })),
            "xcrs: has 17 registers, at most 16 are possible"
        );
        assert_eq!(refusal(&257_u32.to_le_bytes()), "cpuid: has 257 items, at most 256 are possible");
        assert_eq!(
            refusal(&section(&Shape { xsave_words: 1023, ..PLAIN })),
            "xsave: has 4092 bytes, not a multiple of 4 of at least 4096"
        );
        assert_eq!(
            refusal(&section(&Shape { xsave_words: 16385, ..PLAIN })),
            "xsave: has 65540 bytes, at most 65536 are possible"
        );
        assert_eq!(
            refusal(&section(&Shape { nested_len: 32_641, ..PLAIN })),
            "nested: state: has 32769 bytes, at most 32768 are possible"
        );
    }

    #[test]
    fn vcpu_with_an_msr_twice_is_refused() {
        let mut state = load(&section(&PLAIN)).unwrap();
        state.msrs[1].index = state.msrs[0].index;
        assert_eq!(refusal(&save(&state)), "msrs: MSR 0x0 is listed twice");
        let more = (0..1025).map(|index| kvm_msr_entry { index, ..Default::default() });
        state.msrs = more.collect();
        assert_eq!(refusal(&save(&state)), "msrs: has 1025 items, at most 1024 are possible");
    }

    #[test]
    fn vcpu_with_nested_state_of_another_size_than_it_says_is_refused() {
        let mut state = load(&section(&PLAIN)).unwrap();
        let nested = state.nested.as_mut().unwrap();
        nested.data.pop();
        let mut bytes = save(&state);
        // The size, in the prefix that is recognized by its length.
        let at = bytes.windows(4).position(|window| window == 143_u32.to_le_bytes()).unwrap();
        bytes[at + 8] = 144;
        assert_eq!(refusal(&bytes), "nested: state: has 143 bytes and says otherwise");
    }

    proptest! {
        #[test]
        fn vcpu_loaded_is_saved_as_it_was(shape in shape()) {
            let bytes = section(&shape);
            prop_assert!(save(&load(&bytes).unwrap()) == bytes);
        }

        #[test]
        fn vcpu_of_damaged_bytes_is_refused_or_a_state(
            shape in shape(),
            cut in prop_oneof![4 => Just(0_usize), 1 => 1_usize..9000],
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = section(&shape);
            bytes.truncate(bytes.len() - cut.min(bytes.len() - 1));
            let len = bytes.len();
            flips.iter().for_each(|(at, bits)| bytes[at.index(len)] ^= bits);
            match load(&bytes) {
                Ok(state) => prop_assert!(save(&state) == bytes),
                Err(error) => prop_assert!(error.to_string().contains(": ")),
            }
        }

        #[test]
        fn vcpu_of_any_bytes_is_refused(bytes: Vec<u8>) {
            prop_assert!(load(&bytes).is_err(), "it is too short");
        }
    }
}
