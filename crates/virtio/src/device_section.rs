//! A device's own state inside the section of its transport.

use std::fmt;

use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

/// Length of a kind at most, in bytes, as in a state file.
const KIND_MAX: usize = 16;
/// Length of a state at most, in bytes: that of a section of a state file.
const STATE_MAX: usize = 1 << 20;

/// The state of a device, written as the section of its kind and version.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceSection {
    kind: String,
    version: u16,
    /// Oldest reader that understands it: [`State::MIN_READER`].
    min_reader: u16,
    bytes: Vec<u8>,
}

impl DeviceSection {
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// Writes it.
    pub(crate) fn of<S: State>(state: &S) -> Self {
        let mut fields = FieldWriter::new();
        state.save(&mut fields);
        Self {
            kind: S::KIND.to_owned(),
            version: S::VERSION,
            min_reader: S::MIN_READER,
            bytes: fields.into_bytes(),
        }
    }

    /// The state, read by its own version or the one before.
    pub(crate) fn state<S: State>(&self) -> Result<S, StateError> {
        let Self { kind, version, min_reader, bytes } = self;
        if kind != S::KIND {
            return Err(StateError::new("kind", format!("\"{kind}\" isn't \"{}\"", S::KIND)));
        }
        let wrong = |problem: String| StateError::new("version", problem).within(kind);
        if *min_reader > S::VERSION {
            return Err(wrong(format!("{version} is newer than {}, which this monitor reads", S::VERSION)));
        }
        let oldest = S::VERSION.saturating_sub(1).max(1);
        if *version < oldest || min_reader > version || *min_reader == 0 {
            return Err(wrong(format!("{version} is older than {oldest}, which this monitor reads")));
        }
        let mut fields = FieldReader::new(bytes);
        let state = S::load((*version).min(S::VERSION), &mut fields).map_err(|error| error.within(kind))?;
        // What a newer version adds may be ignored, as its `min_reader` says.
        if *version <= S::VERSION {
            fields.finish().map_err(|error| error.within(kind))?;
        }
        Ok(state)
    }

    pub(crate) fn save(&self, fields: &mut FieldWriter) {
        fields.text(&self.kind);
        fields.u16(self.version);
        fields.u16(self.min_reader);
        fields.bytes(&self.bytes);
    }

    pub(crate) fn load(fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            kind: fields.text("kind", KIND_MAX)?.to_owned(),
            version: fields.u16("version")?,
            min_reader: fields.u16("min_reader")?,
            bytes: fields.bytes("state", STATE_MAX)?.to_vec(),
        })
    }
}

impl fmt::Debug for DeviceSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceSection({} {}, {} bytes)", self.kind, self.version, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 3, readable by readers of 2.
    #[derive(Debug, PartialEq)]
    struct Third(u8);

    impl State for Third {
        const KIND: &'static str = "virtio.test";
        const VERSION: u16 = 3;
        const MIN_READER: u16 = 2;

        fn save(&self, fields: &mut FieldWriter) {
            fields.u8(self.0);
        }

        fn load(version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
            Ok(Self(fields.u8("value")? + version as u8))
        }
    }

    fn section(version: u16, min_reader: u16, bytes: &[u8]) -> DeviceSection {
        DeviceSection { kind: "virtio.test".to_owned(), version, min_reader, bytes: bytes.to_vec() }
    }

    fn refusal(section: &DeviceSection) -> String {
        section.state::<Third>().unwrap_err().to_string()
    }

    #[test]
    fn state_is_read_by_its_version_and_the_one_before() {
        assert_eq!(DeviceSection::of(&Third(7)), section(3, 2, &[7]));
        assert_eq!(section(3, 2, &[7]).state(), Ok(Third(10)));
        assert_eq!(section(2, 2, &[7]).state(), Ok(Third(9)));
    }

    #[test]
    fn state_of_a_newer_version_is_read_if_it_allows_that() {
        assert_eq!(section(4, 3, &[7, 8]).state(), Ok(Third(10)));
        assert_eq!(
            refusal(&section(4, 4, &[7, 8])),
            "virtio.test: version: 4 is newer than 3, which this monitor reads"
        );
    }

    #[test]
    fn state_of_an_older_version_is_refused() {
        assert_eq!(
            refusal(&section(1, 1, &[7])),
            "virtio.test: version: 1 is older than 2, which this monitor reads"
        );
    }

    #[test]
    fn state_with_too_few_or_too_many_bytes_is_refused() {
        assert!(refusal(&section(3, 2, &[])).starts_with("virtio.test: value: "));
        assert!(refusal(&section(3, 2, &[7, 8])).starts_with("virtio.test: end: "));
    }

    #[test]
    fn state_of_another_kind_is_refused() {
        let other = DeviceSection { kind: "virtio.net".to_owned(), ..section(3, 2, &[7]) };
        assert_eq!(refusal(&other), "kind: \"virtio.net\" isn't \"virtio.test\"");
    }
}
