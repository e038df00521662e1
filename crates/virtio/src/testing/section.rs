//! Sections as bytes.

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

/// A section's bytes.
pub(super) fn to_bytes(state: &impl State) -> Vec<u8> {
    let mut fields = FieldWriter::new();
    state.save(&mut fields);
    fields.into_bytes()
}

/// The state in a section of the current version.
pub(super) fn from_bytes<S: State>(bytes: &[u8]) -> Result<S, StateError> {
    let mut fields = FieldReader::new(bytes);
    let state = S::load(S::VERSION, &mut fields)?;
    fields.finish()?;
    Ok(state)
}
