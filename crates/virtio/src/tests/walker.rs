//! Chains of arbitrary descriptors: accepted ones are RAM and no longer than the queue.

use proptest::prelude::*;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use crate::chain::Walker;
use crate::testing::Descriptor;
use crate::{Chain, Fault};

const RAM_LEN: u64 = 0x1_0000;
const SIZE: u16 = 8;
/// Addresses of the queue's table and of an indirect one.
const TABLE: u64 = 0x1000;
const INDIRECT: u64 = 0x2000;

/// Descriptors that are often valid.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let gpa = prop_oneof![8 => 0_u64..RAM_LEN, 2 => Just(INDIRECT), 1 => any::<u64>()];
    let len =
        prop_oneof![4 => 0_u32..0x100, 4 => (0_u32..20).prop_map(|count| 16 * count), 1 => any::<u32>()];
    let flags = prop_oneof![8 => 0_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0_u16..16, 1 => any::<u16>()];
    (gpa, len, flags, next).prop_map(|(gpa, len, flags, next)| Descriptor { gpa, len, flags, next })
}

fn ram_with(table: &[Descriptor], indirect: &[Descriptor]) -> GuestRam {
    let ram = GuestRam::new(&[0..RAM_LEN]).unwrap();
    for (start, table) in [(TABLE, table), (INDIRECT, indirect)] {
        let bytes: Vec<_> = table.iter().flat_map(|descriptor| descriptor.to_bytes()).collect();
        ram.memory().write_slice(&bytes, GuestAddress(start)).unwrap();
    }
    ram
}

/// The chain according to the specification: (readable, writable) bytes, or `None` if it is malformed.
fn model(table: &[Descriptor], indirect: &[Descriptor], head: u16) -> Option<(u64, u64)> {
    let (mut table, mut index) = (table, usize::from(head));
    let (mut is_indirect, mut has_writable) = (false, false);
    let (mut readable, mut writable, mut count) = (0, 0, 0);
    let mut padded;
    loop {
        let Descriptor { gpa, len, flags, next } = *table.get(index)?;
        if flags & 4 != 0 {
            let is_sound = !is_indirect && flags & 1 == 0 && len > 0 && len % 16 == 0;
            // The model doesn't know the contents of other tables.
            if !is_sound || gpa != INDIRECT {
                return None;
            }
            padded = indirect.to_vec();
            padded.resize(len as usize / 16, Descriptor::default());
            (table, index, is_indirect) = (&padded, 0, true);
            continue;
        }
        count += 1;
        let is_ram = len == 0 || gpa.checked_add(len.into()).is_some_and(|end| end <= RAM_LEN);
        has_writable |= flags & 2 != 0;
        let is_in_order = flags & 2 != 0 || !has_writable;
        if count > SIZE || !is_ram || !is_in_order {
            return None;
        }
        *(if flags & 2 != 0 { &mut writable } else { &mut readable }) += u64::from(len);
        if flags & 1 == 0 {
            return Some((readable, writable));
        }
        index = next.into();
    }
}

proptest! {
    #[test]
    fn chain_is_what_the_specification_makes_of_it(
        table in prop::collection::vec(descriptor(), usize::from(SIZE)),
        indirect in prop::collection::vec(descriptor(), 0..20),
        head in 0_u16..10,
    ) {
        // The model treats memory after the indirect table as zeros, and nothing else may be there.
        let ram = ram_with(&table, &indirect);
        let mut walker = Walker::new(SIZE);
        let walked = walker.walk(&ram, TABLE, head, true);
        let model = model(&table, &indirect, head);
        match walked {
            Ok(chain) => {
                check(&chain);
                if let Some(lens) = model {
                    prop_assert_eq!((chain.readable().len(), chain.writable().len()), lens);
                }
            }
            Err(fault) => prop_assert_eq!(model, None, "{}", fault),
        }
    }

    #[test]
    fn chain_of_any_bytes_is_sound_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 16 * usize::from(SIZE)),
        head in any::<u16>(),
        indirect in any::<bool>(),
    ) {
        let ram = GuestRam::new(&[0..RAM_LEN]).unwrap();
        ram.memory().write_slice(&bytes, GuestAddress(TABLE)).unwrap();
        if let Ok(chain) = Walker::new(SIZE).walk(&ram, TABLE, head, indirect) {
            check(&chain);
        }
    }
}

/// All of it can be read, which is true only for memory.
fn check(chain: &Chain<'_>) {
    for buffers in [chain.readable(), chain.writable()] {
        let mut len = 0;
        let seen = buffers.slices(|slice| {
            len += slice.len() as u64;
            Ok(())
        });
        assert_eq!((seen, len), (Ok(()), buffers.len()));
    }
}

#[test]
fn chain_with_a_table_that_wraps_around_is_refused() {
    let ram = GuestRam::new(&[0..RAM_LEN]).unwrap();
    let table = u64::MAX - 15;
    let error = Walker::new(SIZE).walk(&ram, table, 7, false).unwrap_err();
    assert_eq!(error, Fault::Unmapped { gpa: table, len: 16 });
}

#[test]
fn chain_is_counted_with_its_descriptors_of_no_length() {
    let next = |next| Descriptor { gpa: 0, len: 0, flags: 1, next };
    let ram = ram_with(&[next(1), next(2), Descriptor::default()], &[]);
    let mut walker = Walker::new(SIZE);
    assert_eq!(walker.walk(&ram, TABLE, 0, false).unwrap().descriptors, 3);
}

/// The bytes of a chain begin at the first that there is: a device that finds its status byte by its address needs that.
#[test]
fn chain_begins_after_its_descriptors_of_no_length() {
    let nothing = Descriptor { gpa: RAM_LEN, len: 0, flags: 1 | 2, next: 1 };
    let status = Descriptor { gpa: 0x3000, len: 1, flags: 2, next: 0 };
    let ram = ram_with(&[nothing, status], &[]);
    let mut walker = Walker::new(SIZE);
    assert_eq!(walker.walk(&ram, TABLE, 0, false).unwrap().writable().gpa(), Some(0x3000));
}
