//! The state of one part of a machine.

use crate::{FieldReader, FieldWriter, StateError};

/// The state of one part of a machine, such as a device: a value of its own beside the live part, stored as one section.
///
/// A field's place and meaning are fixed by the section's version. A change of either is a new version, which still reads the
/// one before it.
pub trait State: Sized {
    /// Kind of section: 1 to 16 characters of `a-z`, `0-9`, `.` and `-`, such as "dev.uart", "virtio.mmio" or "vm.clock".
    const KIND: &'static str;
    /// Version that [`save`](Self::save) writes, from 1.
    const VERSION: u16;
    /// Oldest reader that understands what `save` writes, as the version which that reader writes. It is less than
    /// [`VERSION`](Self::VERSION) only if what is new follows the other fields and may be ignored.
    const MIN_READER: u16 = Self::VERSION;

    /// Writes the state in the format of [`VERSION`](Self::VERSION).
    fn save(&self, fields: &mut FieldWriter);

    /// Reads a state of `version`, which is `VERSION` or the one before. A newer state with a suitable `MIN_READER` is read as one of
    /// `VERSION`, and what follows is ignored; otherwise the caller checks that no field is left over.
    ///
    /// The bytes are as hostile as a guest's: whatever the live part assumes is checked here or when the state is loaded into it.
    ///
    /// # Errors
    /// A field is missing, or has a value that the part can't have.
    fn load(version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError>;
}
