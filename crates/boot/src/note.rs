//! ELF notes (System V ABI, "Note Section").

use crate::reader::{u32_at, u64_at};

/// Length of a note's header: lengths of its name and descriptor, and its type.
const HEADER_LEN: usize = 12;
/// Owner name of Xen's notes, with its NUL.
const XEN: &[u8] = b"Xen\0";
/// XEN_ELFNOTE_PHYS32_ENTRY (Xen, public/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// Errors in notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoteError {
    /// The note at this offset exceeds its segment.
    TooLong { at: usize },
    /// The PVH note's descriptor has neither 4 nor 8 bytes.
    Descriptor { len: u32 },
}

/// The PVH entry in the notes of a segment whose `p_align` is `align`.
///
/// With `p_align` 8, the ABI pads fields to 8 bytes, but linkers that merge notes of both kinds pad to 4.
/// Such segments are therefore parsed both ways.
pub(crate) fn pvh_entry(notes: &[u8], align: u64) -> Result<Option<u64>, NoteError> {
    let padded_to_4 = search(notes, 4);
    if align != 8 {
        return padded_to_4;
    }
    match (search(notes, 8), padded_to_4) {
        (Ok(Some(entry)), _) | (_, Ok(Some(entry))) => Ok(Some(entry)),
        (Ok(None), _) | (_, Ok(None)) => Ok(None),
        (Err(error), Err(_)) => Err(error),
    }
}

fn search(notes: &[u8], align: usize) -> Result<Option<u64>, NoteError> {
    let mut at = 0;
    // Each iteration advances by at least 12 bytes. A rest shorter than a header is padding.
    while let Some(header) = notes.get(at..at + HEADER_LEN) {
        let (name_len, descriptor_len, kind) = (u32_at(header, 0), u32_at(header, 4), u32_at(header, 8));
        // No overflow: two u32 values and less than the limit of a note segment, in 64 bits.
        let descriptor_at = (at + HEADER_LEN + name_len as usize).next_multiple_of(align);
        let name = notes.get(at + HEADER_LEN..at + HEADER_LEN + name_len as usize);
        let descriptor = notes.get(descriptor_at..descriptor_at + descriptor_len as usize);
        let (Some(name), Some(descriptor)) = (name, descriptor) else {
            return Err(NoteError::TooLong { at });
        };
        if name == XEN && kind == PHYS32_ENTRY {
            return match descriptor_len {
                4 => Ok(Some(u64::from(u32_at(descriptor, 0)))),
                8 => Ok(Some(u64_at(descriptor, 0))),
                len => Err(NoteError::Descriptor { len }),
            };
        }
        at = (descriptor_at + descriptor_len as usize).next_multiple_of(align);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::note;

    #[test]
    fn pvh_entry_of_4_bytes_is_found_among_other_notes() {
        let notes =
            [note("GNU", 3, &[9; 20], 4), note("Xen", 18, &[0x50, 8, 0, 1], 4), note("Linux", 1, b"x", 4)];
        assert_eq!(pvh_entry(&notes.concat(), 4), Ok(Some(0x100_0850)));
    }

    #[test]
    fn pvh_entry_of_8_bytes_is_found() {
        let notes = note("Xen", 18, &0x100_0850_u64.to_le_bytes(), 4);
        assert_eq!(pvh_entry(&notes, 4), Ok(Some(0x100_0850)));
    }

    #[test]
    fn pvh_entry_behind_notes_padded_to_8_bytes_is_found() {
        // "dummy" with its NUL has 6 bytes: the next note is at 28 if padded to 4, and at 32 if padded to 8.
        let notes = [note("dummy", 1, &[1; 8], 8), note("Xen", 18, &[0x50, 8, 0, 1], 8)];
        assert_eq!(pvh_entry(&notes.concat(), 8), Ok(Some(0x100_0850)));
    }

    #[test]
    fn pvh_entry_padded_to_4_bytes_in_a_segment_aligned_to_8_is_found() {
        let notes = [note("dummy", 1, &[1; 8], 4), note("Xen", 18, &[0x50, 8, 0, 1], 4)];
        assert_eq!(pvh_entry(&notes.concat(), 8), Ok(Some(0x100_0850)));
    }

    #[test]
    fn notes_of_another_owner_or_type_are_no_pvh_entry() {
        let notes = [note("Yen", 18, &[1; 4], 4), note("Xen", 17, &[1; 4], 4), note("Xenon", 18, &[1; 4], 4)];
        assert_eq!(pvh_entry(&notes.concat(), 4), Ok(None));
    }

    #[test]
    fn note_with_a_name_longer_than_the_segment_is_an_error() {
        let mut notes = [note("GNU", 3, &[], 4), note("Xen", 18, &[1; 4], 4)].concat();
        notes[16..20].fill(0xff);
        assert_eq!(pvh_entry(&notes, 4), Err(NoteError::TooLong { at: 16 }));
        assert_eq!(pvh_entry(&notes, 8), Err(NoteError::TooLong { at: 16 }));
    }

    #[test]
    fn pvh_note_with_a_descriptor_of_2_bytes_is_an_error() {
        assert_eq!(pvh_entry(&note("Xen", 18, &[1, 0], 4), 4), Err(NoteError::Descriptor { len: 2 }));
    }

    #[test]
    fn padding_behind_the_last_note_is_ignored() {
        let notes = [note("Xen", 17, &[1; 4], 4), vec![0; 11]].concat();
        assert_eq!(pvh_entry(&notes, 4), Ok(None));
    }
}
